"""What the page shows of one run beyond its row, with its samples thinned to what a plot can show."""

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from xpubench.compare.figures import next_token_rows
from xpubench.failures import log_tail
from xpubench.record import Record
from xpubench.report.page.explained import explanation_data
from xpubench.report.text import divergence_text

BINS = 32
TEXT_CHARACTERS = 400
PARTS = ("spec", "environment", "runtime", "checks", "plan", "failure", "bandwidth", "warnings")


def panel_of(record: Record, points: int) -> dict[str, Any]:
    """The panel's data as plain JSON values, without parts that the record lacks; series have at most
    `points` points. A run that did not go well has no figures, whatever its samples are."""
    figures = {"accuracy": record.accuracy, "summary": record.latency} if record.status == "ok" else {}
    parts = {name: getattr(record, name) for name in PARTS} | figures
    found = {name: msgspec.to_builtins(part) for name, part in parts.items() if part is not None}
    if record.failure is not None:
        found["failure"]["log_tail"] = log_tail(record.failure.log_tail)
    timed = [f"{when}{what}_ns" for when in ("", "after_") for what in ("copy", "read", "matvec")]
    for name, raw in {"bandwidth": timed, "accuracy": ["items"]}.items():
        for field in raw if name in found else ():
            del found[name][field]
    if (explanation := explanation_data(record)) is not None:
        found["explanation"] = explanation
    if record.divergence is not None:
        found["divergence"] = divergence_text(record.divergence)
    if record.output is not None and record.output.first_text:
        found["text"] = record.output.first_text[:TEXT_CHARACTERS]
    return found | _series(record, points) if record.status == "ok" else found


def _series(record: Record, points: int) -> dict[str, Any]:
    """`first_tokens`, `next_tokens`: each iteration's first token and median next token; `tokens`: of each
    next token over the iterations; `histogram`: of the next tokens of all iterations. Times in ms."""
    found: dict[str, Any] = {}
    firsts = [one.first_token_ns for one in record.samples.iterations if one.first_token_ns is not None]
    if firsts:
        found["first_tokens"] = _ms(np.array(firsts, dtype=np.float64))
    if not (rows := next_token_rows(record)):
        return found
    # The iterations of a record that another program wrote may differ in length; one must not break the page.
    length = min(len(row) for row in rows)
    times = np.array([row[:length] for row in rows], dtype=np.float64)
    found["next_tokens"] = _ms(np.median(times, axis=1)[:points])
    found["tokens"] = _thin(times, points)
    low, high = np.percentile(times, [0, 99.5])
    counts, edges = np.histogram(np.clip(times, low, high), bins=min(BINS, times.size), range=(low, high))
    found["histogram"] = {
        "counts": counts.tolist(),
        "low_ms": float(edges[0]) / 1e6,
        "high_ms": float(edges[-1]) / 1e6,
        "above": int((times > high).sum()),
    }
    return found


def _thin(times: NDArray[np.float64], points: int) -> dict[str, Any]:
    """Each point stands for `every` tokens in a row."""
    every = -(-times.shape[1] // points)
    starts = np.arange(0, times.shape[1], every)
    middle = np.median(times, axis=0)
    if every > 1:
        middle = np.array([np.median(middle[start : start + every]) for start in starts])
    return {
        "every": every,
        "median": _ms(middle),
        "low": _ms(np.minimum.reduceat(times.min(axis=0), starts)),
        "high": _ms(np.maximum.reduceat(times.max(axis=0), starts)),
    }


def _ms(nanoseconds: NDArray[np.float64]) -> list[float]:
    # Four digits are finer than any plot.
    return [float(f"{value:.4g}") for value in (nanoseconds / 1e6).tolist()]
