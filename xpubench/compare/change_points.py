"""The places where a series changed its level, found by rank sums, and its drift."""

from functools import cache
from itertools import pairwise

import msgspec
import numpy as np

from xpubench.measure.bootstrap import Floats

# Fewer runs than these cannot show a step by ranks at this level.
MIN_RUNS = 12
LEVEL = 0.01
PERMUTATIONS = 2000


class Changes(msgspec.Struct, frozen=True):
    """The changes of a series: the places at which a new level begins with the size of each step, or else a
    drift and its size from the first run to the last. Sizes are in the series' unit."""

    steps: dict[int, float] = {}
    drift: float | None = None


def changes(values: Floats, least: float) -> Changes:
    """The steps of at least `least` in a series of shape [runs], or its drift. A step is where the cumulated
    sum of the ranks is farther from that of a random order than in all but 1% of permutations; each part is
    then searched again (binary segmentation). Where a line explains the series better than the steps do, or
    where none is that large than one level and than the likeliest step, it is a drift."""
    if len(values) < MIN_RUNS:
        return Changes()
    likeliest = _significant(values)
    if likeliest is None:
        return Changes()
    places = _large_enough(values, _places(values, 0, least), least)
    rivals = [places] if places else [[], [likeliest]]
    line = np.polyval(np.polyfit(np.arange(len(values)), values, 1), np.arange(len(values)))
    if _cost(values - line, 2) < min(_cost_of_levels(values, rival) for rival in rivals):
        drift = float(line[-1] - line[0])
        return Changes(drift=drift if abs(drift) >= least else None)
    return Changes(steps=dict(zip(places, _sizes(values, places), strict=True)))


def _places(values: Floats, start: int, least: float) -> list[int]:
    """The places of the steps in a part of a series that begins at `start`, in order."""
    place = _significant(values)
    if place is None or abs(np.median(values[place:]) - np.median(values[:place])) < least:
        return []
    before, after = _places(values[:place], start, least), _places(values[place:], start + place, least)
    return [*before, start + place, *after]


def _large_enough(values: Floats, places: list[int], least: float) -> list[int]:
    """The places without those whose step is too small. A later split of a part may bring the medians of
    neighbouring levels together, so that the smallest step is left out until all are large enough."""
    sizes = [abs(size) for size in _sizes(values, places)]
    if not sizes or min(sizes) >= least:
        return places
    smallest = sizes.index(min(sizes))
    return _large_enough(values, [*places[:smallest], *places[smallest + 1 :]], least)


def _sizes(values: Floats, places: list[int]) -> list[float]:
    """The steps between the medians of neighbouring levels, which begin at the places."""
    medians = [float(np.median(level)) for level in np.split(values, places)]
    return [after - before for before, after in pairwise(medians)]


def _significant(values: Floats) -> int | None:
    """The place of the likeliest step, None where chance explains it."""
    n = len(values)
    if n < 2:
        return None
    order = np.argsort(values, kind="stable")
    ranks = np.empty(n)
    ranks[order] = np.arange(n)
    # Equal values share their mean rank.
    _, inverse = np.unique(values, return_inverse=True)
    ranks = (np.bincount(inverse, ranks) / np.bincount(inverse))[inverse]
    sizes = _sums(ranks[None])[0]
    return int(np.argmax(sizes)) + 1 if sizes.max() > _critical(n) else None


def _sums(ranks: Floats) -> Floats:
    """[series, place]: how far the sum of the ranks before each place, from 1, lies from its mean, in
    standard errors up to a constant. An outlier has no larger rank than any other extreme, so that a few
    runs at an end of the series are no step."""
    n = ranks.shape[1]
    count = np.arange(1, n)
    away = np.abs(np.cumsum(ranks - ranks.mean(axis=1, keepdims=True), axis=1)[:, :-1])
    return np.asarray(away / np.sqrt(count * (n - count)))


@cache
def _critical(n: int) -> float:
    """The size of the largest sum that 1% of the permutations of n ranks exceed. Ties only lower it."""
    orders = np.random.default_rng(n).permuted(
        np.tile(np.arange(n, dtype=np.float64), (PERMUTATIONS, 1)), axis=1
    )
    return float(np.quantile(_sums(orders).max(axis=1), 1 - LEVEL))


def _cost_of_levels(values: Floats, places: list[int]) -> float:
    """The cost of levels that begin at the places and last until the next."""
    residuals = [level - np.median(level) for level in np.split(values, places)]
    return _cost(np.concatenate(residuals), 2 * len(places) + 1)


def _cost(residuals: Floats, parameters: int) -> float:
    """Schwarz's criterion with residuals of Laplace's distribution, which bears outliers."""
    n = len(residuals)
    return float(n * np.log(np.abs(residuals).mean() + 1e-12) + parameters / 2 * np.log(n))
