"""LoRA adapters in PEFT's format, which are checked against their base model and merged into it."""

import json
from pathlib import Path
from typing import Any

from xpubench.errors import UserError

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
PREFIX = "base_model.model."
# What PEFT's names have between a layer and what was added to it: matrices, or single tokens' vectors.
ADDED = (".lora_", ".token_adapter.")


def read_adapter(adapter: Path) -> dict[str, Any]:
    """The adapter's config; UserError where the directory holds no LoRA adapter."""
    try:
        config = json.loads((adapter / CONFIG_FILE).read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{adapter} is not a LoRA adapter: {CONFIG_FILE} cannot be read") from error
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise UserError(f"{adapter} is not a LoRA adapter: {CONFIG_FILE} names another method")
    if not (adapter / WEIGHTS_FILE).is_file():
        raise UserError(f"{adapter} holds no {WEIGHTS_FILE}")
    return config


def check_adapter(adapter: Path, base: dict[str, Any]) -> None:
    """UserError where the adapter's weights do not fit a base model of the config `base`. RunFailure as
    `empty_model`."""
    import torch

    from xpubench.weights.empty import empty_model

    read_adapter(adapter)
    model = empty_model(base, torch.float32)
    for name, shape in _shapes(adapter).items():
        # PEFT wraps a layer with matrices, and some of its versions save the wrapped parameters by that path.
        if reason := _misfit(model, name.removeprefix(PREFIX).replace(".base_layer.", "."), shape):
            base_name = read_adapter(adapter).get("base_model_name_or_path") or "another base model"
            raise UserError(
                f"the LoRA adapter {adapter} was made for {base_name} and does not fit this model: {reason}"
            )


def has_matrices_alone(adapter: Path) -> bool:
    """Whether the adapter holds nothing but pairs of matrices for linear layers: no trained parameters of
    the base model, no matrices for a token table, no magnitudes of DoRA. UserError as `read_adapter`."""
    read_adapter(adapter)
    return all(name.endswith((".lora_A.weight", ".lora_B.weight")) for name in _shapes(adapter))


def merged(model: Any, adapter: Path) -> Any:
    """The model with the adapter's weights added to its own. UserError where peft is missing."""
    try:
        from peft import PeftModel
    except ModuleNotFoundError as error:
        raise UserError("--lora needs peft, which is not installed; pip install peft") from error
    return PeftModel.from_pretrained(model, str(adapter)).merge_and_unload().eval()


def scale_of(adapter: Path) -> float:
    """The factor that PEFT applies to the product of an adapter's two matrices. UserError where it depends on
    the module."""
    config = read_adapter(adapter)
    for name in ("rank_pattern", "alpha_pattern"):
        if config.get(name):
            raise UserError(
                f"the LoRA adapter {adapter} has scales of its own for some modules ({name}), and one is "
                "applied here; export the model with xpubench export --lora, or choose another runtime"
            )
    rank = float(config["r"])
    return float(config["lora_alpha"]) / (float(rank**0.5) if config.get("use_rslora") else rank)


def _shapes(adapter: Path) -> dict[str, list[int]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(adapter / WEIGHTS_FILE, framework="numpy") as file:  # type: ignore[no-untyped-call]
            return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise UserError(f"{adapter / WEIGHTS_FILE} cannot be read: {error}") from error


def _misfit(model: Any, name: str, shape: list[int]) -> str | None:
    """Why a tensor of an adapter, by its name in the model, does not fit the model; None where it fits."""
    layer, added, part = _partition(name)
    try:
        if not added:
            # Parameters of the base model may be trained too (PEFT's bias and modules_to_save).
            wanted = list(model.get_parameter(name).shape)
            return None if wanted == shape else f"{name} has {wanted} where the adapter has {shape}"
        inputs, outputs = _widths(model.get_submodule(layer))
    except AttributeError:
        return f"it has no {layer}"
    matrix = part.removeprefix("embedding_")[:1]
    ours, theirs = {"A": (inputs, shape[-1]), "B": (outputs, shape[0])}.get(matrix, (None, None))
    return None if ours in (None, theirs) else f"{layer} has {ours} where the adapter has {theirs}"


def _partition(name: str) -> tuple[str, str, str]:
    """A tensor's name before, at and after the part that says what PEFT added to the layer; the whole name
    and two empty texts where it added nothing."""
    return min((name.partition(mark) for mark in ADDED), key=lambda parts: len(parts[0]))


def _widths(layer: Any) -> tuple[int, int] | tuple[None, None]:
    """The number of inputs and of outputs of a layer with one matrix; for a token table, its tokens are the
    inputs. None for other layers, such as one that holds all experts."""
    from torch.nn import Embedding
    from transformers.pytorch_utils import Conv1D

    weight = getattr(layer, "weight", None)
    if weight is None or weight.ndim != 2:
        return None, None
    rows, columns = weight.shape
    return (rows, columns) if isinstance(layer, Conv1D | Embedding) else (columns, rows)
