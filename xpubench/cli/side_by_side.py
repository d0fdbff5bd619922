"""Several runtimes on one model and workload: each in a process of its own, in turns, in one table."""

import argparse
import subprocess
import sys
from pathlib import Path

from xpubench.errors import UserError
from xpubench.record import Record, decode, encode
from xpubench.results import ROUND
from xpubench.runtimes.openvino.options import FLAGS


def run(args: argparse.Namespace, runtimes: list[str]) -> int:
    """Runs each runtime once a round, in an order that rotates so that drift hits all alike, and prints a
    table for each workload. 0 when all went well, 1 when a run failed.

    A round's records lie in a directory of its own below --results-dir.
    """
    if args.accuracy_only:
        raise UserError("--accuracy-only takes one --runtime; xpubench compare holds two records together")
    if args.rounds < 1:
        raise UserError(f"--rounds must be at least 1, not {args.rounds}")
    rounds: list[dict[str, list[Record]]] = []
    for index in range(args.rounds):
        shift = index % len(runtimes)
        done = {}
        for runtime in runtimes[shift:] + runtimes[:shift]:
            print(f"round {index + 1}/{args.rounds}: {runtime}", file=sys.stderr, flush=True)
            done[runtime] = _records(args, runtime, args.results_dir / f"{ROUND}{index + 1}")
        rounds.append(done)
    if args.json:
        for done in rounds:
            for runtime in runtimes:
                for record in done[runtime]:
                    print(encode(record).decode())
    else:
        _print(rounds, runtimes)
    records = [record for done in rounds for found in done.values() for record in found]
    return 0 if all(record.status == "ok" for record in records) else 1


def _records(args: argparse.Namespace, runtime: str, directory: Path) -> list[Record]:
    flags = args.arguments if runtime.startswith("openvino") else _without_openvino(args.arguments)
    own = ["--runtime", runtime, "--results-dir", str(directory), "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "xpubench", "generate", *flags, *own],
        capture_output=True,
        text=True,
        check=False,
    )
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    if done.returncode == 2 and errors:
        raise UserError(f"{runtime}: {errors[-1].removeprefix('error: ')}")
    records = [decode(line) for line in done.stdout.splitlines()]
    if not records:
        raise UserError(f"{runtime} ended with {done.returncode} and no record; run it alone to see why")
    for line in errors:
        print(f"{runtime}: {line}", file=sys.stderr)
    return records


def _without_openvino(arguments: list[str]) -> list[str]:
    """The arguments without the flags that speak to OpenVINO's runtimes, and their values."""
    theirs = {"--" + name.replace("_", "-") for name in FLAGS}
    kept: list[str] = []
    dropping = False
    for word in arguments:
        if word.startswith("--"):
            dropping = word.partition("=")[0] in theirs
        elif word.startswith("-"):
            dropping = False
        if not dropping:
            kept.append(word)
    return kept


def _print(rounds: list[dict[str, list[Record]]], runtimes: list[str]) -> None:
    from xpubench.cli.tables import plain_console, plain_table
    from xpubench.report.side_by_side import COLUMNS, side_by_side

    console = plain_console()
    for found in side_by_side(rounds, runtimes):
        console.print(found.title)
        table = plain_table(*COLUMNS)
        for row in found.rows:
            table.add_row(*row)
        console.print(table)
