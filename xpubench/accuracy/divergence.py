"""How far a run's tokens and probabilities are from a reference's, on the same prompts.

Both generate greedily from the same prompts. The run is then forced along the reference's tokens
(teacher forcing), and at each position the two next-token distributions are compared.
"""

import io
import zipfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from xpubench.errors import RunFailure, UserError
from xpubench.prompts import CHECK_NEW_TOKENS, CHECK_TEXTS, CHECK_TOKENS, random_prompt
from xpubench.record import Divergence
from xpubench.runtimes.base import Generator, Logits, TokenIds
from xpubench.runtimes.vocabulary import Vocabulary
from xpubench.spec import Workload

# How many of the most probable tokens a trace keeps. The rest of the vocabulary is one bucket, which hardly
# changes the KL divergence.
KEPT = 256
# How many tokens of a user's prompt the check takes.
LONGEST_PROMPT = 256


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """A run's answers to the check prompts: P prompts of L ids, N new tokens each, and at each new token the
    K most probable ids with their log-probabilities (natural logarithm)."""

    prompt_ids: Any  # int64 (P, L)
    tokens: Any  # int64 (P, N)
    top_ids: Any  # int64 (P, N, K)
    top_logprobs: Any  # float32 (P, N, K)


def check_prompts(vocabulary: Vocabulary, prompt: str | None, seed: int) -> TokenIds:
    """The prompts of the check, all of one length: the user's, else `CHECK_TEXTS`, else random ids."""
    if prompt is not None:
        return np.array([vocabulary.encode(prompt)[:LONGEST_PROMPT]], dtype=np.int64)
    if vocabulary.tokenizer is None:
        size, special_ids, count = vocabulary.size, vocabulary.special_ids, len(CHECK_TEXTS)
        return random_prompt(size, special_ids, batch_size=count, length=CHECK_TOKENS, seed=seed, index=0)
    encoded = [vocabulary.encode(text)[:CHECK_TOKENS] for text in CHECK_TEXTS]
    length = min(len(ids) for ids in encoded)
    return np.array([ids[:length] for ids in encoded], dtype=np.int64)


def trace(
    generator: Generator, prompt_ids: TokenIds, workload: Workload, new_tokens: int = CHECK_NEW_TOKENS
) -> Trace:
    """Generates from the prompts and keeps the most probable tokens at each position. RunFailure `numerics`
    where a logit is NaN or infinite."""
    tokens, logits = _generate(generator, prompt_ids, workload, new_tokens, None)
    logprobs = _log_softmax(logits)
    kept = min(KEPT, logprobs.shape[-1])
    top_ids = np.argpartition(-logprobs, kept - 1, axis=-1)[..., :kept]
    top_logprobs = np.take_along_axis(logprobs, top_ids, axis=-1)
    return Trace(prompt_ids=prompt_ids, tokens=tokens, top_ids=top_ids, top_logprobs=top_logprobs)


def forced_logits(generator: Generator, prompt_ids: TokenIds, tokens: TokenIds, workload: Workload) -> Logits:
    """The logits at each of `tokens`, float32 of shape (P, N, vocabulary), from a generation that is forced
    along them, with the same steps, cache and compiled code as any other."""
    return _generate(generator, prompt_ids, workload, tokens.shape[1], tokens)[1]


def _generate(
    generator: Generator,
    prompt_ids: TokenIds,
    workload: Workload,
    new_tokens: int,
    forced: TokenIds | None,
) -> tuple[TokenIds, Logits]:
    batch, length = prompt_ids.shape
    check = Workload(input_tokens=length, new_tokens=new_tokens, batch_size=batch, cache=workload.cache)
    scorer = generator.scorer
    if scorer is None:
        raise ValueError("a stack that hides its logits has no trace")
    generator.prepare(check)
    tokens, logits = scorer.trace(prompt_ids, check, forced)
    if not np.isfinite(logits).all():
        raise RunFailure("numerics", "NaN or infinite logits on the check prompts")
    if (logits == logits[..., :1]).all(-1).any():
        raise RunFailure("numerics", "all logits of a step are the same on the check prompts")
    return tokens, logits


def compare(name: str, reference: Trace, own: Trace, logits: Logits) -> Divergence:
    """The divergence of a run with its `own` tokens, and its `logits` along the reference's tokens.
    `top1_agreement` is the share of positions with the same most probable token; where several are equally
    probable, as bfloat16 often has them, one that both have is enough. `mean_kl` is the mean over
    the positions of KL(reference || run) in nats, over the reference's K kept tokens and one bucket for all
    others: a lower bound of the KL over the whole vocabulary (data-processing inequality)."""
    logprobs = _log_softmax(logits)
    kept = np.take_along_axis(logprobs, reference.top_ids, axis=-1)
    p, log_q = np.exp(reference.top_logprobs.astype(np.float64)), kept.astype(np.float64)
    inside = (p * (reference.top_logprobs - log_q)).sum(-1)
    rest_p, rest_q = _rest(p), _rest(np.exp(log_q))
    kl = inside + rest_p * np.log(rest_p / rest_q)
    best = kept == logprobs.max(-1, keepdims=True)
    return _divergence(name, reference, own.tokens, best, max(0.0, float(kl.mean())))


def compare_tokens(
    name: str, reference: Trace, generator: Generator, workload: Workload
) -> tuple[TokenIds, Divergence]:
    """The own tokens of a runtime that hides its logits, int64 (P, N), and its divergence, from tokens alone.
    Prompts that end in more and more of the reference's tokens force it along them, one new token each
    time. Each prompt runs alone, because some devices take one sequence at a time."""

    def after(forced: int, new_tokens: int) -> TokenIds:
        prompts = np.concatenate([reference.prompt_ids, reference.tokens[:, :forced]], axis=1)
        asked = Workload(input_tokens=prompts.shape[1], new_tokens=new_tokens, cache=workload.cache)
        generator.prepare(asked)
        found = [generator.generate(prompt[None], asked, "end_to_end").tokens for prompt in prompts]
        return np.concatenate(found)

    steps = reference.tokens.shape[1]
    best = np.concatenate([after(forced, 1) for forced in range(steps)], axis=1)
    own = after(0, steps)
    return own, _divergence(name, reference, own, reference.top_ids == best[..., None], None)


def unrepeated(reference: Trace, own: Trace, logits: Logits) -> list[int]:
    """The indices of the prompts whose `own` tokens part from the reference's at a position where the
    reference's token is the more probable one in `logits`, float32 of shape (P, N, vocabulary), of a
    generation along the reference's tokens: the same inputs gave two answers."""
    found = []
    for row, (expected, tokens) in enumerate(zip(reference.tokens, own.tokens, strict=True)):
        place = _first_difference(expected, tokens)
        if place is not None and logits[row, place, expected[place]] > logits[row, place, tokens[place]]:
            found.append(row)
    return found


def _divergence(
    name: str, reference: Trace, tokens: TokenIds, best: NDArray[np.bool_], mean_kl: float | None
) -> Divergence:
    """`best` tells which of the reference's kept tokens, shape (P, N, K), are most probable to the run."""
    expected = reference.top_logprobs == reference.top_logprobs.max(-1, keepdims=True)
    agrees = (best & expected).any(-1)
    return Divergence(
        reference=name,
        top1_agreement=float(agrees.mean()),
        mean_kl=mean_kl,
        first_divergence=[_first_difference(a, b) for a, b in zip(reference.tokens, tokens, strict=True)],
        positions=int(agrees.size),
    )


def save(trace: Trace) -> bytes:
    """The trace as the bytes of an .npz file."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **msgspec.structs.asdict(trace))
    return buffer.getvalue()


def load(path: Path) -> Trace:
    """The trace in an .npz file beside a record; UserError when it is missing or not whole."""
    try:
        with np.load(path) as arrays:
            loaded = Trace(**{name: arrays[name] for name in Trace.__struct_fields__})
        prompts, steps = loaded.tokens.shape
        shape = (prompts, steps, loaded.top_ids.shape[-1])
        if len(loaded.prompt_ids) != prompts or {loaded.top_ids.shape, loaded.top_logprobs.shape} != {shape}:
            raise ValueError("its arrays do not belong together")
    except FileNotFoundError as error:
        why = f"the reference has no {path.name} beside it, which a run on real weights writes"
        raise UserError(f"{why}; make the reference again") from error
    except (OSError, ValueError, KeyError, EOFError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is not a whole check file: {error}") from error
    return loaded


def _log_softmax(logits: Logits) -> NDArray[np.float32]:
    shifted = logits - logits.max(-1, keepdims=True)
    result: NDArray[np.float32] = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return result


def _rest(kept: NDArray[np.float64]) -> NDArray[np.float64]:
    # The rest can round to zero or below where the kept tokens have all of the probability.
    rest: NDArray[np.float64] = np.maximum(1 - kept.sum(-1), 1e-9)
    return rest


def _first_difference(one: TokenIds, other: TokenIds) -> int | None:
    different = np.flatnonzero(one != other)
    return int(different[0]) if different.size else None
