"""The recipe in the config of a quantized checkpoint, read without torch."""

import json
from pathlib import Path
from typing import Any

import msgspec

import xpubench
from xpubench.errors import RunFailure, UserError
from xpubench.runtimes.options import NEURAL_COMPRESSOR_METHOD, OWN_INT4_METHOD
from xpubench.runtimes.registry import OPTIONS
from xpubench.spec import Quantization


class Description(msgspec.Struct, frozen=True, kw_only=True):
    """What the config of an INT4 checkpoint of this tool holds: recipe, source model and its commit."""

    quant_method: str = OWN_INT4_METHOD
    recipe: Quantization
    source: str
    revision: str | None
    xpubench_version: str = xpubench.__version__


def quantization_fields(directory: Path) -> dict[str, Any]:
    """The `quantization_config` of a checkpoint's config, empty where there is none or it is unreadable."""
    try:
        config = json.loads((directory / "config.json").read_text())
    except (OSError, ValueError):
        return {}
    fields = config.get("quantization_config") if isinstance(config, dict) else None
    return fields if isinstance(fields, dict) else {}


def read_description(directory: Path) -> Description | None:
    """The description in the config of a directory, None where it is no INT4 checkpoint of this tool.
    RunFailure `bad_model` where it is one with an invalid description."""
    fields = quantization_fields(directory)
    if fields.get("quant_method") != OWN_INT4_METHOD:
        return None
    try:
        return msgspec.convert(fields, Description)
    except (msgspec.ValidationError, UserError) as error:
        raise RunFailure("bad_model", f"{directory}/config.json holds no recipe: {error}") from error


def checkpoint_recipe(
    directory: Path, recipe: Quantization, model: str, runs: str, given: set[str]
) -> Quantization:
    """The recipe of the quantized model in a directory, to be run for `model` by a runtime that `runs`
    checkpoints of one quantization method. UserError when there is none, when it is of another model or for
    another runtime, or when it differs from `recipe` in one of the fields `given`."""
    fields = quantization_fields(directory)
    method = fields.get("quant_method")
    if method == NEURAL_COMPRESSOR_METHOD:
        if runs != method:
            raise UserError(f"{directory} was saved by neural-compressor, {_runtimes_for(method)}")
        found = _neural_compressor_recipe(fields, recipe)
    elif description := read_description(directory):
        if runs != OWN_INT4_METHOD:
            raise UserError(f"{directory} was quantized by this tool, {_runtimes_for(OWN_INT4_METHOD)}")
        if Path(description.source).name.lower() != Path(model).name.lower():
            raise UserError(f"{directory} was quantized from {description.source}; run it with -m of that")
        found = description.recipe
    elif method is not None:
        raise UserError(f"{directory} holds {method} weights; run them with -m {directory}, without --woq")
    else:
        raise UserError(f"no quantized model in {directory}; xpubench quantize MODEL {directory} makes one")
    for name in sorted(given - {"compute_dtype"}):
        if getattr(found, name) != getattr(recipe, name):
            both = f"{name} {getattr(found, name)}, not {getattr(recipe, name)}"
            raise UserError(f"{directory} has {both}; leave the flag out to run the model as it was saved")
    compute_dtype = recipe.compute_dtype or found.compute_dtype
    return msgspec.structs.replace(found, checkpoint=str(directory), compute_dtype=compute_dtype)


def _neural_compressor_recipe(fields: dict[str, Any], asked: Quantization) -> Quantization:
    """The recipe that neural-compressor says it applied. It does not say which of two symmetric grids."""
    grid = asked.weight_dtype if fields.get("sym", True) else "int4_asym"
    try:
        return Quantization(weight_dtype=grid, group_size=fields["group_size"], head="high")
    except KeyError as error:
        raise RunFailure("bad_model", f"the checkpoint's config names no {error}") from error


def _runtimes_for(method: str) -> str:
    names = [name for name, options in OPTIONS.items() if options.int4_method == method]
    return f"for --runtime {' or '.join(names)}"
