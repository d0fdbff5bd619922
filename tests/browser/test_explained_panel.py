"""The part of a panel that tells where the tokens' time goes: its bars, its table and its curves."""

import re
from pathlib import Path

import msgspec
import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import Open, Scheme
from tests.records import explained, latency_record, ledger, subject, write
from xpubench.explanation import DepthCurve, DepthPoint, OperatorTime, TokenVerdict
from xpubench.record import Bandwidth, Record
from xpubench.report.page.explained import MOST_OPERATORS
from xpubench.report.page.pages import report_page

HOSTILE = "<img src=x onerror=alert(1)>"
NEXT = {
    **{"weights": 8.0, "kv_cache": 0.5, "attention": 1.5, "other_kernels": 1.0, "unknown_kernels": 0.5},
    **{"launches": 0.5, "stack": 0.5, "host": 5.5, "synchronization": 0.5, "collectives": 0.5},
    **{"waiting": 0.5, "idle": 0.5},
}
FIRST = {"weights": 150.0, "host": 54.0}
CURVE = DepthCurve(
    points=[
        DepthPoint(depth=depth, next_token_ns=[[int(1e6 * ms), int(1.1e6 * ms)]], next_token_ms=1.05 * ms)
        for depth, ms in ((0, 20.0), (1024, 21.0), (16384, 36.0))
    ],
    slope_ns=30.0,
    bytes_ns=8.0,
    method="as made up",
    message="attention pays latency",
)


def whole(record: Record) -> Record:
    """The record with all that an explanation can have; the ledger of the first token was refused."""
    operators = [
        OperatorTime(name=f"{HOSTILE} {number}", part="weights", ns=1e6 / number, calls=30.0)
        for number in range(1, MOST_OPERATORS + 11)
    ]
    found = explained(
        record,
        ledger("next", NEXT, operators=operators),
        ledger("first", FIRST, wall_ns=190e6, refused="the parts' sum is 7.4% above"),
        depth=CURVE,
        notes=[HOSTILE],
        verdict=TokenVerdict(
            cause="host", share=0.3, message=f"host-bound {HOSTILE}", advice=["compile", HOSTILE]
        ),
    )
    return msgspec.structs.replace(found, bandwidth=Bandwidth(ceiling_gb_per_s=1000.0))


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of a run with an explanation, and of runs at other batch sizes and one of another model."""
    root = tmp_path_factory.mktemp("explained")
    results = root / "results"
    write(results, whole(latency_record(subject("explained"))))
    for batch in (2, 4):
        write(results, latency_record(subject("explained"), next_ms=20.0 + batch, batch_size=batch))
    write(results, latency_record(subject("bare")))
    other = TokenVerdict(cause="bandwidth", share=0.6, message="bandwidth-bound")
    write(results, explained(latency_record(subject("reading")), ledger("next", NEXT), verdict=other))
    path = root / "page.html"
    path.write_bytes(report_page([results]))
    return path


def open_panel(page: Page, name: str, workload: str = "batch 1") -> Locator:
    """The panel of a run, once all of its figures are drawn."""
    row = page.locator("[data-table] tbody tr").filter(has_text=name).filter(has_text=workload)
    row.get_by_role("link").click()
    panel = page.get_by_role("dialog", name=name)
    panel.locator("figure").last.locator(".main-svg").first.wait_for()
    return panel


def bars(panel: Locator) -> Locator:
    """The figure of the parts."""
    return panel.locator("figure.ledgers")


def test_the_verdict_its_advice_and_each_part_stand_in_the_panel(report: Path, open_page: Open) -> None:
    panel = open_panel(open_page(report), "explained")
    expect(panel.locator(".verdict")).to_have_text(f"host-bound {HOSTILE}")
    assert panel.locator(".verdict + ul li").all_text_contents() == ["compile", HOSTILE]
    row = panel.locator(".ledger").get_by_role("row", name=re.compile("^host "))
    assert row.locator("td").all_text_contents()[:4] == ["54.00", "28.4", "5.50", "27.5"]
    sums = panel.locator(".ledger").get_by_role("row", name=re.compile("^sum of the parts"))
    assert sums.locator("td").all_text_contents()[:4] == ["204.00", "107.4", "20.00", "100.0"]
    expect(panel).to_contain_text("the parts' sum is 7.4% above")
    expect(panel).to_contain_text("30.00 ns a position and block; its bytes take 8.00 ns")


def test_the_bars_are_as_long_as_the_parts(report: Path, open_page: Open) -> None:
    panel = open_panel(open_page(report), "explained")
    lengths = bars(panel).evaluate(
        "one => Object.fromEntries(one.querySelector('.plot').data.map(trace => [trace.name, trace.x[0]]))"
    )
    assert lengths["weights"] == pytest.approx(40.0)
    assert sum(lengths.values()) == pytest.approx(100.0)
    drawn = (
        bars(panel)
        .locator(".bars .point path")
        .evaluate_all(
            "all => all.map(one => one.getBoundingClientRect()).map(({y, width}) => [Math.round(y), width])"
        )
    )
    rows = {y: sum(width for row, width in drawn if row == y) for y, _ in drawn}
    assert len(rows) == 2
    # The first token's parts are 107.4% of its latency, the next one's are all of it.
    upper, lower = rows[min(rows)], rows[max(rows)]
    assert upper / lower == pytest.approx(1.074, abs=0.02)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("media", ["screen", "print"])
def test_the_swatches_are_the_colors_of_the_bars_and_all_differ(
    report: Path, open_page: Open, scheme: Scheme, media: str
) -> None:
    page = open_page(report, scheme=scheme)
    panel = open_panel(page, "explained")
    page.emulate_media(media="print" if media == "print" else "screen")
    page.wait_for_timeout(300)
    swatches = panel.locator(".swatch").evaluate_all(
        "all => all.map(one => getComputedStyle(one).backgroundColor)"
    )
    fills = bars(panel).evaluate(
        "one => [...one.querySelectorAll('.trace.bars')].map(trace =>"
        " getComputedStyle(trace.querySelector('.point path')).fill)"
    )
    assert swatches == fills
    assert len(set(swatches)) == len(NEXT)
    ground = page.evaluate("getComputedStyle(document.querySelector('dialog')).backgroundColor")
    assert ground not in swatches


@pytest.mark.parametrize("width", [390, 1280])
def test_no_label_is_cut(report: Path, open_page: Open, width: int) -> None:
    page = open_page(report, width=width)
    panel = open_panel(page, "explained")
    for media in ("screen", "print"):
        page.emulate_media(media="print" if media == "print" else "screen")
        page.wait_for_timeout(300)
        cut = panel.evaluate(
            "panel => [...panel.querySelectorAll('.plot text')].filter(text => text.textContent"
            " && getComputedStyle(text).display !== 'none').filter(text => {"
            "  const [inner, outer] = [text, text.closest('figure')].map(one => one.getBoundingClientRect());"
            "  return inner.width && (inner.left < outer.left - 1 || inner.right > outer.right + 1);"
            "}).map(text => text.textContent)"
        )
        assert cut == []
        if media == "screen":
            assert panel.evaluate("one => one.scrollWidth - one.clientWidth") <= 0
    # A text in a bar is inside of it, or it is not drawn.
    page.emulate_media(media="screen")
    page.wait_for_timeout(300)
    outside = bars(panel).evaluate(
        "figure => [...figure.querySelectorAll('.point')].filter(point => {"
        "  const text = point.querySelector('text');"
        "  if (!text || !text.getBoundingClientRect().width) return false;"
        "  const [inner, bar] = [text, point.querySelector('path')].map(one => one.getBoundingClientRect());"
        "  return inner.left < bar.left - 1 || inner.right > bar.right + 1;"
        "}).length"
    )
    assert outside == 0
    expect(bars(panel)).to_contain_text("weights")


def test_operators_unfold(report: Path, open_page: Open) -> None:
    panel = open_panel(open_page(report), "explained")
    panel.get_by_text("Operators of the next token").click()
    rows = panel.get_by_role("region", name="Operators of the next token").locator("tbody tr")
    assert rows.count() == MOST_OPERATORS + 1
    assert rows.first.locator("th, td").all_text_contents() == [f"{HOSTILE} 1", "weights", "1,000.0", "30"]
    assert rows.last.locator("th").text_content() == "10 others"


def test_a_curve_over_batches_is_in_each_of_its_runs_alone(report: Path, open_page: Open) -> None:
    page = open_page(report)
    for workload in ("batch 1", "batch 4"):
        panel = open_panel(page, "explained", workload)
        figure = panel.locator("figure").filter(has_text="Next token latency by batch")
        sizes = figure.evaluate("one => one.querySelector('.plot').data[0].x")
        assert sizes == [1, 2, 4]
        latencies = figure.evaluate("one => one.querySelector('.plot').data[0].y")
        assert latencies == pytest.approx([20.0, 22.0, 24.0], rel=0.02)
        page.keyboard.press("Escape")
    panel = open_panel(page, "bare")
    expect(panel.get_by_text("Next token latency by batch")).to_have_count(0)
    expect(panel.get_by_text("Where the time goes")).to_have_count(0)


def test_the_depths_are_drawn_with_their_range(report: Path, open_page: Open) -> None:
    panel = open_panel(open_page(report), "explained")
    figure = panel.locator("figure").filter(has_text="Next token latency by depth")
    trace = figure.evaluate(
        "one => (({x, y, error_y}) => ({x, y, error_y}))(one.querySelector('.plot').data[0])"
    )
    assert trace["x"] == [0, 1024, 16384]
    assert trace["y"] == pytest.approx([21.0, 22.05, 37.8])
    assert trace["error_y"]["array"] == pytest.approx([1.0, 1.05, 1.8])


def test_the_table_of_runs_is_filtered_by_what_bounds_them(report: Path, open_page: Open) -> None:
    page = open_page(report)
    page.get_by_label("Bound by", exact=True).select_option("host")
    expect(page.locator("[data-table] tbody tr")).to_have_count(1)
