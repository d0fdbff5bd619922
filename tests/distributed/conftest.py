"""Jobs of several ranks, started as a user starts them."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.conftest import ROOT, Outcome

# pip install '.[deepspeed]' brings what these tests are about.
collect_ignore_glob = [] if find_spec("deepspeed") else ["test_*.py"]

OverRanks = Callable[..., Outcome]
SCRIPT = "run_generation_with_deepspeed.py"


def environment() -> dict[str, str]:
    """As of this process, with its own mpirun first, and one thread a rank."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PATH": path, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def job(size: int, *arguments: object) -> list[str]:
    """The command line of Python with those arguments on each rank."""
    mpirun = shutil.which("mpirun", path=environment()["PATH"])
    assert mpirun is not None, "pip install '.[deepspeed]' brings mpirun"
    return [mpirun, "-np", str(size), "--prepend-rank", sys.executable, "-u", *map(str, arguments)]


@pytest.fixture
def mpirun() -> OverRanks:
    """`mpirun(ranks, *arguments)`: Python with those arguments on each rank."""

    def run(size: int, *arguments: object) -> Outcome:
        done = subprocess.run(
            job(size, *arguments), cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=240
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    return run
