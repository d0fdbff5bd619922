"""Random weights: finite, different from row to row, with true buffers, for each family."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from tests.conftest import CommandLine
from xpubench.catalog import model
from xpubench.weights.dummy import build_dummy
from xpubench.weights.pretrained import DTYPE_ARGUMENT

SMALL = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 128,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
FAMILIES = {
    "llama": SMALL,
    "mistral": SMALL,
    "qwen2": SMALL,
    "qwen3": SMALL | {"head_dim": 16},
    "phi3": SMALL | {"eos_token_id": 2},
    "glm": SMALL | {"head_dim": 16},
    "gptj": {"n_embd": 64, "n_layer": 2, "n_head": 4, "rotary_dim": 8, "vocab_size": 128, "n_positions": 64},
    "opt": {
        "hidden_size": 64,
        "ffn_dim": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "vocab_size": 128,
    },
    "bloom": {"hidden_size": 64, "n_layer": 2, "n_head": 4, "vocab_size": 128},
}


@pytest.mark.parametrize("family", [name for name in FAMILIES if name in CONFIG_MAPPING_NAMES])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_family(family: str, dtype: str) -> None:
    fields = {"model_type": family, "tie_word_embeddings": family == "opt"} | FAMILIES[family]
    built = build_dummy(fields, dtype=dtype, device="cpu", seed=0)
    assert {parameter.dtype for parameter in built.parameters()} == {getattr(torch, dtype)}
    ids = torch.arange(3, 19)[None]
    with torch.inference_mode():
        logits = built(ids).logits.float()
    assert torch.isfinite(logits).all()
    assert logits.std() > 0.01
    assert len(set(map(tuple, logits[0].tolist()))) == ids.shape[1]

    config = AutoConfig.for_model(**fields)
    usual = AutoModelForCausalLM.from_config(config, **{DTYPE_ARGUMENT: getattr(torch, dtype)})
    expected = dict(usual.named_buffers())
    assert dict(built.named_buffers()).keys() == expected.keys()
    for name, value in built.named_buffers():
        assert torch.equal(value, expected[name]), name


def test_no_two_rows_and_no_two_layers_are_equal() -> None:
    built = build_dummy(model("smollm2-135m").config(), dtype="bfloat16", device="cpu", seed=0)
    rows = built.get_input_embeddings().weight[:, :8].float()
    assert len(torch.unique(rows, dim=0)) == len(rows)
    first, second = (layer.mlp.up_proj.weight for layer in built.model.layers[:2])
    assert not torch.equal(first, second)
    assert built.lm_head.weight is built.get_input_embeddings().weight


def test_the_seed_decides() -> None:
    fields = {"model_type": "llama"} | SMALL
    one, same, other = (build_dummy(fields, dtype="float32", device="cpu", seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one.lm_head.weight, same.lm_head.weight)
    assert not torch.equal(one.lm_head.weight, other.lm_head.weight)


def test_a_run_needs_no_hub_and_no_tokenizer(generate: CommandLine) -> None:
    done = generate("smollm2-135m", "--dummy-weights", "--json")
    assert done.code == 0
    (record,) = done.records
    assert record["status"] == "ok"
    assert record["runtime"]["weight_bytes"] == 4 * 134_515_008
    assert record["divergence"] is None


def test_a_reference_of_noise_is_refused(generate: CommandLine) -> None:
    done = generate("smollm2-135m", "--dummy-weights", "--reference", "cpu-float32")
    assert done.code == 2
    assert "--dummy-weights" in done.error_line


def test_an_architecture_of_the_hub_alone(generate: CommandLine) -> None:
    done = generate("baichuan-inc/Baichuan2-13B-Chat", "--dummy-weights")
    assert done.code == 2
    assert "--trust-remote-code" in done.error_line
