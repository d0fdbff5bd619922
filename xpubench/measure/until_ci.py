"""When a run may end because its next token latency is known tightly enough."""

from collections.abc import Iterable, Sequence
from math import exp, expm1, isfinite, log
from statistics import fmean, median

import numpy as np

from xpubench.measure.sequential import always_valid_halves
from xpubench.record import Iteration, SequentialInterval


def pair_value(one: Iteration) -> float | None:
    """The natural logarithm of the generation's median next token latency in ns; None where no token was
    stamped or none took any time."""
    middle = median(one.next_token_ns) if one.next_token_ns else 0
    return log(middle) if middle > 0 else None


def tight_after(values: Sequence[float], share: float) -> int | None:
    """The number of pairs, each with its `pair_value`, after which the always-valid interval first reached no
    more than `share` above the latency. None where it never became so tight, which is always so for fewer
    than five pairs."""
    if not values:
        return None
    tight = np.flatnonzero(np.expm1(always_valid_halves(np.array([values]))[0]) <= share)
    return int(tight[0]) + 1 if tight.size else None


def sequential_interval(iterations: Iterable[Iteration], share: float) -> SequentialInterval | None:
    """The interval after the pairs that ended the run, or after all pairs; None where no token was
    stamped."""
    values = [value for value in map(pair_value, iterations) if value is not None]
    if not values:
        return None
    count = tight_after(values, share)
    taken = values[:count]
    middle, half = fmean(taken), float(always_valid_halves(np.array([taken]))[0, -1])
    return SequentialInterval(
        wanted=share,
        reached=count is not None,
        pairs=len(taken),
        mean_ms=exp(middle) / 1e6,
        ci95_ms=(exp(middle - half) / 1e6, exp(middle + half) / 1e6) if isfinite(half) else None,
        half_width=expm1(half) if isfinite(half) else None,
    )


def unreached(found: SequentialInterval | None) -> list[str]:
    """A warning where the run ended before its interval was tight enough."""
    if found is None or found.reached:
        return []
    known = "" if found.half_width is None else f", and it is within {found.half_width:.2%}"
    return [
        f"next token: {found.pairs} pairs did not bring the interval of --until-ci within "
        f"{found.wanted:.2%}{known}; raise --num-iter"
    ]
