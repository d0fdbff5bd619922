"""Run a list of models, one process each, and go on where an earlier call stopped."""

import argparse
import fcntl
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from xpubench.errors import UserError
from xpubench.results import ROUND
from xpubench.run.suite import (
    CommandLine,
    Job,
    built_in,
    command_lines,
    read_suite,
    records_of,
    run_suite,
    wanted,
    words,
)

if TYPE_CHECKING:
    from xpubench.record import Record
    from xpubench.results import ResultsDirectory

INTERRUPTED = 130
DEFAULT_TIMEOUT_S = 3600.0


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument(
        "suite", metavar="SUITE", help=f"a file SUITE.toml, or one of {', '.join(built_in())}"
    )
    parser.add_argument("--models", nargs="+", metavar="MODEL", help="instead of the suite's own")
    parser.add_argument(
        "--ranks",
        type=int,
        metavar="N",
        help="for a suite over ranks: how many share a model (default: the catalog's, else the suite's)",
    )
    parser.add_argument("--results-dir", type=Path, default=Path("results"), metavar="DIR")
    parser.add_argument(
        "--rerun", choices=("failed", "all"), help="make again what has a record (default: nothing)"
    )
    parser.add_argument("--rounds", type=int, default=1, metavar="N", help="repeat in shuffled order")
    parser.add_argument(
        "--timeout",
        type=float,
        default=DEFAULT_TIMEOUT_S,
        metavar="S",
        help=f"seconds that a run may take, its load included (default: {DEFAULT_TIMEOUT_S:g})",
    )
    parser.add_argument("--dry-run", action="store_true", help="the plan alone")
    parser.add_argument(
        "--flags",
        default="",
        metavar="'--FLAG ...'",
        help="more flags of `xpubench generate` for every run, such as --flags='--device cpu --greedy'",
    )


def run(args: argparse.Namespace) -> int:
    """Runs the suite; 0 when every run is well, 1 when one failed."""
    if args.rounds < 1:
        raise UserError(f"--rounds must be at least 1, not {args.rounds}")
    if not args.timeout > 0:
        raise UserError(f"--timeout must be above 0 seconds, not {args.timeout:g}")
    commands = command_lines(read_suite(args.suite), args.models, words(args.flags), ranks=_ranks(args.ranks))
    jobs = [_job(command) for command in commands]
    if not jobs:
        raise UserError(f"the suite {args.suite} has no runs")
    if args.dry_run:
        from xpubench.cli.suite_plan import print_plan

        print_plan(jobs, _rounds(args))
        return 0
    return _run(jobs, args)


def _run(jobs: list[Job], args: argparse.Namespace) -> int:
    from xpubench.results import ResultsDirectory

    statuses: Counter[str] = Counter()
    for number, directory in enumerate(_rounds(args)):
        results = ResultsDirectory(directory)
        order = list(jobs)
        if args.rounds > 1:
            # By the round, so that a resumed suite keeps its order.
            random.Random(number).shuffle(order)
        total = sum(wanted(results, spec, args.rerun) for job in order for spec in job.specs)
        known = sum(len(job.specs) for job in order)
        hint = "" if total else "; --rerun all makes them again"
        print(f"{directory}: {total} of {known} runs to make{hint}", flush=True)
        with _alone(results):
            try:
                made = run_suite(order, results, rerun=args.rerun, timeout_s=args.timeout)
                for count, records in enumerate(made, 1):
                    for record in records:
                        print(f"[{count}/{total}] {_line(record)}", flush=True)
            except KeyboardInterrupt:
                print("interrupted; the same command goes on from here", flush=True)
                return INTERRUPTED
        statuses.update(_statuses(order, results))
    print(", ".join(f"{count} {status}" for status, count in sorted(statuses.items())))
    print(f"next, the report: xpubench report {args.results_dir} -o report.html")
    return 0 if set(statuses) == {"ok"} else 1


def _rounds(args: argparse.Namespace) -> list[Path]:
    """The results directories: one a round where there are several."""
    if args.rounds == 1:
        return [args.results_dir]
    return [args.results_dir / f"{ROUND}{number}" for number in range(1, args.rounds + 1)]


def _job(command: CommandLine) -> Job:
    """The runs that a command line makes, found out by the flags of the command itself."""
    from xpubench.cli import generation, tensor_parallel
    from xpubench.cli.main import Parser

    parser = Parser(prog="xpubench generate")
    (generation if command.ranks is None else tensor_parallel).add_flags(parser)
    args = parser.parse_args(command.flags)
    if args.device is None:
        args.device = _first_device(args)
        command = CommandLine(flags=[*command.flags, "--device", args.device], ranks=command.ranks)
    if command.ranks is not None:
        args.tp_size = command.ranks
    return Job(command=command, specs=list(generation.asked(args)))


def _first_device(args: argparse.Namespace) -> str:
    from xpubench.cli.generation import first_device
    from xpubench.cli.options import runtime_names
    from xpubench.measure.device import available_devices

    try:
        return first_device(runtime_names(args)[0])
    except UserError:
        # What the runtime lacks is told by the records of its runs, and stops no other.
        return available_devices()[0]


def _ranks(given: int | None) -> int | None:
    if given is not None and given < 1:
        raise UserError(f"--ranks must be at least 1, not {given}")
    return given


@contextmanager
def _alone(results: "ResultsDirectory") -> Iterator[None]:
    """UserError while another suite runs into the same directory."""
    with (results.path / ".suite.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"another suite runs into {results.path}; choose another --results-dir"
            ) from error
        yield


def _line(record: "Record") -> str:
    from xpubench.compare.title import title_of

    text = title_of(record)
    if record.failure is not None:
        return f"{record.status}  {text}: {record.failure.message}"
    if record.accuracy is not None and record.accuracy.acc is not None:
        return f"{record.status}  {text}: accuracy {record.accuracy.acc:.2%}"
    if record.latency is not None and record.latency.next_token_ms is not None:
        return f"{record.status}  {text}: next token {record.latency.next_token_ms.median:.2f} ms"
    return f"{record.status}  {text}"


def _statuses(jobs: list[Job], results: "ResultsDirectory") -> list[str]:
    return [record.status for job in jobs for spec in job.specs for record in records_of(results, spec)]
