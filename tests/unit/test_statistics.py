"""The statistics of raw samples, and what they doubt."""

import numpy as np
import pytest

from xpubench.measure.bootstrap import medians_by_definition
from xpubench.measure.statistics import doubts, summarize, too_few

MS = 1_000_000


def test_percentiles_in_milliseconds() -> None:
    statistic = summarize([[value * MS] for value in range(1, 101)])
    assert (statistic.median, statistic.p50, statistic.n) == (50.5, 50.5, 100)
    assert statistic.p90 == pytest.approx(90.1)
    assert statistic.p99 == pytest.approx(99.01)
    assert statistic.mean == pytest.approx(50.5)
    assert statistic.stdev == pytest.approx(np.std(np.arange(1, 101), ddof=1))


def test_no_p99_below_a_hundred_samples_and_no_interval_of_one_iteration() -> None:
    statistic = summarize([[MS] * 99])
    assert statistic.p99 is None
    assert statistic.ci95 is None


def test_the_interval_covers_the_median_of_its_source() -> None:
    source = np.random.default_rng(1)
    covered = 0
    for _ in range(40):
        rows = source.normal(10 * MS, MS, size=(20, 1)).astype(int).tolist()
        low, high = summarize(rows).ci95 or (0.0, 0.0)
        covered += low <= 10 <= high
    assert covered >= 34


def test_the_interval_resamples_iterations_and_not_their_tokens() -> None:
    """Ten iterations, each steady in itself, that differ by 10%: the tokens of one are no new evidence."""
    levels = [[value * MS] * 100 for value in (10, 11) * 5]
    low, high = summarize(levels).ci95 or (0.0, 0.0)
    assert (low, high) == (10, 11)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([[10 * MS], [12 * MS], [9 * MS], [13 * MS], [10 * MS]], "coefficient of variation"),
        ([[(1000 + step) * MS // 100] for step in range(12)], "trend"),
        ([[(1000 + step) * MS // 100] for step in range(5)], "trend"),
    ],
)
def test_doubts(rows: list[list[int]], words: str) -> None:
    assert any(words in line for line in doubts("next token", rows, summarize(rows)))


def test_a_steady_run_is_not_doubted() -> None:
    rows = [[10 * MS + noise] for noise in (1, 5, 3, 4, 2, 6)]
    assert doubts("next token", rows, summarize(rows)) == []
    assert too_few(6) == []
    assert too_few(2) != []


def test_the_interval_is_of_the_bootstrap_medians() -> None:
    rows = np.random.default_rng(2).integers(MS, 9 * MS, size=(9, 31))
    expected = np.percentile(medians_by_definition(rows / MS, seed=0), [2.5, 97.5])
    assert summarize(rows.tolist()).ci95 == tuple(expected.tolist())
