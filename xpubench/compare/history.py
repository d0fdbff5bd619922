"""A model's figures over time, and where they changed by more than their noise."""

from itertools import groupby, pairwise
from math import hypot
from pathlib import Path
from typing import Literal

import msgspec

from xpubench.catalog import find_model
from xpubench.compare.accuracy import Z95, AccuracyChange, accuracy_change
from xpubench.compare.latency import LatencyChange, Ratio, ratio_of
from xpubench.compare.row import RunRow, row_of
from xpubench.errors import unknown
from xpubench.record import Record
from xpubench.results import records_in

# The change since the run before in the series.
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
    """The runs of a model, one series after the other, each in order of time; a series is one spec on one
    device."""

    model: str
    points: list[Point]
    left_out: list[tuple[str, str]]


def history(directories: list[Path], model: str) -> History:
    """The history of a model in the directories' records. UserError when there is no record at all, or none
    of that model, with the nearest names."""
    left_out: list[tuple[str, str]] = []
    names: set[str] = set()
    runs: list[tuple[str, RunRow, Record]] = []
    for path, record in records_in(directories, left_out):
        name = record.spec.subject.model
        names.add(name)
        if _canonical(name) == _canonical(model) and record.status == "ok":
            row = row_of(record, path, record.id)
            runs.append((_series(row), row, record))
    if _canonical(model) not in map(_canonical, names):
        raise unknown("model", model, sorted(names))
    runs.sort(key=lambda one: (one[0], one[1].created))
    points: list[Point] = []
    for series, group in groupby(runs, key=lambda one: one[0]):
        members = [(row, record) for _, row, record in group]
        points.append(Point(series=series, run=members[0][0], change="first"))
        points += [_point(series, *before, *after) for before, after in pairwise(members)]
    return History(model=model, points=points, left_out=left_out)


def _canonical(name: str) -> str:
    known = find_model(name)
    return known.id if known else name


def _series(run: RunRow) -> str:
    weights = "" if run.weights == "pretrained" else f" · {run.weights} weights"
    return f"{run.workload} · {run.runtime} · {run.device_name} · {run.precision}{weights} · {run.id[:8]}"


def _point(series: str, before: RunRow, base: Record, run: RunRow, new: Record) -> Point:
    change: Change = "no interval"
    if run.kind == "latency":
        ratio = ratio_of([base], [new], "next") or ratio_of([base], [new], "first")
        return Point(series=series, run=run, change=ratio.verdict() if ratio else change, ratio=ratio)
    if before.acc is None or run.acc is None:
        return Point(series=series, run=run, change=change)
    points = 100 * (run.acc - before.acc)
    if before.acc_stderr is not None and run.acc_stderr is not None:
        noise = 100 * Z95 * hypot(before.acc_stderr, run.acc_stderr)
        change = accuracy_change(points, noise=abs(points) <= noise)
    return Point(series=series, run=run, change=change, accuracy_points=points)
