"""What the steps of GenAI's pipeline gave, by its raw metrics, which hold the steps that gave tokens."""

from collections.abc import Sequence
from typing import Any

from xpubench.errors import RunFailure
from xpubench.record import Drafting


def token_ns(raw: Any, batch: int, new_tokens: int, *, drafts: bool) -> list[int]:
    """The moments at which all sequences of a batch had each of their new tokens, in ns of the clock that
    `perf_counter_ns` reads too. With `drafts`, a step gives a sequence several tokens, which share its time
    evenly. Raises RunFailure `unsupported` where the steps gave another number of tokens."""
    # GenAI's binding gives milliseconds.
    ends, sizes = [1e6 * ms for ms in raw.m_new_token_times], [int(size) for size in raw.m_batch_sizes]
    if sum(sizes) != batch * new_tokens:
        raise RunFailure(
            "unsupported",
            f"GenAI's metrics report {sum(sizes)} tokens where {batch * new_tokens} are new",
        )
    if drafts:
        return [round(end) for end in _spread(ends, sizes)[batch - 1 :: batch]]
    return [round(ends[step]) for step in _steps_of_last(sizes, batch, new_tokens)]


def drafting(output: Any) -> Drafting:
    """The steps of the generation and the work of the draft model, from GenAI's metrics, whose batch sizes
    are the numbers of new tokens of each step."""
    steps = [int(one) for one in output.perf_metrics.raw_metrics.m_batch_sizes]
    told = output.extended_perf_metrics
    if told is None:
        return Drafting(step_tokens=steps)
    return Drafting(
        step_tokens=steps,
        drafted=told.get_num_draft_tokens(),
        accepted=told.get_num_accepted_tokens(),
        main_ns=round(sum(told.main_model_metrics.raw_metrics.m_durations) * 1e3),
        draft_ns=round(sum(told.draft_model_metrics.raw_metrics.m_durations) * 1e3),
    )


def _steps_of_last(sizes: Sequence[int], batch: int, new_tokens: int) -> list[int]:
    """The steps that gave the last sequence a token. The scheduler takes the sequences in their order, so
    that a step of n tokens gives one to each of the first n that are not finished: the last one starts last
    where the prompts take several steps, and waits where the cache has no room for all."""
    left, found = [new_tokens] * batch, []
    for step, size in enumerate(sizes):
        for place in [place for place in range(batch) if left[place]][:size]:
            left[place] -= 1
            if place == batch - 1:
                found.append(step)
    return found


def _spread(ends: Sequence[float], sizes: Sequence[int]) -> list[float]:
    """The moments of the tokens of all sequences, those of a step at even distances. Those of the first step
    came together."""
    found: list[float] = []
    for before, end, size in zip([ends[0], *ends], ends, sizes, strict=False):
        found += [before + (end - before) * (place + 1) / size for place in range(size)]
    return found
