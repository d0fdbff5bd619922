"""The answers of a model before IPEX changes it, and the check that its answers are the same afterwards.

IPEX replaces layers, attention, caches and beam search. For some models on some GPUs the replacements give
other tokens than transformers does, without any error. The plain model is on the device anyway before it is
optimized, so that comparing a few short prompts needs no further memory.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from xpubench.errors import RunFailure
from xpubench.measure.rounding import logit_difference
from xpubench.prompts import random_prompt
from xpubench.runtimes.base import Logits, TokenIds
from xpubench.runtimes.ipex.state import forget_searches
from xpubench.runtimes.pytorch.scoring import TransformersScorer
from xpubench.spec import Cache, Workload

IPEX = "intel_extension_for_pytorch"
PROMPTS, PROMPT_TOKENS, NEW_TOKENS, BEAMS = 2, 16, 6, 4


class PlainAnswers(msgspec.Struct, frozen=True, kw_only=True):
    """The plain model's answers: P prompts of L ids, N new tokens of greedy search with their logits, and of
    beam search."""

    prompt_ids: Any  # int64 (P, L)
    tokens: Any  # int64 (P, N)
    logits: Any  # float32 (P, N, V)
    beam_tokens: Any  # int64 (P, N)


def ask(model: TransformersScorer) -> PlainAnswers:
    """The answers of a model that IPEX has not changed yet."""
    size, special_ids = model.vocabulary.size, model.vocabulary.special_ids
    prompt_ids = random_prompt(size, special_ids, batch_size=PROMPTS, length=PROMPT_TOKENS, seed=0, index=0)
    with _as_loaded(model.model):
        tokens, logits = model.traced(prompt_ids, _workload(1, "dynamic"), None)
        beam_tokens, _ = model.generated(prompt_ids, _workload(BEAMS, "dynamic"))
    return PlainAnswers(prompt_ids=prompt_ids, tokens=tokens, logits=logits, beam_tokens=beam_tokens)


@contextlib.contextmanager
def _as_loaded(model: torch.nn.Module) -> Iterator[None]:
    """Restores IPEX's INT4 layers when the block ends. They rearrange their weights in place at their first
    call, and `ipex.llm.optimize` needs the weights as they were loaded. Inside the block the weights
    take twice their memory."""
    layers = [one for one in model.modules() if type(one).__module__.startswith(IPEX)]
    kept = [
        (layer, {**vars(layer), "_parameters": {**layer._parameters}, "_buffers": {**layer._buffers}})
        for layer in layers
    ]
    tensors = [
        (tensor, tensor.detach().clone())
        for layer in layers
        for tensor in (*layer.parameters(), *layer.buffers())
    ]
    yield
    for layer, attributes in kept:
        vars(layer).clear()
        vars(layer).update(attributes)
    for tensor, before in tensors:
        tensor.data = before


def check_logits(plain: PlainAnswers, model: TransformersScorer, cache: Cache, limit: float) -> None:
    """RunFailure `numerics` where the logits along the plain model's tokens differ from its own by more than
    the limit (in the sense of `logit_difference`)."""
    _, logits = model.traced(plain.prompt_ids, _workload(1, cache), plain.tokens)
    _compare(plain.logits, logits, f"with a {cache} cache", limit)


def check_scores(plain: PlainAnswers, model: TransformersScorer, batch_size: int, limit: float) -> None:
    """RunFailure `numerics` where the logits of whole texts differ from the plain model's by more than the
    limit, text by text and in batches of that size."""
    texts = np.concatenate([plain.prompt_ids, plain.tokens], axis=1)
    for size in {1, batch_size}:
        with model.inference():
            batches = [model.all_logits(model.on_device(part)) for part in np.split(texts, PROMPTS // size)]
        logits = np.concatenate([batch.float().cpu().numpy() for batch in batches])
        found = logits[:, PROMPT_TOKENS - 1 : -1]
        _compare(plain.logits, found, f"of whole texts in batches of {size}", limit)


def _compare(expected: Logits, found: Logits, words: str, limit: float) -> None:
    difference = logit_difference(found, expected)
    # A NaN is not within the limit either.
    if not difference <= limit:
        raise RunFailure(
            "numerics",
            f"IPEX's layers do not compute what the plain model does: {words} the logits of {PROMPTS} short "
            f"prompts differ by {difference:.1%} of their spread (rounding explains {limit:.1%})",
        )


def check_beams(plain: PlainAnswers, model: TransformersScorer, cache: Cache, limit: float) -> None:
    """Raises RunFailure `numerics` where beam search finds less probable tokens than the plain model's did,
    by more than is possible if the logits differ by `limit`.

    Both are scored with the logits of greedy search over the same cache, which `check_logits` has found to
    be right.
    """
    beam_tokens, _ = model.generated(plain.prompt_ids, _workload(BEAMS, cache))
    forget_searches()
    if np.array_equal(beam_tokens, plain.beam_tokens):
        return
    expected, found = (
        _mean_logprobs(model.traced(plain.prompt_ids, _workload(1, cache), tokens)[1], tokens)
        for tokens in (plain.beam_tokens, beam_tokens)
    )
    # A beam that a near tie drops does not come back, so that a small difference counts at every step.
    nats = NEW_TOKENS * limit * float(plain.logits.std(-1).max())
    if not (worst := float((expected - found).max())) <= nats:
        raise RunFailure(
            "numerics",
            f"IPEX's beam search with a {cache} cache finds tokens that are less probable than the plain "
            f"model's by {worst:.2f} nats a token (rounding explains {nats:.2f})",
        )


def _mean_logprobs(logits: Logits, tokens: TokenIds) -> NDArray[np.float32]:
    """The mean log-probability of each prompt's tokens."""
    chosen = np.take_along_axis(logits, tokens[..., None], -1)[..., 0]
    mean: NDArray[np.float32] = (chosen - np.logaddexp.reduce(logits, axis=-1)).mean(-1)
    return mean


def _workload(num_beams: int, cache: Cache) -> Workload:
    return Workload(
        input_tokens=PROMPT_TOKENS,
        new_tokens=NEW_TOKENS,
        batch_size=PROMPTS,
        num_beams=num_beams,
        cache=cache,
    )
