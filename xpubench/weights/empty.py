"""Models of an architecture without weights."""

from typing import Any

import torch
from accelerate import init_empty_weights
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from xpubench.errors import RunFailure
from xpubench.weights.pretrained import DTYPE_ARGUMENT
from xpubench.weights.quiet import quiet_transformers


def transformers_config(config: dict[str, Any]) -> PretrainedConfig:
    """The fields as transformers' config of the architecture, without a checkpoint's quantization. RunFailure
    `unsupported` where the installed transformers does not know the architecture."""
    model_type = config.get("model_type")
    if model_type not in CONFIG_MAPPING_NAMES:
        reason = f"the architecture {model_type!r} is not known to the installed transformers"
        raise RunFailure("unsupported", reason)
    fields = {name: value for name, value in config.items() if name != "quantization_config"}
    return AutoConfig.for_model(**fields)


def empty_model(config: dict[str, Any] | PretrainedConfig, dtype: torch.dtype) -> Any:
    """The model in evaluation mode with its parameters, tied where they should be, on the meta device, and
    its buffers on the CPU. Raises as `transformers_config`."""
    settings = transformers_config(config) if isinstance(config, dict) else config
    with quiet_transformers(), init_empty_weights(include_buffers=False):
        model = AutoModelForCausalLM.from_config(settings, **{DTYPE_ARGUMENT: dtype})
    # IPEX needs the class's name, which a config may lack.
    model.config.architectures = [type(model).__name__]
    model.tie_weights()
    return model.eval()


def parameter_places(model: torch.nn.Module) -> dict[str, list[tuple[torch.nn.Module, str]]]:
    """The modules and attribute names of each parameter, several of a tied one, by its first name."""
    names: dict[int, str] = {}
    places: dict[str, list[tuple[torch.nn.Module, str]]] = {}
    for path, module in model.named_modules():
        for attribute, parameter in module.named_parameters(recurse=False):
            name = names.setdefault(id(parameter), f"{path}.{attribute}" if path else attribute)
            places.setdefault(name, []).append((module, attribute))
    return places
