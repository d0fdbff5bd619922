"""Compare runs: exit code 0 same or faster, 1 slower, less accurate, newly failing or missing, 2 not
comparable, 3 inconclusive."""

import argparse
import sys
from pathlib import Path
from typing import get_args

from xpubench.cli import live
from xpubench.cli.tables import print_table
from xpubench.compare.accuracy import AccuracyComparison
from xpubench.compare.figures import FigureName
from xpubench.compare.intervals import MIN_HISTORY
from xpubench.compare.processes import Limits
from xpubench.compare.runs import INCONCLUSIVE, Comparisons, Rules, compare_paths
from xpubench.errors import UserError
from xpubench.progress import printable
from xpubench.report.comparison import LEFT_COLUMNS, comparison_table, detectable_text, needed_text, notes
from xpubench.report.machine import as_json, as_junit
from xpubench.report.markdown import comparison_markdown
from xpubench.report.text import NONE

ACCURACY_COLUMNS = (
    *("run", "verdict", "base", "new", "difference, points", "gained", "lost", "McNemar's p", "items"),
    *("would show", "decides at"),
)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags to its parser."""
    form = "a record, a directory of records, or a file with several"
    add = parser.add_argument
    add("base", metavar="BASE", help=f"the runs to compare with: {form}")
    add("new", nargs="?", metavar="NEW", help="the runs to judge, in the same form")
    add("--format", choices=("table", "md", "json", "junit"), default="table", help="default: table")
    add("--json", action="store_const", dest="format", const="json", help="--format json")
    for flag, limit in (("--latency-limit", Limits().latency), ("--memory-limit", Limits().memory)):
        note = f"an interval within it counts as the same (default: {100 * limit:g})"
        add(flag, type=_percent, default=limit, metavar="PERCENT", help=note)
    note = f"the figure that gives the verdict: {', '.join(get_args(FigureName))} (default: next_token)"
    add("--primary", choices=get_args(FigureName), default="next_token", metavar="FIGURE", help=note)
    note = "ids, models or titles of runs that NEW may lack; * stands for anything"
    add("--allow-missing", nargs="+", default=[], metavar="RUN", help=note)
    add("--inconclusive-ok", action="store_true", help="exit code 0 instead of 3")
    note = (
        "directories of earlier records of this machine, which tell the noise between processes where a side "
        f"is one alone ({MIN_HISTORY + 1} repeats are needed)"
    )
    add("--history", type=Path, nargs="+", default=[], metavar="DIR", help=note)
    live.add_flags(parser)


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
    rules = Rules(
        limits=Limits(latency=args.latency_limit, memory=args.memory_limit),
        primary=args.primary,
        may_lack=tuple(args.allow_missing),
        earlier=tuple(args.history),
    )
    if args.live:
        found = live.compare_live(args, rules)
    elif lonely := live.flags_given(args):
        raise UserError(f"{lonely[0]} is for live comparisons; give --live too, or leave it out")
    elif args.new is None:
        raise UserError("two sets of runs are compared: name BASE and NEW")
    else:
        found = compare_paths(Path(args.base), Path(args.new), rules)
    if args.format == "table":
        _print(found)
    else:
        form = {"md": comparison_markdown, "json": as_json, "junit": as_junit}[args.format]
        sys.stdout.write(form(found).decode())
    return 0 if args.inconclusive_ok and found.exit_code == INCONCLUSIVE else found.exit_code


def _print(found: Comparisons) -> None:
    if accuracies := [_accuracy_texts(run.title, run.accuracy) for run in found.runs if run.accuracy]:
        print_table(ACCURACY_COLUMNS, accuracies, left=2)
    columns, rows = comparison_table([run for run in found.runs if run.accuracy is None])
    if rows:
        shown = [at for at, name in enumerate(columns) if name != "accuracy, points"]
        left = sum(name in LEFT_COLUMNS for name in columns)
        print_table([columns[at] for at in shown], ([row[at] for at in shown] for row in rows), left=left)
    for line in notes(found):
        print(printable(line))


def _accuracy_texts(title: str, one: AccuracyComparison) -> list[str]:
    judged = one.accuracy
    return [
        *(title, judged.verdict),
        *(NONE if acc is None else f"{acc:.2%}" for acc in (one.base_acc, one.new_acc)),
        *(judged.text, str(one.gained), str(one.lost), f"{judged.p_value:.3g}", str(one.n)),
        *(text or NONE for text in (detectable_text(judged), needed_text(judged))),
    ]
