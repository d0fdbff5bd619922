"""Tiny random models of the families that IPEX optimizes, for float16 and for INT4.

Every weight of a linear layer lies on the INT4 grid that neural-compressor makes on xpu, a scale for each 32
inputs: a power of two times a whole number from -7 to 7, with a 7 or a -7 in every group. float16 and that
INT4 hold such weights exactly, so that one model in float32 is the reference of both.

Baichuan2's code is not in transformers. Where `BAICHUAN2_SOURCE` names a directory with the files of
Baichuan2-13B on the hub (config.json and *.py), it is one of the families.
"""

import argparse
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

GROUP = 32
HIDDEN, INNER, LAYERS, HEADS, KEY_VALUE_HEADS = 256, 512, 2, 4, 2
VOCABULARY, POSITIONS = 256, 256
BAICHUAN2_SOURCE = os.environ.get("BAICHUAN2_SOURCE", "")
# Of the weights' grid: with 256 inputs a linear layer keeps about the variance of its input.
STEP = 2.0**-6


def _llama(**changes: Any) -> dict[str, Any]:
    """What the families of Llama's shape share."""
    return {
        "vocab_size": VOCABULARY,
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KEY_VALUE_HEADS,
        "max_position_embeddings": POSITIONS,
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        **changes,
    }


# What differs from the config of Baichuan2-13B on the hub.
_BAICHUAN2 = {
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "model_max_length": POSITIONS,
}
# The name of the configuration class, its arguments, and the class of the model.
FAMILIES: dict[str, tuple[str, dict[str, Any], str]] = {
    "llama2": ("LlamaConfig", _llama(num_key_value_heads=HEADS), "LlamaForCausalLM"),
    "llama3": ("LlamaConfig", _llama(rope_theta=500000.0), "LlamaForCausalLM"),
    "phi3": ("Phi3Config", _llama(num_key_value_heads=HEADS), "Phi3ForCausalLM"),
    "mistral": ("MistralConfig", _llama(sliding_window=None), "MistralForCausalLM"),
    "qwen2": ("Qwen2Config", _llama(), "Qwen2ForCausalLM"),
    "qwen3": ("Qwen3Config", _llama(head_dim=HIDDEN // HEADS), "Qwen3ForCausalLM"),
    "glm4": (
        "GlmConfig",
        _llama(head_dim=HIDDEN // HEADS, partial_rotary_factor=0.5, attention_bias=True),
        "GlmForCausalLM",
    ),
    "gptj": (
        "GPTJConfig",
        {
            "vocab_size": VOCABULARY,
            "n_embd": HIDDEN,
            "n_layer": LAYERS,
            "n_head": HEADS,
            "n_inner": INNER,
            "n_positions": POSITIONS,
            "rotary_dim": HIDDEN // HEADS,
            "tie_word_embeddings": False,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 0,
        },
        "GPTJForCausalLM",
    ),
    "opt": (
        "OPTConfig",
        {
            "vocab_size": VOCABULARY,
            "hidden_size": HIDDEN,
            "word_embed_proj_dim": HIDDEN,
            "ffn_dim": INNER,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS,
            "max_position_embeddings": POSITIONS,
            "tie_word_embeddings": False,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 0,
        },
        "OPTForCausalLM",
    ),
    "bloom": (
        "BloomConfig",
        {
            "vocab_size": VOCABULARY,
            "hidden_size": HIDDEN,
            "n_layer": LAYERS,
            "n_head": HEADS,
            "tie_word_embeddings": False,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 0,
        },
        "BloomForCausalLM",
    ),
}


if BAICHUAN2_SOURCE:
    FAMILIES["baichuan2"] = ("", _BAICHUAN2, "BaichuanForCausalLM")


def flags_of(family: str) -> tuple[str, ...]:
    """The flags without which the family's model does not load."""
    return ("--trust-remote-code",) if family == "baichuan2" else ()


def make(family: str, directory: Path) -> None:
    """Writes the family's model to the directory, in float16 and safetensors, the same one at every call."""
    import torch
    import transformers

    configuration, arguments, model_class = FAMILIES[family]
    if family == "baichuan2":
        model = _with_its_own_code(arguments, directory)
    else:
        config = getattr(transformers, configuration)(**arguments, architectures=[model_class])
        model = getattr(transformers, model_class)(config)
    generator = torch.Generator().manual_seed(sum(family.encode()))
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.Linear):
                module.weight.copy_(_on_grid(module.weight.shape, generator))
                if module.bias is not None:
                    module.bias.copy_(_random(module.bias.shape, generator) / 8)
            elif isinstance(module, torch.nn.Embedding):
                module.weight.copy_(_random(module.weight.shape, generator))
            elif "norm" in type(module).__name__.lower() and getattr(module, "weight", None) is not None:
                module.weight.copy_(1 + _random(module.weight.shape, generator) / 8)
    head = model.get_output_embeddings()
    if family == "baichuan2":  # its head is no nn.Linear, and normalizes each row
        head.weight.data.copy_(_random(head.weight.shape, generator))
    # Larger differences between logits than what float16 rounds away.
    head.weight.data.mul_(2)
    model.half().save_pretrained(directory, safe_serialization=True)


def save_tokenizer(directory: Path) -> None:
    """Writes a tokenizer to a model's directory of which each byte is a token."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())[:VOCABULARY]
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = {"bos_token": alphabet[1], "eos_token": alphabet[2], "pad_token": alphabet[0]}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(directory)


def _with_its_own_code(arguments: dict[str, Any], directory: Path) -> Any:
    """A model of Baichuan2's code, which is copied to the directory."""
    from transformers import AutoConfig, AutoModelForCausalLM

    directory.mkdir(parents=True)
    for path in Path(BAICHUAN2_SOURCE).glob("*.py"):
        shutil.copy(path, directory)
    fields = json.loads(Path(BAICHUAN2_SOURCE, "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(fields | arguments))
    config = AutoConfig.from_pretrained(directory, trust_remote_code=True)
    return AutoModelForCausalLM.from_config(config, trust_remote_code=True)


def _random(shape: Any, generator: Any) -> Any:
    """Normal numbers that float16 holds."""
    import torch

    return torch.randn(shape, generator=generator).half().float()


def _on_grid(shape: Any, generator: Any) -> Any:
    """Random weights [n, k] on the INT4 grid, a 7 or -7 in each group of 32 along k."""
    import torch

    values = torch.randint(-7, 8, shape, generator=generator)
    ends = torch.randint(0, 2, values[:, ::GROUP].shape, generator=generator)
    values[:, ::GROUP] = 14 * ends - 7
    # The ends move about within their groups, so that no input counts more than another.
    order = torch.rand(shape[0], shape[1] // GROUP, GROUP, generator=generator).argsort(-1)
    grouped = values.view(shape[0], -1, GROUP).gather(2, order)
    return grouped.reshape(shape) * STEP


def main(make_model: Callable[[str, Path], None] = make) -> None:
    """`python -m tests.ipex_xpu.models DIRECTORY FAMILY ...` makes each in a directory of its name."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("families", nargs="*", default=list(FAMILIES))
    given = parser.parse_args()
    for family in given.families:
        make_model(family, given.directory / family)


if __name__ == "__main__":
    main()
