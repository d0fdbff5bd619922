"""A model's figures over time, and where their level changed."""

from itertools import groupby
from math import exp, log
from pathlib import Path
from typing import Any, Literal

import msgspec

from xpubench.catalog import find_model
from xpubench.compare.copies import without_copies
from xpubench.compare.figures import FIGURES, unusable
from xpubench.compare.judgement import LATENCY, QUALITY, Verdict
from xpubench.compare.row import RunRow, row_of
from xpubench.errors import unknown
from xpubench.record import Record
from xpubench.results import records_in

# A step of a latency and one of an accuracy, in percentage points, that are not marked when they are smaller.
LEAST_STEP, LEAST_POINTS = 0.02, 1.0

Change = Verdict | Literal["none"]


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """A run of a series. With the first run of a new level, `change` names the step and `step` is its size:
    the ratio of the levels' medians, or their difference in percentage points. `figure` is what was judged:
    the next token latency in ms (of runs of one token the first), or the accuracy in percent."""

    series: str
    run: RunRow
    figure: float
    change: Change = "none"
    step: float | None = None


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """One spec on one device. `drift` is the change from the first to the last run where a line explains the
    series better than steps: a ratio, or percentage points. `note` says what was found, or why nothing could
    be."""

    name: str
    runs: int
    steps: int
    drift: float | None
    note: str


class History(msgspec.Struct, frozen=True, kw_only=True):
    """The runs of a model, one series after the other, each in order of time."""

    model: str
    series: list[Series]
    points: list[Point]
    left_out: list[tuple[str, str]]


def history(directories: list[Path], model: str) -> History:
    """The history of a model in the directories' records. UserError when there is no record at all, or none
    of that model, with the nearest names."""
    left_out: list[tuple[str, str]] = []
    names: set[str] = set()
    runs: list[tuple[str, RunRow, float]] = []
    for path, record in without_copies(records_in(directories, left_out), left_out):
        name = record.spec.subject.model
        names.add(name)
        if _canonical(name) == _canonical(model) and record.status == "ok":
            figure = _figure(record)
            if figure is None:
                left_out.append((str(path), "it has no figure that could be followed"))
            else:
                row = row_of(record, path, record.id)
                runs.append((_name(row), row, figure))
    if _canonical(model) not in map(_canonical, names):
        raise unknown("model", model, sorted(names))
    runs.sort(key=lambda one: (one[0], one[1].created))
    series: list[Series] = []
    points: list[Point] = []
    for name, group in groupby(runs, key=lambda one: one[0]):
        found, members = _judged(name, [(row, figure) for _, row, figure in group])
        series.append(found)
        points += members
    return History(model=model, series=series, points=points, left_out=left_out)


def _canonical(name: str) -> str:
    known = find_model(name)
    return known.id if known else name


def _name(run: RunRow) -> str:
    weights = "" if run.weights == "pretrained" else f" · {run.weights} weights"
    return f"{run.workload} · {run.runtime} · {run.device_name} · {run.precision}{weights} · {run.id[:8]}"


def _figure(record: Record) -> float | None:
    """What a series follows, positive or, of an accuracy, from 0 to 100."""
    if record.accuracy is not None and record.accuracy.acc is not None:
        return 100 * record.accuracy.acc
    if unusable(record):
        return None
    # A run of one new token has no next token latency.
    values = (FIGURES[name].value(record) for name in ("next_token", "first_token"))
    return next((value / 1e6 for value in values if value is not None), None)


def _judged(name: str, runs: list[tuple[RunRow, float]]) -> tuple[Series, list[Point]]:
    """A series and its points, from its runs in order of time and their figures."""
    import numpy as np

    from xpubench.compare.change_points import MIN_RUNS, changes

    figures = np.array([figure for _, figure in runs])
    accuracy = runs[0][0].kind == "accuracy"
    found = changes(figures, LEAST_POINTS) if accuracy else changes(np.log(figures), log(1 + LEAST_STEP))
    grew, shrank = QUALITY if accuracy else LATENCY
    points = []
    for place, (run, figure) in enumerate(runs):
        step = found.steps.get(place)
        words: dict[str, Any] = {}
        if step is not None:
            words = {"change": grew if step > 0 else shrank, "step": step if accuracy else exp(step)}
        points.append(Point(series=name, run=run, figure=figure, **words))
    drift = found.drift if found.drift is None or accuracy else exp(found.drift)
    if len(runs) < MIN_RUNS:
        note = f"{len(runs)} of the {MIN_RUNS} runs that a step needs; xpubench compare judges two"
    elif drift is not None:
        note = f"drift from the first to the last run, {_size(drift, accuracy)}"
    else:
        note = f"new levels: {len(found.steps)}"
    return Series(name=name, runs=len(runs), steps=len(found.steps), drift=drift, note=note), points


def _size(drift: float, accuracy: bool) -> str:
    return f"{drift:+.2f} points" if accuracy else f"ratio {drift:.3f}"
