"""Measure the latency of each token of one model shared by several ranks, and check the tokens."""

import argparse
import os
import signal
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from xpubench.cli import generation
from xpubench.cli.main import Parser, guarded
from xpubench.cli.output import quiet
from xpubench.distributed.launch import Launch, launch_of
from xpubench.errors import UserError

if TYPE_CHECKING:
    from xpubench.distributed.rendezvous import Job

DEFAULT_TIMEOUT_S = 1800
NOT_LAUNCHED = (
    "no launcher started this as one of several ranks; type mpirun -np 2 python -u "
    "run_generation_with_deepspeed.py ... (pip install '.[deepspeed]' brings mpirun)"
)


def main() -> int:
    """The command under its script's name, on any rank; returns the exit code. Rank 0 alone speaks."""
    launch = launch_of(os.environ)
    if launch is not None and launch.rank != 0:
        hush()
        # Rank 0 alone downloads, before the others look.
        os.environ["HF_HUB_OFFLINE"] = "1"
    code = guarded(lambda: _run(launch))
    # A launcher ends all ranks when one gives an exit code, maybe before rank 0 has said why.
    return code if launch is None or launch.rank == 0 else 0


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of a run on one process, and those of ranks."""
    generation.add_flags(parser, ranks=True)
    group = parser.add_argument_group("ranks")
    group.add_argument("--tp-size", type=int, metavar="N", help="the number of ranks, which mpirun sets too")
    group.add_argument("--local_rank", type=int, metavar="N", help="of DeepSpeed's launcher; has no effect")
    group.add_argument(
        "--timeout",
        type=int,
        default=DEFAULT_TIMEOUT_S,
        metavar="S",
        help=f"seconds after which ranks that wait for each other give up (default: {DEFAULT_TIMEOUT_S})",
    )


def _run(launch: Launch | None) -> int:
    quiet()
    args, problem, what = None, None, None
    try:
        args = _parsed(sys.argv[1:])
        what = generation.asked(args)
    except UserError as error:
        if launch is None:
            raise
        problem = str(error)
    if launch is None:
        raise UserError(NOT_LAUNCHED)
    from xpubench.distributed import rendezvous

    job = rendezvous.join(launch, timedelta(seconds=args.timeout if args else DEFAULT_TIMEOUT_S))
    job.agree(problem)
    assert args is not None
    _check_alike(job, what)
    if args.tp_size not in (None, job.size):
        raise UserError(f"--tp-size {args.tp_size} is not the number of ranks, {job.size}; leave it out")
    args.tp_size = job.size
    assert what is not None
    job.agreed(lambda: _find_device(args, what[0].subject.runtime))
    job.watch(job.agreed(lambda: _drafts(args) if job.rank == 0 else []), str(args.results_dir))
    return _lead(args, job) if job.rank == 0 else _follow(args, job)


def _parsed(arguments: list[str]) -> argparse.Namespace:
    parser = Parser(prog=Path(sys.argv[0]).name, description=__doc__)
    add_flags(parser)
    args = parser.parse_args(arguments)
    if args.timeout < 1:
        raise UserError(f"--timeout must be at least 1 second, not {args.timeout}")
    return args


def _check_alike(job: "Job", specs: object) -> None:
    """UserError where the ranks were not started with the same flags."""
    import msgspec

    everyone = job.gather(msgspec.json.encode(specs))
    other = next((rank for rank, theirs in enumerate(everyone) if theirs != everyone[0]), None)
    if other is not None:
        raise UserError(
            f"rank {other} on {job.places[other].host} was asked for another model or run than rank 0; "
            "start all ranks with the same flags"
        )


def _find_device(args: argparse.Namespace, runtime: str) -> None:
    """UserError where this rank has not the device, which is the first that there is where none was named."""
    from xpubench.measure.device import available_devices, check_device
    from xpubench.runtimes import registry

    # Before the device's own libraries read the environment.
    registry.loader(runtime).set_up()
    args.device = args.device or available_devices()[0]
    check_device(args.device)


def _lead(args: argparse.Namespace, job: "Job") -> int:
    """Rank 0 runs the harness as one process would."""
    from xpubench.errors import RunFailure

    try:
        code = generation.run(args)
    except (UserError, RunFailure, KeyboardInterrupt, BrokenPipeError):
        _part(args, job)
        raise
    _part(args, job)
    return code


def _follow(args: argparse.Namespace, job: "Job") -> int:
    """The other ranks do what rank 0 tells them. An interruption is rank 0's to handle."""
    from xpubench.distributed.runtime import follow

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    follow(job)
    _part(args, job)
    return 0


def _part(args: argparse.Namespace, job: "Job") -> None:
    """All ranks leave together."""
    from xpubench.distributed import autotp

    if job.rank == 0:
        job.send(("leave", (), {}))
    autotp.stop()
    job.leave()


def _drafts(args: argparse.Namespace) -> list[bytes]:
    """The records of the runs, should a rank end without a word."""
    from xpubench.failures import failed_record
    from xpubench.measure.environment import capture
    from xpubench.measure.torch_device import TorchDevice
    from xpubench.record import Failure, encode
    from xpubench.results import ResultsDirectory
    from xpubench.runtimes import registry

    ResultsDirectory(args.results_dir)
    unknown = Failure(failure_class="crash", message="")
    environment = capture(TorchDevice(args.device).facts(), registry.packages())
    return [encode(failed_record(spec, environment, unknown)) for spec in generation.asked(args)]


def hush() -> None:
    """Silences this rank whatever writes: libraries print on every rank."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)


if __name__ == "__main__":
    sys.exit(main())
