"""What a terminal shows of where a token's time goes."""

from collections.abc import Iterator

from rich import box
from rich.table import Table

from xpubench.progress import printable
from xpubench.record import Record
from xpubench.report.explained import (
    DEPTH_COLUMNS,
    depth_rows,
    explanation_lines,
    ledger_table,
    parts_of,
    slope_text,
)


def explanation_tables(record: Record) -> Iterator[Table]:
    """The tables of a record's explanation: the ledgers, the lines about them, and the curve over depths."""
    found = record.explanation
    if found is None:
        return
    columns, rows = ledger_table(record)
    if rows:
        yield _figures(columns, rows, sums=len(rows) - len(parts_of(found)))
    lines = list(explanation_lines(found))
    if found.depth is not None:
        yield _figures(DEPTH_COLUMNS, depth_rows(found.depth))
        if (slope := slope_text(found.depth)) is not None:
            lines.append(("slope", slope))
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="cyan", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, text in lines:
        grid.add_row(name, printable(text))
    yield grid


def _figures(columns: list[str] | tuple[str, ...], rows: list[list[str]], sums: int = 0) -> Table:
    """A table of figures, whose last rows are `sums` of those above."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, name in enumerate(columns):
        table.add_column(name, justify="left" if index == 0 and sums else "right", no_wrap=True)
    for index, row in enumerate(rows):
        table.add_row(*row, end_section=index == len(rows) - sums - 1)
    return table
