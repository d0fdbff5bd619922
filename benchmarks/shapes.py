"""Six shapes of one model in one call: what the call takes beyond measuring and one load."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

from benchmarks.goal import Goal

ROOT = Path(__file__).parent.parent
LIMIT = 1.15


def run() -> Iterator[Goal]:
    """Wall time of the process / (the measured iterations of all shapes + the load).

    What is fixed is some 10 s a call (imports, bandwidth, checks) and some 3 generations a shape. Beside 30
    measured iterations a shape it is small, beside the default of 7 it is not.
    """
    with tempfile.TemporaryDirectory() as directory:
        command = [
            *(sys.executable, "run_generation.py", "-m", "smollm2-135m", "--device", "cpu", "--json"),
            *(
                "--dtype",
                "bfloat16",
                "--greedy",
                "--input-tokens",
                "16",
                "32",
                "64",
                "--batch-size",
                "1",
                "2",
            ),
            *("--max-new-tokens", "16", "--num-iter", "32", "--num-warmup", "2", "--results-dir", directory),
        ]
        start = perf_counter()
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        wall_s = perf_counter() - start
    records = [json.loads(line) for line in done.stdout.splitlines()]
    measured_s = sum(
        one["end_to_end_ns"] / 1e9 for record in records for one in record["samples"]["iterations"]
    )
    load_s = records[0]["summary"]["load_s"]
    detail = (
        f"{len(records)} shapes, {wall_s:.1f} s for {measured_s:.1f} s measured and {load_s:.1f} s of load"
    )
    yield Goal(
        "one call / its measured iterations and one load", wall_s / (measured_s + load_s), LIMIT, "", detail
    )
