"""The report's page: the summary and the matrix as HTML, the runs as data."""

from itertools import groupby
from pathlib import Path
from typing import Any

import msgspec

import xpubench
from xpubench.record import Record
from xpubench.report.html import packed, page
from xpubench.report.overview import overview
from xpubench.report.panel import panel_of
from xpubench.report.runs import Run
from xpubench.report.table import runs_table
from xpubench.report.text import MODE_NAMES

PLATFORM_NAMES = {"max": "Max", "core-ultra": "Core Ultra", "b580": "Arc B580"}
# Panels are packed by the block: one is unpacked in a blink, and what its records share costs once.
BLOCK = 64
# So many points of all runs' series together keep 10,000 records below 20 MB.
POINTS, MIN_POINTS, MAX_POINTS = 320_000, 32, 1024


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
        **{name: getattr(found, name) for name in msgspec.structs.asdict(found)},
    )


def _limits(runs: list[Run]) -> list[list[Any]]:
    """Of runs with both: key, model, runtime, precision, ms at the measured bandwidth, measured ms."""
    return [
        [
            run.key,
            run.model,
            run.runtime,
            run.precision,
            run.next_token_ms * run.mbu_measured,
            run.next_token_ms,
        ]
        for run in runs
        if run.next_token_ms is not None and run.mbu_measured is not None
    ]
