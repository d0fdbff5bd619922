"""Where the tokens' time goes as the terminal and the report's other forms tell it."""

import io
import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import CommandLine
from tests.records import explained, latency_record, ledger, subject, write
from xpubench.cli.console import Reporter
from xpubench.explanation import DepthCurve, DepthPoint, TokenVerdict
from xpubench.record import Record

NEXT = {"weights": 12.0, "attention": 2.0, "host": 6.0}
SHOWN = {"token_latency": False, "memory": False, "directory": Path("results")}


def shown(record: Record) -> list[list[str]]:
    """The lines that a terminal shows, split into words of a cell each."""
    out = io.StringIO()
    Reporter(out).show(record, **SHOWN)  # type: ignore[arg-type]
    lines = out.getvalue().splitlines()
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in lines]


def test_the_terminal_shows_the_ledgers_in_ms_and_percent() -> None:
    bytes_read: dict[str, Any] = {
        "parts": [{"name": "weights", "ns": 12e6, "bytes": 6_000_000_000}, {"name": "host", "ns": 6e6}]
    }
    record = explained(
        latency_record(subject()),
        ledger("next", {}, wall_ns=20e6, **bytes_read),
        ledger("first", {"weights": 150.0, "host": 50.0}),
        verdict=TokenVerdict(
            cause="bandwidth", share=0.6, message="as fast as it reads", advice=["use INT4"]
        ),
    )
    lines = shown(record)
    assert ["weights", "150.00", "75.0", "12.00", "60.0", "500.0"] in lines
    assert ["host", "50.00", "25.0", "6.00", "30.0"] in lines
    assert ["sum of the parts", "200.00", "100.0", "18.00", "90.0"] in lines
    assert ["latency in the timed generations", "200.00", "100.0", "20.00", "100.0"] in lines
    assert "latency without the profiler" not in [line[0] for line in lines if line]
    assert ["verdict", "as fast as it reads"] in lines
    assert ["advice", "use INT4"] in lines


def test_the_terminal_shows_both_latencies_where_tokens_beside_the_profiled_ones_were_timed() -> None:
    lines = shown(explained(latency_record(subject()), ledger("next", {"host": 18.0}, timed_ns=20e6)))
    assert ["latency without the profiler", "18.00", "100.0"] in lines
    assert ["latency in the timed generations", "20.00", "111.1"] in lines


def test_the_terminal_shows_the_curve_over_depths_and_a_refusal() -> None:
    curve = DepthCurve(
        points=[
            DepthPoint(depth=0, next_token_ns=[[9_000_000], [11_000_000]], next_token_ms=10.0),
            DepthPoint(depth=4096, next_token_ns=[[12_000_000]], next_token_ms=12.0),
        ],
        slope_ns=25.0,
        slope_ci95=(24.0, 26.0),
        method="as made up",
        message="attention pays latency",
    )
    found = ledger("next", NEXT, refused="the machine is busy")
    lines = shown(explained(latency_record(subject()), found, depth=curve))
    assert ["0", "10.00", "9.00", "11.00"] in lines
    assert ["4,096", "12.00", "12.00", "12.00"] in lines
    assert ["slope", "25.00 ns (24.00 to 26.00) a position and block"] in lines
    assert ["next token refused", "the machine is busy"] in lines


def test_what_was_not_explained_has_no_lines() -> None:
    words = [word for line in shown(latency_record(subject())) for word in line]
    assert not {"verdict", "where the time goes", "explained by"} & set(words)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Records of a run that was explained, of one whose ledger was refused, and of one without."""
    verdict = TokenVerdict(cause="host", share=0.3, message="host-bound")
    made = explained(latency_record(subject("explained")), ledger("next", NEXT), verdict=verdict)
    write(tmp_path / "results", made)
    refused = ledger("next", NEXT, refused="the machine is busy")
    write(tmp_path / "results", explained(latency_record(subject("refused")), refused))
    write(tmp_path / "results", latency_record(subject("plain")))
    return tmp_path / "results"


def test_markdown_and_json_have_the_parts_of_ledgers_that_hold(xpubench: CommandLine, results: Path) -> None:
    text = xpubench("report", results, "--format", "md").out
    section = text[text.index("## Where the time of a next token goes") :]
    assert "| weights | attention | host |" in section
    assert "| 60.0 | 10.0 | 30.0 |" in section
    assert "explained" in section
    assert "refused" not in section
    runs = {
        run["model"]: run for run in json.loads(xpubench("report", results, "--format", "json").out)["runs"]
    }
    assert runs["explained"]["next_parts"] == pytest.approx({"weights": 0.6, "attention": 0.1, "host": 0.3})
    assert runs["explained"]["bound_by"] == "host"
    assert runs["refused"]["next_parts"] == runs["plain"]["next_parts"] == {}


def test_a_report_without_explanations_has_no_column_for_them(xpubench: CommandLine, tmp_path: Path) -> None:
    write(tmp_path, latency_record(subject()))
    text = xpubench("report", tmp_path, "--format", "md").out
    assert "Bound by" not in text
    assert "Where the time" not in text
