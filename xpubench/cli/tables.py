"""Rich tables that stay whole where the output is no terminal."""

import sys
from collections.abc import Iterable, Sequence
from typing import TextIO

from rich import box
from rich.console import Console
from rich.table import Table

LOG_WIDTH = 140


def plain_console(out: TextIO | None = None) -> Console:
    """Standard output or `out`: as wide as the terminal, or wide enough for a table in a log."""
    out = out or sys.stdout
    return Console(
        file=out, highlight=False, markup=False, emoji=False, width=None if out.isatty() else LOG_WIDTH
    )


def plain_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1) -> Table:
    """A table whose first `left` columns are aligned to the left and the others to the right."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index < left else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table
