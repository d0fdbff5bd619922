"""Compare runs: exit code 0 same or faster, 1 slower or less accurate, 2 not comparable."""

import argparse
import sys
from pathlib import Path

from xpubench.compare.runs import Comparisons, Limits, compare_paths

FORMATS = ("table", "md", "json", "junit")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    what = "a record, a directory of records, or a file with several"
    parser.add_argument("base", type=Path, metavar="BASE", help=f"to hold against: {what}")
    parser.add_argument("new", type=Path, metavar="NEW", help="the runs in question, in the same form")
    parser.add_argument("--format", choices=FORMATS, default="table", help="default: table")
    parser.add_argument("--json", action="store_const", dest="format", const="json", help="--format json")
    for flag, limit, what in (
        ("--latency-limit", Limits().latency, "smaller changes are the same"),
        ("--memory-limit", Limits().memory, "a larger growth of the peak counts as slower"),
    ):
        note = f"{what} (default: {100 * limit:g})"
        parser.add_argument(flag, type=_percent, default=limit, metavar="PERCENT", help=note)


def _percent(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not value >= 0:
        raise argparse.ArgumentTypeError(f"must be a number of at least 0, not {text}")
    return value / 100


def run(args: argparse.Namespace) -> int:
    """Prints the comparison; its verdict is the exit code."""
    limits = Limits(latency=args.latency_limit, memory=args.memory_limit)
    found = compare_paths(args.base, args.new, limits)
    if args.format == "table":
        _print(found)
    else:
        sys.stdout.write(_content(found, args.format).decode())
    return found.exit_code


def _content(found: Comparisons, form: str) -> bytes:
    if form == "md":
        from xpubench.report.markdown import comparison_markdown

        return comparison_markdown(found)
    from xpubench.report.machine import as_json, as_junit

    return as_json(found) if form == "json" else as_junit(found)


def _print(found: Comparisons) -> None:
    from xpubench.cli.tables import plain_console, plain_table
    from xpubench.report.comparison import COLUMNS, notes, row_texts

    console = plain_console()
    accuracies = [run.accuracy for run in found.runs if run.accuracy and run.accuracy.task]
    if accuracies:
        table = plain_table("task", "base", "new", "difference", "gained", "lost", "McNemar's p", "items")
        for one in accuracies:
            table.add_row(
                one.task or "",
                f"{one.base_acc:.2%}",
                f"{one.new_acc:.2%}",
                f"{one.difference_points:+.2f} points",
                str(one.gained),
                str(one.lost),
                f"{one.p_value:.3g}",
                str(one.n),
            )
        console.print(table)
    latencies = [run for run in found.runs if run.first_token]
    if latencies:
        table = plain_table(*COLUMNS[:-1])
        for run in latencies:
            table.add_row(*row_texts(run)[:-1])
        console.print(table)
    for line in notes(found):
        console.print(line)
    if not found.runs:
        console.print("not comparable: no run is in both")
