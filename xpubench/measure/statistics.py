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


def median_ratio(base_ns: Rows, new_ns: Rows) -> tuple[float, float | None, float | None]:
    """The ratio of the medians, new / base, and its 95% bootstrap interval; one row an iteration.

    Whole iterations are resampled, on both sides independently. Where a side has one iteration alone, there
    is no interval. Neither side may be empty.
    """
    base, new = (
        np.concatenate([np.asarray(row, dtype=np.float64) for row in rows]) for rows in (base_ns, new_ns)
    )
    ratio = float(np.median(new) / np.median(base))
    if min(len(base_ns), len(new_ns)) < 2:
        return ratio, None, None
    ratios = _resampled_medians(new_ns, seed=1) / _resampled_medians(base_ns, seed=0)
    low, high = np.percentile(ratios, [2.5, 97.5]).tolist()
    return ratio, low, high


def _median_interval(rows: Rows) -> tuple[float, float]:
    low, high = np.percentile(_resampled_medians(rows, seed=0), [2.5, 97.5]).tolist()
    return low, high


def _resampled_medians(rows: Rows, seed: int) -> Array:
    """The median of each of RESAMPLES bootstrap samples, each of as many whole rows as there are.

    No sample is built: how often each row was drawn times its distribution function is the sample's, and
    its median lies where a bisection finds half of the weight. That is 20 times faster.
    """
    lengths = np.array([len(row) for row in rows], dtype=np.int32)
    pooled = np.concatenate([np.asarray(row, dtype=np.float64) for row in rows])
    order = np.argsort(pooled, kind="stable")
    values = pooled[order]
    # [k, i]: how many of row i's samples are among the k + 1 smallest of all.
    row_of = np.repeat(np.arange(len(rows)), lengths)[order]
    below = np.cumsum(row_of[:, None] == np.arange(len(rows)), axis=0, dtype=np.int32)
    draws = _draws(len(rows), seed)
    total = draws @ lengths
    # An even number of samples has two middle ones.
    return (
        _ranked(values, below, draws, (total + 1) // 2) + _ranked(values, below, draws, total // 2 + 1)
    ) / 2


def _ranked(values: Array, below: Counts, draws: Counts, rank: Counts) -> Array:
    """The rank-th smallest value (from 1) of each bootstrap sample."""
    low, high = np.zeros_like(rank), np.full_like(rank, len(values) - 1)
    while (low < high).any():
        middle = (low + high) // 2
        enough = np.einsum("ri,ri->r", draws, below[middle]) >= rank
        low, high = np.where(enough, low, middle + 1), np.where(enough, middle, high)
    return values[low]


@cache
def _draws(rows: int, seed: int) -> Counts:
    """[resample, row]: how often the row was drawn. Seeded, so that one record always has one interval."""
    picks = np.random.default_rng(seed).integers(0, rows, size=(RESAMPLES, rows))
    draws: Counts = (picks[:, :, None] == np.arange(rows)).sum(axis=1, dtype=np.int32)
    return draws


def ratio_of_medians(
    ours: list[list[float]], theirs: list[list[float]]
) -> tuple[float, tuple[float, float] | None]:
    """The median of our samples over the median of theirs, with a 95% bootstrap interval.

    Each list holds rounds, a round the samples of one process. Rounds are resampled in pairs, as what drifts
    hits both sides of a round alike, and samples within them. One round alone has no interval.
    """
    point = _pooled_median(ours) / _pooled_median(theirs)
    if len(ours) < 2:
        return point, None
    random = np.random.default_rng(0)

    def resampled(samples: list[float]) -> Array:
        return np.asarray(samples)[random.integers(0, len(samples), len(samples))]

    ratios = []
    for _ in range(RESAMPLES):
        picks = random.integers(0, len(ours), len(ours))
        own = np.concatenate([resampled(ours[pick]) for pick in picks])
        other = np.concatenate([resampled(theirs[pick]) for pick in picks])
        ratios.append(np.median(own) / np.median(other))
    low, high = np.percentile(ratios, [2.5, 97.5]).tolist()
    return point, (low, high)


def _pooled_median(rounds: list[list[float]]) -> float:
    return float(np.median(np.concatenate([np.asarray(samples) for samples in rounds])))


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
