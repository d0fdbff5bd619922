"""Commands that load no model answer at once and import no torch."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from time import perf_counter

from benchmarks.goal import Goal

ROOT = Path(__file__).parent.parent
REPEATS = 7
LIMIT_S = 0.3
COMMANDS = (
    ["run_generation.py", "--help"],
    ["-m", "xpubench", "models"],
    ["-m", "xpubench", "plan", "-m", "meta-llama/Llama-2-7b-hf", "--device", "max-1550"],
)


def run() -> Iterator[Goal]:
    """The median wall time of each command, from the start of the process to its end."""
    for command in COMMANDS:
        times = []
        for _ in range(REPEATS):
            start = perf_counter()
            subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, check=True)
            times.append(perf_counter() - start)
        traced = subprocess.run(
            [sys.executable, "-X", "importtime", *command],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        heavy = sum(line.rpartition("|")[2].strip() == "torch" for line in traced.stderr.splitlines())
        name = " ".join(command)
        yield Goal(
            f"start-up of {name}", median(times), LIMIT_S, " s", f"{min(times):.3f} to {max(times):.3f} s"
        )
        yield Goal(f"torch imported by {name}", heavy, 0, "", "from -X importtime")
