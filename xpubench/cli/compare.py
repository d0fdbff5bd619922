"""Compare two accuracy records item by item; exit code 0 ok or warning, 1 regression, 2 not comparable."""

import argparse
from pathlib import Path

from xpubench.accuracy.compare import Comparison, compare
from xpubench.record import read_record

EXIT_CODES = {"ok": 0, "warning": 0, "regression": 1, "not comparable": 2}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument("base", type=Path, metavar="BASE", help="the record to hold against")
    parser.add_argument("new", type=Path, metavar="NEW", help="the record in question")
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace) -> int:
    """Prints the comparison; its verdict is the exit code."""
    found = compare(read_record(args.base), read_record(args.new))
    if args.json:
        import msgspec

        print(msgspec.json.encode(found).decode())
    else:
        _print(found)
    return EXIT_CODES[found.verdict]


def _print(found: Comparison) -> None:
    from xpubench.report.tables import plain_console, plain_table

    console = plain_console()
    if found.verdict != "not comparable":
        table = plain_table("task", "base", "new", "difference", "gained", "lost", "McNemar's p", "items")
        table.add_row(
            found.task or "",
            f"{found.base_acc:.2%}",
            f"{found.new_acc:.2%}",
            f"{found.difference_points:+.2f} points",
            str(found.gained),
            str(found.lost),
            f"{found.p_value:.3g}",
            str(found.n),
        )
        console.print(table)
    console.print(f"{found.verdict}: {found.reason}")
