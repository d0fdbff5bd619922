"""Results directories as one page that opens without a network: summary, validated models, runs, figures."""

import argparse
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

from xpubench.errors import UserError, shortened
from xpubench.files import write_aside
from xpubench.report.diff import diff
from xpubench.report.machine import as_csv, as_json
from xpubench.report.markdown import diff_markdown, overview_markdown
from xpubench.report.overview import overview
from xpubench.report.tables import DataTable, diff_table, runs_table

_View = TypeVar("_View")
FORMATS = ("html", "md", "csv", "json")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags to its parser."""
    parser.add_argument("directories", type=Path, nargs="+", metavar="DIR", help="a directory of records")
    note = "runs of the same work side by side: the first directory and the others, or the stacks in one"
    parser.add_argument("--diff", action="store_true", help=note)
    add_output_flags(parser, note="by the name of FILE, else html")


def add_output_flags(parser: argparse.ArgumentParser, *, note: str) -> None:
    """Adds the flags of the file and the format."""
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="the file to write")
    parser.add_argument("--format", choices=FORMATS, help=f"default: {note}")


def format_of(args: argparse.Namespace) -> str | None:
    """The format that was asked for, else that of the file's name, html for another one; None without
    both."""
    if args.format is not None or args.output is None:
        chosen: str | None = args.format
        return chosen
    suffix = args.output.suffix.lower().lstrip(".")
    return suffix if suffix in FORMATS else "html"


def run(args: argparse.Namespace) -> int:
    """Writes the report."""
    args.format = format_of(args) or "html"
    if args.format == "html":
        check_page(args.output, "report.html")
    write_out((_diff if args.diff else _report)(args), args.output)
    return 0


def check_page(output: Path | None, name: str) -> None:
    """UserError when a page cannot be made: without a file, such as `name`, or without its libraries."""
    if output is None:
        raise UserError(f"a page needs a file to be written to; add -o {name}, or --format md")
    if missing := [name for name in ("jinja2", "plotly") if find_spec(name) is None]:
        raise UserError(f"a page needs {' and '.join(missing)}, not installed here; pip install '.[report]'")


def write_out(content: bytes, output: Path | None) -> None:
    """Writes the content to the file, whole or not at all, or to standard output."""
    if output is None:
        sys.stdout.write(content.decode())
        return
    try:
        write_aside(output, content)
    except OSError as error:
        named = shortened(output)
        raise UserError(f"cannot write {named}: {error.strerror}; name another with -o") from error
    print(output)


def plain_form(
    form: str, found: _View, table: Callable[[_View], DataTable], markdown: Callable[[_View], bytes]
) -> bytes:
    """A report in one of the formats other than a page; `table` is what the CSV holds."""
    if form == "csv":
        return as_csv(table(found))
    return as_json(found) if form == "json" else markdown(found)


def _report(args: argparse.Namespace) -> bytes:
    if args.format == "html":
        from xpubench.report.page.pages import report_page

        return report_page(args.directories)
    found = overview(args.directories)
    return plain_form(args.format, found, lambda found: runs_table(found.runs), overview_markdown)


def _diff(args: argparse.Namespace) -> bytes:
    found = diff(args.directories)
    if args.format == "html":
        from xpubench.report.page.pages import diff_page

        return diff_page(found)
    return plain_form(args.format, found, lambda found: diff_table(found.pairs), diff_markdown)
