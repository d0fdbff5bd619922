"""Rich tables that stay whole where the output is no terminal."""

import sys
from typing import TextIO

from rich import box
from rich.console import Console
from rich.table import Table

LOG_WIDTH = 140


def plain_console(out: TextIO | None = None) -> Console:
    """Standard output or `out`: as wide as the terminal, or wide enough for a table in a log."""
    out = out or sys.stdout
    return Console(file=out, highlight=False, markup=False, width=width_of(out))


def width_of(out: TextIO) -> int | None:
    """The columns of a log; None for those of a terminal."""
    return None if out.isatty() else LOG_WIDTH


def plain_table(*columns: str) -> Table:
    """A table whose first column is text and whose others are right-aligned."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right", overflow="fold")
    return table
