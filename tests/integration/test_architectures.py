"""The catalog's sizes are those that transformers builds."""

from typing import Any

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


VARIANTS: list[dict[str, Any]] = [
    {"model_type": "llama", "attention_bias": True, "mlp_bias": True},
    {"model_type": "mistral", "attention_bias": True, "head_dim": 32},
    {"model_type": "phi3", "attention_bias": True, "pad_token_id": 0},
    {"model_type": "qwen2", "tie_word_embeddings": True},
    {"model_type": "qwen3", "attention_bias": True},
    {"model_type": "qwen3"},
    {"model_type": "glm", "pad_token_id": 0},
    {"model_type": "gptj", "n_embd": 64, "n_layer": 2, "n_head": 4, "tie_word_embeddings": True},
    {"model_type": "opt", "ffn_dim": 96, "word_embed_proj_dim": 32},
    {"model_type": "opt", "ffn_dim": 96, "do_layer_norm_before": False},
    {"model_type": "mixtral", "num_local_experts": 6, "num_experts_per_tok": 2},
    {"model_type": "qwen3_moe", "num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
    {
        "model_type": "qwen3_moe",
        "num_experts": 6,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "head_dim": 32,
        "mlp_only_layers": [0],
    },
    {
        "model_type": "qwen2_moe",
        "num_experts": 6,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 48,
    },
    {"model_type": "bloom", "n_layer": 2, "n_head": 4, "tie_word_embeddings": False},
]
SIZES = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 128,
    "max_position_embeddings": 64,
}


# The variants that the installed transformers knows.
KNOWN = [one for one in VARIANTS if one["model_type"] in CONFIG_MAPPING_NAMES]


@pytest.mark.parametrize("fields", KNOWN, ids=str)
def test_variants_of_the_families(fields: dict[str, Any]) -> None:
    fields = (SIZES if fields["model_type"] != "gptj" else {"vocab_size": 128, "n_positions": 64}) | fields
    with init_empty_weights():
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**fields))
    model.tie_weights()
    architecture = Architecture.from_config(fields)
    assert sum(parameter.numel() for parameter in model.parameters()) == architecture.parameter_count
    assert Architecture.from_config(model.config.to_dict()) == architecture


@pytest.mark.parametrize(
    "fields",
    [one for one in KNOWN if "num_experts_per_tok" in one],
    ids=lambda one: str(one["model_type"]),
)
def test_a_step_of_one_sequence_reads_the_experts_of_one_token(fields: dict[str, Any]) -> None:
    fields = SIZES | fields
    with init_empty_weights():
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**fields))
    experts = sum(one.numel() for name, one in model.named_parameters() if ".experts." in name)
    total = sum(one.numel() for one in model.parameters())
    architecture = Architecture.from_config(fields)
    read = round(architecture.step_share(1) * architecture.step_weight_parameters)
    assert read == total - experts * 4 // 6 - model.get_input_embeddings().weight.numel()
    # Enough sequences take every expert, two take more than one does, and fewer than twice as many.
    assert architecture.step_share(10_000) == pytest.approx(1)
    assert (
        architecture.touched_experts(1)
        < architecture.touched_experts(2)
        < 2 * architecture.touched_experts(1)
    )


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
