"""Runs that load the subject several times, and what a load does to figures, intervals and verdicts."""

import json
from math import exp, log, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import CommandLine
from xpubench.measure.bootstrap import medians_by_definition, resampled_medians
from xpubench.measure.statistics import summarize

FLAGS = ("--num-iter", 9, "--num-warmup", 1, "--max-new-tokens", 4)


def run(scripted: CommandLine, *flags: object, **script: Any) -> dict[str, Any]:
    done = scripted(script, *FLAGS, *flags)
    assert done.code == 0, done.err
    record: dict[str, Any]
    (record,) = done.records
    return record


def test_the_measured_iterations_are_divided_over_the_loads(scripted: CommandLine) -> None:
    record = run(scripted, "--loads", 3)
    stamped = [one for one in record["samples"]["iterations"] if one["sync_policy"] == "every_token"]
    assert [one["load"] for one in stamped] == [0, 0, 0, 1, 1, 1, 2, 2]
    warmup = [one["load"] for one in record["samples"]["warmup"]]
    assert warmup == [0, 0, 1, 1, 2, 2]
    assert len(record["samples"]["loads"]) == 3
    assert all(one["load_s"] > 0 for one in record["samples"]["loads"])
    # Every load begins and ends with a pair of its own.
    assert record["summary"]["perturbation_pairs"] >= 6


def test_one_load_is_the_default_and_leaves_the_id(scripted: CommandLine) -> None:
    record, again, several = (run(scripted, *flags) for flags in ((), ("--loads", 1), ("--loads", 2)))
    assert record["id"] == again["id"] != several["id"]
    assert record["summary"]["load_spread"] is None
    assert {one["load"] for one in record["samples"]["iterations"]} == {0}
    (load,) = record["samples"]["loads"]
    assert load["resident_bytes"] >= load["anonymous_bytes"] >= load["huge_page_bytes"]


def test_loads_that_differ_are_said_and_make_the_interval_wide(scripted: CommandLine) -> None:
    times = [{"next_token_ns": [1_000_000 + shift]} for shift in (0, 1000, 2000)]
    alike = run(scripted, "--loads", 6, "--num-iter", 15, every_token=times)
    differing = run(scripted, "--loads", 6, "--num-iter", 15, every_token=times, load_factors=[2, 3])
    spreads = [one["summary"]["load_spread"] for one in (alike, differing)]
    assert spreads == pytest.approx([0.0, 0.5], abs=0.002)
    warned = [[text for text in one["warnings"] if "slowest load" in text] for one in (alike, differing)]
    assert not warned[0]
    assert "50% above the fastest" in warned[1][0]
    assert not [text for text in differing["warnings"] if "a trend" in text]
    (low, high), (low_2, high_2) = (one["summary"]["next_token_ms"]["ci95"] for one in (alike, differing))
    assert high / low < 1.01
    assert (low_2, high_2) == pytest.approx((2, 3), rel=0.01)


@pytest.mark.parametrize(("loads", "known"), [(1, True), (2, False), (4, False), (5, True)])
def test_few_loads_have_no_interval(scripted: CommandLine, loads: int, known: bool) -> None:
    """MBU's interval comes from the latency's."""
    slower = {"load_factors": list(range(1, loads + 1)), "device": {"bandwidth_gb_per_s": 40}}
    summary = run(scripted, "--loads", loads, "--num-iter", 13, **slower)["summary"]
    assert (summary["next_token_ms"]["ci95"] is not None) is known
    assert summary["mbu_measured"] is not None
    assert (summary["mbu_measured_interval"] is not None) is known


def test_a_second_load_that_fails_is_a_record_and_the_next_run_loads_anew(scripted: CommandLine) -> None:
    fault = {"stage": "load", "call": 2, "failure": "oom", "message": "full"}
    done = scripted({"faults": [fault]}, *FLAGS, "--loads", 2, "--input-tokens", 8, 16)
    first, second = done.records
    assert (first["status"], first["failure"]["message"]) == ("oom", "full")
    assert {one["load"] for one in first["samples"]["iterations"]} == {0}
    assert second["status"] == "ok"


def test_weights_that_differ_after_the_second_load_are_no_result(scripted: CommandLine) -> None:
    done = scripted({"weights_change": True}, *FLAGS, "--loads", 2)
    assert done.records[0]["status"] == "numerics"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--loads", 0), "--loads must be at least 1"),
        (("--loads", 9), "--num-iter must be at least 10"),
        (("--loads", 2, "--until-ci", 1), "leave out --loads or --until-ci"),
    ],
)
def test_what_loads_cannot_do(scripted: CommandLine, flags: tuple[object, ...], message: str) -> None:
    done = scripted({}, *FLAGS, *flags)
    assert done.code == 2
    assert message in done.error_line


def test_an_accuracy_run_takes_no_loads(scripted: CommandLine) -> None:
    done = scripted({}, "--accuracy-only", "--loads", 2)
    assert "--loads is for latency runs" in done.error_line


@pytest.mark.parametrize("groups", [[0, 0, 1, 1, 1, 2], [5, 5, 5, 5, 5, 3], [0, 1, 2, 3, 4, 5]])
def test_resampling_loads_equals_its_definition(groups: list[int]) -> None:
    source = np.random.default_rng(1)
    rows = [source.normal(size=length).tolist() for length in (3, 1, 4, 400, 5, 9)]
    assert (resampled_medians(rows, 7, groups) == medians_by_definition(rows, 7, groups)).all()


def test_rows_of_one_load_are_resampled_as_before() -> None:
    rows = [[1.0, 2.0], [3.0], [4.0, 5.0]]
    assert (resampled_medians(rows, 3, [2, 2, 2]) == resampled_medians(rows, 3)).all()


def test_the_interval_covers_the_median_over_loads() -> None:
    """One that resamples iterations alone covers it far less often, as the loads differ by more than they."""
    source = np.random.default_rng(0)
    covered = {"loads": 0, "iterations": 0}
    repeats, loads, each = 60, 8, 16
    for _ in range(repeats):
        of_load = np.repeat(source.normal(1e7, 1e6, loads), each)
        rows = [[int(one)] for one in of_load + source.normal(0, 1e4, loads * each)]
        for name, of_rows in (("loads", np.repeat(range(loads), each).tolist()), ("iterations", None)):
            ends = summarize(rows, of_rows).ci95
            assert ends is not None
            covered[name] += ends[0] <= 10 <= ends[1]
    assert covered["loads"] >= 0.85 * repeats
    assert covered["iterations"] <= covered["loads"] - 0.2 * repeats


def test_a_comparison_of_single_processes_tells_their_loads_apart(
    scripted: CommandLine, xpubench: CommandLine, tmp_path: Path
) -> None:
    run(scripted, "--loads", 4, "--results-dir", tmp_path / "base", load_factors=[2, 3])
    run(scripted, "--loads", 4, "--results-dir", tmp_path / "new")
    done = xpubench("compare", tmp_path / "base", tmp_path / "new", "--json")
    assert done.code == 3
    (compared,) = json.loads(done.out)["runs"]
    # The loads of one process are no processes: they give no interval.
    assert (compared["verdict"], compared["primary"]["low"]) == ("inconclusive", None)
    assert "base's 4 loads differ by 50.0% and new's 4 loads differ by 0.0%" in compared["reason"]
    # The loads of the base take 2, 3, 2 and 3 ms: of those of the new run, 1 ms, they are 1 / sqrt(6) in the
    # geometric mean, with Student's quantile for three degrees of freedom, 3.18, times the standard error.
    half = 3.18245 * log(1.5) / 2 / sqrt(3)
    ends = (exp(-log(6) / 2 - half), exp(-log(6) / 2 + half))
    ratio = f"{1 / sqrt(6):.3f} ({ends[0]:.3f} to {ends[1]:.3f})"
    over = f"over the loads alone the ratio is {ratio}, without the noise between processes"
    assert over in compared["reason"]
    figures = compared["figures"]
    assert "over the loads alone" in figures["end_to_end"]["reason"]
    assert "over the loads alone" not in figures["tokens_per_s"]["reason"]


def test_a_single_load_tells_nothing_of_the_others(
    scripted: CommandLine, xpubench: CommandLine, tmp_path: Path
) -> None:
    run(scripted, "--loads", 4, "--results-dir", tmp_path / "base", load_factors=[2, 3])
    run(scripted, "--results-dir", tmp_path / "new")
    base, new = (next((tmp_path / side).glob("*[0-9a-f].json")) for side in ("base", "new"))
    (compared,) = json.loads(xpubench("compare", base, new, "--json").out)["runs"]
    assert "base's 4 loads differ by 50.0%" in compared["reason"]
    assert "over the loads" not in compared["reason"]


def test_the_table_of_a_run_shows_its_loads(xpubench: CommandLine, tmp_path: Path) -> None:
    script = tmp_path / "script.json"
    script.write_text(
        json.dumps({"load_factors": [2, 3], "device": {"cpu_clocks": [[0, 0, 0, 0], [10, 11, 9, 0]]}})
    )
    flags = ("--runtime", "fake", "--fake-script", script, "--device", "cpu", "--greedy")
    done = xpubench("generate", "-m", "smollm2-135m", *flags, "--results-dir", tmp_path, *FLAGS, "--loads", 2)
    assert "50.0% apart" in done.out
    assert "1.10 of 2.00 that its threads wanted" in done.out
