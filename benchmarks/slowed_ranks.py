"""`run_generation_with_deepspeed.py` with a slow-down planted in its ranks:

mpirun -np 2 python -m benchmarks.slowed_ranks late-rank FLAGS
"""

import os
import sys
from collections.abc import Callable
from time import sleep
from typing import Any

from deepspeed.comm.torch import TorchBackend

from xpubench.cli.tensor_parallel import main
from xpubench.distributed.launch import launch_of
from xpubench.distributed.runtime import TensorParallelRuntime

# Each sum over the ranks takes so much longer, or each pass of the late rank.
LONGER_S, LATE_S = 3e-3, 0.2


def slow_all_reduce() -> None:
    """All ranks sum slowly, as over a slow link, which leaves the processors free."""
    for name in ("all_reduce", "inference_all_reduce"):
        plain = getattr(TorchBackend, name)

        def slowly(*arguments: Any, plain: Callable[..., Any] = plain, **named: Any) -> Any:
            sleep(LONGER_S)
            return plain(*arguments, **named)

        setattr(TorchBackend, name, slowly)


def late_rank() -> None:
    """The last rank sleeps after each pass, so that the others wait for it."""
    launch = launch_of(os.environ)
    assert launch is not None
    if launch.rank == 0:
        return
    load = TensorParallelRuntime.load.__func__  # type: ignore[attr-defined]  # of the class method

    def late(cls: Any, *arguments: Any) -> Any:
        runtime = load(cls, *arguments)
        runtime.model.register_forward_hook(lambda *_: sleep(LATE_S))
        return runtime

    TensorParallelRuntime.load = classmethod(late)  # type: ignore[method-assign,assignment]


KINDS: dict[str, Callable[[], None]] = {"slow-all-reduce": slow_all_reduce, "late-rank": late_rank}

if __name__ == "__main__":
    KINDS[sys.argv.pop(1)]()
    sys.exit(main())
