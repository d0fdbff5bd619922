"""`compare` and `report` on the records of runs whose times a script tells."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import CommandLine

ITERATIONS = 22


def times(factor: float, jitter_ns: int = 20_000) -> dict[str, Any]:
    """A script whose generations differ by up to the jitter; `factor` stretches the next token latency."""

    def one(index: int) -> dict[str, Any]:
        off = jitter_ns * (index % 5 - 2) // 2
        return {"first_token_ns": 5_000_000 + off, "next_token_ns": [int(factor * 1_000_000) + off]}

    rows = [one(index) for index in range(ITERATIONS)]
    return {"every_token": rows, "end_to_end": rows}


@pytest.fixture
def in_turns(scripted: CommandLine, xpubench: CommandLine, tmp_path: Path) -> Callable[..., tuple[int, Any]]:
    """`in_turns(base, new, *flags)`: three rounds of two scripts in turns, and what `compare` says."""

    def run(base: dict[str, Any], new: dict[str, Any], *flags: object) -> tuple[int, Any]:
        for number in (1, 2, 3):
            for name, script in (("base", base), ("new", new)):
                results = tmp_path / name / f"round-{number}"
                assert scripted(script, "--num-iter", ITERATIONS, "--results-dir", results).code == 0
        done = xpubench("compare", tmp_path / "base", tmp_path / "new", "--json", *flags)
        (found,) = json.loads(done.out)["runs"]
        return done.code, found

    return run


@pytest.mark.parametrize(
    ("factor", "code", "verdict"),
    [(1.0, 0, "same"), (1.02, 0, "same"), (1.10, 1, "slower"), (0.90, 0, "faster")],
)
def test_a_change_beyond_the_limit_is_told(
    in_turns: Callable[..., tuple[int, Any]], factor: float, code: int, verdict: str
) -> None:
    found, run = in_turns(times(1.0), times(factor))
    assert (found, run["verdict"]) == (code, verdict)
    assert run["figures"]["next_token"]["change"] == pytest.approx(factor, abs=0.005)
    assert run["figures"]["first_token"]["change"] == pytest.approx(1.0, abs=0.005)


def test_a_growth_of_the_device_s_peak_is_told(in_turns: Callable[..., tuple[int, Any]]) -> None:
    base, new = (times(1.0) | {"device": {"peak_bytes": peak}} for peak in (10**9, 12 * 10**8))
    code, run = in_turns(base, new)
    assert (code, run["figures"]["peak_device"]["change"]) == (0, pytest.approx(1.2))
    assert any(line.startswith("peak device memory worse, ratio 1.200") for line in run["beyond"])


def test_stamps_that_slow_a_run_are_a_warning(scripted: CommandLine) -> None:
    script = {
        "every_token": [{"first_token_ns": 3_000_000, "next_token_ns": [1_100_000]}],
        "end_to_end": [{"first_token_ns": 3_000_000, "next_token_ns": [1_000_000]}],
    }
    (record,) = scripted(script, "--num-iter", 6, "--num-warmup", 2, "--max-new-tokens", 8).records
    assert record["summary"]["perturbation"] == pytest.approx(10.7 / 10)
    assert any(line.startswith("perturbation 1.070") for line in record["warnings"])


def test_the_summary_is_of_the_scripted_times(scripted: CommandLine) -> None:
    rows = [{"first_token_ns": ms * 1_000_000, "next_token_ns": [ms * 100_000]} for ms in (10, 30, 20)]
    script = {"every_token": rows, "end_to_end": rows, "step_weight_bytes": 10**6}
    done = scripted(script, "--num-iter", 3, "--num-warmup", 0, "--max-new-tokens", 11, "--batch-size", 2)
    (record,) = done.records
    summary = record["summary"]
    assert summary["first_token_ms"]["median"] == 20
    assert (summary["next_token_ms"]["median"], summary["next_token_ms"]["n"]) == (2, 30)
    assert summary["end_to_end_ms"]["median"] == 40
    assert summary["tokens_per_s"] == pytest.approx(2 * 11 / 0.040)
    # 1 MB of weights and the KV cache in 2 ms, of 1,000 GB/s.
    assert summary["mbu_measured"] == pytest.approx(summary["step_bytes"] / 2e-3 / 1e12)


def test_a_page_shows_the_runs(scripted: CommandLine, xpubench: CommandLine, tmp_path: Path) -> None:
    scripted(times(1.0), "--num-iter", ITERATIONS)
    scripted({"faults": [{"stage": "verify", "failure": "bad_model", "message": "no"}]}, "--input-tokens", 9)
    done = xpubench("report", tmp_path / "results", "--format", "json")
    runs = json.loads(done.out)["runs"]
    assert sorted(run["status"] for run in runs) == ["bad_model", "ok"]


@pytest.mark.parametrize("flags", [("--budget", 3), ("--a-env", "A=1"), ("--results-dir", "elsewhere")])
def test_flags_of_live_comparisons_are_refused_elsewhere(
    xpubench: CommandLine, tmp_path: Path, flags: tuple[object, ...]
) -> None:
    done = xpubench("compare", tmp_path, tmp_path, *flags)
    assert done.code == 2
    assert f"{flags[0]} is for live comparisons" in done.error_line
