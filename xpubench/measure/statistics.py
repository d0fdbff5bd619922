"""Summaries of raw samples with their intervals, and warnings about noisy ones."""

from collections.abc import Sequence
from statistics import median

import numpy as np

from xpubench.measure.bootstrap import Floats, resampled_medians
from xpubench.record import Statistic

MAX_VARIATION = 0.05
MAX_LOAD_SPREAD = 0.10
MIN_ITERATIONS = 5
P99_SAMPLES = 100
TREND_P_VALUE = 0.02
TREND_ITERATIONS = 5
TOO_FEW_LOADS = range(2, 5)


def summarize(samples_ns: list[list[int]], loads: Sequence[int] | None = None) -> Statistic:
    """Summarizes samples in nanoseconds, one row an iteration, in milliseconds; `loads` has the load of each
    row. The interval is a percentile bootstrap of the median that resamples loads and whole iterations within
    them, because the tokens of one iteration share its drift and the iterations of one load share the
    placement of its weights, so that neither are independent. There is no interval for a single iteration,
    nor for two to four loads, because resampling so few covers the median too seldom (docs/measuring.md)."""
    rows = np.asarray(samples_ns, dtype=np.float64) / 1e6
    pooled = rows.ravel()
    p50, p90, p99 = np.percentile(pooled, [50, 90, 99]).tolist()
    enough = len(rows) > 1 and len(set(loads or ())) not in TOO_FEW_LOADS
    return Statistic(
        median=p50,
        ci95=_interval(resampled_medians(rows, seed=0, groups=loads)) if enough else None,
        mean=float(pooled.mean()),
        stdev=float(pooled.std(ddof=1)) if pooled.size > 1 else None,
        p50=p50,
        p90=p90,
        p99=p99 if pooled.size >= P99_SAMPLES else None,
        n=int(pooled.size),
    )


def _interval(resampled: Floats) -> tuple[float, float]:
    low, high = np.percentile(resampled, [2.5, 97.5]).tolist()
    return low, high


def doubts(
    name: str, samples_ns: list[list[int]], statistic: Statistic, loads: Sequence[int] | None = None
) -> list[str]:
    """Warnings about a statistic: too much variation, or a trend over the iterations within the loads.
    `loads` has the load of each row."""
    found = []
    if statistic.stdev is not None and statistic.stdev > MAX_VARIATION * statistic.mean:
        variation = f"coefficient of variation {statistic.stdev / statistic.mean:.1%}"
        found.append(f"{name}: {variation} over {statistic.n} samples is above {MAX_VARIATION:.0%}")
    medians = [float(np.median(row)) for row in samples_ns]
    if loads is not None and len(set(loads)) > 1:
        of_load = load_medians(medians, loads)
        medians = [middle / of_load[load] for middle, load in zip(medians, loads, strict=True)]
    if len(medians) >= TREND_ITERATIONS and (change := _trend(medians)):
        found.append(f"{name}: a trend over the iterations, {change:+.1%} from the first to the last")
    return found


def load_medians(values: Sequence[float], loads: Sequence[int]) -> dict[int, float]:
    """The median of each load's values."""
    return {
        one: median(value for value, load in zip(values, loads, strict=True) if load == one)
        for one in dict.fromkeys(loads)
    }


def load_spread(samples_ns: list[list[int]], loads: Sequence[int]) -> float | None:
    """How far the slowest load's median lies above the fastest one's, as a share of the fastest; None for a
    single load."""
    found = load_medians([float(np.median(row)) for row in samples_ns], loads).values()
    return max(found) / min(found) - 1 if len(found) > 1 and min(found) > 0 else None


def different_loads(name: str, spread: float | None) -> list[str]:
    """A warning where the loads of a run differ by more than most changes that one looks for."""
    if spread is None or spread <= MAX_LOAD_SPREAD:
        return []
    return [
        f"{name}: the slowest load is {spread:.0%} above the fastest, beyond {MAX_LOAD_SPREAD:.0%}: "
        "where the weights lie in memory matters here, and huge pages may help"
    ]


def too_few(iterations: int) -> list[str]:
    """A warning about a run with too few measured iterations to judge its noise."""
    needed = f"at least {MIN_ITERATIONS} are needed to judge the noise; raise --num-iter"
    return [] if iterations >= MIN_ITERATIONS else [f"measured iterations: {iterations}; {needed}"]


def _trend(medians: list[float]) -> float | None:
    """The relative change over the iterations where Kendall's tau finds one, else None."""
    from scipy.stats import kendalltau  # 0.5 s to import

    if len(set(medians)) < 2 or kendalltau(range(len(medians)), medians).pvalue >= TREND_P_VALUE:
        return None
    return medians[-1] / medians[0] - 1
