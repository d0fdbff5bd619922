"""LoRA adapters in PEFT's format, which are checked against their base model and merged into it."""

import json
from pathlib import Path
from typing import Any

from xpubench.errors import UserError

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
PREFIX = "base_model.model."


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
    shapes, model = _shapes(adapter), empty_model(base, torch.float32)
    for name, shape in shapes.items():
        layer, _, part = name.removeprefix(PREFIX).partition(".lora_")
        try:
            wanted = model.get_submodule(layer).weight.shape
        except AttributeError:
            raise _misfit(adapter, f"it has no {layer}") from None
        ours, theirs = (wanted[-1], shape[-1]) if part.startswith("A") else (wanted[0], shape[0])
        if part[:1] in ("A", "B") and ours != theirs:
            raise _misfit(adapter, f"{layer} has {ours} where the adapter has {theirs}")


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


def _misfit(adapter: Path, what: str) -> UserError:
    base = read_adapter(adapter).get("base_model_name_or_path") or "another base model"
    return UserError(f"the LoRA adapter {adapter} was made for {base} and does not fit this model: {what}")
