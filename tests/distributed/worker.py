"""One rank of a job that loads one tiny model after the other: python -m tests.distributed.worker DIR OUT"""

import gc
import json
import os
import sys
from datetime import timedelta
from pathlib import Path

import msgspec
import torch

from tests.distributed.families import FAMILIES, answers, long_answer, subject
from xpubench.catalog import SMOLLM2
from xpubench.distributed import autotp, rendezvous
from xpubench.distributed.launch import launch_of
from xpubench.distributed.options import ShardedDescription
from xpubench.distributed.runtime import TensorParallelRuntime, follow
from xpubench.runtimes.pytorch.runtime import PyTorchRuntime
from xpubench.runtimes.registry import loader
from xpubench.weights.embedded import smollm2_directory


def main(models: Path, out: Path) -> None:
    # Each workload begins with a collection, which takes 0.2 s over all that is imported.
    gc.freeze()
    launch = launch_of(os.environ)
    assert launch is not None
    job = rendezvous.join(launch, timedelta(seconds=60))
    job.watch([], str(out.parent))
    same = {name: same_part(job, models / name) for name in FAMILIES}
    if job.rank != 0:
        follow(job)
    else:
        found = {}
        for name in FAMILIES:
            try:
                runtime = loader("deepspeed").load(subject(models / name, job.size))
                described = runtime.describe()
                assert isinstance(described, ShardedDescription)
                found[name] = answers(runtime) | {"reads_slices": described.reads_slices}
                runtime.close()
            except Exception as error:
                found[name] = {"error": f"{type(error).__name__}: {error}"}
        if job.size == 2:
            runtime = loader("deepspeed").load(subject(smollm2_directory(), job.size))
            found[SMOLLM2] = {"tokens": long_answer(runtime)}
        out.write_text(json.dumps({"generations": found, "same_part": same}))
        job.send(("leave", (), {}))
    autotp.stop(job)
    job.leave()


def same_part(job: rendezvous.RankGroup, model: Path) -> list[bool]:
    """For each rank, whether its part of random weights, made in slices, is that which AutoTP cuts from the
    whole model, to the bit. Those of a checkpoint are held to one process's tokens."""
    dummy = msgspec.structs.replace(subject(model, job.size), weights="dummy")
    autotp.start(job, dummy.device)
    part = TensorParallelRuntime.weights(dummy).model
    assert TensorParallelRuntime.reads_slices
    whole = PyTorchRuntime.weights(dummy).model
    cut = dict(autotp.shard(whole, torch.float32, "cpu").module.named_parameters())
    parts = dict(part.named_parameters())
    same = parts.keys() == cut.keys() and all(torch.equal(parts[name], cut[name]) for name in parts)
    every: list[bool] = job.gather(same)
    return every


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
