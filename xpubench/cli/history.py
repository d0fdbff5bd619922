"""A model's figures in time, with the changes that are more than noise marked."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from xpubench.cli.report import add_output_flags, check_page_libraries, write_out
from xpubench.errors import UserError

if TYPE_CHECKING:
    from xpubench.compare.history import History


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument("directories", type=Path, nargs="+", metavar="DIR", help="a directory of records")
    parser.add_argument("--model", required=True, metavar="MODEL", help="as in the records")
    add_output_flags(parser, default=None, note="html with -o, else a table on the terminal")


def run(args: argparse.Namespace) -> int:
    """Writes the history."""
    form = args.format or ("html" if args.output else None)
    if form == "html" and args.output is None:
        raise UserError("a page needs a file to be written to; add -o history.html")
    if form == "html":
        check_page_libraries()
    from xpubench.compare.history import history

    found = history(args.directories, args.model)
    if form is None:
        _print(found)
    else:
        write_out(_content(found, form), args.output)
    return 0


def _content(found: "History", form: str) -> bytes:
    if form == "html":
        from xpubench.report.page.pages import history_page

        return history_page(found)
    from xpubench.report.machine import as_csv, as_json
    from xpubench.report.markdown import history_markdown
    from xpubench.report.tables import history_table

    if form == "csv":
        return as_csv(history_table(found.points))
    return as_json(found) if form == "json" else history_markdown(found)


def _print(found: "History") -> None:
    from itertools import groupby

    from xpubench.cli.tables import plain_console, plain_table
    from xpubench.report.tables import cell_text, history_table

    console = plain_console()
    table = history_table(found.points)
    # A series is a heading, and what it has no figures of is left out, so that its rows stay narrow.
    for series, group in groupby(table.cells(), key=lambda row: row[0]):
        rows = list(group)
        shown = [
            (at, column)
            for at, (name, column) in enumerate(table.columns.items())
            if name not in ("series", "file") and any(row[at] is not None for row in rows)
        ]
        console.print(series)
        printed = plain_table(*(column.label for _, column in shown))
        for row in rows:
            printed.add_row(*(cell_text(column, row[at]) for at, column in shown))
        console.print(printed)
    for path, reason in found.left_out:
        console.print(f"left out: {path}: {reason}")
