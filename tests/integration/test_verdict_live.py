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


def compared(planted: float, verdict: str, deviation: float = 0.01) -> Compared:
    return Compared(
        design="light",
        planted=planted,
        verdict=verdict,
        values=[0.1 - deviation, 0.1, 0.1 + deviation],
        created="2026-11-24T04:42:54+00:00",
        seconds=3.0,
        load_average_1min=1.0,
    )


def told(found: list[Compared]) -> list[str]:
    """The verdicts on the goals that each planted factor or none has: on what is missed, and what is wrong,
    without those that recorded blocks give."""
    return [goal.verdict for goal in goals(found) if " live" in goal.name]


@pytest.mark.parametrize("planted", [1.03, 1.10])
@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        (["slower"] * 10, ["ok", "ok"]),
        (["slower"] * 9 + ["inconclusive"], ["ok", "ok"]),
        (["slower"] * 8 + ["inconclusive"] * 2, ["MISSED", "ok"]),
        (["slower"] * 9 + ["same"], ["ok", "MISSED"]),
        (["slower"] * 9 + ["faster"], ["ok", "MISSED"]),
        # What is still wanted may turn out either way.
        (["slower"] * 8, ["unclear", "unclear"]),
        (["inconclusive"], ["unclear", "unclear"]),
        (["inconclusive"] * 2, ["MISSED", "unclear"]),
    ],
)
def test_goals_on_planted_factors(planted: float, verdicts: list[str], expected: list[str]) -> None:
    assert told([compared(planted, verdict) for verdict in verdicts]) == expected


def test_a_noisy_comparison_need_not_find_but_must_not_be_wrong() -> None:
    found = [compared(1.03, "slower")] * 10
    assert told([*found, compared(1.03, "inconclusive", deviation=0.05)]) == ["ok", "ok"]
    assert told([*found, compared(1.03, "same", deviation=0.05)]) == ["ok", "MISSED"]
    # It is none of the ten quiet ones that are wanted.
    assert told([*found[:9], compared(1.03, "inconclusive", deviation=0.05)])[0] == "unclear"


def test_goals_on_false_verdicts() -> None:
    same, false = compared(1.0, "same"), compared(1.0, "faster")
    assert told([same] * 399) == ["unclear"]
    assert told([same] * 398 + [false]) == ["unclear"]
    assert told([same] * 388 + [false] * 12) == ["ok"]
    assert told([same] * 387 + [false] * 13) == ["MISSED"]
    assert told([false]) == ["unclear"]
    assert told([false] * 13) == ["MISSED"]


def test_the_table_tells_how_many_are_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    told([compared(1.10, "same")])
    assert "| light | +10% | 1, 10 wanted | 1 same | 3 | 1.0% | 1 s | 1.0 |" in capsys.readouterr().out
