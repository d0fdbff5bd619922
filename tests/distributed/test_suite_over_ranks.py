"""A suite that rank 0 hands out to three other ranks."""

import json
import os
import re
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.distributed.conftest import OverRanks, environment, job
from tests.integration.test_suite import SHAPE, Directory, run_script

SIZES = range(8, 14)


def suite(tmp_path: Path, **script: Any) -> Path:
    """A suite of six processes with one run each, of the fake runtime."""
    (tmp_path / "script.json").write_text(json.dumps(script))
    vary = json.dumps([[f"--input-tokens {size}" for size in SIZES]])
    flags = f"--runtime fake --fake-script {tmp_path}/script.json --device cpu --greedy --num-iter 2"
    file = tmp_path / "suite.toml"
    file.write_text(
        'title = "t"\n[[grid]]\nmodels = ["smollm2-135m"]\n'
        f'flags = "{flags} --max-new-tokens 2"\nvary = {vary}\n'
    )
    return file


def statuses(results: Path) -> Counter[str]:
    return Counter(json.loads(path.read_text())["status"] for path in results.glob("*.json"))


def test_every_run_is_made_once_and_a_dead_worker_costs_its_own(mpirun: OverRanks, tmp_path: Path) -> None:
    dies = {"stage": "verify", "input_tokens": 10, "signal": signal.SIGKILL}
    results = tmp_path / "results"
    command = ("-m", "xpubench", "suite", suite(tmp_path, faults=[dies]), "--executor", "mpi")
    done = mpirun(4, *command, "--results-dir", results)
    assert statuses(results) == {"ok": 5, "crash": 1}, done.err
    assert done.code != 0
    # Each order was handed to one rank, several ranks had some, and rank 0 none.
    ranks = re.findall(r"rank (\d) on \S+: 1 records", done.out)
    assert len(ranks) == len(SIZES)
    assert set(ranks) <= {"1", "2", "3"}
    assert len(set(ranks)) > 1
    starts = [path.read_text().count("checking") for path in (results / "logs").glob("*.log")]
    assert len(starts) == len(SIZES)
    assert len(set(starts)) == 1
    again = mpirun(4, *command, "--results-dir", results)
    assert "0 of 6 runs to make" in again.out
    assert "rank 1" not in again.out


# Each rank in a working directory of its own, with the number of its process beside it.
APART = (
    "import os, runpy, sys; rank, here = os.environ['PMI_RANK'], sys.argv.pop(1); "
    "open(f'{here}/pid-{rank}', 'w').write(str(os.getpid())); "
    "os.makedirs(f'{here}/{rank}', exist_ok=True); os.chdir(f'{here}/{rank}'); "
    "runpy.run_module('xpubench', run_name='__main__', alter_sys=True)"
)


def apart(directory: Path, results: Path | str) -> tuple[object, ...]:
    """The words after the interpreter of a rank in a working directory of its own below the directory."""
    return ("-c", APART, directory, "suite", suite(directory), "--executor", "mpi", "--results-dir", results)


def test_results_on_other_disks_are_gathered(mpirun: OverRanks, tmp_path: Path) -> None:
    """The ranks' directories of the same relative name are different ones, as on machines without a shared
    directory."""
    command = apart(tmp_path, "own")
    done = mpirun(3, *command)
    assert done.code == 0, done.err
    assert statuses(tmp_path / "0" / "own") == {"ok": 6}
    others = [statuses(tmp_path / rank / "own")["ok"] for rank in ("1", "2")]
    assert sum(others) == 6
    assert all(others)
    again = mpirun(3, *command)
    assert "0 of 6 runs to make" in again.out


def test_a_killed_rank_ends_the_job_and_the_next_one_goes_on(mpirun: OverRanks, tmp_path: Path) -> None:
    results = tmp_path / "results"
    command = apart(tmp_path, results)
    with subprocess.Popen(
        job(3, *command), cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as first:
        while not list(results.glob("*.json")):
            assert first.poll() is None
            time.sleep(0.1)
        os.kill(int((tmp_path / "pid-2").read_text()), signal.SIGKILL)
        assert first.wait(timeout=120) != 0
    kept = {path: path.stat().st_mtime_ns for path in results.glob("*.json")}
    assert 1 <= len(kept) < len(SIZES)
    again = mpirun(3, *command)
    assert again.code == 0, again.err
    assert f"{len(SIZES) - len(kept)} of 6 runs to make" in again.out
    assert statuses(results) == {"ok": 6}
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


@pytest.mark.parametrize(
    ("size", "flags", "words"), [(1, (), "N at least 2"), (2, ("--rounds", "0"), "--rounds")]
)
def test_what_cannot_be_handed_out_is_one_line(
    mpirun: OverRanks, tmp_path: Path, size: int, flags: tuple[str, ...], words: str
) -> None:
    done = mpirun(size, "-m", "xpubench", "suite", suite(tmp_path), "--executor", "mpi", *flags)
    errors = [line for line in done.err.splitlines() if "error: " in line]
    assert (len(errors), words in errors[0]) == (1, True), done.err
    assert "Traceback" not in done.err


def test_the_one_click_script(tiny_llama: Path, tmp_path: Path) -> None:
    results = Directory(tmp_path / "results")
    more = {"models": str(tiny_llama), "beam": "1", "dtype": "float32", "flags": "--dummy-weights"}
    done = run_script("run_benchmark_ds.sh", results, **SHAPE, **more)
    assert done.returncode == 0, done.stdout + done.stderr
    (record,) = results.records
    assert (record["status"], record["spec"]["subject"]["tp_size"]) == ("ok", 2)
    assert record["spec"]["workload"]["input_tokens"] == 8
