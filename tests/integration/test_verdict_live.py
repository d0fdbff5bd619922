"""The benchmark of live comparisons: real processes, of which one really is slower."""

from math import log
from pathlib import Path
from statistics import median

import msgspec
import pytest

from benchmarks.verdict_live import Compared, goals, light_sides, live_comparison, read


def test_a_planted_factor_is_found_and_kept(tmp_path: Path) -> None:
    """Half as long again per token, of which noise makes no third."""
    found = live_comparison("light", 1.5, [*light_sides(tmp_path), "LIGHT_SLOWER=1.5"])
    assert found.verdict == "slower"
    assert 5 <= len(found.values) <= 20
    assert log(1.2) < median(found.values) < log(1.9)
    (tmp_path / "kept.jsonl").write_bytes(msgspec.json.encode(found) + b"\n")
    assert read(tmp_path / "kept.jsonl") == [found]


def compared(planted: float, verdict: str) -> Compared:
    return Compared(
        design="light",
        planted=planted,
        verdict=verdict,
        values=[0.09, 0.10, 0.11],
        created="2026-11-24T04:42:54+00:00",
        seconds=3.0,
        load_average_1min=1.0,
    )


@pytest.mark.parametrize(
    ("verdict", "goal_is"), [("slower", "ok"), ("inconclusive", "MISSED"), ("same", "MISSED")]
)
def test_what_is_not_found_misses_the_goal(
    verdict: str, goal_is: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (goal,) = goals([compared(1.10, verdict)])
    assert goal.verdict == goal_is
    assert f"| light | +10% | 1 of 10 | 1 {verdict} | 3 | 1.0% | 1 s | 1.0 |" in capsys.readouterr().out


def test_a_false_verdict_of_two_misses_the_goal() -> None:
    (goal,) = goals([compared(1.0, "same"), compared(1.0, "faster")])
    assert (goal.figure, goal.verdict) == (50, "MISSED")
