"""The reports and comparisons as Markdown. Texts from records are escaped."""

import re
from collections.abc import Iterable, Sequence

from xpubench.compare.history import History
from xpubench.compare.runs import Comparisons
from xpubench.report.comparison import LEFT_COLUMNS, comparison_table, notes
from xpubench.report.diff import Diff
from xpubench.report.explained import PARTS_LEFT, parts_table
from xpubench.report.matrix import Cell, Entry
from xpubench.report.overview import Overview
from xpubench.report.tables import DataTable, cell_text, diff_table, history_table, runs_table
from xpubench.report.text import MODE_NAMES, NONE, number, percent

MARKS = {"validated": ["guide: validated"], "listed": ["guide: validated, listed"], "none": []}


def overview_markdown(found: Overview) -> bytes:
    """Summary, validated models and runs."""
    lines = ["# Validation report", ""]
    lines += [f"- {count} record{'s' * (count != 1)} in {escaped(path)}" for path, count in found.found]
    lines += [f"- {escaped(text)} ({count} runs)" for text, count in found.environments]
    lines += ["", "## Summary", ""]
    lines += [
        f"- {escaped(found.matrix.titles[one.platform])}, {MODE_NAMES[one.mode]}, {escaped(one.runtime)}: "
        f"{one.passed} models pass, {one.failed} fail, {one.partial} partial; "
        f"the guide validated {one.marked}"
        for one in found.tallies
    ]
    lines.append(f"- runs: {sum(run.status == 'ok' for run in found.runs)} of {len(found.runs)} went well")
    if one := found.slowest:
        lines.append(
            f"- slowest against the limit: {escaped(one.model)}, {escaped(one.runtime)}, {one.precision}: "
            f"{percent(one.mbu_measured)} % of the measured bandwidth"
        )
    lines += [
        f"- failed: {escaped(run.model)}, {escaped(run.runtime)}, {escaped(run.workload)}: "
        f"{run.status}: {escaped(run.message or '')}"
        for run in found.failed
    ]
    table = found.matrix
    header = ["model", *(f"{table.titles[one.platform]}, {MODE_NAMES[one.mode]}" for one in table.columns)]
    matrix = ([line.model, *map(_cell, line.cells)] for line in table.rows)
    lines += ["", "## Validated models", "", *_rows(header, matrix)]
    lines += ["", "## Runs", "", *_table(runs_table(found.runs))]
    if any(run.next_parts for run in found.runs):
        columns, rows = parts_table(found.runs)
        lines += ["", "## Where the time of a next token goes, % of its latency", ""]
        lines += _rows(columns, rows, numeric=columns[PARTS_LEFT:])
    return _whole(lines, found.left_out)


def diff_markdown(found: Diff) -> bytes:
    """The pairs, and what differs in the environments."""
    lines = ["# Side by side", "", f"- A: {escaped(found.a)}", f"- B: {escaped(found.b)}"]
    lines += [f"- {len(found.only_a)} runs in A alone, {len(found.only_b)} in B alone"]
    lines += ["", "## Summary", ""]
    lines += [f"- {escaped(move.text)}" for move in found.moves] or ["- no two runs did the same work"]
    lines += ["", "## Runs of the same work", "", *_table(diff_table(found.pairs))]
    facts = ([one.name, one.a, one.b] for one in found.environment)
    lines += ["", "## What differs in the environments", "", *_rows(["fact", "A", "B"], facts)]
    return _whole(lines, found.left_out)


def history_markdown(found: History) -> bytes:
    """The runs in time."""
    lines = [f"# History of {escaped(found.model)}", ""]
    lines += [f"- {escaped(one.name)}: {escaped(one.note)}" for one in found.series]
    lines += ["", *_table(history_table(found.points))]
    return _whole(lines, found.left_out)


def comparison_markdown(found: Comparisons) -> bytes:
    """The runs of two sets beside each other."""
    columns, rows = comparison_table(found.runs)
    lines = _rows(columns, rows, numeric=[name for name in columns if name not in LEFT_COLUMNS])
    return _whole([*lines, "", *(f"- {escaped(note)}" for note in notes(found))], [])


def escaped(text: str) -> str:
    """The text in one line, escaped so that neither Markdown nor HTML gives it another meaning."""
    return re.sub(r"([\\`*_~\[\]<>|#&])", r"\\\1", " ".join(text.split()))


def _table(table: DataTable) -> list[str]:
    shown = [(at, column) for at, column in enumerate(table.columns.values()) if not column.hidden]
    return _rows(
        [column.label for _, column in shown],
        ([cell_text(column, row[at]) for at, column in shown] for row in table.cells()),
        numeric=[column.label for _, column in shown if column.kind in ("number", "interval")],
    )


def _rows(header: Sequence[str], rows: Iterable[list[str]], numeric: Sequence[str] = ()) -> list[str]:
    """A table; the columns whose labels are in `numeric` are aligned to the right."""
    rule = ["---:" if label in numeric else "---" for label in header]
    first, *others = ([escaped(cell) for cell in row] for row in (header, *rows))
    return [f"| {' | '.join(cells)} |" for cells in (first, rule, *others)]


def _whole(lines: list[str], left_out: list[tuple[str, str]]) -> bytes:
    if left_out:
        lines += ["", "## Files left out, and runs that repeat", ""]
        lines += [f"- {escaped(path)}: {escaped(reason)}" for path, reason in left_out]
    return ("\n".join(lines) + "\n").encode()


def _cell(cell: Cell) -> str:
    return "; ".join([*MARKS[cell.mark], *map(_entry, cell.entries)]) or NONE


def _entry(entry: Entry) -> str:
    parts = [f"{entry.runtime} {entry.verdict}" + (f": {entry.reason}" if entry.reason else "")]
    if entry.latency is not None and entry.latency.next_token_ms is not None:
        parts.append(f"{number(entry.latency.next_token_ms)} ms a token")
    if entry.accuracy is not None and entry.accuracy.acc is not None:
        parts.append(f"accuracy {percent(entry.accuracy.acc)} %")
    if entry.reference is not None:
        parts.append(f"{entry.reference.source} {percent(entry.reference.acc)} %")
    return ", ".join(parts)
