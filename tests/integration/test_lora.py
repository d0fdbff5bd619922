"""Which LoRA adapters fit a base model. The names and shapes are those that PEFT 0.21 writes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from xpubench.errors import UserError
from xpubench.weights.lora import check_adapter, has_matrices_alone

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 256,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "attention_bias": True,
}
GPT2: dict[str, Any] = {"model_type": "gpt2", "vocab_size": 256, "n_embd": 64, "n_layer": 1, "n_head": 4}
BLOCK = "base_model.model.model.layers.0"
QUERY = f"{BLOCK}.self_attn.q_proj"
TOKENS = "base_model.model.model.embed_tokens"
C_ATTN = "base_model.model.transformer.h.0.attn.c_attn"
PAIR = {f"{QUERY}.lora_A.weight": (4, 64), f"{QUERY}.lora_B.weight": (64, 4)}


def adapter_of(directory: Path, shapes: dict[str, tuple[int, ...]]) -> Path:
    """An adapter of zeros with tensors of these shapes."""
    (directory / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4}))
    tensors = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    save_file(tensors, directory / "adapter_model.safetensors")
    return directory


@pytest.mark.parametrize(
    ("base", "shapes"),
    [
        (LLAMA, PAIR),
        (LLAMA, PAIR | {"base_model.model.lm_head.weight": (256, 64)}),
        (LLAMA, PAIR | {f"{BLOCK}.input_layernorm.weight": (64,)}),
        (LLAMA, PAIR | {f"{QUERY}.base_layer.bias": (64,)}),
        (LLAMA, PAIR | {f"{QUERY}.bias": (64,), f"{BLOCK}.self_attn.k_proj.bias": (32,)}),
        (LLAMA, PAIR | {f"{QUERY}.lora_magnitude_vector": (64,)}),
        (LLAMA, PAIR | {f"{QUERY}.lora_B.bias": (64,)}),
        (LLAMA, PAIR | {f"{TOKENS}.token_adapter.trainable_tokens_delta": (2, 64)}),
        (
            LLAMA,
            {
                f"{TOKENS}.base_layer.weight": (256, 64),
                f"{TOKENS}.lora_embedding_A": (4, 256),
                f"{TOKENS}.lora_embedding_B": (64, 4),
            },
        ),
        (GPT2, {f"{C_ATTN}.lora_A.weight": (4, 64), f"{C_ATTN}.lora_B.weight": (192, 4)}),
    ],
)
def test_what_fits(tmp_path: Path, base: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> None:
    adapter = adapter_of(tmp_path, shapes)
    check_adapter(adapter, base)
    assert has_matrices_alone(adapter) == all("lora_" in one and one.endswith(".weight") for one in shapes)


@pytest.mark.parametrize(
    ("base", "shapes", "reason"),
    [
        (GPT2, PAIR, "it has no model.layers.0.self_attn.q_proj"),
        (LLAMA | {"num_attention_heads": 2, "head_dim": 64}, PAIR, "q_proj has 128 where the adapter has 64"),
        (LLAMA | {"hidden_size": 96, "head_dim": 16}, PAIR, "q_proj has 96 where the adapter has 64"),
        (LLAMA, {"base_model.model.lm_head.weight": (257, 64)}, "[256, 64] where the adapter has [257, 64]"),
        (LLAMA, {"base_model.model.head.weight": (256, 64)}, "it has no head.weight"),
        (LLAMA | {"attention_bias": False}, {f"{QUERY}.base_layer.bias": (64,)}, "it has no model.layers.0."),
        (LLAMA, {f"{TOKENS}.lora_embedding_A": (4, 257)}, "embed_tokens has 256 where the adapter has 257"),
        (LLAMA, {f"{TOKENS}.lora_embedding_B": (32, 4)}, "embed_tokens has 64 where the adapter has 32"),
        (GPT2, {f"{C_ATTN}.lora_A.weight": (4, 192)}, "c_attn has 64 where the adapter has 192"),
        (GPT2, {f"{C_ATTN}.lora_B.weight": (64, 4)}, "c_attn has 192 where the adapter has 64"),
    ],
)
def test_what_does_not_fit(
    tmp_path: Path, base: dict[str, Any], shapes: dict[str, tuple[int, ...]], reason: str
) -> None:
    with pytest.raises(UserError, match="does not fit this model") as refused:
        check_adapter(adapter_of(tmp_path, shapes), base)
    assert reason in str(refused.value)
