"""The verdict on the items of two accuracy runs: how many were gained and lost, whether chance explains it,
and what these items, or more of them, would show."""

from bisect import bisect_left
from functools import cache
from math import ceil, floor, sqrt

from xpubench.compare.intervals import POWER
from xpubench.compare.judgement import Judgement, Verdict
from xpubench.measure.sequential import ALPHA

# This many standard errors to each side of a figure hold 95% of the normal distribution.
Z95 = 1.96
MOST_ITEMS = 10_000_000
# The detectable loss is searched in hundredths of a point.
STEPS_OF_A_POINT = 100


def judge_items(gained: int, lost: int, n: int, limit: float) -> Judgement:
    """The verdict on `n` items of which `gained` are right now and `lost` were right before. `same` where the
    whole 95% interval of the difference is inside the limit, in percentage points; else a change where
    McNemar's exact test finds one at 5%; else inconclusive.

    The interval is the adjusted Wald interval of Bonett and Price (2012), which adds one item to each of the
    two counts and two to all.
    """
    verdict = _verdict(gained, lost, n, limit)
    reason = f"the interval reaches beyond {limit:g} points"
    if verdict == "same":
        reason = f"the whole interval is within {limit:g} points"
    elif verdict == "inconclusive":
        reason += ", and chance explains it"
    low, high = _ends(gained, lost, n)
    p_value = mcnemar(gained, lost)
    return Judgement(
        figure="accuracy",
        unit="points",
        verdict=verdict,
        reason=f"{reason}; McNemar's p {p_value:.3g}",
        change=100 * (gained - lost) / n,
        low=low,
        high=high,
        limit=limit,
        detectable=_detectable(gained + lost, n, limit),
        to_decide=_items_to_decide(gained, lost, n, limit) if verdict == "inconclusive" else None,
        p_value=p_value,
        method="McNemar's test",
    )


def mcnemar(gained: int, lost: int) -> float:
    """The two-sided exact p-value of so many items gained and lost, which chance would share equally: the
    binomial test of McNemar (1947)."""
    from scipy.special import bdtr

    return min(1.0, 2 * float(bdtr(min(gained, lost), gained + lost, 0.5)))


def _verdict(gained: int, lost: int, n: int, limit: float) -> Verdict:
    if max(map(abs, _ends(gained, lost, n))) <= limit:
        return "same"
    if mcnemar(gained, lost) >= ALPHA:
        return "inconclusive"
    return "better" if gained > lost else "worse"


def _ends(gained: int, lost: int, n: int) -> tuple[float, float]:
    """The ends of the 95% interval of the difference, in percentage points."""
    more, less = (gained + 1) / (n + 2), (lost + 1) / (n + 2)
    half = Z95 * sqrt((more + less - (more - less) ** 2) / (n + 2))
    return 100 * (more - less - half), 100 * (more - less + half)


def _items_to_decide(gained: int, lost: int, n: int, limit: float) -> int | None:
    """The number of items from which there would be a verdict where as large shares of them are gained and
    lost; None for more than `MOST_ITEMS`."""

    def decides(items: int) -> bool:
        more, less = (round(count * items / n) for count in (gained, lost))
        return _verdict(more, less, items, limit) != "inconclusive"

    enough = 2 * n
    while not decides(enough):
        enough *= 2
        if enough > MOST_ITEMS:
            return None
    numbers = range(n + 1, enough + 1)
    return numbers[bisect_left(numbers, True, key=decides)]


@cache
def _detectable(differing: int, n: int, limit: float) -> float | None:
    """The least loss in percentage points that nine of ten repeats on `n` items would call worse; None where
    they would not call the loss of all items that."""
    all_items = 100 * STEPS_OF_A_POINT
    losses = range(1, all_items + 1)

    def detects(loss: int) -> bool:
        return _chance_of_worse(loss / all_items, differing / n, n, limit) >= POWER

    place = bisect_left(losses, True, key=detects)
    return losses[place] / STEPS_OF_A_POINT if place < len(losses) else None


def _chance_of_worse(loss: float, differing: float, n: int, limit: float) -> float:
    """The probability that a loss of that share of the items is called worse, where the share that differs is
    the present one or, where the loss is larger, all that differ are lost. How many differ, and how many of
    these are lost, are binomial."""
    import numpy as np
    from scipy.special import bdtr

    share = max(differing, loss)
    away = 4 * sqrt(n * share * (1 - share))
    totals = np.arange(max(0, floor(n * share - away)), min(n, ceil(n * share + away)) + 1)
    weights = np.diff(bdtr(totals, n, share), prepend=0.0)
    needed = np.array([_least_lost(total, n, limit) for total in totals.tolist()])
    return float(weights @ (1 - bdtr(needed - 1, totals, (1 + loss / share) / 2)))


@cache
def _least_lost(differing: int, n: int, limit: float) -> int:
    """Of so many items that differ, the least number of lost ones that is called worse; where no number is,
    one more than there are."""
    numbers = range(differing // 2 + 1, differing + 1)
    return numbers.start + bisect_left(
        numbers, True, key=lambda lost: _verdict(differing - lost, lost, n, limit) == "worse"
    )
