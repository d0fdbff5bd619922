"""The report of many records: its time, memory and size, and when a reader sees the first run; the time of
`compare`.

    python -m benchmarks.report [RECORDS]

The browser is Debian's chromium, driven by Playwright; without one its figure is left out.
"""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from time import perf_counter

from benchmarks.goal import Goal, show
from tests.records import many, write

RECORDS = 10_000
COMPARED, COMPARE_S = 1_000, 5
SECONDS, MEMORY_MB, PAGE_MB, FIRST_ROW_S = 30, 1024, 20, 3
# Runs the command and prints its peak resident memory in kB, on Linux the unit of ru_maxrss.
PEAK = """
import resource, sys
from xpubench.cli.main import main
code = main()
print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
sys.exit(code)
"""


def run(records: int = RECORDS) -> Iterator[Goal]:
    """Seconds and peak memory of `xpubench report`, the page's size, and the seconds until the first row."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name) / "results"
        for record in many(records):
            write(directory, record)
        page = Path(name) / "report.html"
        start = perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", PEAK, "report", str(directory), "-o", str(page)],
            capture_output=True,
            text=True,
            check=True,
        )
        seconds = perf_counter() - start
        detail = f"{records} records"
        yield Goal("report", seconds, SECONDS, " s", detail)
        yield Goal("report's peak memory", int(done.stderr.split()[-1]) / 1e3, MEMORY_MB, " MB", detail)
        yield Goal("the page", page.stat().st_size / 1e6, PAGE_MB, " MB", detail)
        chromium = shutil.which("chromium")
        if chromium is not None:
            yield Goal(
                "first row visible", _first_row(page, chromium), FIRST_ROW_S, " s", "a fresh browser tab"
            )


def compare(records: int = COMPARED) -> Iterator[Goal]:
    """Seconds of `xpubench compare` of two directories of so many records."""
    with tempfile.TemporaryDirectory() as name:
        sides = [Path(name) / side for side in ("base", "new")]
        for side in sides:
            for record in many(records):
                write(side, record)
        start = perf_counter()
        subprocess.run(
            [sys.executable, "-m", "xpubench", "compare", *map(str, sides)],
            stdout=subprocess.DEVNULL,
            check=False,
        )
        yield Goal("compare", perf_counter() - start, COMPARE_S, " s", f"2 x {records} records")


def _first_row(page: Path, chromium: str) -> float:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab = browser.new_page()
        start = perf_counter()
        tab.goto(page.as_uri(), wait_until="commit")
        tab.locator("[data-table] tbody tr").first.wait_for(state="visible")
        seconds = perf_counter() - start
        browser.close()
    return seconds


if __name__ == "__main__":
    sys.exit(show(chain(run(int(sys.argv[1]) if len(sys.argv) > 1 else RECORDS), compare())))
