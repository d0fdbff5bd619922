"""The three pages: a report, two directories side by side, and a model's history."""

from collections import Counter
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import Any

import msgspec

import xpubench
from xpubench.compare.history import History
from xpubench.compare.items import Z95
from xpubench.compare.processes import Limits
from xpubench.compare.row import RunRow
from xpubench.record import Record, now
from xpubench.report.batches import BatchCurves
from xpubench.report.diff import Diff
from xpubench.report.overview import overview
from xpubench.report.page.blocks import BLOCK, PanelBlocks
from xpubench.report.page.figures import limit_points, ratio_points, series_of
from xpubench.report.page.html import packed, page
from xpubench.report.tables import diff_table, history_table, runs_table
from xpubench.report.text import MODE_NAMES
from xpubench.results import directories_below


def report_page(directories: list[Path]) -> bytes:
    """The self-contained page about the directories' records; UserError when there are none."""
    places = [place for directory in directories for place in (directory, *directories_below(directory))]
    files = sum(1 for place in places for _ in place.glob("*.json"))
    panels, batches = PanelBlocks(files), BatchCurves()

    def add(run: RunRow, record: Record) -> None:
        panels.add(run, record)
        batches.add(record, run.key)

    found = overview(directories, add)
    data = {
        "table-runs": packed(runs_table(found.runs)),
        "limit": packed(limit_points(found.runs)),
        "batches": packed(batches.curves()),
    }
    by_family = groupby(found.matrix.rows, key=lambda line: line.family)
    by_platform = groupby(found.matrix.columns, key=lambda column: column.platform)
    families = [(family, list(lines)) for family, lines in by_family]
    return _page(
        "report",
        data | panels.by_name(),
        found,
        mode_names=MODE_NAMES,
        platforms=[(found.matrix.titles[name], len(list(columns))) for name, columns in by_platform],
        families=sorted(families, key=lambda one: not any(line.measured for line in one[1])),
        broken=sum(run.status != "ok" for run in found.runs),
        warned=sum(run.warnings > 0 for run in found.runs),
        failing=[
            (line.model, cell, entry)
            for line in found.matrix.rows
            for cell in line.cells
            for entry in cell.entries
            if entry.too_low
        ],
    )


def diff_page(found: Diff) -> bytes:
    """The self-contained page about two directories."""
    points = ratio_points(found.pairs)
    ratios = [point["ratio"] for point in points]
    return _page(
        "diff",
        {"table-pairs": packed(diff_table(found.pairs)), "ratios": packed(points)},
        found,
        verdicts=Counter(pair.comparison.verdict for pair in found.pairs),
        middle=median(ratios) if ratios else None,
        limit=Limits().latency,
    )


def history_page(found: History) -> bytes:
    """The self-contained page about a model's history."""
    series = series_of(found.points)
    return _page(
        "history",
        {"table-points": packed(history_table(found.points)), "series": packed(series)},
        found,
        series=series,
        notes=found.series,
    )


def _page(name: str, data: dict[str, str], found: msgspec.Struct, **context: Any) -> bytes:
    """The page of a template, which sees the fields of what was found."""
    context = msgspec.structs.asdict(found) | {"created": now(), "version": xpubench.__version__} | context
    return page(f"{name}.html.j2", data, {"block": BLOCK, "z95": Z95}, **context)
