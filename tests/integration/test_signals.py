"""Signals at any moment: no child is left, the run at work has its record, the exit code tells which came."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest

from tests.conftest import ROOT
from xpubench.record import Record, read_record

FLAGS = (
    "--device cpu --dtype float32 --greedy --input-tokens 8 16 --max-new-tokens 4 --num-iter 1000000 "
    "--num-warmup 1"
)
# Long enough that no test sees its end, in the one run or before it.
MEASURING = {"faults": [{"stage": "generate", "hang_s": 0.02, "prints": "it generates"}]}
LOADING = {"faults": [{"stage": "load", "hang_s": 600}]}


class Ended(NamedTuple):
    """What a process left behind."""

    code: int
    records: list[Record]
    left: list[psutil.Process]


def commands(results: Path, script: dict[str, Any]) -> dict[str, list[str]]:
    """One run, a suite, and two runtimes in turns, of the same shapes on the fake runtime; and one run of the
    default runtime."""
    file, suite = results.parent / "script.json", results.parent / "suite.toml"
    file.write_text(json.dumps(script))
    fake = f"--fake-script {file}"
    suite.write_text(
        f'title = "t"\n[[grid]]\nmodels = ["smollm2-135m"]\nflags = "{FLAGS} --runtime fake {fake}"\n'
    )
    xpubench, into = [sys.executable, "-m", "xpubench"], ["--results-dir", str(results)]
    generate = [*xpubench, "generate", "-m", "smollm2-135m", *FLAGS.split(), *into]
    return {
        "single": [*generate, "--runtime", "fake", *fake.split()],
        "suite": [*xpubench, "suite", str(suite), *into],
        "turns": [*generate, "--runtime", "fake,pytorch", "--rounds", "2", *fake.split()],
        "stock": generate,
    }


def measuring(process: psutil.Process, results: Path) -> bool:
    """Whether a run generates for the second time, when nothing is left to import."""
    return said(results, "it generates", 2)


def loading(process: psutil.Process, results: Path) -> bool:
    """Whether a run has begun to load its model."""
    return said(results, "loading smollm2-135m", 1)


def said(results: Path, text: str, times: int) -> bool:
    """Whether a log, or standard error, has the text so many times."""
    logs = [*results.rglob("logs/*.log"), results.parent / "stderr"]
    return any(log.read_text().count(text) >= times for log in logs if log.exists())


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
def test_a_signal_while_measuring(tmp_path: Path, what: str, number: signal.Signals) -> None:
    results = tmp_path / "results"
    ended = ended_by(commands(results, MEASURING)[what], results, measuring, number)
    assert ended.left == []
    assert ended.code == 128 + number
    (record,) = ended.records
    assert record.status == "interrupted"
    # What was known of the run stays.
    assert record.environment


@pytest.mark.parametrize(
    ("what", "moment", "number"),
    [
        ("stock", importing, signal.SIGHUP),
        ("single", loading, signal.SIGINT),
        ("suite", started_worker, signal.SIGTERM),
        ("suite", loading, signal.SIGHUP),
        ("turns", started_worker, signal.SIGINT),
    ],
)
def test_a_signal_during_the_start(
    tmp_path: Path,
    what: str,
    moment: Callable[[psutil.Process, Path], bool],
    number: signal.Signals,
) -> None:
    results = tmp_path / "results"
    ended = ended_by(commands(results, LOADING)[what], results, moment, number)
    assert ended.left == []
    assert ended.code == 128 + number
    assert {record.status for record in ended.records} == {"interrupted"}


@pytest.mark.parametrize("what", ["single", "suite"])
def test_further_signals_during_the_exit_change_nothing(tmp_path: Path, what: str) -> None:
    results = tmp_path / "results"
    ended = ended_by(commands(results, MEASURING)[what], results, measuring, *[signal.SIGTERM] * 20)
    assert ended.left == []
    assert ended.code == 143
    assert [record.status for record in ended.records] == ["interrupted"]


def test_what_nohup_ignores_stays_ignored(tmp_path: Path) -> None:
    results = tmp_path / "results"
    command = ["nohup", *commands(results, MEASURING)["suite"]]
    ended = ended_by(command, results, measuring, signal.SIGHUP, signal.SIGTERM)
    assert ended.left == []
    assert ended.code == 143


def test_a_killed_suite_takes_its_worker_along(tmp_path: Path) -> None:
    results = tmp_path / "results"
    ended = ended_by(commands(results, LOADING)["suite"], results, started_worker, signal.SIGKILL)
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
