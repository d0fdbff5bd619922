"""Signals at any moment: no child is left, the run at work has its record, the exit code tells which came."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from tests.conftest import ROOT
from xpubench.record import Record, read_record

# Long enough that no test sees its end.
FLAGS = (
    "--dummy-weights --device cpu --dtype float32 --greedy --input-tokens 8 16 --max-new-tokens 4 "
    "--num-iter 1000000 --num-warmup 1"
)


class Ended(NamedTuple):
    """What a process left behind."""

    code: int
    records: list[Record]
    left: list[psutil.Process]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tiny")
    config = {
        "model_type": "llama",
        **dict.fromkeys(("hidden_size", "intermediate_size", "vocab_size"), 64),
        **{"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2},
    }
    (directory / "config.json").write_text(json.dumps(config))
    return directory


def commands(model: Path, results: Path) -> dict[str, list[str]]:
    """One run, a suite, and two runtimes in turns: of the same model and shapes."""
    suite = results.parent / "suite.toml"
    suite.write_text(f'title = "t"\n[[grid]]\nmodels = ["{model}"]\nflags = "{FLAGS}"\n')
    generate = [sys.executable, "-m", "xpubench", "generate", "-m", str(model), *FLAGS.split()]
    return {
        "single": [*generate, "--results-dir", str(results)],
        "suite": [sys.executable, "-m", "xpubench", "suite", str(suite), "--results-dir", str(results)],
        "turns": [*generate, "--runtime", "pytorch,ipex", "--rounds", "2", "--results-dir", str(results)],
    }


def measuring(process: psutil.Process, results: Path) -> bool:
    """Whether a run has loaded its model and generates."""
    logs = [*results.rglob("logs/*.log"), results.parent / "stderr"]
    return any("8 in, 4 out" in log.read_text() for log in logs if log.exists())


def importing(process: psutil.Process, results: Path) -> bool:
    """Whether the process that runs the model has begun to import torch."""
    for one in [process, *process.children(recursive=True)]:
        try:
            if any("libtorch" in place.path for place in one.memory_maps()):
                return True
        except psutil.Error:
            continue
    return False


def started_worker(process: psutil.Process, results: Path) -> bool:
    """Whether there is a child."""
    return bool(process.children())


def ended_by(
    command: list[str],
    results: Path,
    moment: Callable[[psutil.Process, Path], bool],
    *signals: signal.Signals,
) -> Ended:
    """Sends the signals, a little apart, when the moment has come."""
    with (results.parent / "stderr").open("w") as err:
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=err)
    whole = psutil.Process(process.pid)
    for _ in range(1200):
        assert process.poll() is None, (results.parent / "stderr").read_text()
        if moment(whole, results):
            break
        time.sleep(0.05)
    children = whole.children(recursive=True)
    for number in signals:
        if process.poll() is None:
            process.send_signal(number)
        time.sleep(0.1)
    code = process.wait(timeout=60)
    _, left = psutil.wait_procs(children, timeout=5)
    return Ended(code, [read_record(path) for path in results.rglob("[!.]*.json")], left)


@pytest.mark.parametrize(
    ("what", "number"),
    [
        ("single", signal.SIGTERM),
        ("suite", signal.SIGINT),
        ("suite", signal.SIGTERM),
        ("suite", signal.SIGHUP),
        ("turns", signal.SIGTERM),
    ],
)
def test_a_signal_while_measuring(model: Path, tmp_path: Path, what: str, number: signal.Signals) -> None:
    results = tmp_path / "results"
    ended = ended_by(commands(model, results)[what], results, measuring, number)
    assert ended.left == []
    assert ended.code == 128 + number
    (record,) = ended.records
    assert record.status == "interrupted"
    # What was known of the run stays.
    assert record.environment


@pytest.mark.parametrize(
    ("what", "moment", "number"),
    [
        ("single", importing, signal.SIGHUP),
        ("suite", started_worker, signal.SIGTERM),
        ("suite", importing, signal.SIGHUP),
        ("turns", started_worker, signal.SIGINT),
    ],
)
def test_a_signal_during_the_start(
    model: Path,
    tmp_path: Path,
    what: str,
    moment: Callable[[psutil.Process, Path], bool],
    number: signal.Signals,
) -> None:
    results = tmp_path / "results"
    ended = ended_by(commands(model, results)[what], results, moment, number)
    assert ended.left == []
    assert ended.code == 128 + number
    assert {record.status for record in ended.records} == {"interrupted"}


@pytest.mark.parametrize("what", ["single", "suite"])
def test_further_signals_during_the_exit_change_nothing(model: Path, tmp_path: Path, what: str) -> None:
    results = tmp_path / "results"
    ended = ended_by(commands(model, results)[what], results, measuring, *[signal.SIGTERM] * 20)
    assert ended.left == []
    assert ended.code == 143
    assert [record.status for record in ended.records] == ["interrupted"]


def test_what_nohup_ignores_stays_ignored(model: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    command = ["nohup", *commands(model, results)["suite"]]
    ended = ended_by(command, results, measuring, signal.SIGHUP, signal.SIGTERM)
    assert ended.left == []
    assert ended.code == 143


def test_a_killed_suite_takes_its_worker_along(model: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    ended = ended_by(commands(model, results)["suite"], results, started_worker, signal.SIGKILL)
    assert ended.left == []
    assert ended.code == -signal.SIGKILL


def test_a_command_ends_with_the_parent_that_started_it(tmp_path: Path) -> None:
    bound = [sys.executable, "-m", "xpubench.process.bound_to_parent"]
    code = (
        "import os, subprocess, sys, time\n"
        f"command = [*{bound!r}, str(os.getpid()), 'sleep', '60']\n"
        "one = subprocess.Popen(command, stdout=subprocess.DEVNULL)\n"
        "print(one.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    while "bound_to_parent" in " ".join(child.cmdline()):
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    psutil.wait_procs([child], timeout=10)
    assert not child.is_running()
    # A parent that has ended already is another one's number.
    late = subprocess.run([*bound, str(os.getppid()), "echo", "ran"], cwd=ROOT, capture_output=True)
    assert (late.returncode, late.stdout) == (1, b"")
