"""Rich tables that stay whole where the output is no terminal."""

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TextIO

from xpubench.progress import printable

if TYPE_CHECKING:
    from rich.console import Console

LOG_WIDTH = 140
NAME_WIDTH = 20


def console_for(out: TextIO) -> "Console":
    """A console as wide as the terminal, or wide enough for a table in a log."""
    # Rich is slow to import, and no `--help` needs it.
    from rich.console import Console

    width = None if out.isatty() else LOG_WIDTH
    return Console(file=out, highlight=False, markup=False, emoji=False, width=width)


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1, out: TextIO | None = None
) -> None:
    """Prints a table to standard output or `out`. The first `left` columns are aligned to the left and the
    others to the right."""
    from rich import box
    from rich.table import Table

    shown = [[printable(cell) for cell in row] for row in rows]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        # A short name stays whole, and other columns give way.
        longest = max((len(row[index]) for row in shown), default=0) if index < left else 0
        least = longest if longest <= NAME_WIDTH else None
        table.add_column(
            column, justify="left" if index < left else "right", overflow="fold", min_width=least
        )
    for row in shown:
        table.add_row(*row)
    console_for(out or sys.stdout).print(table)
