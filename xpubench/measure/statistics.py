"""Summaries of raw samples with their intervals, and warnings about noisy ones."""

import numpy as np

from xpubench.measure.bootstrap import Floats, SampleRows, resampled_medians
from xpubench.record import Statistic

MAX_VARIATION = 0.05
MIN_ITERATIONS = 5
P99_SAMPLES = 100
TREND_P_VALUE = 0.02
TREND_ITERATIONS = 5


def summarize(samples_ns: list[list[int]]) -> Statistic:
    """Summarizes samples in nanoseconds, one row an iteration, in milliseconds.

    The interval is a percentile bootstrap of the median that resamples whole iterations, because the tokens
    of one iteration share its drift and are not independent. One iteration alone has no interval.
    """
    rows = np.asarray(samples_ns, dtype=np.float64) / 1e6
    pooled = rows.ravel()
    p50, p90, p99 = np.percentile(pooled, [50, 90, 99]).tolist()
    return Statistic(
        median=p50,
        ci95=_interval(resampled_medians(rows, seed=0)) if len(rows) > 1 else None,
        mean=float(pooled.mean()),
        stdev=float(pooled.std(ddof=1)) if pooled.size > 1 else None,
        p50=p50,
        p90=p90,
        p99=p99 if pooled.size >= P99_SAMPLES else None,
        n=int(pooled.size),
    )


def median_ratio(
    base_ns: SampleRows, new_ns: SampleRows, *, paired: bool = False
) -> tuple[float, float | None, float | None]:
    """The ratio of the medians, new / base, and its 95% bootstrap interval.

    A row holds the samples that share their drift: those of an iteration or, where runs were repeated, of a
    round. Whole rows are resampled, on both sides independently, or `paired` where each row of one side
    shares its drift with the same row of the other. No interval where a side has only one row. No side may be
    empty.
    """
    base, new = (float(np.median(np.concatenate(list(rows)))) for rows in (base_ns, new_ns))
    ratio = new / base
    if min(len(base_ns), len(new_ns)) < 2:
        return ratio, None, None
    ratios = resampled_medians(new_ns, seed=0 if paired else 1) / resampled_medians(base_ns, seed=0)
    return ratio, *_interval(ratios)


def _interval(resampled: Floats) -> tuple[float, float]:
    low, high = np.percentile(resampled, [2.5, 97.5]).tolist()
    return low, high


def doubts(name: str, samples_ns: list[list[int]], statistic: Statistic) -> list[str]:
    """Warnings about a statistic: too much variation, a trend over the iterations."""
    found = []
    if statistic.stdev is not None and statistic.stdev > MAX_VARIATION * statistic.mean:
        variation = f"coefficient of variation {statistic.stdev / statistic.mean:.1%}"
        found.append(f"{name}: {variation} over {statistic.n} samples is above {MAX_VARIATION:.0%}")
    medians = [float(np.median(row)) for row in samples_ns]
    if len(medians) >= TREND_ITERATIONS and (change := _trend(medians)):
        found.append(f"{name}: a trend over the iterations, {change:+.1%} from the first to the last")
    return found


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
