"""Several runtimes on one model and workload: each in a process of its own, in turns, in one table."""

import argparse
from contextlib import closing

from xpubench.cli import generation
from xpubench.cli.tables import print_table
from xpubench.errors import UserError
from xpubench.process.signals import exit_code
from xpubench.progress import log_line, printable
from xpubench.record import Record, encode
from xpubench.results import ResultsDirectory
from xpubench.run.order import Order
from xpubench.run.suite import DEFAULT_TIMEOUT_S, locked, round_directories, run_orders, wanted
from xpubench.run.supervisor import records_of

DEFAULT_ROUNDS = 3


def run(args: argparse.Namespace, runtimes: list[str]) -> int:
    """Runs each runtime once in each round, in an order that rotates so that drift affects all of them
    alike, prints a table for each workload, and returns 0 when all went well, 1 when a run failed. As in
    a suite, each round has a directory below --results-dir, and runs that went well there already are
    not repeated."""
    if args.accuracy_only:
        raise UserError("--accuracy-only takes one --runtime; xpubench compare compares two records")
    if args.save_model:
        raise UserError("--save_model takes one --runtime, whose format it saves")
    directories = round_directories(args.results_dir, DEFAULT_ROUNDS if args.rounds is None else args.rounds)
    # A wrong flag is told before torch, whose import takes seconds, looks for devices.
    for runtime in runtimes:
        generation.order_for(args, runtime, args.device or "cpu")
    orders = {
        runtime: generation.order_for(args, runtime, args.device or generation.device_of_worker(runtime))
        for runtime in runtimes
    }
    device = _shared_device(orders)
    if args.device is None:
        log_line(f"no --device given: using {device}")
    rounds = [ResultsDirectory(directory) for directory in directories]
    try:
        for index, results in enumerate(rounds):
            shift = index % len(runtimes)
            with locked(results):
                for runtime in runtimes[shift:] + runtimes[:shift]:
                    log_line(f"round {index + 1}/{len(rounds)}: {runtime}")
                    _run_turn(orders[runtime], runtime, results)
    except KeyboardInterrupt:
        log_line("interrupted; the same command goes on from here")
        return exit_code()
    made = [
        {
            runtime: [record for spec in orders[runtime].specs for record in records_of(results, spec)]
            for runtime in runtimes
        }
        for results in rounds
    ]
    records = [record for done in made for runtime in runtimes for record in done[runtime]]
    if args.json:
        for record in records:
            print(encode(record).decode())
    else:
        _print(made, runtimes)
    return 0 if all(record.status == "ok" for record in records) else 1


def _shared_device(orders: dict[str, Order]) -> str:
    """The kind of device that all runtimes run on. UserError where they differ, because ratios would then
    compare devices."""
    kinds = {runtime: order.specs[0].subject.device for runtime, order in orders.items()}
    first, *others = dict.fromkeys(kinds.values())
    if others:
        found = ", ".join(f"{runtime} on {kind}" for runtime, kind in kinds.items())
        raise UserError(f"the runtimes would run on different devices ({found}); name one with --device")
    return first


def _run_turn(order: Order, runtime: str, results: ResultsDirectory) -> None:
    done = sum(not wanted(results, spec, "failed") for spec in order.specs)
    if done:
        log_line(
            f"  {done} of {len(order.specs)} runs are done already; another --results-dir runs them again"
        )
    made = run_orders(
        [order], results, rerun="failed", timeout_s=DEFAULT_TIMEOUT_S, say=lambda text: log_line(f"  {text}")
    )
    with closing(made):
        for record in (one for records in made for one in records):
            if record.failure is not None:
                log_line(f"{runtime}: error: {record.status}: {record.failure.message}")


def _print(rounds: list[dict[str, list[Record]]], runtimes: list[str]) -> None:
    from xpubench.report.side_by_side import COLUMNS, side_by_side

    for found in side_by_side(rounds, runtimes):
        print(printable(found.title))
        print_table(COLUMNS, found.rows)
