"""Where a token's time goes in rows and lines: its ledgers, the verdict, and the curve over depths."""

from collections.abc import Iterator

from xpubench.compare.parts import PART_TITLES
from xpubench.compare.row import RunRow
from xpubench.explanation import (
    DepthCurve,
    DepthPoint,
    Explanation,
    Ledger,
    LedgerPart,
    OperatorTime,
    PartName,
)
from xpubench.record import Record
from xpubench.report.text import NONE, interval, number, percent

TOKEN_TITLES = {"first": "first token", "next": "next token"}
PART_COLUMN = "where the time goes"
# The columns of words of `parts_table`.
PARTS_LEFT = 5
DEPTH_COLUMNS = ("depth, tokens", "next token, ms", "from", "to")


def ledgers_of(found: Explanation) -> list[Ledger]:
    """The ledgers that there are, the first token's before that of a next one."""
    return [ledger for ledger in (found.first, found.next) if ledger is not None]


def parts_of(found: Explanation) -> list[PartName]:
    """The parts that one of the ledgers has, in the order in which they are shown."""
    there = {part.name for ledger in ledgers_of(found) for part in ledger.parts}
    return [name for name in PART_TITLES if name in there]


def ledger_table(record: Record) -> tuple[list[str], list[list[str]]]:
    """The names of the columns and the rows of a record's ledgers: for each token the ms of a part and its
    percentage of the token's latency without the profiler, below them the sum, that latency and the one in
    the timed generations; of a next token the rates at which weights and KV cache were read, beside the
    ceiling. Empty where there is no ledger."""
    found = record.explanation
    if found is None or not (ledgers := ledgers_of(found)):
        return [], []
    ceiling = record.bandwidth.highest_gb_per_s if record.bandwidth else None
    rows = [[PART_TITLES[name], *_cells(ledgers, name)] for name in parts_of(found)]
    ends = {
        "sum of the parts": [one.sum_ns for one in ledgers],
        "latency without the profiler": [one.wall_ns for one in ledgers],
        "latency in the timed generations": [one.timed_ns or one.wall_ns for one in ledgers],
    }
    columns = [PART_COLUMN, *(text for one in ledgers for text in (f"{TOKEN_TITLES[one.token]}, ms", "%"))]
    if all(one.wall_ns == (one.timed_ns or one.wall_ns) for one in ledgers):
        del ends["latency without the profiler"]
    for title, times in ends.items():
        pairs = zip(times, ledgers, strict=True)
        rows.append([title, *(text for ns, one in pairs for text in _ms_and_percent(ns, one))])
    if found.next is not None:
        rates = {PART_TITLES[part.name]: _rate(part, ceiling) for part in found.next.parts}
        columns.append("GB/s")
        for row in rows:
            row.append(rates.get(row[0], ""))
    return columns, rows


def explanation_lines(found: Explanation) -> Iterator[tuple[str, str]]:
    """What a person reads of an explanation beside its tables: names and texts."""
    if (verdict := found.verdict) is not None:
        yield "verdict", verdict.message
        yield from (("advice", advice) for advice in verdict.advice)
    for ledger in ledgers_of(found):
        if ledger.refused is not None and (verdict is None or ledger.refused not in verdict.message):
            yield f"{TOKEN_TITLES[ledger.token]} refused", ledger.refused
    yield from (("note", note) for note in found.notes)
    if found.method is not None:
        count = found.generations
        made = f" ({count} more generation{'s' * (count != 1)})" if count else ""
        yield "explained by", found.method + made
    if found.depth is not None:
        yield "depth", found.depth.message
        yield "depths by", found.depth.method


def depth_rows(curve: DepthCurve) -> list[list[str]]:
    """A row for each depth: the median of the next token latency and its samples' range in ms."""
    return [[number(one.depth, 0), number(one.next_token_ms), *_range(one)] for one in curve.points]


def slope_text(curve: DepthCurve) -> str | None:
    """The slope of a curve over depths beside what the bytes take; None where there is no slope."""
    if curve.slope_ns is None:
        return None
    ends = f" ({interval(curve.slope_ci95)})" if curve.slope_ci95 is not None else ""
    of_bytes = f"; its bytes take {number(curve.bytes_ns)} ns" if curve.bytes_ns is not None else ""
    return f"{number(curve.slope_ns)} ns{ends} a position and block{of_bytes}"


def parts_table(runs: list[RunRow]) -> tuple[list[str], list[list[str]]]:
    """The names of the columns, and for each run that has a ledger of a next token its parts in percent of
    its latency, the newest run first. The first `PARTS_LEFT` columns are words."""
    told = sorted((run for run in runs if run.next_parts), key=lambda run: run.created, reverse=True)
    names = [name for name in PART_TITLES if any(name in run.next_parts for run in told)]
    rows = [
        [
            *(run.model, run.workload, f"{run.runtime} {run.device}", run.precision, run.bound_by or NONE),
            number(run.next_token_ms),
            *(percent(run.next_parts.get(name)) for name in names),
        ]
        for run in told
    ]
    words = ["Model", "Workload", "Runtime", "Precision", "Bound by"]
    return [*words, "Next token, ms", *(PART_TITLES[name] for name in names)], rows


def operators_of(ledger: Ledger, most: int) -> tuple[list[OperatorTime], float]:
    """The operators that take most of a token's time, and the ns of all others."""
    ordered = sorted(ledger.operators, key=lambda one: -one.ns)
    return ordered[:most], sum(one.ns for one in ordered[most:])


def _cells(ledgers: list[Ledger], name: PartName) -> Iterator[str]:
    for ledger in ledgers:
        part = next((one for one in ledger.parts if one.name == name), None)
        yield from (NONE, NONE) if part is None else _ms_and_percent(part.ns, ledger)


def _ms_and_percent(ns: float, ledger: Ledger) -> tuple[str, str]:
    return number(ns / 1e6), percent(ns / ledger.wall_ns)


def _rate(part: LedgerPart, ceiling: float | None) -> str:
    rate = part.gb_per_s
    if rate is None:
        return ""
    return number(rate, 1) + ("" if not ceiling else f" of {number(ceiling, 1)}")


def _range(point: DepthPoint) -> list[str]:
    samples = [ns for generation in point.next_token_ns for ns in generation]
    return [number(end / 1e6) for end in (min(samples), max(samples))] if samples else [NONE, NONE]
