"""The points of the figures of a page, as the plain JSON values that its script reads."""

from itertools import groupby
from math import inf
from typing import Any

from xpubench.compare.history import Point
from xpubench.compare.items import Z95
from xpubench.compare.row import RunRow
from xpubench.report.diff import RunPair

MOST_RATIOS = 1000
ACCURACY, FIRST, NEXT = "accuracy, %", "first token, ms", "next token, ms"


def limit_points(runs: list[RunRow]) -> list[dict[str, Any]]:
    """Each run's next token latency, `measured_ms`, beside the least that the measured bandwidth allows,
    `least_ms`. Runs without both are left out, as are those that a logarithmic axis cannot show."""
    found = []
    for run in runs:
        measured = run.next_token_ms or 0
        least = measured * (run.mbu_measured or 0)
        if 0 < measured < inf and 0 < least < inf:
            words = {"key": run.key, "model": run.model, "runtime": run.runtime, "precision": run.precision}
            found.append({**words, "least_ms": least, "measured_ms": measured})
    return found


def ratio_points(pairs: list[RunPair]) -> list[dict[str, Any]]:
    """Each pair's ratio of next token latencies, B / A, with its interval (`low`, `high`) and its verdict;
    the fastest of B come first, and at most 1,000."""
    found: list[dict[str, Any]] = []
    for pair in pairs:
        a, b, judged = pair.a, pair.b, pair.comparison.figures.get("next_token")
        if judged is not None:
            words = {
                "name": f"{a.model}, {a.workload}",
                "stacks": f"{a.runtime} → {b.runtime}, {a.precision_class}",
            }
            figures = {"ratio": judged.change, "low": judged.low, "high": judged.high}
            found.append({**words, **figures, "verdict": judged.verdict})
    return sorted(found, key=lambda point: point["ratio"])[:MOST_RATIOS]


def series_of(points: list[Point]) -> list[dict[str, Any]]:
    """The series of a history, whose points lie together: `name`, `unit` and `points`. A point has a figure
    in the series' unit with its interval, the `change` of the level that begins there, and the same in
    `words`."""
    return [_series(name, list(own)) for name, own in groupby(points, key=lambda point: point.series)]


def _series(name: str, points: list[Point]) -> dict[str, Any]:
    if points[0].run.kind == "accuracy":
        unit = ACCURACY
    else:
        # A run of one new token has no next token latency.
        unit = FIRST if all(point.run.next_token_ms is None for point in points) else NEXT
    return {"name": name, "unit": unit, "points": [_point(point, unit) for point in points]}


def _point(point: Point, unit: str) -> dict[str, Any]:
    run, words = point.run, str(point.change)
    figure, ends = run.next_token_ms, run.next_token_ci95
    if unit == FIRST:
        figure, ends = run.first_token_ms, run.first_token_ci95
    elif unit == ACCURACY:
        figure, noise = None if run.acc is None else 100 * run.acc, 100 * Z95 * (run.acc_stderr or 0)
        ends = None if figure is None else (figure - noise, figure + noise)
    if point.step is not None:
        words += f", {point.step:+.1f} points" if unit == ACCURACY else f", x {point.step:.3f}"
    low, high = ends or (None, None)
    found = {"created": run.created, "figure": figure, "low": low, "high": high}
    return found | {"change": point.change, "words": words}
