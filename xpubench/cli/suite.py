"""Run a list of models, one process each, and go on where an earlier call stopped."""

import argparse
import random
from collections import Counter
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from xpubench.cli import generation, tensor_parallel
from xpubench.cli.main import Parser
from xpubench.cli.options import runtime_names
from xpubench.errors import UserError
from xpubench.process.signals import exit_code
from xpubench.run.order import Order
from xpubench.run.suite import (
    DEFAULT_TIMEOUT_S,
    CommandLine,
    built_in,
    command_lines,
    locked,
    read_suite,
    round_directories,
    run_orders,
    wanted,
    words,
)
from xpubench.run.supervisor import records_of

if TYPE_CHECKING:
    from xpubench.record import Record
    from xpubench.results import ResultsDirectory


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
    directories = round_directories(args.results_dir, args.rounds)
    if args.rounds == 1:
        directories = [args.results_dir]
    if not args.timeout > 0:
        raise UserError(f"--timeout must be above 0 seconds, not {args.timeout:g}")
    commands = command_lines(read_suite(args.suite), args.models, words(args.flags), ranks=_ranks(args.ranks))
    orders = [_order(command) for command in commands]
    if not orders:
        raise UserError(f"the suite {args.suite} has no runs")
    if args.dry_run:
        from xpubench.cli.suite_plan import print_plan

        print_plan(orders, directories)
        return 0
    return _run(orders, directories, args)


def _run(orders: list[Order], directories: list[Path], args: argparse.Namespace) -> int:
    from xpubench.results import ResultsDirectory

    statuses: Counter[str] = Counter()
    for number, directory in enumerate(directories):
        results = ResultsDirectory(directory)
        order = list(orders)
        if len(directories) > 1:
            # By the round, so that a resumed suite keeps its order.
            random.Random(number).shuffle(order)
        total = sum(wanted(results, spec, args.rerun) for one in order for spec in one.specs)
        known = sum(len(one.specs) for one in order)
        hint = "" if total else "; --rerun all makes them again"
        print(f"{directory}: {total} of {known} runs to make{hint}", flush=True)
        made = run_orders(order, results, rerun=args.rerun, timeout_s=args.timeout)
        try:
            with locked(results), closing(made):
                for count, records in enumerate(made, 1):
                    for record in records:
                        print(f"[{count}/{total}] {_line(record)}", flush=True)
        except KeyboardInterrupt:
            print("interrupted; the same command goes on from here", flush=True)
            return exit_code()
        statuses.update(_statuses(order, results))
    print(", ".join(f"{count} {status}" for status, count in sorted(statuses.items())))
    print(f"next, the report: xpubench report {args.results_dir} -o report.html")
    return 0 if set(statuses) == {"ok"} else 1


def _order(command: CommandLine) -> Order:
    """What a command line asks for, by the flags of the command itself."""
    args = _parser(command.ranks is not None).parse_args(command.flags)
    runtime, *others = runtime_names(args)
    if others:
        raise UserError("a command line of a suite has one runtime: name one --runtime, and vary it")
    device = args.device or generation.device_of_worker(runtime)
    if command.ranks is None:
        return generation.order_for(args, runtime, device)
    args.tp_size = command.ranks
    return tensor_parallel.order_for(args, device)


@cache
def _parser(with_ranks: bool) -> Parser:
    # Without --help, which would end the suite.
    parser = Parser(prog="xpubench generate", add_help=False)
    (tensor_parallel if with_ranks else generation).add_flags(parser)
    return parser


def _ranks(given: int | None) -> int | None:
    if given is not None and given < 1:
        raise UserError(f"--ranks must be at least 1, not {given}")
    return given


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


def _statuses(orders: list[Order], results: "ResultsDirectory") -> list[str]:
    return [record.status for order in orders for spec in order.specs for record in records_of(results, spec)]
