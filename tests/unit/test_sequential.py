"""The bounds that hold however often one looks."""

import numpy as np
import pytest
from scipy.stats import t

from xpubench.compare.live import judge_blocks, running_verdicts
from xpubench.measure.sequential import DECIDES, Sided, always_valid_halves, item_capitals


def test_the_interval_holds_at_all_looks_together() -> None:
    """Of 1,000 series that are looked at 60 times, at most 5% and what chance adds are ever missed; Student's
    interval at each look misses a third."""
    differences = np.random.default_rng(1).normal(0, 1, (1000, 60))
    means = np.cumsum(differences, axis=1) / np.arange(1, 61)
    halves = always_valid_halves(differences)
    assert np.isinf(halves[:, :4]).all()
    assert np.isfinite(halves[:, 4:]).all()
    assert (np.abs(means) > halves).any(axis=1).mean() < 0.065
    deviations = np.array([[row[:n].std(ddof=1) / n**0.5 for n in range(5, 61)] for row in differences])
    each = t.ppf(0.975, np.arange(4, 60)) * deviations
    assert (np.abs(means[:, 4:]) > each).any(axis=1).mean() > 0.2


def test_the_interval_by_hand() -> None:
    """With n = 5: k = 6, q = (6 / 0.05^2)^(1/5), half = s / sqrt(5) sqrt(4 (q - 1) / (1 - q / 6))."""
    differences = np.array([[0.1, 0.3, 0.2, 0.5, 0.4]])
    root = (6 / 0.05**2) ** 0.2
    expected = differences.std(ddof=1) / 5**0.5 * (4 * (root - 1) / (1 - root / 6)) ** 0.5
    assert always_valid_halves(differences)[0, 4] == pytest.approx(expected)


@pytest.mark.parametrize(("slow", "verdict"), [(0.0, "same"), (0.1, "slower"), (-0.1, "faster")])
def test_blocks_decide(slow: float, verdict: str) -> None:
    differences = slow + np.random.default_rng(2).normal(0, 0.01, (1, 30))
    verdicts = running_verdicts(differences, 0.03)[0]
    assert set(verdicts[:4]) == {"inconclusive"}
    assert verdicts[-1] == verdict


def orders(
    lost: int, gained: int, total: int, count: int
) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    items = np.zeros(total)
    items[:lost], items[lost : lost + gained] = -1, 1
    return np.random.default_rng(3).permuted(np.tile(items, (count, 1)), axis=1)


@pytest.mark.parametrize(("lost", "side"), [(45, "within"), (45, "beyond")])
def test_a_loss_at_the_limit_is_decided_wrongly_in_one_of_twenty(lost: int, side: Sided) -> None:
    """3 points of 1,000 items."""
    found = item_capitals(orders(lost, 15, 1000, 400), 1000, 0.03, side) >= DECIDES
    assert found[:, :-1].any(axis=1).mean() <= 0.07


@pytest.mark.parametrize(("lost", "side"), [(20, "within"), (150, "beyond")])
def test_a_loss_away_from_the_limit_is_decided_early(lost: int, side: Sided) -> None:
    found = item_capitals(orders(lost, 20, 2000, 50), 2000, 0.03, side) >= DECIDES
    assert found.any(axis=1).all()
    assert np.median(found.argmax(axis=1)) < 1000


@pytest.mark.parametrize("slow", [0.0, 0.02, -0.05])
def test_one_series_is_judged_as_many_are(slow: float) -> None:
    """What `make bench-verdict` simulates is what a live comparison says after each block."""
    values = slow + np.random.default_rng(4).normal(0, 0.02, 30)
    told = [judge_blocks("next_token", values[:n].tolist(), 0.03).verdict for n in range(1, 31)]
    assert told == running_verdicts(values[None], np.log(1.03))[0].tolist()


def test_as_many_blocks_as_it_says_decide() -> None:
    values = [0.04, -0.03, 0.01, 0.05, -0.04, 0.02]
    judged = judge_blocks("next_token", values, 0.03)
    assert judged.verdict == "inconclusive"
    assert judged.to_decide is not None
    # A change that is found in nine of ten repeats is more than half an interval away from none.
    assert judged.detectable is not None
    assert judged.high is not None
    assert judged.change is not None
    assert judged.detectable > judged.high / judged.change - 1
    more = values * (2 + judged.to_decide // len(values))
    assert judge_blocks("next_token", more, 0.03).verdict == "same"
