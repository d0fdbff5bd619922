"""Run a list of models, one process each, and go on where an earlier call stopped."""

import argparse
import random
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from functools import cache, partial
from pathlib import Path

from xpubench.cli import generation, tensor_parallel
from xpubench.cli.doctor import findings, machine_facts
from xpubench.cli.main import Parser
from xpubench.cli.options import keep_to_kind, named_directory, runtime_names
from xpubench.cli.stack import choose, sentence
from xpubench.cli.suite_plan import print_plan
from xpubench.compare.title import title_of
from xpubench.errors import UserError
from xpubench.process.signals import exit_code
from xpubench.record import Record
from xpubench.results import ResultsDirectory
from xpubench.run import suite
from xpubench.run.environments import check_distinct, placed
from xpubench.run.order import Order
from xpubench.run.supervisor import records_of
from xpubench.runtimes.registry import DEFAULT

# What runs orders and yields the records of each run: as `run.suite.run_orders`.
Runner = Callable[..., Generator[list[Record]]]


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags to its parser."""
    add = parser.add_argument
    add("suite", metavar="SUITE", help=f"a file SUITE.toml, or one of {', '.join(suite.built_in())}")
    add("--models", nargs="+", metavar="MODEL", help="instead of the suite's own")
    note = "for a suite over ranks: how many share a model (default: the catalog's, else the suite's)"
    add("--ranks", type=int, metavar="N", help=note)
    note = "under mpirun: rank 0 hands the runs to the other ranks, on any machines"
    add("--executor", choices=("mpi",), help=note)
    add_run_flags(parser)


def add_run_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that say how a suite's runs are made."""
    add = parser.add_argument
    add(
        "--results-dir", type=named_directory, default=Path("results"), metavar="DIR", help="default: results"
    )
    note = "which runs with a record to repeat (default: none)"
    add("--rerun", choices=("failed", "all"), help=note)
    note = "repeat in shuffled order (default: the suite's own number, mostly 1)"
    add("--rounds", type=int, metavar="N", help=note)
    note = f"seconds of a run with its load, downloads not counted (default: {suite.DEFAULT_TIMEOUT_S:g})"
    add("--timeout", type=float, default=suite.DEFAULT_TIMEOUT_S, metavar="S", help=note)
    note = "the runtime, one that the suite has flags for; auto prefers the guide's where it runs here"
    add("--stack", metavar="NAME|auto", help=note)
    add("--dry-run", action="store_true", help="print the plan and run nothing")
    note = "more flags of `xpubench generate` for every run, such as --flags='--device cpu --greedy'"
    add("--flags", default="", metavar="'--FLAG ...'", help=note)


def run(args: argparse.Namespace) -> int:
    """Runs the suite; 0 when every run is well, 1 when one failed."""
    if args.executor is None:
        return _suite(args, suite.run_orders)
    from xpubench.run.ranks_pool import hand_out, pool

    with pool() as executor:
        if executor is None:
            return 0
        say = partial(print, flush=True)
        return _suite(args, partial(hand_out, executor, say=say))


def _suite(args: argparse.Namespace, runner: Runner) -> int:
    if args.ranks is not None and args.ranks < 1:
        raise UserError(f"--ranks must be at least 1, not {args.ranks}")
    read, flags = suite.read_suite(args.suite), suite.words(args.flags)
    directories = directories_of(args, read.rounds)
    stack = stack_of(read, args.stack, flags)
    orders = orders_of(read, suite.command_lines(read, args.models, flags, ranks=args.ranks, stack=stack))
    if not orders:
        raise UserError(f"the suite {args.suite} has no runs")
    return run_and_tell(orders, directories, args, runner)


def directories_of(args: argparse.Namespace, rounds: int) -> list[Path]:
    """The results directory of each round. UserError for a number of rounds or seconds that cannot be."""
    rounds = rounds if args.rounds is None else args.rounds
    directories = suite.round_directories(args.results_dir, rounds)
    if not args.timeout > 0:
        raise UserError(f"--timeout must be above 0 seconds, not {args.timeout:g}")
    return [args.results_dir] if rounds == 1 else directories


def orders_of(
    read: suite.Suite, commands: Sequence[suite.CommandLine], *, both_kinds: bool = False
) -> list[Order]:
    """The order of each command line in its environment. Where a stack is not here, a line says so once.
    Among runs of both kinds, which may be those of other calls, flags from outside that one kind alone takes
    are given to that kind alone."""
    orders, left_out = [], []
    parsed = [_parsed(command, *command.more) for command in commands]
    both_kinds = both_kinds or len({args.accuracy_only for args in parsed}) > 1
    for command, args in zip(commands, parsed, strict=True):
        if both_kinds:
            keep_to_kind(args, _parsed(command))
        environment = read.environments.get(command.environment or "")
        order = placed(_order(command, args, environment), environment, optional=command.optional)
        if isinstance(order, str):
            left_out.append(order)
        else:
            orders.append(order)
    for line in dict.fromkeys(left_out):
        print(line, flush=True)
    check_distinct(orders)
    return orders


def run_and_tell(
    orders: list[Order],
    directories: list[Path],
    args: argparse.Namespace,
    runner: Runner = suite.run_orders,
) -> int:
    """Prints the plan with --dry-run, else has the runner run the orders; the exit code."""
    for flag, names in suite.lacking_flags(orders).items():
        print(
            f"{flag} is not given, and the hub's files of {', '.join(names)} do not load without it; add "
            f"--flags={flag} if you trust their makers",
            flush=True,
        )
    if args.dry_run:
        print_plan(orders, directories)
        return 0
    return _run(orders, directories, args, runner)


def stack_of(read: suite.Suite, asked: str | None, flags: list[str]) -> str:
    """The runtime whose flags the command lines take. Where it was asked for or looked for, a line says
    which it is."""
    if asked is None:
        return DEFAULT
    if not read.stacks:
        raise UserError("this suite has no flags by stack; leave out --stack")
    named = named_in(flags, ranks=any(grid.ranks for grid in read.grid))
    choice = choose(asked, read.stacks, named.runtime, named.device, lambda: findings(machine_facts()))
    print(sentence(choice, read.stacks), flush=True)
    return choice.runtime


def named_in(flags: list[str], *, ranks: bool = False) -> argparse.Namespace:
    """What more flags of a suite's command lines say, without those that it does not know."""
    return _parser(ranks).parse_known_args(["-m", "any", *flags])[0]


def _run(orders: list[Order], directories: list[Path], args: argparse.Namespace, runner: Runner) -> int:
    specs = [spec for order in orders for spec in order.specs]
    statuses: Counter[str] = Counter()
    for number, directory in enumerate(directories):
        results = ResultsDirectory(directory)
        shuffled = list(orders)
        if len(directories) > 1:
            # The round's number is the seed, so that a resumed suite keeps its order.
            random.Random(number).shuffle(shuffled)
        total = sum(suite.wanted(results, spec, args.rerun) for spec in specs)
        hint = "" if total else "; --rerun all makes them again"
        print(f"{directory}: {total} of {len(specs)} runs to make{hint}", flush=True)
        made = runner(shuffled, results, rerun=args.rerun, timeout_s=args.timeout)
        try:
            with suite.locked(results), closing(made):
                for count, records in enumerate(made, 1):
                    for record in records:
                        print(f"[{count}/{total}] {_line(record)}", flush=True)
        except KeyboardInterrupt:
            print("interrupted; the same command goes on from here", flush=True)
            return exit_code()
        statuses.update(record.status for spec in specs for record in records_of(results, spec))
    print(", ".join(f"{count} {status}" for status, count in sorted(statuses.items())))
    print(f"next, the report: xpubench report {args.results_dir} -o report.html")
    if len({spec.subject.runtime for spec in specs}) > 1:
        print(f"the stacks side by side: xpubench report --diff {args.results_dir} -o stacks.html")
    return 0 if set(statuses) == {"ok"} else 1


def _parsed(command: suite.CommandLine, *more: str) -> argparse.Namespace:
    """The flags of a command line's grid, and `more`."""
    return _parser(command.ranks is not None).parse_args([*command.flags, *more])


def _order(
    command: suite.CommandLine, args: argparse.Namespace, environment: suite.SuiteEnvironment | None
) -> Order:
    """The order that a command line gives, by its flags, on the device that its environment finds where none
    is named."""
    runtime, *others = runtime_names(args)
    if others:
        raise UserError("a command line of a suite has one runtime: name one --runtime, and vary it")
    python = environment.python if environment is not None else None
    device = args.device or generation.device_of_worker(runtime, python)
    if command.ranks is None:
        return generation.order_for(args, runtime, device)
    args.tp_size = command.ranks
    return tensor_parallel.order_over_ranks(args, device)


@cache
def _parser(with_ranks: bool) -> Parser:
    # --help in a command line would end the suite.
    parser = Parser(prog="xpubench generate", add_help=False)
    (tensor_parallel if with_ranks else generation).add_flags(parser)
    return parser


def _line(record: Record) -> str:
    outcome = ""
    if record.failure is not None:
        outcome = f": {record.failure.message}"
    elif record.accuracy is not None and record.accuracy.acc is not None:
        outcome = f": accuracy {record.accuracy.acc:.2%}"
    elif record.latency is not None and record.latency.next_token_ms is not None:
        outcome = f": next token {record.latency.next_token_ms.median:.2f} ms"
    return f"{record.status}  {title_of(record)}{outcome}"
