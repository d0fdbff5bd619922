"""Compare runs: exit code 0 same or faster, 1 slower or less accurate, 2 not comparable."""

import argparse
import sys
from pathlib import Path

from xpubench.cli.tables import print_table
from xpubench.compare.accuracy import AccuracyComparison
from xpubench.compare.runs import Comparisons, Limits, compare_paths
from xpubench.report.comparison import COLUMNS, notes, row_texts
from xpubench.report.machine import as_json, as_junit
from xpubench.report.markdown import comparison_markdown

ACCURACY_COLUMNS = ("task", "base", "new", "difference", "gained", "lost", "McNemar's p", "items")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    form = "a record, a directory of records, or a file with several"
    add = parser.add_argument
    add("base", type=Path, metavar="BASE", help=f"the runs to compare with: {form}")
    add("new", type=Path, metavar="NEW", help="the runs to judge, in the same form")
    add("--format", choices=("table", "md", "json", "junit"), default="table", help="default: table")
    add("--json", action="store_const", dest="format", const="json", help="--format json")
    for flag, limit, meaning in (
        ("--latency-limit", Limits().latency, "smaller changes count as the same"),
        ("--memory-limit", Limits().memory, "a larger growth of the peak counts as slower"),
    ):
        note = f"{meaning} (default: {100 * limit:g})"
        add(flag, type=_percent, default=limit, metavar="PERCENT", help=note)


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
        form = {"md": comparison_markdown, "json": as_json, "junit": as_junit}[args.format]
        sys.stdout.write(form(found).decode())
    return found.exit_code


def _print(found: Comparisons) -> None:
    if accuracies := [run.accuracy for run in found.runs if run.accuracy and run.accuracy.task]:
        print_table(ACCURACY_COLUMNS, map(_accuracy_texts, accuracies))
    if latencies := [row_texts(run)[:-1] for run in found.runs if run.first_token]:
        print_table(COLUMNS[:-1], latencies)
    for line in notes(found):
        print(line)
    if not found.runs:
        print("not comparable: no run is in both")


def _accuracy_texts(one: AccuracyComparison) -> list[str]:
    return [
        *(
            one.task or "",
            f"{one.base_acc:.2%}",
            f"{one.new_acc:.2%}",
            f"{one.difference_points:+.2f} points",
        ),
        *(str(one.gained), str(one.lost), f"{one.p_value:.3g}", str(one.n)),
    ]
