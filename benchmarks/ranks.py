"""`make bench-ranks`: what the harness adds to the bare DeepSpeed module, and each rank's memory."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from math import exp, log
from pathlib import Path
from statistics import median
from time import perf_counter_ns
from typing import Any

from benchmarks.goal import Goal, show
from xpubench.compare.intervals import paired

ROOT = Path(__file__).parent.parent
SCRIPT = "run_generation_with_deepspeed.py"
LIMIT = 1.02
NEW_TOKENS, ROUNDS = 32, 16
LLAMA, LLAMA_BYTES = "meta-llama/Llama-3.2-1B", 1_235_814_400 * 2


def run() -> Iterator[Goal]:
    """The two goals; each job of ranks is an mpirun of its own."""
    (rounds,) = _mpirun(2, "-m", "benchmarks.ranks", "worker")
    harness, bare = rounds["harness_ms"], rounds["bare_ms"]
    found = paired(*([log(one) for one in side] for side in (bare, harness)))
    ratio, low, high = map(exp, (found.estimate, found.low, found.high))
    yield Goal(
        "a token through the harness / by the bare DeepSpeed module, 2 ranks",
        low,
        LIMIT,
        "",
        f"{ratio:.3f}, 95% {low:.3f} to {high:.3f}; limit on the lower end; "
        f"medians of {ROUNDS} rounds: {median(harness):.2f} and {median(bare):.2f} ms",
    )
    for size in (1, 2):
        with tempfile.TemporaryDirectory() as directory:
            (record,) = _mpirun(
                size, SCRIPT, "-m", LLAMA, "--dummy-weights", "--device", "cpu", "--dtype", "bfloat16",
                "--greedy", "--input-tokens", "16", "--max-new-tokens", "4", "--num-iter", "1", "--json",
                "--results-dir", directory,
            )  # fmt: skip
        ranks = record["runtime"]["ranks"]
        peak = max(rank["load_peak_host_bytes"] for rank in ranks)
        parts = ", ".join(f"{rank['weight_bytes'] / 1e9:.2f}" for rank in ranks)
        yield Goal(
            f"{LLAMA}, random bfloat16 weights, the highest peak of {size} rank(s) while loading",
            peak / 1e9,
            (LLAMA_BYTES / size * 1.3 + (1 << 30)) / 1e9,
            " GB",
            f"weights {parts} GB",
        )


def _mpirun(size: int, *arguments: str) -> list[dict[str, Any]]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["mpirun", "-np", str(size), sys.executable, *arguments],
        cwd=ROOT, env=os.environ | {"PATH": path, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def worker() -> None:
    """On each rank: rounds of a generation through the runtime and of one by the module it holds, in turn."""
    from datetime import timedelta

    import numpy as np
    import torch
    import torch.distributed as dist

    from xpubench.distributed import autotp, rendezvous
    from xpubench.distributed.launch import launch_of
    from xpubench.distributed.options import DeepSpeedOptions
    from xpubench.distributed.runtime import TensorParallelRuntime
    from xpubench.spec import Subject, Workload

    launch = launch_of(os.environ)
    assert launch is not None
    job = rendezvous.join(launch, timedelta(seconds=120))
    subject = Subject(
        model="smollm2-135m", device="cpu", dtype="bfloat16", options=DeepSpeedOptions(), tp_size=job.size
    )
    if job.rank != 0:
        job.receive()
    runtime = TensorParallelRuntime.load(subject)
    workload = Workload(input_tokens=64, new_tokens=NEW_TOKENS)
    prompts = np.arange(64, dtype=np.int64)[None] + 100

    def harness() -> int:
        if job.rank != 0:
            job.receive()
        return runtime.generate(prompts, workload, "every_token").times.end_ns

    def bare() -> int:
        ids = torch.from_numpy(prompts)
        dist.barrier()
        start_ns = perf_counter_ns()
        with torch.inference_mode():
            runtime.model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False,
                max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS,
            )  # fmt: skip
        return int(max(job.gather(perf_counter_ns() - start_ns)))

    harness_ns: list[int] = []
    bare_ns: list[int] = []
    for index in range(ROUNDS + 1):
        # Each side is first in every other round.
        for side, times in ((harness, harness_ns), (bare, bare_ns))[:: 1 if index % 2 else -1]:
            times.append(side())
    if job.rank == 0:
        sides = {"harness_ms": harness_ns[1:], "bare_ms": bare_ns[1:]}
        rows = {name: [one / NEW_TOKENS / 1e6 for one in times] for name, times in sides.items()}
        print(json.dumps(rows), flush=True)
    autotp.stop(job)


if __name__ == "__main__":
    if sys.argv[1:] == ["worker"]:
        worker()
    else:
        sys.exit(show(run()))
