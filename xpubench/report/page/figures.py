"""What the figures of a whole page are drawn from."""

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
    """A point for each run that has both figures. The axes are logarithmic and take no other than positive
    numbers."""
    found = []
    for run in runs:
        measured = run.next_token_ms or 0
        least = measured * (run.mbu_measured or 0)
        if 0 < measured < inf and 0 < least < inf:
            point = LimitPoint(
                key=run.key,
                model=run.model,
                runtime=run.runtime,
                precision=run.precision,
                least_ms=least,
                measured_ms=measured,
            )
            found.append(point)
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
        return Series(name=name, unit="accuracy, %", points=[_accuracy_point(point) for point in points])
    # A run of one new token has no next token latency.
    first = all(point.run.next_token_ms is None for point in points)
    unit = "first token, ms" if first else "next token, ms"
    return Series(name=name, unit=unit, points=[_latency_point(point, first) for point in points])


def _latency_point(point: Point, first: bool) -> SeriesPoint:
    run = point.run
    low, high = (run.first_token_ci95 if first else run.next_token_ci95) or (None, None)
    return SeriesPoint(
        created=run.created,
        figure=run.first_token_ms if first else run.next_token_ms,
        low=low,
        high=high,
        change=point.change,
        words=f"{point.change}, x {point.ratio.ratio:.3f}" if point.ratio else point.change,
    )


def _accuracy_point(point: Point) -> SeriesPoint:
    run = point.run
    points = "" if point.accuracy_points is None else f", {point.accuracy_points:+.1f} points"
    noise = Z95 * (run.acc_stderr or 0)
    return SeriesPoint(
        created=run.created,
        figure=None if run.acc is None else 100 * run.acc,
        low=None if run.acc is None else 100 * (run.acc - noise),
        high=None if run.acc is None else 100 * (run.acc + noise),
        change=point.change,
        words=point.change + points,
    )
