"""Results directories as one page that opens without a network: summary, validated models, runs, figures."""

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path

from xpubench.errors import UserError
from xpubench.files import write_aside

FORMATS = ("html", "md", "csv", "json")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument("directories", type=Path, nargs="+", metavar="DIR", help="a directory of records")
    parser.add_argument(
        "--diff", action="store_true", help="two directories side by side: machines, drivers, stacks"
    )
    add_output_flags(parser)


def add_output_flags(
    parser: argparse.ArgumentParser, default: str | None = "html", note: str = "html"
) -> None:
    """Where to, and as what."""
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="the file to write")
    parser.add_argument("--format", choices=FORMATS, default=default, help=f"default: {note}")


def run(args: argparse.Namespace) -> int:
    """Writes the report."""
    if args.format == "html" and args.output is None:
        raise UserError("a page needs a file to be written to; add -o report.html, or --format md")
    if args.diff and len(args.directories) != 2:
        raise UserError(f"--diff takes two directories, A and B, not {len(args.directories)}")
    write_out(_diff(args) if args.diff else _report(args), args.output)
    return 0


def write_out(content: bytes, output: Path | None) -> None:
    """Writes the content to the file, whole or not at all, or to standard output."""
    if output is None:
        sys.stdout.write(content.decode())
        return
    try:
        write_aside(output, content)
    except OSError as error:
        raise UserError(f"cannot write {output}: {error.strerror}; name another with -o") from error
    print(output)


def check_page_libraries() -> None:
    """UserError when what makes pages is missing."""
    if missing := [name for name in ("jinja2", "plotly") if find_spec(name) is None]:
        raise UserError(f"a page needs {' and '.join(missing)}, not installed here; pip install '.[report]'")


def _report(args: argparse.Namespace) -> bytes:
    if args.format == "html":
        check_page_libraries()
        from xpubench.report.page.pages import report_page

        return report_page(args.directories)
    from xpubench.report.machine import as_csv, as_json
    from xpubench.report.markdown import overview_markdown
    from xpubench.report.overview import overview
    from xpubench.report.tables import runs_table

    found = overview(args.directories)
    if args.format == "csv":
        return as_csv(runs_table(found.runs))
    return as_json(found) if args.format == "json" else overview_markdown(found)


def _diff(args: argparse.Namespace) -> bytes:
    from xpubench.report.diff import diff

    if args.format == "html":
        check_page_libraries()
        from xpubench.report.page.pages import diff_page

        return diff_page(diff(*args.directories))
    from xpubench.report.machine import as_csv, as_json
    from xpubench.report.markdown import diff_markdown
    from xpubench.report.tables import diff_table

    found = diff(*args.directories)
    if args.format == "csv":
        return as_csv(diff_table(found.pairs))
    return as_json(found) if args.format == "json" else diff_markdown(found)
