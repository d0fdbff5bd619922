"""Tables that the page filters, sorts and shows a hundred rows at a time."""

from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from xpubench.compare.history import Point
from xpubench.compare.latency import Ratio
from xpubench.compare.row import RunRow
from xpubench.report.diff import RunPair
from xpubench.report.text import NONE, date

# `run` opens the panel of the row's key; `interval` is [figure, low, high] or the figure alone.
ColumnKind = Literal["run", "title", "text", "long", "status", "number", "interval", "date"]


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """A column. With `filter`, the reader chooses among its values; one that is `hidden` serves for that."""

    label: str
    kind: ColumnKind = "text"
    digits: int = 2
    filter: bool = False
    hidden: bool = False


class DataTable(msgspec.Struct, frozen=True, kw_only=True):
    """Columns by name, and rows of the number and the key of a run's panel (None and empty where there is no
    panel) and a cell for each column: a text, a number, [figure, low, high], or None."""

    columns: dict[str, Column]
    rows: list[list[Any]]

    def cells(self) -> Iterator[list[Any]]:
        """The rows without what names their panels."""
        return (row[2:] for row in self.rows)


def cell_text(column: Column, cell: Any) -> str:
    """A cell of a table as text."""
    if cell is None:
        return NONE
    if column.kind == "number":
        return f"{cell:,.{column.digits}f}"
    if column.kind == "interval":
        figure, *ends = (f"{value:,.{column.digits}f}" for value in cell)
        return f"{figure} ({'–'.join(ends)})" if ends else figure
    return date(cell) if column.kind == "date" else str(cell)


RUNS: dict[str, Column] = {
    "model": Column(label="Model", kind="run"),
    "family": Column(label="Family", filter=True, hidden=True),
    "workload": Column(label="Workload", kind="long"),
    "runtime": Column(label="Runtime", filter=True),
    "device": Column(label="Device", filter=True),
    "precision": Column(label="Precision", filter=True),
    "status": Column(label="Status", kind="status", filter=True),
    "first": Column(label="First token, ms", kind="interval"),
    "next": Column(label="Next token, ms", kind="interval"),
    "rate": Column(label="Tokens/s", kind="number"),
    "mbu": Column(label="MBU, %", kind="number", digits=1),
    "accuracy": Column(label="Accuracy, %", kind="number", digits=1),
    "memory": Column(label="Memory, GB", kind="number"),
    "created": Column(label="Made, UTC", kind="date"),
    "message": Column(label="Failure", hidden=True),
    "id": Column(label="Id", hidden=True),
    "file": Column(label="Record", hidden=True),
}


def runs_table(runs: list[RunRow]) -> DataTable:
    """The table of runs, the newest first."""
    order = sorted(range(len(runs)), key=lambda index: runs[index].created, reverse=True)
    return DataTable(columns=RUNS, rows=[[index, runs[index].key, *_cells(runs[index])] for index in order])


DIFF: dict[str, Column] = {
    "model": Column(label="Model", kind="title"),
    "family": Column(label="Family", filter=True, hidden=True),
    "workload": Column(label="Workload", kind="long"),
    "precision": Column(label="Precision", filter=True),
    "a": Column(label="A", filter=True),
    "b": Column(label="B", filter=True),
    "verdict": Column(label="B is", kind="status", filter=True),
    "next": Column(label="Next token, B / A", kind="interval", digits=3),
    "first": Column(label="First token, B / A", kind="interval", digits=3),
    "next_a": Column(label="Next token A, ms", kind="number"),
    "next_b": Column(label="Next token B, ms", kind="number"),
    "memory": Column(label="Memory, B / A", kind="number", digits=3),
    "acc_a": Column(label="Accuracy A, %", kind="number", digits=1),
    "acc_b": Column(label="Accuracy B, %", kind="number", digits=1),
    "points": Column(label="B - A, points", kind="number"),
    "p": Column(label="McNemar's p", kind="number", digits=3),
}


def diff_table(pairs: list[RunPair]) -> DataTable:
    """The table of two directories' pairs."""
    return DataTable(columns=DIFF, rows=[[None, "", *_pair_cells(pair)] for pair in pairs])


def _pair_cells(pair: RunPair) -> list[Any]:
    a, b = pair.a, pair.b
    return [
        a.model if a.weights == "pretrained" else f"{a.model} ({a.weights} weights)",
        *(a.family, a.workload, a.precision, f"{a.runtime} {a.device}", f"{b.runtime} {b.device}"),
        pair.verdict,
        _ratio(pair.next_token),
        _ratio(pair.first_token),
        *(a.next_token_ms, b.next_token_ms, pair.memory),
        *(_percent(a.acc), _percent(b.acc), pair.accuracy_points, pair.p_value),
    ]


HISTORY: dict[str, Column] = {
    "series": Column(label="Series", kind="title", filter=True),
    "created": Column(label="Made, UTC", kind="date"),
    "change": Column(label="Since the one before", kind="status", filter=True),
    "ratio": Column(label="Ratio to it", kind="interval", digits=3),
    "next": Column(label="Next token, ms", kind="interval"),
    "first": Column(label="First token, ms", kind="interval"),
    "accuracy": Column(label="Accuracy, %", kind="number"),
    "points": Column(label="Difference, points", kind="number"),
    "file": Column(label="Record"),
}


def history_table(points: list[Point]) -> DataTable:
    """The table of a model's history."""
    return DataTable(columns=HISTORY, rows=[[None, "", *_point_cells(point)] for point in points])


def _point_cells(point: Point) -> list[Any]:
    run = point.run
    return [
        *(point.series, run.created, point.change, _ratio(point.ratio)),
        _interval(run.next_token_ms, run.next_token_ci95),
        _interval(run.first_token_ms, run.first_token_ci95),
        *(_percent(run.acc), point.accuracy_points, f"{run.directory}/{run.file}"),
    ]


def _ratio(found: Ratio | None) -> list[float | None] | None:
    if found is None:
        return None
    return [found.ratio] if found.low is None else [found.ratio, found.low, found.high]


def _cells(run: RunRow) -> list[Any]:
    memory = run.peak_device_bytes or run.peak_host_bytes
    return [
        run.model if run.weights == "pretrained" else f"{run.model} ({run.weights} weights)",
        run.family,
        run.workload,
        run.runtime,
        run.device if run.ranks == 1 else f"{run.ranks} x {run.device}",
        run.precision,
        run.status,
        _interval(run.first_token_ms, run.first_token_ci95),
        _interval(run.next_token_ms, run.next_token_ci95),
        run.tokens_per_s,
        _percent(run.mbu_measured),
        _percent(run.acc),
        memory / 1e9 if memory else None,
        run.created,
        run.message,
        run.id,
        f"{run.directory}/{run.file}",
    ]


def _interval(median: float | None, ends: tuple[float, float] | None) -> list[float] | None:
    return None if median is None else [median, *(ends or ())]


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share
