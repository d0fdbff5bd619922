"""The catalog's sizes are those that transformers builds."""

import pytest
import torch
from accelerate import init_empty_weights
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from xpubench import catalog
from xpubench.catalog.architecture import Architecture

NATIVE = [
    one
    for one in catalog.models()
    if one.config()["model_type"] not in catalog.REMOTE_CODE_ONLY
    # Qwen3 is younger than the oldest transformers.
    and one.config()["model_type"] in CONFIG_MAPPING_NAMES
]


@pytest.mark.parametrize("one", NATIVE, ids=lambda one: one.id)
def test_parameters_and_what_a_step_reads(one: catalog.CatalogModel) -> None:
    fields = one.native_config()
    config = AutoConfig.for_model(fields.pop("model_type"), **fields)
    with init_empty_weights():
        model = AutoModelForCausalLM.from_config(config)
    model.tie_weights()
    architecture = Architecture.from_config(one.config())
    assert sum(parameter.numel() for parameter in model.parameters()) == architecture.parameter_count
    read = {
        parameter
        for module in model.modules()
        if not isinstance(module, torch.nn.Embedding)
        for parameter in module.parameters(recurse=False)
    }
    assert sum(parameter.numel() for parameter in read) == architecture.step_weight_parameters
    assert type(model).__name__ == config.architectures[0]
