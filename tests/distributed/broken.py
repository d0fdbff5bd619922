"""run_generation_with_deepspeed.py with one thing broken: python -m tests.distributed.broken WHAT FLAGS"""

import os
import sys
import time
from datetime import timedelta
from functools import wraps
from typing import Any, NoReturn

from xpubench.cli import doctor_ranks
from xpubench.cli import main as command
from xpubench.cli.tensor_parallel import main

FORWARDS_BEFORE = 5


def break_rank(error: Any) -> None:
    """Has the second rank's forward raise in the middle of a generation."""
    if os.environ["PMI_RANK"] != "1":
        return
    from transformers import LlamaForCausalLM

    forward, done = LlamaForCausalLM.forward, 0

    @wraps(forward)  # generate looks at its arguments
    def broken(*arguments: Any, **named: Any) -> Any:
        nonlocal done
        done += 1
        if done > FORWARDS_BEFORE:
            error()
        return forward(*arguments, **named)

    LlamaForCausalLM.forward = broken


def want_too_much() -> None:
    """What torch says when memory runs out."""
    import torch

    torch.empty(1 << 60, dtype=torch.uint8)


def divide_by_zero() -> NoReturn:
    raise ZeroDivisionError(f"TORCH_LLM_ALLREDUCE is {os.environ.get('TORCH_LLM_ALLREDUCE')}")


def hang(name: str) -> None:
    """Has each rank wait for ever in that function of torch.distributed, as for a rank that does not come."""
    import torch.distributed as dist

    setattr(dist, name, lambda *arguments, **named: time.sleep(3600))
    doctor_ranks.TIMEOUT = timedelta(seconds=5)


if __name__ == "__main__":
    what = sys.argv.pop(1)
    if what == "no-mpi4py":
        sys.modules["mpi4py"] = None  # type: ignore[assignment]
    elif what.startswith("hang"):
        hang(what.removeprefix("hang-"))
    else:
        break_rank({"raise": divide_by_zero, "memory": want_too_much}[what])
    sys.exit(command.main() if sys.argv[1] == "doctor" else main())
