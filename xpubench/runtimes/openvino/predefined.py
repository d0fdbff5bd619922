"""Fills in the settings that a recipe leaves open: as in optimum-cli with those that Optimum Intel keeps for
known models, and else with groups that divide the model's matrices."""

from typing import Any

import msgspec

from xpubench.files import expanded
from xpubench.runtimes.openvino.recipe import ExportRecipe, fitting_group_size

# Optimum's settings that have the same name in the recipe.
SAME = (
    *("sym", "group_size", "group_size_fallback", "ratio", "all_layers", "backup_precision", "dataset"),
    *("num_samples", "scale_estimation", "gptq", "dq_group_size", "ignored_scope"),
)


def settled(recipe: ExportRecipe, config: dict[str, Any]) -> ExportRecipe:
    """The recipe with all of its settings, for a model with this config. As in optimum-cli, Optimum's
    settings for a known model apply unless a flag sets any of them."""
    if recipe.weight_format not in ("int8", "int4"):
        return recipe
    if recipe.sym is None and not recipe.compression():
        found = _of_optimum(recipe)
        if found is not None:
            return found
    if recipe.weight_format == "int4" and recipe.group_size is None and recipe.group_size_fallback is None:
        return msgspec.structs.replace(recipe, group_size=fitting_group_size(config))
    return recipe


def _of_optimum(recipe: ExportRecipe) -> ExportRecipe | None:
    from optimum.intel.openvino.configuration import get_default_quantization_config

    local = expanded(recipe.model)
    name = str(local) if local.is_dir() else recipe.model
    kept = get_default_quantization_config(name, weight_format=recipe.weight_format)
    # Such settings belong to the parts of a multimodal model, and not to a language model.
    if kept is None or "quantization_configs" in kept:
        return None
    fields = {name: kept[name] for name in SAME if kept.get(name) is not None}
    if str(getattr(kept.get("quant_method"), "value", kept.get("quant_method"))) == "awq":
        fields["awq"] = True
    return msgspec.structs.replace(recipe, predefined=recipe.model, **fields)
