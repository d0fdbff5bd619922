"""A model's figures in time, with the steps of its level and slow drift."""

import argparse
from itertools import groupby
from pathlib import Path

from xpubench.cli.report import add_output_flags, check_page, format_of, plain_form, write_out
from xpubench.cli.tables import print_table
from xpubench.compare.history import History, history
from xpubench.progress import printable
from xpubench.report.markdown import history_markdown
from xpubench.report.tables import cell_text, history_table


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags to its parser."""
    parser.add_argument("directories", type=Path, nargs="+", metavar="DIR", help="a directory of records")
    parser.add_argument("--model", required=True, metavar="MODEL", help="the model's name in the records")
    add_output_flags(parser, note="by the name of FILE, else html; without FILE a table on the terminal")


def run(args: argparse.Namespace) -> int:
    """Writes the history."""
    form = format_of(args) or "table"
    if form == "html":
        check_page(args.output, "history.html")
    found = history(args.directories, args.model)
    if form == "table":
        _print(found)
    elif form == "html":
        from xpubench.report.page.pages import history_page

        write_out(history_page(found), args.output)
    else:
        content = plain_form(form, found, lambda found: history_table(found.points), history_markdown)
        write_out(content, args.output)
    return 0


def _print(found: History) -> None:
    table = history_table(found.points)
    # The series is a heading, and columns without figures are left out, so that the rows stay narrow.
    left_out = ("series", "file", "figure", "branch")
    columns = [(at, one) for at, one in enumerate(table.columns.items()) if one[0] not in left_out]
    notes = {one.name: one.note for one in found.series}
    for series, group in groupby(table.cells(), key=lambda row: row[0]):
        rows = list(group)
        shown = [(at, column) for at, (_, column) in columns if any(row[at] is not None for row in rows)]
        texts = ([cell_text(column, row[at]) for at, column in shown] for row in rows)
        print(printable(f"{series}: {notes[series]}"))
        print_table([column.label for _, column in shown], texts)
    for path, reason in found.left_out:
        print(printable(f"left out: {path}: {reason}"))
