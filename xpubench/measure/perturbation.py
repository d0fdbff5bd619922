"""How much longer a generation takes when each of its tokens is stamped, and how many pairs of generations it
takes to know that."""

from collections.abc import Sequence
from math import ceil, exp, log, sqrt
from statistics import fmean, median, stdev

from xpubench.record import Iteration

# The number of first pairs, whose standard deviation decides how many pairs are needed.
FIRST_PAIRS = 3
# The 97.5% quantile of Student's t with FIRST_PAIRS - 1 degrees of freedom.
QUANTILE = 4.302652729911275
# Both policies measure the same work. Above this ratio of their times, the stamps themselves cost time.
MOST = 1.05
# Half the width of the interval, as a natural logarithm, at which no further pairs are needed.
TIGHT = log(MOST)


def ratios(iterations: Sequence[Iteration]) -> list[float]:
    """The ratios of the end-to-end latencies of each pair, `every_token` / `end_to_end`, in order. Within a
    load, the generations under `end_to_end` except the last one belong to the first stamped generations, and
    the last one belongs to the last stamped one."""
    found = []
    for load in dict.fromkeys(one.load for one in iterations):
        stamped, bare = (
            [one.end_to_end_ns for one in iterations if (one.load, one.sync_policy) == (load, policy)]
            for policy in ("every_token", "end_to_end")
        )
        first = stamped[: len(bare) - 1] + stamped[-1:]
        found += [one / other for one, other in zip(first, bare, strict=False) if one > 0 and other > 0]
    return found


def pairs_needed(found: Sequence[float]) -> int | None:
    """The number of pairs with which the interval of `ratio_interval` reaches at most `TIGHT` to each side,
    from the ratios of the first pairs; None where there are fewer pairs than that."""
    if len(found) < FIRST_PAIRS:
        return None
    return max(FIRST_PAIRS, ceil((QUANTILE * _deviation(found) / TIGHT) ** 2))


def known(found: Sequence[float]) -> bool:
    """Whether the ratios so far suffice together with that of the last pair, which is always made. Ratios
    that the run would warn of never suffice, because a burst of other work may have disturbed all of the
    first pairs."""
    needed = pairs_needed(found)
    return needed is not None and len(found) + 1 >= needed and median(found) <= MOST


def ratio_interval(found: Sequence[float]) -> tuple[float, float] | None:
    """The ends of the 95% interval of the ratios' geometric mean, None with fewer than the first pairs.

    It is that of Stein (1945), "A two-sample test for a linear hypothesis whose power is independent of the
    variance": the standard deviation of the logarithms is that of the first pairs alone, which chose the
    number of all pairs, so that the interval holds for independent normal logarithms whatever was chosen.
    That all pairs are made where the ratios are above `MOST` changes this by less than a point.
    """
    if len(found) < FIRST_PAIRS:
        return None
    middle = fmean(map(log, found))
    half = QUANTILE * _deviation(found) / sqrt(len(found))
    return exp(middle - half), exp(middle + half)


def _deviation(found: Sequence[float]) -> float:
    return stdev(map(log, found[:FIRST_PAIRS]))
