"""`make bench-ranks`: what the harness adds to the bare DeepSpeed module, and each rank's memory."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from time import perf_counter_ns
from typing import Any

from benchmarks.goal import Goal

ROOT = Path(__file__).parent.parent
SCRIPT = "run_generation_with_deepspeed.py"
LIMIT = 1.02
NEW_TOKENS, ROUNDS = 32, 16
LLAMA, LLAMA_BYTES = "meta-llama/Llama-3.2-1B", 1_235_814_400 * 2


def run() -> Iterator[Goal]:
    """The two goals; each job of ranks is an mpirun of its own."""
    (overhead,) = _mpirun(2, "-m", "benchmarks.ranks", "worker")
    yield Goal(
        "a token through the harness / by the bare DeepSpeed module, 2 ranks",
        overhead["ratio"],
        LIMIT,
        "",
        f"medians of {ROUNDS} rounds: {overhead['harness_ms']:.2f} and {overhead['bare_ms']:.2f} ms",
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

    from xpubench import job as jobs
    from xpubench.ranks import launch_of
    from xpubench.runtimes import autotp
    from xpubench.runtimes.tensor_parallel import TensorParallelRuntime
    from xpubench.spec import Subject, Workload

    launch = launch_of(os.environ)
    assert launch is not None
    job = jobs.join(launch, timedelta(seconds=120))
    subject = Subject(
        model="smollm2-135m", device="cpu", dtype="bfloat16", runtime="deepspeed", tp_size=job.size
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
        ratio = median(one / other for one, other in zip(harness_ns[1:], bare_ns[1:], strict=True))
        print(
            json.dumps(
                {
                    "ratio": ratio,
                    "harness_ms": median(harness_ns[1:]) / NEW_TOKENS / 1e6,
                    "bare_ms": median(bare_ns[1:]) / NEW_TOKENS / 1e6,
                }
            ),
            flush=True,
        )
    autotp.stop()


def main() -> int:
    """Prints each figure beside its goal; the exit code tells whether all are reached."""
    goals = []
    for goal in run():
        print(goal, flush=True)
        goals.append(goal)
    return 0 if all(goal.reached for goal in goals) else 1


if __name__ == "__main__":
    if sys.argv[1:] == ["worker"]:
        worker()
    else:
        sys.exit(main())
