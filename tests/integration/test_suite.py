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

FLAGS = "--dummy-weights --device cpu --dtype float32 --greedy --num-iter 2 --num-warmup 1"


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two processes of two shapes each."""
    directory = tmp_path_factory.mktemp("suite")
    config = {
        "model_type": "llama",
        **dict.fromkeys(("hidden_size", "intermediate_size", "vocab_size"), 64),
        **{"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2},
    }
    (directory / "tiny").mkdir()
    (directory / "tiny" / "config.json").write_text(json.dumps(config))
    file = directory / "two.toml"
    file.write_text(
        f"""title = "a test"
[[grid]]
models = ["{directory}/tiny"]
flags = "{FLAGS} --input-tokens 8 16 --max-new-tokens 4"
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


def worker_of(process: "subprocess.Popen[str]") -> psutil.Process:
    for _ in range(600):
        children = psutil.Process(process.pid).children()
        if children and "xpubench.run.worker" in children[0].cmdline():
            return children[0]
        time.sleep(0.05)
    raise AssertionError("no worker")


@pytest.fixture(scope="module")
def finished(suite: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """What the whole suite says, and its results."""
    results = tmp_path_factory.mktemp("finished") / "results"
    process = started(suite, Directory(results))
    out, _ = process.communicate(timeout=250)
    assert process.returncode == 0, out
    return out, results


def test_all_runs_then_none_then_those_asked_for(
    xpubench: CommandLine, suite: Path, finished: tuple[str, Path], results: Directory
) -> None:
    out, whole = finished
    assert "4 of 4 runs to make" in out
    assert "[4/4] ok" in out
    shutil.copytree(whole, results.path)
    assert results.statuses == {"ok": 4}
    made = results.made
    arguments = ("suite", suite, "--results-dir", results.path)
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


def test_whatever_is_killed_it_goes_on_later(
    suite: Path, finished: tuple[str, Path], results: Directory, xpubench: CommandLine
) -> None:
    """Ctrl-C, a killed suite, a second one beside it, a killed worker: with one worker's runs to make."""
    shutil.copytree(finished[1], results.path)
    for record in results.records:
        if record["spec"]["workload"].get("cache") == "static":
            (results.path / f"{record['id']}.json").unlink()

    with started(suite, results) as interrupted:
        worker = worker_of(interrupted)
        beside = xpubench("suite", suite, "--results-dir", results.path)
        assert (beside.code, "another suite" in beside.error_line) == (2, True)
        interrupted.send_signal(signal.SIGINT)
        out, _ = interrupted.communicate(timeout=60)
    assert interrupted.returncode == 130
    assert "goes on from here" in out
    assert not worker.is_running()
    assert results.statuses == {"ok": 2, "interrupted": 1}

    with started(suite, results) as killed:
        worker = worker_of(killed)
        killed.kill()
    psutil.wait_procs([worker], timeout=10)
    assert not worker.is_running()
    assert results.statuses == {"ok": 2, "interrupted": 1}

    with started(suite, results) as going_on:
        worker_of(going_on).kill()
        out, _ = going_on.communicate(timeout=250)
    assert going_on.returncode == 1
    assert results.statuses == {"ok": 3, "crash": 1}
    (failed,) = (record for record in results.records if record["status"] == "crash")
    assert "SIGKILL" in failed["failure"]["message"]
    assert "[1/2] crash" in out
    assert "[2/2] ok" in out


def test_a_model_that_is_not_there_does_not_stop_the_others(
    xpubench: CommandLine, suite: Path, finished: tuple[str, Path], results: Directory
) -> None:
    shutil.copytree(finished[1], results.path)
    tiny, none = suite.parent / "tiny", suite.parent / "none"
    done = xpubench("suite", suite, "--results-dir", results.path, "--models", none, tiny)
    assert done.code == 1
    assert results.statuses == {"ok": 4, "unsupported": 4}
    failed = [record for record in results.records if record["status"] == "unsupported"]
    assert all("no such directory" in record["failure"]["message"] for record in failed)


@pytest.mark.parametrize(
    ("script", "variables", "runs"),
    [
        ("run_benchmark.sh", {"beam": "1 2", "dtype": "float32"}, 2),
        ("run_benchmark_woq.sh", {"beam": "1", "flags": "--dummy-weights --group_size 32"}, 1),
        ("run_benchmark_ds.sh", {"beam": "1", "dtype": "float32"}, 1),
    ],
)
def test_the_one_click_scripts(
    suite: Path, results: Directory, script: str, variables: dict[str, str], runs: int
) -> None:
    if not (ROOT / ".venv/bin/python").exists():
        pytest.skip("the scripts take the default environment")
    shape = {"input": "8", "output": "4", "iter": "2", "device": "cpu", "flags": "--dummy-weights"}
    models = {"models": str(suite.parent / "tiny"), "results": str(results.path)}
    done = subprocess.run(
        ["bash", ROOT / script], env=os.environ | shape | models | variables, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert results.statuses == {"ok": runs}
    for record in results.records:
        workload, subject = record["spec"]["workload"], record["spec"]["subject"]
        assert (workload["input_tokens"], workload["new_tokens"]) == (8, 4)
        assert (subject.get("quantization") is not None) == ("woq" in script)
        assert subject.get("tp_size", 1) == (2 if "_ds" in script else 1)


def test_the_accuracy_script(results: Directory) -> None:
    if not (ROOT / ".venv/bin/python").exists():
        pytest.skip("the scripts take the default environment")
    variables = {"models": "smollm2-135m none/such", "task": "lambada_smoke", "device": "cpu"}
    more = {"flags": "--acc-iter 4", "results": str(results.path)}
    done = subprocess.run(
        ["bash", ROOT / "run_accuracy.sh"], env=os.environ | variables | more, capture_output=True, text=True
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert results.statuses == {"ok": 1, "unsupported": 1}
