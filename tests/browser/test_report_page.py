"""The pages as readers use them: by mouse and keyboard, on a phone, in the dark, and with hostile names."""

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import Open
from tests.records import (
    accuracy_record,
    failed,
    latency_record,
    many,
    round_of,
    subject,
    write,
    write_changed,
)
from xpubench.compare.history import history
from xpubench.record import Divergence, Output
from xpubench.report.diff import diff
from xpubench.report.page.pages import diff_page, history_page, report_page

LLAMA = "meta-llama/Llama-2-7b-hf"
HOSTILE = (
    '"><script>alert(1)</script>',
    "<img src=x onerror=alert(2)>",
    "../../x",
    "javascript:alert(3)",
    "</script><script>alert(4)</script>",
    "<a href='https://example.org'>x</a>",
)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of runs of several kinds, some failed and some hostile."""
    root = tmp_path_factory.mktemp("report")
    results = root / "results"
    for runtime, next_ms in (("pytorch", 20.0), ("ipex", 15.0)):
        write(results, latency_record(subject(LLAMA, runtime=runtime), next_ms=next_ms))
    write(results, accuracy_record(subject(LLAMA)))
    write(results, latency_record(subject("EleutherAI/gpt-j-6b", dtype="bfloat16"), next_ms=9))
    write(results, failed(latency_record(subject("Qwen/Qwen3-8B")), "oom", "out of memory", "the log's end"))
    for index, name in enumerate(HOSTILE):
        record = latency_record(subject(name), warnings=[name], id=name)
        write_changed(results, record, f"hostile-{index}", lambda data: _spoil(data))
        broken = failed(latency_record(subject(name), batch_size=2), "crash", name, name)
        write(results, broken, f"broken-{index}")
    (results / "foreign.json").write_text('{"name": "<script>alert(5)</script>"}')
    return _page(root, report_page([results]))


def _spoil(data: dict[str, Any]) -> None:
    name = data["spec"]["subject"]["model"]
    data["environment"] = {"device": {"kind": name, "name": name}, "versions": {"torch": name, name: name}}


def _page(root: Path, content: bytes) -> Path:
    path = root / "page.html"
    path.write_bytes(content)
    return path


def rows(page: Page) -> list[list[str]]:
    """The texts of the table of runs."""
    found: list[list[str]] = page.evaluate(
        "[...document.querySelectorAll('[data-table] tbody tr')]"
        ".map(row => [...row.children].map(cell => cell.firstChild.textContent))"
    )
    return found


def column(page: Page, label: str) -> list[str]:
    """One column's texts."""
    heads = page.locator("[data-table] thead th").all_text_contents()
    return [row[heads.index(label)] for row in rows(page)]


def choose(page: Page, label: str, value: str) -> None:
    """Sets a filter."""
    page.get_by_label(label, exact=True).select_option(value)


def test_the_rows_are_there_and_the_filters_choose(report: Path, open_page: Open) -> None:
    page = open_page(report)
    expect(page.locator("[data-table] tbody tr").first).to_be_visible()
    assert len(rows(page)) == 5 + 2 * len(HOSTILE)
    choose(page, "Runtime", "ipex")
    assert column(page, "Model") == [LLAMA]
    expect(page.get_by_role("status")).to_contain_text("1 row, chosen from")
    choose(page, "Runtime", "")
    choose(page, "Precision", "bfloat16")
    assert column(page, "Model") == ["EleutherAI/gpt-j-6b"]
    choose(page, "Precision", "")
    choose(page, "Status", "oom")
    assert column(page, "Model") == ["Qwen/Qwen3-8B"]
    choose(page, "Status", "")
    choose(page, "Family", "Llama 2")
    assert set(column(page, "Model")) == {LLAMA}
    choose(page, "Family", "")
    page.get_by_label("Contains").fill("gpt-j bfloat")
    assert column(page, "Model") == ["EleutherAI/gpt-j-6b"]


def test_sorting_by_keyboard_is_announced(report: Path, open_page: Open) -> None:
    page = open_page(report)
    head = page.get_by_role("columnheader", name="Next token, ms")
    expect(head).to_have_attribute("aria-sort", "none")
    head.get_by_role("button").focus()
    page.keyboard.press("Enter")
    expect(head).to_have_attribute("aria-sort", "ascending")
    values = column(page, "Next token, ms")
    numbers = [float(value) for value in values if value != "–"]
    assert numbers == sorted(numbers)
    assert len(set(numbers)) >= 3
    # What has no figure comes last, whichever way.
    assert values[len(numbers) :] == ["–"] * (len(values) - len(numbers))
    page.keyboard.press("Space")
    expect(head).to_have_attribute("aria-sort", "descending")
    values = column(page, "Next token, ms")
    assert [float(value) for value in values if value != "–"] == numbers[::-1]
    assert values[-1] == "–"


def test_a_panel_opens_with_its_figures_and_closes_by_keyboard(report: Path, open_page: Open) -> None:
    page = open_page(report)
    choose(page, "Runtime", "ipex")
    link = page.locator("[data-table] tbody a")
    link.focus()
    page.keyboard.press("Enter")
    panel = page.get_by_role("dialog", name=LLAMA)
    expect(panel).to_be_visible()
    expect(panel.locator(".plot .main-svg").nth(0)).to_be_visible()
    panel.locator("figure").last.locator(".main-svg").first.wait_for()
    captions = panel.locator("figcaption").all_text_contents()
    for start in ("Next token latency by token", "Distribution", "First and next", "Bandwidth", "Memory"):
        assert any(caption.startswith(start) for caption in captions), start
    expect(panel.get_by_role("row", name=re.compile("^Next token"))).to_contain_text(" to ")
    # On paper the figures are drawn anew: their labels have their place.
    page.emulate_media(media="print")
    page.wait_for_timeout(500)
    cut = page.evaluate(
        "[...document.querySelectorAll('dialog figure .ytick text')].filter(one =>"
        " one.getBoundingClientRect().left < one.closest('figure').getBoundingClientRect().left).length"
    )
    assert cut == 0
    page.emulate_media(media="screen")
    page.keyboard.press("Escape")
    expect(panel).to_be_hidden()
    expect(link).to_be_focused()
    assert "#run" not in page.url


def test_the_panels_of_accuracy_and_of_a_failure(report: Path, open_page: Open) -> None:
    page = open_page(report)
    page.get_by_role("link", name=re.compile("^accuracy 74")).click()
    panel = page.get_by_role("dialog")
    expect(panel).to_contain_text("73.90 % (a model card)")
    panel.locator(".main-svg").first.wait_for()
    page.keyboard.press("Escape")
    page.locator(".failures").get_by_role("link", name="Qwen/Qwen3-8B").click()
    expect(panel).to_contain_text("out of memory")
    expect(panel).to_contain_text("the log's end")


def test_a_link_to_a_run_opens_its_panel(report: Path, open_page: Open) -> None:
    page = open_page(report)
    link = page.locator("table.matrix a").first.get_attribute("href")
    page = open_page(report, fragment=link or "")
    expect(page.get_by_role("dialog", name=LLAMA)).to_be_visible()


def test_light_and_dark_follow_the_system_and_the_button(report: Path, open_page: Open) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    light = open_page(report).evaluate(ground)
    page = open_page(report, scheme="dark")
    dark = page.evaluate(ground)
    assert light != dark
    button = page.get_by_role("button", name="Dark")
    expect(button).to_have_attribute("aria-pressed", "true")
    button.click()
    expect(button).to_have_attribute("aria-pressed", "false")
    assert page.evaluate(ground) == light


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_never_scrolls_sideways(report: Path, open_page: Open, width: int) -> None:
    page = open_page(report, width=width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    choose(page, "Runtime", "ipex")
    page.locator("[data-table] tbody a").click()
    panel = page.get_by_role("dialog")
    panel.locator("figure").last.locator(".main-svg").first.wait_for()
    assert panel.evaluate("one => one.scrollWidth - one.clientWidth") <= 0


def test_a_printed_page_has_figures_that_nobody_scrolled_to(report: Path, open_page: Open) -> None:
    page = open_page(report)
    figure = page.locator("[data-figure]")
    assert (figure.bounding_box() or {"y": 0})["y"] > 900 + 400
    page.locator("[data-figure] .main-svg").first.wait_for(state="attached")
    page.emulate_media(media="print")
    page.locator("[data-figure] .main-svg").first.wait_for()


def test_families_without_a_run_are_folded(report: Path, open_page: Open) -> None:
    page = open_page(report)
    table = page.locator("table.matrix").first
    assert table.locator("tr.family").all_text_contents() == ["Llama 2", "GPT-J", "Qwen"]
    assert table.locator("tbody th[scope=row]").first.text_content() == LLAMA
    folded = page.locator("details.unmeasured")
    expect(folded.get_by_text("facebook/opt-6.7b")).to_be_hidden()
    folded.locator("summary").click()
    expect(folded.get_by_text("facebook/opt-6.7b")).to_be_visible()


def test_hostile_names_are_only_text(report: Path, open_page: Open) -> None:
    page = open_page(report)
    page.locator("[data-figure]").scroll_into_view_if_needed()
    page.locator("[data-figure] .main-svg").first.wait_for()
    for name in HOSTILE:
        page.get_by_label("Contains").fill(name.split(" ")[0])
        assert name in column(page, "Model")
    page.get_by_label("Contains").fill("")
    for index in range(page.locator("[data-table] tbody a").count()):
        link = page.locator("[data-table] tbody a").nth(index)
        assert (link.get_attribute("href") or "").startswith("#run-")
        name = link.text_content() or ""
        if name not in HOSTILE:
            continue
        link.click()
        expect(page.get_by_role("dialog").locator("h2")).to_have_text(name)
        if page.get_by_role("dialog").locator("figure").count():
            page.get_by_role("dialog").locator("figure").last.locator(".main-svg").first.wait_for()
        page.keyboard.press("Escape")
    assert page.locator("img, iframe, object, embed, body script[src]").count() == 0
    assert page.locator("a[href]:not([href^='#'])").count() == 0


def _odd(data: dict[str, Any]) -> None:
    data["plan"] = None
    data["environment"] = {"host": {"cpu": "", "governors": []}, "deep": {"a": {"b": [None, {}]}}}
    data["created"] = "never"
    data["summary"].update(step_bytes=0, tokens_per_s=float("nan"), mbu_measured=float("inf"))


def test_the_panel_of_any_record_opens(tmp_path: Path, open_page: Open) -> None:
    """One token or one iteration, almost no time, no task's accuracy, divergence, odd values."""
    results = tmp_path / "results"
    divergence = Divergence(
        reference="cpu", top1_agreement=1, mean_kl=0, first_divergence=[None], positions=4
    )
    output = Output(first_token_ids=[], first_text="x")
    records = [
        latency_record(subject("one token"), new_tokens=1),
        latency_record(subject("one iteration"), iterations=1),
        latency_record(subject("almost no time"), next_ms=0.001),
        latency_record(subject("diverged"), divergence=divergence, output=output),
        accuracy_record(subject("nothing published"), reference=None),
    ]
    for record in records:
        write(results, record)
    write_changed(results, latency_record(subject("odd")), "odd", _odd)
    write_changed(
        results,
        accuracy_record(subject("no acc")),
        "no-acc",
        lambda data: data["accuracy"].update(acc=None, reference={"acc": -1.0, "n": 0, "source": ""}),
    )
    page = open_page(_page(tmp_path, report_page([results])))
    links = page.locator("[data-table] tbody a")
    assert links.count() == len(records) + 2
    for index in range(links.count()):
        name = links.nth(index).text_content() or ""
        links.nth(index).click()
        panel = page.get_by_role("dialog", name=name, exact=True)
        expect(panel.get_by_text("Behind it")).to_be_visible()
        for figure in panel.locator("figure").all():
            figure.locator(".main-svg").first.wait_for()
        page.keyboard.press("Escape")


def test_an_injected_script_does_not_run(report: Path, browser: Browser) -> None:
    """Even what got past the escaping is stopped by the page's policy."""
    page = browser.new_page()
    page.goto(report.as_uri())
    page.wait_for_selector("html[data-ready]")
    page.evaluate(
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'ran = 1'}))"
    )
    assert page.evaluate("window.ran") is None
    page.close()


def test_every_table_and_control_has_a_name(report: Path, open_page: Open) -> None:
    page = open_page(report)
    nameless = page.evaluate(
        "[...document.querySelectorAll('select, input')].filter(one => !one.labels.length).length"
        " + [...document.querySelectorAll('th')].filter(one => !one.scope).length"
        " + [...document.querySelectorAll('.scroll')].filter(one => one.tabIndex !== 0).length"
    )
    assert nameless == 0


def test_many_rows_come_a_hundred_at_a_time(tmp_path: Path, open_page: Open) -> None:
    for record in many(250, new_tokens=8, iterations=3):
        write(tmp_path / "results", record)
    page = open_page(_page(tmp_path, report_page([tmp_path / "results"])))
    assert len(rows(page)) == 100
    expect(page.locator(".count")).to_have_text("1 to 100 of 250 rows")
    first = rows(page)[0]
    for _ in range(2):
        page.get_by_role("button", name="Next", exact=True).click()
    expect(page.locator(".count")).to_have_text("201 to 250 of 250 rows")
    expect(page.get_by_role("button", name="Next", exact=True)).to_be_disabled()
    assert rows(page)[0] != first
    page.locator("[data-table] tbody a").last.click()
    expect(page.get_by_role("dialog")).to_be_visible()


def test_the_page_of_a_comparison(tmp_path: Path, open_page: Open) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    for name in (LLAMA, *HOSTILE):
        for number in (1, 2, 3):
            round_of(a, number, of=subject(name))
            round_of(b, number, of=subject(name, runtime="ipex"), slow=1.1, second=True)
    page = open_page(_page(tmp_path, diff_page(diff([a, b]))), width=390)
    assert column(page, "B is") == ["slower"] * (1 + len(HOSTILE))
    page.locator("[data-figure] .main-svg").first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_comparison_shows_each_side_s_divergence(tmp_path: Path, open_page: Open) -> None:
    for number, (side, kl) in enumerate({"a": 0.00012, "b": 0.0345}.items()):
        found = Divergence(
            reference="cpu-float32", top1_agreement=0.99, mean_kl=kl, first_divergence=[None], positions=64
        )
        record = latency_record(subject(LLAMA), next_ms=20 + number)
        write(tmp_path / side, msgspec.structs.replace(record, divergence=found))
    page = open_page(_page(tmp_path, diff_page(diff([tmp_path / "a", tmp_path / "b"]))))
    assert (column(page, "KL A, nats"), column(page, "KL B, nats")) == (["0.0001"], ["0.0345"])


def test_a_long_reason_makes_no_row_tall(tmp_path: Path, open_page: Open) -> None:
    """It scrolls in its cell, and a printed page has all of it."""
    a, b = tmp_path / "a", tmp_path / "b"
    for number in (1, 2, 3):
        round_of(a, number, of=subject(LLAMA))
        round_of(b, number, of=subject(LLAMA, runtime="ipex"), slow=1.5, second=True)
    page = open_page(_page(tmp_path, diff_page(diff([a, b]))))
    reason = page.locator("[data-table] tbody td.long").last
    assert len(reason.inner_text()) > 200
    text = reason.locator("div")
    box = reason.bounding_box()
    assert box is not None
    assert box["height"] < 120
    assert text.evaluate("one => one.scrollHeight > one.clientHeight")
    page.emulate_media(media="print")
    assert text.evaluate("one => one.scrollHeight <= one.clientHeight")


def test_the_page_of_a_history(tmp_path: Path, open_page: Open) -> None:
    for day in range(1, 25):
        record = latency_record(
            subject(HOSTILE[0]),
            next_ms=20 if day <= 12 else 25,
            created=f"2026-01-{day:02}T00:00:00Z",
            seed=day,
        )
        write(tmp_path / "results", record, str(day))
    found = history([tmp_path / "results"], HOSTILE[0])
    page = open_page(_page(tmp_path, history_page(found)))
    assert column(page, "New level") == ["–"] * 12 + ["slower"] + ["–"] * 11
    expect(page.locator(".lead ~ ul")).to_contain_text("new levels: 1")
    expect(page.locator("[data-figure] figcaption")).to_contain_text("next token, ms")
    expect(page.locator("[data-figure] .plot")).to_contain_text("slower, x 1.2")
