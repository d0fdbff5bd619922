"""The points of the figures of a page."""

from itertools import groupby
from math import inf

import msgspec

from xpubench.compare.accuracy import Z95
from xpubench.compare.history import Point
from xpubench.compare.row import RunRow
from xpubench.report.diff import RunPair

MOST_RATIOS = 1000
ACCURACY, FIRST, NEXT = "accuracy, %", "first token, ms", "next token, ms"


class LimitPoint(msgspec.Struct, frozen=True):
    """A run's next token latency beside the least that the measured bandwidth allows."""

    key: str
    model: str
    runtime: str
    precision: str
    least_ms: float
    measured_ms: float


class RatioPoint(msgspec.Struct, frozen=True):
    """A pair's ratio of next token latencies, B / A, with the ends of its interval."""

    name: str
    stacks: str
    ratio: float
    low: float | None
    high: float | None
    verdict: str


class SeriesPoint(msgspec.Struct, frozen=True):
    """A run of a history: its figure in the unit of its series, the ends of the figure's interval, what
    changed since the run before, and the change in words."""

    created: str
    figure: float | None
    low: float | None
    high: float | None
    change: str
    words: str


class Series(msgspec.Struct, frozen=True):
    """The runs of one series of a history, in time."""

    name: str
    unit: str
    points: list[SeriesPoint]


def limit_points(runs: list[RunRow]) -> list[LimitPoint]:
    """A point for each run that has both figures. The axes are logarithmic and take only positive numbers."""
    found = []
    for run in runs:
        measured = run.next_token_ms or 0
        least = measured * (run.mbu_measured or 0)
        if 0 < measured < inf and 0 < least < inf:
            found.append(LimitPoint(run.key, run.model, run.runtime, run.precision, least, measured))
    return found


def ratio_points(pairs: list[RunPair]) -> list[RatioPoint]:
    """The pairs that have a ratio of next token latencies, the fastest of B first and at most 1,000."""
    found = []
    for a, b, ratio in ((pair.a, pair.b, pair.next_token) for pair in pairs):
        if ratio is not None:
            name, stacks = f"{a.model}, {a.workload}", f"{a.runtime} → {b.runtime}, {a.precision}"
            found.append(RatioPoint(name, stacks, ratio.ratio, ratio.low, ratio.high, ratio.verdict()))
    return sorted(found, key=lambda point: point.ratio)[:MOST_RATIOS]


def series_of(points: list[Point]) -> list[Series]:
    """The series of a history, whose points lie together."""
    return [_series(name, list(own)) for name, own in groupby(points, key=lambda point: point.series)]


def _series(name: str, points: list[Point]) -> Series:
    if points[0].run.kind == "accuracy":
        unit = ACCURACY
    else:
        # A run of one new token has no next token latency.
        unit = FIRST if all(point.run.next_token_ms is None for point in points) else NEXT
    return Series(name, unit, [_point(point, unit) for point in points])


def _point(point: Point, unit: str) -> SeriesPoint:
    run, words = point.run, str(point.change)
    figure, ends = run.next_token_ms, run.next_token_ci95
    if unit == FIRST:
        figure, ends = run.first_token_ms, run.first_token_ci95
    elif unit == ACCURACY:
        figure, noise = None if run.acc is None else 100 * run.acc, 100 * Z95 * (run.acc_stderr or 0)
        ends = None if figure is None else (figure - noise, figure + noise)
    if point.ratio is not None:
        words += f", x {point.ratio.ratio:.3f}"
    if point.accuracy_points is not None:
        words += f", {point.accuracy_points:+.1f} points"
    low, high = ends or (None, None)
    return SeriesPoint(run.created, figure, low, high, point.change, words)
