"""The panels of a report's runs, packed by the block: what neighbours share costs once."""

from typing import Any

from xpubench.compare.row import RunRow
from xpubench.record import Record
from xpubench.report.page.html import packed
from xpubench.report.page.panel import panel_of

# A reader who opens one panel unpacks as many.
BLOCK = 64
# All series of a report together have about this many points, which keeps 10,000 records below 20 MB.
POINTS, MIN_POINTS, MAX_POINTS = 640_000, 32, 1024


class PanelBlocks:
    """Packs the panels as they come, so that no more than a block of them is in memory."""

    def __init__(self, runs: int) -> None:
        """The points of all series are shared among about so many runs."""
        self._points = max(MIN_POINTS, min(MAX_POINTS, POINTS // max(runs, 1)))
        self._packed: list[str] = []
        self._open: list[dict[str, Any]] = []

    def add(self, run: RunRow, record: Record) -> None:
        """Packs the panel of the next run."""
        self._open.append({"run": run} | panel_of(record, self._points))
        if len(self._open) == BLOCK:
            self._close()

    def by_name(self) -> dict[str, str]:
        """The packed blocks of all runs, `panels-0` and so on."""
        if self._open:
            self._close()
        return {f"panels-{number}": block for number, block in enumerate(self._packed)}

    def _close(self) -> None:
        self._packed.append(packed(self._open))
        self._open = []
