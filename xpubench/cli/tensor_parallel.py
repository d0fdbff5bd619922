"""Measure the latency of each token of one model shared by several ranks, and check the tokens."""

import argparse
import os
import re
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import msgspec

from xpubench.cli import generation
from xpubench.cli.main import Parser, guarded
from xpubench.cli.options import runtime_names
from xpubench.distributed.launch import INSTALL, Launch, launch_of, silence
from xpubench.errors import UserError
from xpubench.process.output import own_stdout, quiet
from xpubench.run.order import RANKS_TIMEOUT_S, Order

if TYPE_CHECKING:
    from xpubench.distributed.rendezvous import RankGroup

NOT_LAUNCHED = (
    "no launcher started this as one of several ranks; type mpirun -np 2 python -u "
    f"run_generation_with_deepspeed.py ... ({INSTALL})"
)


def main() -> int:
    """The command under its script's name, on any rank; returns the exit code. Only rank 0 prints."""
    launch = launch_of(os.environ)
    if launch is not None and launch.rank != 0:
        silence()
    code = guarded(lambda: _run(launch))
    # A launcher ends all ranks when one gives an exit code, maybe before rank 0 has said why.
    return code if launch is None or launch.rank == 0 else 0


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of a run in one process, and those of ranks."""
    generation.add_flags(parser, ranks=True)
    add = parser.add_argument_group("ranks").add_argument
    add("--tp-size", type=int, metavar="N", help="the number of ranks, which mpirun sets too")
    add("--local_rank", type=int, metavar="N", help="accepted for DeepSpeed's launcher; has no effect")
    note = f"seconds after which ranks that wait for each other give up (default: {RANKS_TIMEOUT_S})"
    add("--timeout", type=int, default=RANKS_TIMEOUT_S, metavar="S", help=note)


def order_over_ranks(args: argparse.Namespace, device: str) -> Order:
    """The order that the flags give for as many ranks as `tp_size` says. UserError where they contradict."""
    order = generation.order_for(args, runtime_names(args)[0], device)
    return msgspec.structs.replace(order, ranks=args.tp_size, ranks_timeout_s=args.timeout)


def _run(launch: Launch | None) -> int:
    quiet()
    args, problem, leaving = None, None, None
    if launch is None or launch.rank == 0:
        try:
            args = _parsed()
            order_over_ranks(args, args.device or "cpu")
        except UserError as error:
            if launch is None:
                raise
            problem = str(error)
        except SystemExit as exit_of_help:
            leaving = exit_of_help
    if launch is None:
        raise leaving or UserError(NOT_LAUNCHED)
    from xpubench.distributed import rendezvous
    from xpubench.run.ranks import carry_out

    timeout_s = args.timeout if args is not None else RANKS_TIMEOUT_S
    # Libraries print as soon as they are imported, which the check of the device does.
    with own_stdout() as out:
        group = rendezvous.join(launch, timedelta(seconds=timeout_s))
        group.agree(problem)
        _check_alike(group)
        order = group.agreed(lambda: None if args is None else _order(args, group.size))
        code = carry_out(group, order, lambda order: _show(args, order, out))
    if leaving is not None:
        raise leaving
    return code or 0


def _parsed() -> argparse.Namespace:
    parser = Parser(prog=Path(sys.argv[0]).name, description=__doc__)
    add_flags(parser)
    args = parser.parse_args()
    if args.timeout < 1:
        raise UserError(f"--timeout must be at least 1 second, not {args.timeout}")
    return args


def _check_alike(group: "RankGroup") -> None:
    """UserError where the ranks were not started with the same flags."""
    # DeepSpeed's launcher adds each rank's own number.
    flags = re.sub(r"^--local_rank[=\n]\d+$", "", "\n".join(sys.argv[1:]), flags=re.MULTILINE)
    everyone = group.gather(flags.split("\n"))
    other = next((rank for rank, theirs in enumerate(everyone) if theirs != everyone[0]), None)
    if other is not None:
        raise UserError(
            f"rank {other} on {group.places[other].host} was asked for another model or run than rank 0; "
            "start all ranks with the same flags"
        )


def _order(args: argparse.Namespace, size: int) -> Order:
    """The order of rank 0, on the preferred device where no flag names one."""
    if args.tp_size not in (None, size):
        raise UserError(f"--tp-size {args.tp_size} is not the number of ranks, {size}; leave it out")
    args.tp_size = size
    order = order_over_ranks(args, args.device or "cpu")
    if args.device is None:
        order = order_over_ranks(args, generation.first_device(order.specs[0].subject.runtime))
    return order


def _show(args: argparse.Namespace | None, order: Order, out: TextIO) -> int:
    from xpubench.cli.console import Reporter

    assert args is not None
    return generation.show(args, order, Reporter(out), out)


if __name__ == "__main__":
    sys.exit(main())
