"""A model's figures over time, and where they changed by more than their noise."""

from collections import Counter
from pathlib import Path
from typing import Literal

import msgspec

from xpubench.catalog import find_model
from xpubench.compare.accuracy import AccuracyChange, change_by_errors
from xpubench.compare.latency import LatencyChange, Ratio, ratio_of
from xpubench.compare.row import RunRow, row_of
from xpubench.errors import unknown
from xpubench.record import Record
from xpubench.results import LeftOut, nothing_found, records_in

# Since the run before in the series.
Change = LatencyChange | AccuracyChange | Literal["first"]


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """A run of a series and what changed since the one before: the ratio of next token latencies (first
    token latencies where only one token was generated), or the accuracy's difference in percentage points."""

    series: str
    run: RunRow
    change: Change
    ratio: Ratio | None = None
    accuracy_points: float | None = None


class History(msgspec.Struct, frozen=True, kw_only=True):
    """The runs of a model, each series by itself and in time; a series is one spec on one device."""

    model: str
    points: list[Point]
    left_out: list[tuple[str, str]]


def history(directories: list[Path], model: str) -> History:
    """The history of a model in the directories' records.

    UserError when there is no record at all, or none of that model; the nearest names are in it.
    """
    left_out: list[LeftOut] = []
    names: Counter[str] = Counter()
    kept: list[tuple[RunRow, Record]] = []
    wanted = _canonical(model)
    for directory in dict.fromkeys(directories):
        for found in records_in(directory):
            if isinstance(found, LeftOut):
                left_out.append(found)
                continue
            name = found.record.spec.subject.model
            names[name] += 1
            if _canonical(name) == wanted and found.record.status == "ok":
                kept.append((row_of(found.record, found.path, found.record.id), found.record))
    if not names:
        raise nothing_found(directories, left_out)
    if not any(_canonical(name) == wanted for name in names):
        raise unknown("model", model, list(names))
    kept.sort(key=lambda pair: (_series(pair[0]), pair[0].created))
    return History(
        model=model,
        points=[_point(*kept[index], kept[index - 1] if index else None) for index in range(len(kept))],
        left_out=[(str(one.path), one.reason) for one in left_out],
    )


def _canonical(name: str) -> str:
    known = find_model(name)
    return known.id if known else name


def _series(run: RunRow) -> str:
    weights = "" if run.weights == "pretrained" else f" · {run.weights} weights"
    return f"{run.workload} · {run.runtime} · {run.device_name} · {run.precision}{weights} · {run.id[:8]}"


def _point(run: RunRow, record: Record, before: tuple[RunRow, Record] | None) -> Point:
    series = _series(run)
    if before is None or _series(before[0]) != series:
        return Point(series=series, run=run, change="first")
    if run.kind == "accuracy":
        return _accuracy_point(series, before[0], run)
    ratio = ratio_of([before[1]], [record], "next") or ratio_of([before[1]], [record], "first")
    change: Change = ratio.verdict() if ratio else "no interval"
    return Point(series=series, run=run, change=change, ratio=ratio)


def _accuracy_point(series: str, before: RunRow, run: RunRow) -> Point:
    if before.acc is None or run.acc is None:
        return Point(series=series, run=run, change="no interval")
    points = 100 * (run.acc - before.acc)
    change: Change = "no interval"
    if before.acc_stderr is not None and run.acc_stderr is not None:
        change = change_by_errors(points, before.acc_stderr, run.acc_stderr)
    return Point(series=series, run=run, change=change, accuracy_points=points)
