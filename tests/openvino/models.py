"""Tiny random models of the validated families."""

from pathlib import Path
from typing import Any

RUNTIMES = ("openvino", "openvino-genai", "openvino-base")
SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 128,
    "max_position_embeddings": 64,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": SIZES,
    "qwen2": SIZES,
    "qwen3": SIZES | {"head_dim": 16},
    "mistral": SIZES,
    "phi3": SIZES | {"pad_token_id": 0},
    "gptj": {"vocab_size": 128, "n_positions": 64, "n_embd": 64, "n_layer": 2, "n_head": 4, "rotary_dim": 8},
    "opt": SIZES | {"ffn_dim": 96, "word_embed_proj_dim": 64},
    "bloom": {"vocab_size": 128, "hidden_size": 64, "n_layer": 2, "n_head": 4},
    "glm": SIZES | {"head_dim": 16, "pad_token_id": 0},
}


TEXTS = (
    "one two three four five six seven eight nine ten",
    "the river runs down to the sea and the sea comes up to the river",
    "a house by the road has a red door and four windows",
    "seven ships came in the night and none of them had a light",
)


def save_tokenizer(directory: Path) -> None:
    """A byte-level tokenizer of 320 tokens, as most models of today have one."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "</s>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    fast.save_pretrained(directory)


def save_model(directory: Path, model_type: str, seed: int = 0, **sizes: int) -> Path:
    """A random model whose logits differ enough that rounding decides no token."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(seed)
    config = AutoConfig.for_model(model_type, **FAMILIES[model_type] | sizes)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.3)
    model.save_pretrained(directory)
    return directory


def tokens(done: Any) -> list[int]:
    assert done.code == 0, done.err
    found: list[int] = done.records[0]["output"]["first_token_ids"]
    return found
