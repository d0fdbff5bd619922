"""run_generation_with_deepspeed.py as typed: what it records, and that rank 0 alone speaks."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import ROOT, CommandLine, Outcome
from tests.distributed.conftest import SCRIPT, Ranks, environment, job

SMOLLM2 = ("-m", "smollm2-135m", "--device", "cpu", "--dtype", "float32")
SHORT = ("--greedy", "--input-tokens", 16, "--max-new-tokens", 4, "--num-iter", 2)


def only_record(directory: Path) -> dict[str, Any]:
    (path,) = directory.glob("*.json")
    record: dict[str, Any] = json.loads(path.read_text())
    return record


def error_line(done: Outcome) -> str:
    """The one error line of a job, which rank 0 alone writes."""
    lines = [line for line in done.err.splitlines() if "error: " in line]
    assert len(lines) == 1, done.err
    assert lines[0].startswith("[0] error: ")
    assert "Traceback" not in done.err
    return lines[0]


def test_two_ranks_say_what_one_process_says(mpirun: Ranks, generate: CommandLine, tmp_path: Path) -> None:
    flags = ("--prompt", "Gravity is", "--max-new-tokens", 32, "--greedy", "--num-iter", 1)
    done = mpirun(2, SCRIPT, *SMOLLM2, *flags, "--token-latency", "--results-dir", tmp_path / "two")
    assert done.code == 0, done.err
    assert all(line.startswith("[0] ") for line in done.out.splitlines() if line)
    record = only_record(tmp_path / "two")
    one = generate("smollm2-135m", *flags, "--num-warmup", 0, "--json").records[0]
    assert record["output"] == one["output"]

    iteration = next(one for one in record["samples"]["iterations"] if one["sync_policy"] == "every_token")
    assert len(iteration["ranks_ns"]) == 2
    first, *_, end = (max(stamps) for stamps in zip(*iteration["ranks_ns"], strict=True))
    assert (iteration["first_token_ns"], iteration["end_to_end_ns"]) == (first, end)
    assert record["summary"]["imbalance"] >= 1
    for rank in record["checks"]["collectives"]:
        # Two sums a layer and one in the head.
        assert rank["collectives"] == 32 * (2 * 30 + 1)
        assert 0 < rank["collectives_ns"] < rank["generation_ns"]
    # 9 heads with 3 key-value heads, dealt out 6 and 3.
    assert [rank["rank"] for rank in record["runtime"]["ranks"]] == [0, 1]
    parts = [rank["weight_bytes"] for rank in record["runtime"]["ranks"]]
    assert one["runtime"]["weight_bytes"] > parts[0] > parts[1]


def test_accuracy_is_that_of_one_process(mpirun: Ranks, generate: CommandLine, tmp_path: Path) -> None:
    flags = ("--accuracy-only", "--acc-tasks", "lambada_smoke", "--acc-iter", 12)
    done = mpirun(2, SCRIPT, *SMOLLM2, *flags, "--results-dir", tmp_path / "two")
    assert done.code == 0, done.err
    two = only_record(tmp_path / "two")["accuracy"]
    one = generate("smollm2-135m", *flags, "--json").records[0]["accuracy"]
    assert two["acc"] == one["acc"]
    assert two["perplexity"] == pytest.approx(one["perplexity"], rel=1e-4)


def started(results: Path, *flags: object) -> tuple[subprocess.Popen[str], dict[str, int]]:
    """A long job that measures, and the process of each rank."""
    command = job(
        2, SCRIPT, *SMOLLM2, "--greedy", "--input-tokens", 16, "--max-new-tokens", 64, "--num-iter", 1000,
        "--results-dir", results, *flags,
    )  # fmt: skip
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "16 in, 64 out" in line:
            break
    children = psutil.Process(process.pid).children(recursive=True)
    ranks = {one.environ()["PMI_RANK"]: one.pid for one in children if SCRIPT in one.cmdline()[1:3]}
    assert ranks.keys() == {"0", "1"}
    return process, ranks


@pytest.mark.parametrize("victim", ["0", "1"])
def test_killed_rank_ends_the_job_and_is_named(victim: str, tmp_path: Path) -> None:
    process, ranks = started(tmp_path / "results")
    os.kill(ranks[victim], signal.SIGKILL)
    assert process.wait(timeout=30) != 0
    record = failed_record(tmp_path / "results")
    assert record["status"] == "crash"
    assert record["failure"]["message"].startswith(f"rank {victim} on ")
    assert "without a word" in record["failure"]["message"]


def test_hanging_rank_ends_the_job_at_the_timeout(tmp_path: Path) -> None:
    process, ranks = started(tmp_path / "results", "--timeout", 5)
    os.kill(ranks["1"], signal.SIGSTOP)
    assert process.wait(timeout=40) != 0
    assert failed_record(tmp_path / "results")["status"] == "timeout"


def failed_record(results: Path) -> dict[str, Any]:
    """The record, which the sentinel may still be writing when the job has ended."""
    for _ in range(50):
        if any(results.glob("*.json")):
            return only_record(results)
        time.sleep(0.1)
    raise AssertionError("no record")


def test_more_ranks_than_heads(mpirun: Ranks, tmp_path: Path) -> None:
    done = mpirun(4, SCRIPT, *SMOLLM2, *SHORT, "--results-dir", tmp_path)
    assert "at most 3 ranks" in error_line(done)
    assert done.code == 2
    assert not list(tmp_path.glob("*.json"))


def test_wrong_number_of_ranks(mpirun: Ranks) -> None:
    done = mpirun(2, SCRIPT, *SMOLLM2, *SHORT, "--tp-size", 3)
    assert "--tp-size 3" in error_line(done)
    assert done.code == 2


def test_no_such_device(mpirun: Ranks) -> None:
    done = mpirun(2, SCRIPT, "-m", "smollm2-135m", *SHORT, "--device", "xpu")
    assert "no xpu device" in error_line(done)
    assert done.code == 2


def test_wrong_flag(mpirun: Ranks) -> None:
    done = mpirun(2, SCRIPT, *SMOLLM2, "--num-iter", "many")
    assert "--num-iter" in error_line(done)
    assert done.code == 2


def test_ranks_with_different_models() -> None:
    command = job(1, SCRIPT, *SMOLLM2, *SHORT)
    python = command[command.index("--prepend-rank") + 1 :]
    line = [*command, ":", "-np", "1", *python, "-m", "another"]
    done = subprocess.run(line, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=60)
    assert "another model" in error_line(Outcome(done.returncode, done.stdout, done.stderr))


def test_taken_port(mpirun: Ranks, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    with socket.create_server(("", 0)) as taken:
        monkeypatch.setenv("MASTER_PORT", str(taken.getsockname()[1]))
        assert "unset MASTER_PORT" in error_line(mpirun(2, SCRIPT, *SMOLLM2, *SHORT))


def test_without_a_launcher() -> None:
    import sys

    done = subprocess.run(
        [sys.executable, SCRIPT, *map(str, (*SMOLLM2, *SHORT))],
        cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, "mpirun -np 2" in done.stderr) == (2, True)
    assert len(done.stderr.splitlines()) == 1
