"""How transformers' `generate` is called so that every run makes exactly the tokens that it was asked for."""

from typing import Any

import numpy as np
import torch
from transformers import GenerationConfig

from xpubench.errors import RunFailure
from xpubench.runtimes.base import TokenIds
from xpubench.spec import Workload


def plain_generation_config(model: Any) -> GenerationConfig:
    """A configuration without an end-of-sequence token, so that every length is reached, and without the
    checkpoint's sampling or penalty settings, so that greedy search is greedy."""
    bos, pad = (getattr(model.config, name, None) for name in ("bos_token_id", "pad_token_id"))
    return GenerationConfig(bos_token_id=bos, pad_token_id=0 if pad is None else pad)


def can_stay_eager() -> bool:
    """Whether this version of transformers can be told not to compile the steps of a static cache."""
    return hasattr(GenerationConfig(), "disable_compile")


def generate_arguments(input_ids: torch.Tensor, workload: Workload) -> dict[str, Any]:
    """The arguments of `generate` for a workload, and prompts of the shape (batch, length) on the device."""
    arguments = {
        "input_ids": input_ids,
        "attention_mask": torch.ones_like(input_ids),
        "do_sample": False,
        "num_beams": workload.num_beams,
        "max_new_tokens": workload.new_tokens,
        "min_new_tokens": workload.new_tokens,
        "use_cache": True,
    }
    if workload.cache == "static":
        arguments["cache_implementation"] = "static"
        # Later versions compile a static cache's steps on accelerators unless they are told not to; only
        # --torch-compile asks for that here.
        if can_stay_eager():
            arguments["disable_compile"] = True
    return arguments


def new_tokens_of(sequences: torch.Tensor, prompt_ids: TokenIds, workload: Workload) -> TokenIds:
    """The new tokens in what `generate` returned, of the shape (batch, new tokens); RunFailure `short_output`
    where there are more or fewer than were asked for."""
    batch, length = prompt_ids.shape
    tokens: TokenIds = sequences[:, length:].cpu().numpy().astype(np.int64)
    if tokens.shape != (batch, workload.new_tokens):
        raise RunFailure(
            "short_output",
            f"generate returned {tokens.shape[1]} new tokens for {tokens.shape[0]} prompts, where "
            f"{workload.new_tokens} for {batch} were asked for",
        )
    return tokens
