"""A model's history: steps, outliers, drift, and the forms for people and machines."""

import csv
import io
import json
import random
from datetime import datetime
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.conftest import CommandLine
from tests.records import accuracy_record, latency_record, subject, write
from xpubench.compare.change_points import changes

LLAMA = "meta-llama/Llama-2-7b-hf"


def days(directory: Path, levels: list[float], noise: float = 0.005) -> None:
    """A run each day that takes so long, with some noise."""
    source = random.Random(1)
    for day, one in enumerate(levels, 1):
        record = latency_record(
            subject(LLAMA),
            next_ms=one * source.gauss(1, noise),
            iterations=2,
            seed=day,
            created=f"2026-{1 + day // 28:02}-{1 + day % 28:02}T00:00:00Z",
        )
        write(directory, record, f"run-{day}")


def history(xpubench: CommandLine, directory: Path) -> dict[str, Any]:
    done = xpubench("history", directory, "--model", LLAMA, "--format", "json")
    assert done.code == 0, done.err
    found: dict[str, Any] = json.loads(done.out)
    return found


def marked(found: dict[str, Any]) -> list[tuple[int, str]]:
    """The places and the names of the changes."""
    changes = [point["change"] for point in found["points"]]
    return [(place, change) for place, change in enumerate(changes) if change != "none"]


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        ([20.0] * 30, []),
        ([20.0] * 15 + [21.0] * 15, [(15, "slower")]),
        ([20.0] * 12 + [18.0] * 12 + [22.0] * 12, [(12, "faster"), (24, "slower")]),
        # One outlier is no level, and nothing returns after it.
        ([20.0] * 14 + [30.0] + [20.0] * 15, []),
        ([20.0] * 28 + [30.0, 30.0], []),
        # A step of less than 2% is not marked.
        ([20.0] * 15 + [20.2] * 15, []),
    ],
    ids=["flat", "step", "two steps", "outlier", "outliers at the end", "small step"],
)
def test_steps(
    xpubench: CommandLine, tmp_path: Path, levels: list[float], expected: list[tuple[int, str]]
) -> None:
    days(tmp_path, levels)
    found = history(xpubench, tmp_path)
    assert marked(found) == expected
    (series,) = found["series"]
    assert (series["runs"], series["steps"], series["drift"]) == (len(levels), len(expected), None)


def test_a_flat_series_is_not_marked_whatever_its_noise(xpubench: CommandLine, tmp_path: Path) -> None:
    days(tmp_path, [20.0] * 50, noise=0.05)
    found = history(xpubench, tmp_path)
    assert (marked(found), found["series"][0]["drift"]) == ([], None)


def test_a_step_has_its_size(xpubench: CommandLine, tmp_path: Path) -> None:
    days(tmp_path, [20.0] * 15 + [22.0] * 15)
    (step,) = [point["step"] for point in history(xpubench, tmp_path)["points"] if point["step"]]
    assert step == pytest.approx(1.1, abs=0.01)


def test_a_slow_change_is_drift_and_no_step(xpubench: CommandLine, tmp_path: Path) -> None:
    days(tmp_path, [20.0 * (1 + 0.003 * day) for day in range(40)])
    found = history(xpubench, tmp_path)
    (series,) = found["series"]
    assert marked(found) == []
    assert series["drift"] == pytest.approx(1 + 0.003 * 39, abs=0.02)
    assert (
        "drift from the first to the last run, ratio 1.1"
        in xpubench("history", tmp_path, "--model", LLAMA).out
    )


def test_an_abrupt_step_that_is_too_small_to_mark_is_no_drift() -> None:
    """Of 100 series of 60 runs with a step of 1.5% at 0.5% noise, at most a few are called drift. Lines from
    3% up at the same noise are."""
    source = np.random.default_rng(1)
    days = np.arange(60)

    def drifts(shape: NDArray[np.float64]) -> list[float]:
        found = (changes(shape + source.normal(0, 0.005, 60), log(1.02)) for _ in range(100))
        return [one.drift for one in found if one.drift is not None]

    assert len(drifts(np.where(days < 30, 0.0, log(1.015)))) <= 5
    sizes = drifts(np.linspace(0.0, log(1.03), 60))
    assert len(sizes) >= 95
    assert float(np.median(sizes)) == pytest.approx(log(1.03), abs=0.003)


def test_no_step_is_marked_that_a_later_one_made_too_small() -> None:
    """A first split after 30 runs of 45 at one level separates their median from that of the 15 and 15 runs
    after it; once these are split too, the levels before and after the first place are 1% apart."""
    source = np.random.default_rng(1)
    levels = np.log(np.repeat([100.0, 101.0, 120.0], [30, 15, 15]))
    steps = [changes(levels + source.normal(0, 0.003, 60), log(1.02)).steps for _ in range(50)]
    assert [list(one) for one in steps].count([45]) >= 45
    assert min(abs(size) for one in steps for size in one.values()) >= log(1.02)


def test_a_short_series_says_that_it_is_short(xpubench: CommandLine, tmp_path: Path) -> None:
    days(tmp_path, [20.0] * 4 + [30.0] * 4)
    found = history(xpubench, tmp_path)
    assert marked(found) == []
    assert found["series"][0]["note"].startswith("8 of the 12 runs that a step needs")


def test_a_copy_is_no_run_of_the_series(xpubench: CommandLine, tmp_path: Path) -> None:
    """Six runs in three copies are six, of which none can show a step."""
    for name in ("a", "b", "c"):
        days(tmp_path / name, [20.0] * 3 + [24.0] * 3)
    sides = [tmp_path / name for name in ("a", "b", "c")]
    done = xpubench("history", *sides, "--model", LLAMA, "--format", "json")
    found = json.loads(done.out)
    assert [series["runs"] for series in found["series"]] == [6]
    assert (marked(found), len(found["left_out"])) == ([], 12)


def test_accuracy_and_latency_are_series_of_their_own(xpubench: CommandLine, tmp_path: Path) -> None:
    for day in range(24):
        made = f"2026-01-{1 + day:02}T00:00:00Z"
        acc = 0.74 if day < 12 else 0.70
        record = accuracy_record(subject(LLAMA), acc=acc + 0.001 * (day % 3), items=1000, created=made)
        write(tmp_path, record, f"accuracy-{day}")
    days(tmp_path, [20.0] * 12)
    write(tmp_path, latency_record(subject("other")))
    found = history(xpubench, tmp_path)
    assert sorted(series["runs"] for series in found["series"]) == [12, 24]
    ((_, change),) = marked(found)
    assert change == "worse"
    (step,) = [point["step"] for point in found["points"] if point["step"]]
    assert step == pytest.approx(-4, abs=0.2)


def test_the_csv_has_what_apache_otava_reads(xpubench: CommandLine, tmp_path: Path) -> None:
    """A time that it parses, a number in each row, and the branch that tells series apart."""
    days(tmp_path, [20.0] * 12)
    for day in range(3):
        write(tmp_path, accuracy_record(subject(LLAMA), created=f"2026-02-0{1 + day}T00:00:00Z"), f"a-{day}")
    done = xpubench("history", tmp_path, "--model", LLAMA, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(done.out)))
    assert len(rows) == 15
    assert len({row["branch"] for row in rows}) == 2
    for row in rows:
        assert float(row["figure"]) > 0
        assert datetime.fromisoformat(row["created"]).year == 2026


def test_it_prints_a_table_and_writes_a_page(xpubench: CommandLine, tmp_path: Path) -> None:
    results = tmp_path / "results"
    days(results, [20.0] * 12 + [24.0] * 12)
    done = xpubench("history", results, "--model", LLAMA)
    assert (done.code, "slower" in done.out, "new levels: 1" in done.out) == (0, True, True)
    out = tmp_path / "history.html"
    assert xpubench("history", results, "--model", LLAMA, "-o", out).code == 0
    assert f"History of {LLAMA}" in out.read_text()


def test_an_unknown_model_names_the_nearest(xpubench: CommandLine, tmp_path: Path) -> None:
    days(tmp_path, [20.0])
    done = xpubench("history", tmp_path, "--model", "meta-llama/Llama-2-7b")
    assert done.code == 2
    assert LLAMA in done.error_line
