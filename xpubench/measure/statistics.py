"""Summaries of raw samples, with their interval and what speaks against trusting them."""

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from xpubench.record import Statistic

RESAMPLES = 2000
MAX_VARIATION = 0.05
MIN_ITERATIONS = 5
P99_SAMPLES = 100
TREND_P_VALUE = 0.02
TREND_ITERATIONS = 5

Array = NDArray[np.float64]
Counts = NDArray[np.int32]
Rows = Sequence[Sequence[float]] | Array


def summarize(samples_ns: list[list[int]]) -> Statistic:
    """Summarizes samples in nanoseconds, one row an iteration, in milliseconds.

    The interval is a percentile bootstrap of the median that resamples whole iterations: the tokens of
    one iteration share its drift and are not independent. One iteration alone has no interval.
    """
    rows = np.asarray(samples_ns, dtype=np.float64) / 1e6
    pooled = rows.ravel()
    p50, p90, p99 = np.percentile(pooled, [50, 90, 99]).tolist()
    return Statistic(
        median=p50,
        ci95=_median_interval(rows) if len(rows) > 1 else None,
        mean=float(pooled.mean()),
        stdev=float(pooled.std(ddof=1)) if pooled.size > 1 else None,
        p50=p50,
        p90=p90,
        p99=p99 if pooled.size >= P99_SAMPLES else None,
        n=int(pooled.size),
    )


def median_ratio(
    base_ns: Rows, new_ns: Rows, *, paired: bool = False
) -> tuple[float, float | None, float | None]:
    """The ratio of the medians, new / base, and its 95% bootstrap interval.

    A row is what drifts together: an iteration, or where runs were repeated all samples of a round. Whole
    rows are resampled, on both sides independently, or `paired` where row by row both sides met the same
    drift. Where a side has one row alone, there is no interval. Neither side may be empty.
    """
    base, new = (
        np.concatenate([np.asarray(row, dtype=np.float64) for row in rows]) for rows in (base_ns, new_ns)
    )
    ratio = float(np.median(new) / np.median(base))
    if min(len(base_ns), len(new_ns)) < 2:
        return ratio, None, None
    ratios = _resampled_medians(new_ns, seed=0 if paired else 1) / _resampled_medians(base_ns, seed=0)
    low, high = np.percentile(ratios, [2.5, 97.5]).tolist()
    return ratio, low, high


def _median_interval(rows: Rows) -> tuple[float, float]:
    low, high = np.percentile(_resampled_medians(rows, seed=0), [2.5, 97.5]).tolist()
    return low, high


def _resampled_medians(rows: Rows, seed: int) -> Array:
    """The median of each of RESAMPLES bootstrap samples, each of as many whole rows as there are.

    No sample is built: how often each row was drawn times its distribution function is the sample's, and
    its median lies where a bisection finds half of the weight, between the least and the largest of the rows'
    own medians. That is 30 times faster.
    """
    lengths = np.array([len(row) for row in rows], dtype=np.int32)
    ordered = [np.sort(np.asarray(row, dtype=np.float64)) for row in rows]
    pooled = np.concatenate(ordered)
    order = np.argsort(pooled, kind="stable")
    values = pooled[order]
    first = np.searchsorted(values, min(row[(len(row) - 1) // 2] for row in ordered))
    last = np.searchsorted(values, max(row[len(row) // 2] for row in ordered), "right") - 1
    # [k, i]: how many of row i's samples are among the k + 1 smallest of all.
    row_of = np.repeat(np.arange(len(rows)), lengths)[order]
    below = np.cumsum(row_of[:, None] == np.arange(len(rows)), axis=0, dtype=np.int32)
    draws = _draws(len(rows), seed)
    total = draws @ lengths
    lower = _ranked(below, draws, (total + 1) // 2, np.full_like(total, first), np.full_like(total, last))
    # An even number of samples has two middle ones, often side by side.
    near = np.minimum(lower + 1, last)
    upper = np.where(_weight(below, draws, lower) > total // 2, lower, near)
    far = np.flatnonzero(_weight(below, draws, upper) <= total // 2)
    ends = np.full_like(total[far], last)
    upper[far] = _ranked(below, draws[far], total[far] // 2 + 1, upper[far], ends)
    return (values[lower] + values[upper]) / 2


def _ranked(below: Counts, draws: Counts, rank: Counts, low: Counts, high: Counts) -> Counts:
    """Where, from `low` to `high`, the rank-th smallest value (from 1) of each bootstrap sample is."""
    while (low < high).any():
        middle = (low + high) // 2
        enough = _weight(below, draws, middle) >= rank
        low, high = np.where(enough, low, middle + 1), np.where(enough, middle, high)
    return low


def _weight(below: Counts, draws: Counts, places: Counts) -> Counts:
    """How many samples of each bootstrap sample are at the place or before it."""
    found: Counts = np.einsum("ri,ri->r", draws, below[places])
    return found


@cache
def _draws(rows: int, seed: int) -> Counts:
    """[resample, row]: how often the row was drawn. Seeded, so that one record always has one interval."""
    picks = np.random.default_rng(seed).integers(0, rows, size=(RESAMPLES, rows))
    draws: Counts = (picks[:, :, None] == np.arange(rows)).sum(axis=1, dtype=np.int32)
    return draws


def doubts(name: str, samples_ns: list[list[int]], statistic: Statistic) -> list[str]:
    """Warnings about a statistic: too much variation, a trend over the iterations."""
    found = []
    if statistic.stdev is not None and statistic.stdev > MAX_VARIATION * statistic.mean:
        found.append(
            f"{name}: coefficient of variation {statistic.stdev / statistic.mean:.1%} over {statistic.n} "
            f"samples is above {MAX_VARIATION:.0%}"
        )
    if len(samples_ns) >= TREND_ITERATIONS and (
        change := _trend([float(np.median(row)) for row in samples_ns])
    ):
        found.append(f"{name}: a trend over the iterations, {change:+.1%} from the first to the last")
    return found


def too_few(iterations: int) -> list[str]:
    """A warning about a run of so few measured iterations that its noise cannot be judged."""
    if iterations >= MIN_ITERATIONS:
        return []
    return [
        f"measured iterations: {iterations}; at least {MIN_ITERATIONS} are needed "
        "to judge the noise; raise --num-iter"
    ]


def _trend(medians: list[float]) -> float | None:
    """The relative change over the iterations where Kendall's tau finds one, else None."""
    from scipy.stats import kendalltau  # 0.5 s to import

    if len(set(medians)) < 2 or kendalltau(range(len(medians)), medians).pvalue >= TREND_P_VALUE:
        return None
    return medians[-1] / medians[0] - 1
