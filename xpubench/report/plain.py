"""The report as Markdown, CSV and JSON. Texts from records are escaped for each."""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from xpubench.report.matrix import MODES, Cell
from xpubench.report.overview import Overview
from xpubench.report.runs import Run
from xpubench.report.text import MODE_NAMES, date, interval, ms, percent


def as_json(value: Any) -> bytes:
    """Any value of the report for a machine."""
    return msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n"


def as_csv(rows: Sequence[msgspec.Struct]) -> bytes:
    """A line for each row; an interval becomes two columns."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = type(rows[0]).__struct_fields__
    writer.writerow([part for name in names for part in _columns(name)])
    for row in rows:
        writer.writerow([part for name in names for part in _fields(name, getattr(row, name))])
    return out.getvalue().encode()


def overview_markdown(found: Overview) -> bytes:
    """Summary, validated models and runs."""
    lines = ["# Validation report", ""]
    lines += [f"- {escaped(text)} ({count} runs)" for text, count in found.environments]
    lines += ["", "## Summary", ""]
    lines += [
        f"- {MODE_NAMES[one.mode]}: {one.passed} of {one.validated} validated models pass, {one.failed} fail, "
        f"{one.partial} partial, {one.not_run} not run"
        for one in found.tallies
    ]
    lines.append(f"- runs: {sum(run.status == 'ok' for run in found.runs)} of {len(found.runs)} went well")
    if found.slowest is not None:
        one = found.slowest
        lines.append(
            f"- slowest against the limit: {escaped(one.model)}, {escaped(one.runtime)}, {one.precision}: "
            f"{percent(one.mbu_measured)} % of the measured bandwidth"
        )
    lines += [
        f"- failed: {escaped(run.model)}, {escaped(run.runtime)}, {escaped(run.workload)}: "
        f"{run.status}: {escaped(run.message or '')}"
        for run in found.failed
    ]
    lines += ["", "## Validated models", ""]
    lines += table(
        ["model", *(MODE_NAMES[mode] for mode in MODES)],
        ([line.model, *(_cell(cell) for cell in line.cells)] for line in found.matrix),
    )
    lines += ["", "## Runs", ""]
    lines += table(RUN_COLUMNS, (_run_cells(run) for run in found.runs), numbers=6)
    if found.left_out:
        lines += ["", "## Files left out, and runs that repeat", ""]
        lines += [f"- {escaped(path)}: {escaped(reason)}" for path, reason in found.left_out]
    return ("\n".join(lines) + "\n").encode()


RUN_COLUMNS = [
    *("model", "workload", "runtime", "device", "precision", "status"),
    *("first token, ms", "next token, ms", "95% interval", "tokens/s", "MBU, %", "accuracy, %", "made, UTC"),
]


def table(columns: list[str], rows: Iterable[list[str]], numbers: int = 99) -> list[str]:
    """A Markdown table; columns from `numbers` on are aligned to the right."""
    rule = ["---:" if index >= numbers else "---" for index in range(len(columns))]
    return [
        f"| {' | '.join(cells)} |"
        for cells in (columns, rule, *([escaped(cell) for cell in row] for row in rows))
    ]


def escaped(text: str) -> str:
    """A text in one line that Markdown takes for nothing else, nor for HTML."""
    return re.sub(r"([\\`*_\[\]<>|#&])", r"\\\1", " ".join(text.split()))


def _run_cells(run: Run) -> list[str]:
    return [
        *(run.model, run.workload, run.runtime, run.device, run.precision, run.status),
        *(ms(run.first_token_ms), ms(run.next_token_ms), interval(run.next_token_ci95)),
        *(ms(run.tokens_per_s), percent(run.mbu_measured), percent(run.acc), date(run.created)),
    ]


def _cell(cell: Cell) -> str:
    parts = [f"{cell.verdict}: {cell.reason}" if cell.reason else cell.verdict]
    if cell.latency is not None and cell.latency.next_token_ms is not None:
        parts.append(f"{ms(cell.latency.next_token_ms)} ms a token")
    if cell.accuracy is not None and cell.accuracy.acc is not None:
        parts.append(f"accuracy {percent(cell.accuracy.acc)} %")
    return ", ".join(parts)


def _columns(name: str) -> list[str]:
    return [f"{name}_low", f"{name}_high"] if name.endswith("ci95") else [name]


def _fields(name: str, value: Any) -> Sequence[Any]:
    if name.endswith("ci95"):
        return value or (None, None)
    # A spreadsheet would run a text that begins so.
    return [f"'{value}" if isinstance(value, str) and value[:1] in "=+-@\t\r" and value else value]
