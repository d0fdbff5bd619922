"""Suites: worker processes that fail alone, and directories that are gone on with."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import ROOT, CommandLine

FLAGS = "--device cpu --dtype float32 --greedy --num-iter 2 --num-warmup 1"
LOADING = {"faults": [{"stage": "load", "hang_s": 600}]}


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """Two processes of two shapes each, of the fake runtime with `script.json` beside it."""
    (tmp_path / "script.json").write_text("{}")
    file = tmp_path / "two.toml"
    file.write_text(
        f"""title = "a test"
[[grid]]
models = ["smollm2-135m"]
flags = "{FLAGS} --runtime fake --fake-script {tmp_path}/script.json --input-tokens 8 16 --max-new-tokens 4"
vary = [["", "--use-static-cache"]]
"""
    )
    return file


class Directory:
    """The records in a results directory."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def records(self) -> list[dict[str, Any]]:
        return [json.loads(file.read_text()) for file in sorted(self.path.glob("*.json"))]

    @property
    def statuses(self) -> Counter[str]:
        return Counter(record["status"] for record in self.records)

    @property
    def made(self) -> dict[str, int]:
        return {file.name: file.stat().st_mtime_ns for file in self.path.glob("*.json")}


@pytest.fixture
def results(tmp_path: Path) -> Directory:
    return Directory(tmp_path / "results")


def started(suite: Path, results: Directory, *flags: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "xpubench", "suite", suite, "--results-dir", results.path, *flags]
    return subprocess.Popen(
        list(map(str, command)), cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def worker_of(process: "subprocess.Popen[str]", results: Directory) -> psutil.Process:
    """The worker of a suite, when it has begun to load its model once more."""
    before = loads(results)
    for _ in range(600):
        children = psutil.Process(process.pid).children()
        if children and "xpubench.run.worker" in children[0].cmdline() and loads(results) > before:
            return children[0]
        time.sleep(0.05)
    raise AssertionError("no worker")


def loads(results: Directory) -> int:
    return sum(log.read_text().count("loading smollm2-135m") for log in results.path.glob("logs/*.log"))


def test_all_runs_then_none_then_those_asked_for(
    xpubench: CommandLine, suite: Path, results: Directory
) -> None:
    arguments = ("suite", suite, "--results-dir", results.path)
    done = xpubench(*arguments)
    assert (done.code, "4 of 4 runs to make" in done.out) == (0, True)
    assert "[4/4] ok" in done.out
    assert results.statuses == {"ok": 4}
    made = results.made
    done = xpubench(*arguments)
    assert (done.code, "0 of 4 runs" in done.out) == (0, True)
    assert results.made == made

    failed = results.records[0]
    changed = failed | {"status": "oom", "failure": {"class": "oom", "message": "full"}, "summary": None}
    (results.path / f"{failed['id']}.json").write_text(json.dumps(changed))
    assert xpubench(*arguments).code == 1
    assert results.statuses == {"ok": 3, "oom": 1}
    done = xpubench(*arguments, "--rerun", "failed")
    assert (done.code, "1 of 4 runs" in done.out) == (0, True)
    assert results.statuses == {"ok": 4}
    assert sum(results.made[name] == made[name] for name in made) == 3


def test_whatever_is_killed_it_goes_on_later(suite: Path, results: Directory, xpubench: CommandLine) -> None:
    """Ctrl-C, a killed suite, a second one beside it, a killed worker: with one worker's runs to make."""
    assert xpubench("suite", suite, "--results-dir", results.path).code == 0
    for record in results.records:
        if record["spec"]["workload"].get("cache") == "static":
            (results.path / f"{record['id']}.json").unlink()
    script = suite.parent / "script.json"
    script.write_text(json.dumps(LOADING))

    with started(suite, results) as interrupted:
        worker = worker_of(interrupted, results)
        beside = xpubench("suite", suite, "--results-dir", results.path)
        assert (beside.code, "another suite" in beside.error_line) == (2, True)
        interrupted.send_signal(signal.SIGINT)
        out, _ = interrupted.communicate(timeout=60)
    assert interrupted.returncode == 130
    assert "goes on from here" in out
    assert not worker.is_running()
    # Both runs of the worker were still to be made, and it was at the first.
    assert results.statuses == {"ok": 2, "interrupted": 1}

    with started(suite, results, "--rerun", "failed") as killed:
        worker = worker_of(killed, results)
        killed.kill()
    psutil.wait_procs([worker], timeout=10)
    assert not worker.is_running()
    assert results.statuses == {"ok": 2, "interrupted": 1}

    with started(suite, results, "--rerun", "failed") as going_on:
        worker = worker_of(going_on, results)
        script.write_text("{}")
        worker.kill()
        out, _ = going_on.communicate(timeout=250)
    assert going_on.returncode == 1
    assert results.statuses == {"ok": 3, "crash": 1}
    (failed,) = (record for record in results.records if record["status"] == "crash")
    assert "SIGKILL" in failed["failure"]["message"]
    assert "[1/2] crash" in out
    assert "[2/2] ok" in out


def test_a_model_that_is_not_there_does_not_stop_the_others(
    xpubench: CommandLine, suite: Path, results: Directory
) -> None:
    none = suite.parent / "none"
    done = xpubench("suite", suite, "--results-dir", results.path, "--models", none, "smollm2-135m")
    assert done.code == 1
    assert results.statuses == {"ok": 4, "unsupported": 4}
    failed = [record for record in results.records if record["status"] == "unsupported"]
    assert all("no such directory" in record["failure"]["message"] for record in failed)


def fake_flags(suite: Path) -> str:
    return f"--runtime fake --fake-script {suite.parent}/script.json"


def run_script(name: str, results: Directory, **variables: str) -> "subprocess.CompletedProcess[str]":
    own = {"results": str(results.path), "device": "cpu", "VIRTUAL_ENV": sys.prefix}
    return subprocess.run(
        ["bash", ROOT / name], env=os.environ | own | variables, capture_output=True, text=True
    )


SHAPE = {"input": "8", "output": "4", "iter": "2"}


@pytest.mark.parametrize(
    ("script", "variables", "runs"),
    [
        ("run_benchmark.sh", {"beam": "1 2", "dtype": "float32"}, 2),
        ("run_benchmark_woq.sh", {"beam": "1", "flags": "--group_size 32"}, 1),
    ],
)
def test_the_one_click_scripts(
    suite: Path, results: Directory, script: str, variables: dict[str, str], runs: int
) -> None:
    more = {"models": "smollm2-135m", "flags": f"{fake_flags(suite)} {variables.get('flags', '')}"}
    done = run_script(script, results, **SHAPE | variables | more)
    assert done.returncode == 0, done.stdout + done.stderr
    assert results.statuses == {"ok": runs}
    for record in results.records:
        workload, subject = record["spec"]["workload"], record["spec"]["subject"]
        assert (workload["input_tokens"], workload["new_tokens"]) == (8, 4)
        assert (subject.get("quantization") is not None) == ("woq" in script)


def test_the_accuracy_script(suite: Path, results: Directory) -> None:
    more = {"models": "smollm2-135m none/such", "flags": f"--acc-iter 4 {fake_flags(suite)}"}
    done = run_script("run_accuracy.sh", results, task="lambada_smoke", **more)
    assert done.returncode == 1, done.stdout + done.stderr
    assert results.statuses == {"ok": 1, "unsupported": 1}


def test_what_libraries_say_when_they_are_imported_is_not_the_suites(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "xpubench",
        "suite",
        "smoke",
        "--dry-run",
        "--results-dir",
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_swapped_weights_are_not_taken_for_finished(
    xpubench: CommandLine, tiny_llama: Path, tmp_path: Path, results: Directory
) -> None:
    model, file = tmp_path / "model", tmp_path / "one.toml"
    shutil.copytree(tiny_llama, model)
    file.write_text(
        f'title = "t"\n[[grid]]\nmodels = ["{model}"]\n'
        f'flags = "{FLAGS} --input-tokens 8 --max-new-tokens 4"\n'
    )
    arguments = ("suite", file, "--results-dir", results.path)
    assert xpubench(*arguments).code == 0
    (before,) = results.records
    made = results.made
    done = xpubench(*arguments)
    assert (done.code, "0 of 1 runs to make" in done.out, results.made == made) == (0, True, True)

    # As long as before, with the same header; no file's time tells it.
    weights = model / "model.safetensors"
    times, content = weights.stat(), bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns))
    done = xpubench(*arguments)
    assert (done.code, "1 of 1 runs to make" in done.out) == (0, True)
    (after,) = results.records
    assert after["id"] == before["id"]
    assert after["fingerprint"]["config"] == before["fingerprint"]["config"]
    assert after["fingerprint"]["weights"] != before["fingerprint"]["weights"]
    assert "0 of 1 runs to make" in xpubench(*arguments).out
