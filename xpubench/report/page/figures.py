"""The points of the figures of a page."""

from itertools import groupby
from math import inf

import msgspec

from xpubench.compare.accuracy import Z95
from xpubench.compare.history import Point
from xpubench.compare.row import RunRow
from xpubench.report.diff import RunPair

MOST_RATIOS = 1000


class LimitPoint(msgspec.Struct, frozen=True, kw_only=True):
    """A run's next token latency beside the least that the measured bandwidth allows."""

    key: str
    model: str
    runtime: str
    precision: str
    least_ms: float
    measured_ms: float


class RatioPoint(msgspec.Struct, frozen=True, kw_only=True):
    """A pair's ratio of next token latencies, B / A, with the ends of its interval."""

    name: str
    stacks: str
    ratio: float
    low: float | None
    high: float | None
    verdict: str


class SeriesPoint(msgspec.Struct, frozen=True, kw_only=True):
    """A run of a history: its figure in the unit of its series, the ends of the figure's interval, what
    changed since the run before, and the change in words."""

    created: str
    figure: float | None
    low: float | None
    high: float | None
    change: str
    words: str


class Series(msgspec.Struct, frozen=True, kw_only=True):
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
            names = {"model": run.model, "runtime": run.runtime, "precision": run.precision}
            found.append(LimitPoint(key=run.key, **names, least_ms=least, measured_ms=measured))
    return found


def ratio_points(pairs: list[RunPair]) -> list[RatioPoint]:
    """The pairs that have a ratio of next token latencies, the fastest of B first and at most 1,000."""
    found = [
        RatioPoint(
            name=f"{pair.a.model}, {pair.a.workload}",
            stacks=f"{pair.a.runtime} → {pair.b.runtime}, {pair.a.precision}",
            ratio=ratio.ratio,
            low=ratio.low,
            high=ratio.high,
            verdict=ratio.verdict(),
        )
        for pair in pairs
        if (ratio := pair.next_token)
    ]
    return sorted(found, key=lambda point: point.ratio)[:MOST_RATIOS]


def series_of(points: list[Point]) -> list[Series]:
    """The series of a history, whose points lie together."""
    return [_series(name, list(own)) for name, own in groupby(points, key=lambda point: point.series)]


def _series(name: str, points: list[Point]) -> Series:
    if points[0].run.kind == "accuracy":
        unit, point_of = "accuracy, %", _accuracy_point
    elif all(point.run.next_token_ms is None for point in points):
        # A run of one new token has no next token latency.
        unit, point_of = "first token, ms", _first_token_point
    else:
        unit, point_of = "next token, ms", _next_token_point
    return Series(name=name, unit=unit, points=[point_of(point) for point in points])


def _first_token_point(point: Point) -> SeriesPoint:
    return _point(point, point.run.first_token_ms, point.run.first_token_ci95, _ratio(point))


def _next_token_point(point: Point) -> SeriesPoint:
    return _point(point, point.run.next_token_ms, point.run.next_token_ci95, _ratio(point))


def _ratio(point: Point) -> str:
    return f", x {point.ratio.ratio:.3f}" if point.ratio else ""


def _accuracy_point(point: Point) -> SeriesPoint:
    acc, noise = point.run.acc, Z95 * (point.run.acc_stderr or 0)
    ends = None if acc is None else (100 * (acc - noise), 100 * (acc + noise))
    difference = "" if point.accuracy_points is None else f", {point.accuracy_points:+.1f} points"
    return _point(point, None if acc is None else 100 * acc, ends, difference)


def _point(
    point: Point, figure: float | None, ends: tuple[float, float] | None, difference: str
) -> SeriesPoint:
    low, high = ends or (None, None)
    words = point.change + difference
    return SeriesPoint(
        created=point.run.created, figure=figure, low=low, high=high, change=point.change, words=words
    )
