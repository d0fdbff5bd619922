"""Tables that the page filters, sorts and shows a hundred rows at a time."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, TypeVar

import msgspec

from xpubench.compare.figures import FigureName
from xpubench.compare.history import Point
from xpubench.compare.judgement import Judgement
from xpubench.compare.row import RunRow
from xpubench.report.comparison import detectable_text, needed_text
from xpubench.report.diff import RunPair
from xpubench.report.text import NONE, date, number

# `run` opens the panel of the row's key; `interval` is [figure, low, high] or the figure alone.
ColumnKind = Literal["run", "title", "text", "long", "status", "number", "interval", "date"]
_Row = TypeVar("_Row")
_Columns = dict[str, tuple["Column", Callable[[_Row], Any]]]


class Column(msgspec.Struct, frozen=True):
    """A column. With `filter`, the reader chooses among its values; one that is `hidden` serves for that."""

    label: str
    kind: ColumnKind = "text"
    digits: int = 2
    filter: bool = False
    hidden: bool = False


class DataTable(msgspec.Struct, frozen=True):
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
        return number(cell, column.digits)
    if column.kind == "interval":
        figure, *ends = (number(value, column.digits) for value in cell)
        return f"{figure} ({'–'.join(ends)})" if ends else figure
    return date(cell) if column.kind == "date" else str(cell)


def runs_table(runs: list[RunRow]) -> DataTable:
    """The table of runs, the newest first; without the column of what bounds them where no run tells it."""
    order = sorted(enumerate(runs), key=lambda numbered: numbered[1].created, reverse=True)
    columns = _RUNS if any(run.bound_by for run in runs) else _without(_RUNS, "bound")
    return _table(columns, ((index, run.key, run) for index, run in order))


def diff_table(pairs: list[RunPair]) -> DataTable:
    """The table of two directories' pairs; without the column of parts where no pair tells any."""
    columns = _DIFF if any(map(_parts, pairs)) else _without(_DIFF, "parts")
    return _table(columns, ((None, "", pair) for pair in pairs))


def history_table(points: list[Point]) -> DataTable:
    """The table of a model's history."""
    return _table(_HISTORY, ((None, "", point) for point in points))


def _without(columns: _Columns[_Row], left_out: str) -> _Columns[_Row]:
    return {name: column for name, column in columns.items() if name != left_out}


def _table(columns: _Columns[_Row], rows: Iterable[tuple[int | None, str, _Row]]) -> DataTable:
    return DataTable(
        {name: column for name, (column, _) in columns.items()},
        [[panel, key, *(cell(row) for _, cell in columns.values())] for panel, key, row in rows],
    )


def _model(run: RunRow) -> str:
    return run.model if run.weights == "pretrained" else f"{run.model} ({run.weights} weights)"


def _first(run: RunRow) -> list[float] | None:
    return None if run.first_token_ms is None else [run.first_token_ms, *(run.first_token_ci95 or ())]


def _next(run: RunRow) -> list[float] | None:
    return None if run.next_token_ms is None else [run.next_token_ms, *(run.next_token_ci95 or ())]


def _change(found: Judgement | None) -> list[float] | None:
    return None if found is None or found.change is None else [found.change, *(found.ends or ())]


def _ratio(pair: RunPair, *names: FigureName) -> list[float] | None:
    """The ratio of the first of these figures that was compared."""
    figures = pair.comparison.figures
    return next((_change(figures[name]) for name in names if name in figures), None)


def _new_level(point: Point) -> str | None:
    return None if point.change == "none" else point.change


def _accuracy(pair: RunPair) -> Judgement | None:
    found = pair.comparison.accuracy
    return None if found is None else found.accuracy


def _parts(pair: RunPair) -> str | None:
    found = pair.comparison.parts
    return None if found is None else found.message


def _of_primary(pair: RunPair, text: Callable[[Judgement], str | None]) -> str | None:
    found = pair.comparison.primary
    return None if found is None else text(found)


def _tokens(pair: RunPair) -> str | None:
    place = pair.first_other_token
    return None if place is None else f"other from {place}" if place else "equal"


def _recipes(pair: RunPair) -> str | None:
    """How both sides' weights were quantized, once where it is the same."""
    told = [recipe or "not told" for recipe in dict.fromkeys(pair.recipes)]
    return " | ".join(told) if any(pair.recipes) else None


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _memory_gb(run: RunRow) -> float | None:
    memory = run.peak_device_bytes or run.peak_host_bytes
    return memory / 1e9 if memory else None


_RUNS: _Columns[RunRow] = {
    "model": (Column("Model", "run"), _model),
    "family": (Column("Family", filter=True, hidden=True), lambda run: run.family),
    "workload": (Column("Workload", "long"), lambda run: run.workload),
    "runtime": (Column("Runtime", filter=True), lambda run: run.runtime),
    "device": (
        Column("Device", filter=True),
        lambda run: run.device if run.ranks == 1 else f"{run.ranks} x {run.device}",
    ),
    "precision": (Column("Precision", filter=True), lambda run: run.precision),
    "status": (Column("Status", "status", filter=True), lambda run: run.status),
    "first": (Column("First token, ms", "interval"), _first),
    "prompt": (Column("Prompt, tokens/s", "number", digits=1), lambda run: run.prompt_tokens_per_s),
    "next": (Column("Next token, ms", "interval"), _next),
    "rate": (Column("Tokens/s", "number"), lambda run: run.tokens_per_s),
    "mbu": (Column("MBU, %", "number", digits=1), lambda run: _percent(run.mbu_measured)),
    "bound": (Column("Bound by", filter=True), lambda run: run.bound_by),
    "accuracy": (Column("Accuracy, %", "number", digits=1), lambda run: _percent(run.acc)),
    "memory": (Column("Memory, GB", "number"), _memory_gb),
    "created": (Column("Made, UTC", "date"), lambda run: run.created),
    "message": (Column("Failure", hidden=True), lambda run: run.message),
    "id": (Column("Id", hidden=True), lambda run: run.id),
    "file": (Column("Record", hidden=True), lambda run: f"{run.directory}/{run.file}"),
}
_DIFF: _Columns[RunPair] = {
    "model": (Column("Model", "title"), lambda pair: _model(pair.a)),
    "family": (Column("Family", filter=True, hidden=True), lambda pair: pair.a.family),
    "workload": (Column("Workload", "long"), lambda pair: pair.a.workload),
    "precision": (Column("Precision", filter=True), lambda pair: pair.a.precision_class),
    "a": (Column("A", filter=True), lambda pair: f"{pair.a.runtime} {pair.a.device}"),
    "b": (Column("B", filter=True), lambda pair: f"{pair.b.runtime} {pair.b.device}"),
    "verdict": (Column("B is", "status", filter=True), lambda pair: pair.comparison.verdict),
    "parts": (Column("Parts that changed", "long"), _parts),
    "next": (Column("Next token, B / A", "interval", digits=3), lambda pair: _ratio(pair, "next_token")),
    "first": (Column("First token, B / A", "interval", digits=3), lambda pair: _ratio(pair, "first_token")),
    "prompt_a": (
        Column("Prompt A, tokens/s", "number", digits=1),
        lambda pair: pair.a.prompt_tokens_per_s,
    ),
    "prompt_b": (
        Column("Prompt B, tokens/s", "number", digits=1),
        lambda pair: pair.b.prompt_tokens_per_s,
    ),
    "next_a": (Column("Next token A, ms", "number"), lambda pair: pair.a.next_token_ms),
    "next_b": (Column("Next token B, ms", "number"), lambda pair: pair.b.next_token_ms),
    "memory": (
        Column("Memory, B / A", "interval", digits=3),
        lambda pair: _ratio(pair, "peak_device", "peak_host"),
    ),
    "acc_a": (Column("Accuracy A, %", "number", digits=1), lambda pair: _percent(pair.a.acc)),
    "acc_b": (Column("Accuracy B, %", "number", digits=1), lambda pair: _percent(pair.b.acc)),
    "tokens": (Column("Tokens"), _tokens),
    "kl_a": (Column("KL A, nats", "number", digits=4), lambda pair: pair.a.mean_kl),
    "kl_b": (Column("KL B, nats", "number", digits=4), lambda pair: pair.b.mean_kl),
    "points": (Column("B - A, points", "interval"), lambda pair: _change(_accuracy(pair))),
    "recipes": (Column("Recipes", "long"), _recipes),
    "would_show": (Column("Would show"), lambda pair: _of_primary(pair, detectable_text)),
    "decides_at": (Column("Decides at"), lambda pair: _of_primary(pair, needed_text)),
    "reason": (
        Column("Why", "long"),
        lambda pair: "; ".join([pair.comparison.reason, *pair.comparison.beyond]),
    ),
}
_HISTORY: _Columns[Point] = {
    "series": (Column("Series", "title", filter=True), lambda point: point.series),
    "created": (Column("Made, UTC", "date"), lambda point: point.run.created),
    "change": (Column("New level", "status", filter=True), _new_level),
    "step": (Column("Step", "number", digits=3), lambda point: point.step),
    "next": (Column("Next token, ms", "interval"), lambda point: _next(point.run)),
    "first": (Column("First token, ms", "interval"), lambda point: _first(point.run)),
    "prompt": (Column("Prompt, tokens/s", "number", digits=1), lambda point: point.run.prompt_tokens_per_s),
    "accuracy": (Column("Accuracy, %", "number"), lambda point: _percent(point.run.acc)),
    "file": (Column("Record"), lambda point: f"{point.run.directory}/{point.run.file}"),
    # Apache Otava reads `figure` over `created` of one `branch`.
    "figure": (Column("Figure", "number", hidden=True), lambda point: point.figure),
    "branch": (Column("Branch", hidden=True), lambda point: f"{point.run.id[:8]} {point.run.device_name}"),
}
