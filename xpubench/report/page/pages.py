"""The report's page: the summary and the matrix as HTML, the runs as data."""

from collections import Counter
from itertools import groupby
from math import inf
from pathlib import Path
from statistics import median
from typing import Any

import msgspec

import xpubench
from xpubench.compare.history import Z95, History, Point
from xpubench.record import Record, now
from xpubench.report.diff import Diff
from xpubench.report.overview import overview
from xpubench.report.page.html import packed, page
from xpubench.report.page.panel import panel_of
from xpubench.report.page.tables import diff_table, history_table, runs_table
from xpubench.report.runs import Run
from xpubench.report.text import MODE_NAMES

PLATFORM_NAMES = {"max": "Max", "core-ultra": "Core Ultra", "b580": "Arc B580"}
# Panels are packed by the block: one is unpacked in a blink, and what its records share costs once.
BLOCK = 64
# So many points of all runs' series together keep 10,000 records below 20 MB.
POINTS, MIN_POINTS, MAX_POINTS = 640_000, 32, 1024
MOST_RATIOS = 1000


class _Panels:
    """Packs the panels as they come, so that no more than a block of them is in memory."""

    def __init__(self, points: int) -> None:
        self.blocks: list[str] = []
        self._points = points
        self._open: list[dict[str, Any]] = []

    def add(self, run: Run, record: Record) -> None:
        self._open.append({"run": run} | panel_of(record, self._points))
        if len(self._open) == BLOCK:
            self.close()

    def close(self) -> None:
        if self._open:
            self.blocks.append(packed(self._open))
            self._open = []


def report_page(directories: list[Path]) -> bytes:
    """The self-contained page about the directories' records; UserError when there are none."""
    files = sum(1 for directory in directories if directory.is_dir() for _ in directory.glob("*.json"))
    panels = _Panels(points=max(MIN_POINTS, min(MAX_POINTS, POINTS // max(files, 1))))
    found = overview(directories, panels.add)
    panels.close()
    blocks = {f"panels-{number}": block for number, block in enumerate(panels.blocks)}
    return page(
        "report.html.j2",
        {"table-runs": packed(runs_table(found.runs)), "limit": packed(_limits(found.runs))} | blocks,
        version=xpubench.__version__,
        mode_names=MODE_NAMES,
        platform_names=PLATFORM_NAMES,
        families=[
            (family, list(lines)) for family, lines in groupby(found.matrix, key=lambda line: line.family)
        ],
        broken=sum(run.status != "ok" for run in found.runs),
        warned=sum(run.warnings > 0 for run in found.runs),
        regressions=[run for run in found.runs if run.acc_regression],
        **_fields(found),
    )


def diff_page(found: Diff) -> bytes:
    """The self-contained page about two directories."""
    ratios = sorted(
        ((pair, pair.next_token) for pair in found.pairs if pair.next_token), key=lambda both: both[1].ratio
    )
    drawn = [
        [
            f"{pair.a.model}, {pair.a.workload}",
            *(ratio.ratio, ratio.low, ratio.high, ratio.verdict()),
            f"{pair.a.runtime} → {pair.b.runtime}, {pair.a.precision}",
        ]
        for pair, ratio in ratios[:MOST_RATIOS]
    ]
    return page(
        "diff.html.j2",
        {"table-pairs": packed(diff_table(found.pairs)), "ratios": packed(drawn)},
        version=xpubench.__version__,
        created=now(),
        verdicts=Counter(pair.verdict for pair in found.pairs),
        middle=median(ratio.ratio for _, ratio in ratios) if ratios else None,
        **_fields(found),
    )


def history_page(found: History) -> bytes:
    """The self-contained page about a model's history."""
    series = [
        _series(name, list(points)) for name, points in groupby(found.points, key=lambda point: point.series)
    ]
    return page(
        "history.html.j2",
        {"table-points": packed(history_table(found.points)), "series": packed(series)},
        version=xpubench.__version__,
        created=now(),
        series=series,
        **_fields(found),
    )


def _fields(found: msgspec.Struct) -> dict[str, Any]:
    return {name: getattr(found, name) for name in found.__struct_fields__}


def _series(name: str, points: list[Point]) -> dict[str, Any]:
    if points[0].run.kind == "accuracy":
        return {"name": name, "unit": "accuracy, %", "points": [_accuracy_point(point) for point in points]}
    # Of one new token there is no next one.
    first = all(point.run.next_token_ms is None for point in points)
    unit = "first token, ms" if first else "next token, ms"
    return {"name": name, "unit": unit, "points": [_latency_point(point, first) for point in points]}


def _latency_point(point: Point, first: bool) -> list[Any]:
    run = point.run
    latency = run.first_token_ms if first else run.next_token_ms
    low, high = (run.first_token_ci95 if first else run.next_token_ci95) or (None, None)
    words = f"{point.change}, x {point.ratio.ratio:.3f}" if point.ratio else point.change
    return [run.created, latency, low, high, point.change, words]


def _accuracy_point(point: Point) -> list[Any]:
    run = point.run
    if run.acc is None:
        return [run.created, None, None, None, point.change, point.change]
    noise = Z95 * (run.acc_stderr or 0)
    words = (
        point.change
        if point.accuracy_points is None
        else f"{point.change}, {point.accuracy_points:+.1f} points"
    )
    ends = [100 * run.acc, 100 * (run.acc - noise), 100 * (run.acc + noise)]
    return [run.created, *ends, point.change, words]


def _limits(runs: list[Run]) -> list[list[Any]]:
    """Of runs with both: key, model, runtime, precision, ms at the measured bandwidth, measured ms. The axes
    are logarithmic and take no other than positive numbers."""
    found: list[list[Any]] = []
    for run in runs:
        measured = run.next_token_ms or 0
        least = measured * (run.mbu_measured or 0)
        if 0 < measured < inf and 0 < least < inf:
            found.append([run.key, run.model, run.runtime, run.precision, least, measured])
    return found
