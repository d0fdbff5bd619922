"""What the page shows of where a token's time goes, as the plain JSON values that its script reads."""

from typing import Any

from xpubench.compare.parts import PART_TITLES
from xpubench.explanation import DepthCurve, Ledger
from xpubench.record import Record
from xpubench.report.explained import (
    TOKEN_TITLES,
    explanation_lines,
    ledger_table,
    ledgers_of,
    operators_of,
    parts_of,
    slope_text,
)

MOST_OPERATORS = 24


def explanation_data(record: Record) -> dict[str, Any] | None:
    """The explanation of a record, None where it has none: the verdict's `message` and its `advice`, `lines`
    of a name and a text, the `ledgers`, the `parts` in their order with the rows of the `table`, and the
    curve over depths."""
    found = record.explanation
    if found is None:
        return None
    columns, rows = ledger_table(record)
    lines = [line for line in explanation_lines(found) if line[0] not in ("verdict", "advice")]
    if found.depth is not None and (slope := slope_text(found.depth)) is not None:
        lines.append(("slope", slope))
    return {
        "message": found.verdict.message if found.verdict else None,
        "advice": found.verdict.advice if found.verdict else [],
        "lines": lines,
        "ledgers": [_ledger(ledger) for ledger in ledgers_of(found)],
        "parts": [[name, PART_TITLES[name]] for name in parts_of(found)],
        "table": {"columns": columns, "rows": rows},
        "depth": None if found.depth is None else _depth(found.depth),
    }


def _ledger(ledger: Ledger) -> dict[str, Any]:
    """Shares are of the token's latency. `operators` are those that take most of it: a name, a part, µs a
    token and calls."""
    shown, rest_ns = operators_of(ledger, MOST_OPERATORS)
    return {
        "token": TOKEN_TITLES[ledger.token],
        "wall_ms": ledger.wall_ns / 1e6,
        "refused": ledger.refused is not None,
        "shares": {part.name: part.ns / ledger.wall_ns for part in ledger.parts},
        "operators": [[one.name, PART_TITLES[one.part], one.ns / 1e3, one.calls] for one in shown],
        "other_operators": len(ledger.operators) - len(shown),
        "other_operators_us": rest_ns / 1e3,
    }


def _depth(curve: DepthCurve) -> list[dict[str, float]]:
    """A point for each depth: its next token latency in ms, with the range of its samples."""
    return [
        {
            "depth": point.depth,
            "ms": point.next_token_ms,
            "low": min(map(min, point.next_token_ns), default=0) / 1e6,
            "high": max(map(max, point.next_token_ns), default=0) / 1e6,
        }
        for point in curve.points
    ]
