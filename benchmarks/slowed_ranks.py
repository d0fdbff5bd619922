"""`run_generation_with_deepspeed.py` with a slow-down planted in its ranks:

mpirun -np 2 python -m benchmarks.slowed_ranks late-rank FLAGS
"""

import os
import sys
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from xpubench.cli.tensor_parallel import main
from xpubench.distributed.launch import launch_of
from xpubench.distributed.runtime import TensorParallelRuntime
from xpubench.runtimes.fake.faults import Moment
from xpubench.runtimes.fake.slow_downs import SLOW_DOWNS

# Each sum over the ranks also sums so many bytes of zeros.
MORE_BYTES = 1 << 21


def slow_all_reduce() -> None:
    """All ranks sum slowly, as over a slow link."""
    all_reduce, zeros = dist.all_reduce, torch.zeros(MORE_BYTES // 4)

    def slowly(tensor: torch.Tensor, *arguments: Any, **named: Any) -> Any:
        all_reduce(zeros)
        return all_reduce(tensor, *arguments, **named)

    dist.all_reduce = slowly


def late_rank() -> None:
    """The last rank takes several times as long for each pass, so that the others wait for it."""
    launch = launch_of(os.environ)
    assert launch is not None
    if launch.rank == 0:
        return
    load = TensorParallelRuntime.load.__func__  # type: ignore[attr-defined]  # of the class method

    def late(cls: Any, *arguments: Any) -> Any:
        runtime = load(cls, *arguments)
        SLOW_DOWNS["busy-python"](runtime.model, Moment())
        return runtime

    TensorParallelRuntime.load = classmethod(late)  # type: ignore[method-assign,assignment]


# Which part of a token each slow-down lengthens.
PARTS = {"slow-all-reduce": "collectives", "late-rank": "waiting"}
KINDS: dict[str, Callable[[], None]] = {"slow-all-reduce": slow_all_reduce, "late-rank": late_rank}

if __name__ == "__main__":
    KINDS[sys.argv.pop(1)]()
    sys.exit(main())
