"""Tiny random models of the families that ranks can share, and the generations in which they must agree."""

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from xpubench.runtimes.base import Generator, TokenIds
from xpubench.runtimes.registry import options_class
from xpubench.spec import Subject, Workload

VOCAB = 96
# Wide enough for the most probable token to stand out from the rounding of sums.
SPREAD = 0.4
NEW_TOKENS = 8
SIZES = {"vocab_size": VOCAB, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
HEADS = {"num_attention_heads": 8, "num_key_value_heads": 4, "max_position_embeddings": 64}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {**SIZES, **HEADS},
    "tied": {**SIZES, **HEADS, "model_type": "llama", "tie_word_embeddings": True},
    "qwen2": {**SIZES, **HEADS},
    "qwen3": {**SIZES, **HEADS, "head_dim": 16},
    "mistral": {**SIZES, **HEADS},
    "phi3": {**SIZES, **HEADS, "pad_token_id": 0},
    "glm": {**SIZES, **HEADS, "head_dim": 16, "pad_token_id": 0},
    "gptj": {
        "vocab_size": VOCAB,
        "n_embd": 64,
        "n_layer": 2,
        "n_head": 4,
        "rotary_dim": 8,
        "n_positions": 64,
    },
    "opt": {
        "vocab_size": VOCAB,
        "hidden_size": 64,
        "ffn_dim": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
        "word_embed_proj_dim": 64,
    },
    "bloom": {"vocab_size": VOCAB, "hidden_size": 64, "n_layer": 2, "n_head": 4},
}
CASES = list(product((1, 4), ("dynamic", "static")))


def save_model(name: str, directory: Path) -> None:
    """Writes a checkpoint of the family."""
    torch.manual_seed(len(name))
    fields = {
        "bos_token_id": 1,
        "eos_token_id": 2,
        "initializer_range": SPREAD,
        "init_std": SPREAD,
    } | FAMILIES[name]
    config = AutoConfig.for_model(**({"model_type": name} | fields))
    model = AutoModelForCausalLM.from_config(config).eval()
    for parameter in model.parameters():
        # Norms and biases that are all one or zero would hide a part that another rank's took.
        torch.nn.init.normal_(parameter, mean=float(parameter.dim() == 1), std=SPREAD / 2)
    model.save_pretrained(directory, safe_serialization=True)


def subject(directory: Path, ranks: int) -> Subject:
    """The checkpoint in float32 on the CPU, by one process or by ranks."""
    options = options_class("pytorch" if ranks == 1 else "deepspeed")()
    return Subject(model=str(directory), device="cpu", dtype="float32", options=options, tp_size=ranks)


def prompt_ids() -> TokenIds:
    return np.random.default_rng(0).integers(3, VOCAB, size=(2, 6))


def long_answer(generator: Generator) -> list[list[int]]:
    """32 greedy tokens of a real model: 9 heads with 3 key-value heads, which 2 ranks share unevenly."""
    prompt = np.array([generator.vocabulary.encode("Gravity is")])
    workload = Workload(input_tokens=prompt.shape[1], new_tokens=32)
    tokens: list[list[int]] = generator.generate(prompt, workload, "end_to_end").tokens.tolist()
    return tokens


def answers(generator: Generator) -> dict[str, Any]:
    """The tokens of each case, and the log-probabilities of a prompt's own tokens."""
    found: dict[str, Any] = {}
    prompts = prompt_ids()
    for beams, cache in CASES:
        workload = Workload(
            input_tokens=prompts.shape[1],
            new_tokens=NEW_TOKENS,
            batch_size=len(prompts),
            num_beams=beams,
            cache="static" if cache == "static" else "dynamic",
        )
        generator.prepare(workload)
        generation = generator.generate(prompts, workload, "every_token")
        found[f"{beams} beams, {cache} cache"] = generation.tokens.tolist()
    rows = np.ones_like(prompts, dtype=np.bool_)
    assert generator.scorer is not None
    logprobs, _ = generator.scorer.target_logprobs(prompts, rows, prompts.reshape(-1))
    found["logprobs"] = logprobs.tolist()
    return found
