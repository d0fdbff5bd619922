"""`xpubench report`: what it says of a directory of records, in each format, and what it survives."""

import base64
import csv
import gzip
import io
import json
import os
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.conftest import CommandLine
from tests.records import accuracy_record, failed, latency_record, on_device, subject, write, write_changed
from xpubench.record import Record
from xpubench.spec import AccuracySpec, AccuracyTask, Quantization

LLAMA = "meta-llama/Llama-2-7b-hf"
HOSTILE = '"><script>alert(1)</script>'


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """An empty results directory."""
    path = tmp_path / "results"
    path.mkdir()
    return path


def report(xpubench: CommandLine, results: Path, *flags: object) -> dict[str, Any]:
    """The report as JSON."""
    done = xpubench("report", results, "--format", "json", *flags)
    assert done.code == 0, done.err
    found: dict[str, Any] = json.loads(done.out)
    return found


def cell(found: dict[str, Any], model: str, mode: str, platform: str = "max") -> dict[str, Any]:
    """The matrix's cell of a model and a mode on a platform."""
    [line] = [line for line in found["matrix"]["rows"] if line["model"] == model]
    [only] = [one for one in line["cells"] if (one["platform"], one["mode"]) == (platform, mode)]
    return dict(only)


def entry(found: dict[str, Any], mode: str = "fp16", platform: str = "max") -> tuple[str, str]:
    """The verdict and its reason in Llama's cell, of its only runtime."""
    entries = cell(found, LLAMA, mode, platform)["entries"]
    if not entries:
        return "not run", ""
    [only] = entries
    return only["verdict"], only["reason"]


def test_one_page_with_all_in_it(xpubench: CommandLine, results: Path, tmp_path: Path) -> None:
    write(results, latency_record(subject(LLAMA)))
    out = tmp_path / "report.html"
    assert xpubench("report", results, "-o", out).code == 0
    page = out.read_text()
    assert "Validation report" in page
    assert not re.findall(r"""(?:src|href)\s*=\s*["']?(?:https?:|//)""", page)
    assert page.count('id="data-plotly"') == 1
    assert sorted(os.listdir(tmp_path)) == ["report.html", "results"]


def on_passages(task: str, **fields: Any) -> Record:
    """An accuracy of the passages of some local file."""
    spec = AccuracySpec(subject=subject(LLAMA), task=AccuracyTask(name=task, data="x", data_sha256="0" * 64))
    return accuracy_record(subject(LLAMA), spec=spec, **fields)


def unchecked(record: Record) -> Record:
    """The record as it were had nobody looked at its timed tokens."""
    return msgspec.structs.replace(record, checks=msgspec.structs.replace(record.checks, tokens=None))


PASSING = [latency_record(subject(LLAMA)), accuracy_record(subject(LLAMA))]


@pytest.mark.parametrize(
    ("records", "verdict", "reason"),
    [
        ([], "not run", ""),
        (PASSING, "pass", ""),
        (PASSING[:1], "partial", "no accuracy run"),
        (PASSING[1:], "partial", "no latency run"),
        ([latency_record(subject(LLAMA, weights="dummy"))], "partial", "dummy weights"),
        ([PASSING[0], on_passages("lambada_smoke", reference=None)], "partial", "not on the whole test set"),
        ([PASSING[0], on_passages("lambada_openai")], "partial", "not on the whole test set"),
        (
            [PASSING[0], accuracy_record(subject(LLAMA), acc=0.70)],
            "fail",
            "published figure, 73.9 %",
        ),
        ([unchecked(PASSING[0]), PASSING[1]], "partial", "tokens not checked"),
        ([PASSING[0], accuracy_record(subject(LLAMA), reference=None)], "partial", "no reference"),
        ([failed(PASSING[0], "oom", "no"), PASSING[1]], "fail", "latency: oom"),
        ([PASSING[0], failed(PASSING[1], "crash", "no")], "fail", "accuracy: crash"),
        (
            [*PASSING, failed(latency_record(subject(LLAMA), batch_size=64), "oom", "no")],
            "partial",
            "1 of 3 runs failed",
        ),
    ],
)
def test_the_matrix_judges_a_model(
    xpubench: CommandLine, results: Path, records: list[Record], verdict: str, reason: str
) -> None:
    write(results, latency_record(subject("other")))
    for record in records:
        write(results, record)
    told = entry(report(xpubench, results))
    assert told[0] == verdict
    assert reason in told[1]
    assert bool(told[1]) == bool(reason)


def test_the_matrix_takes_no_other_precision_for_fp16(xpubench: CommandLine, results: Path) -> None:
    write(results, latency_record(subject(LLAMA, dtype="bfloat16")))
    found = report(xpubench, results)
    assert {entry(found, mode)[0] for mode in ("fp16", "int4", "distributed")} == {"not run"}
    assert entry(found, "bf16") == ("partial", "no accuracy run")
    assert cell(found, "facebook/opt-6.7b", "int4")["mark"] == "none"
    assert cell(found, LLAMA, "int4", "core-ultra")["mark"] == "listed"
    assert cell(found, LLAMA, "int4", "b580")["mark"] == "validated"


def panels(page: Path) -> list[dict[str, Any]]:
    """What the page shows of each run, unpacked."""
    blocks = re.findall(r'id="data-panels-\d+">([^<]+)<', page.read_text())
    assert blocks
    return [one for block in blocks for one in json.loads(gzip.decompress(base64.b64decode(block)))]


def test_a_failed_run_has_no_figure_anywhere(xpubench: CommandLine, results: Path, tmp_path: Path) -> None:
    write(results, failed(latency_record(subject(LLAMA)), "numerics", "wrong tokens"))
    write(results, failed(accuracy_record(subject(LLAMA)), "numerics", "NaN log-likelihoods"))
    found = report(xpubench, results)
    figures = [name for name in found["runs"][0] if name.endswith(("_ms", "_s", "_ci95"))]
    figures += ["acc", "acc_stderr", "perplexity", "acc_items", "peak_device_bytes", "peak_host_bytes"]
    assert all(run[name] is None for run in found["runs"] for name in figures)
    assert xpubench("report", results, "-o", tmp_path / "page.html").code == 0
    shown = {"first_tokens", "next_tokens", "tokens", "histogram", "accuracy", "summary"}
    assert [shown & panel.keys() for panel in panels(tmp_path / "page.html")] == [set(), set()]


def test_int4_has_a_column_of_its_own(xpubench: CommandLine, results: Path) -> None:
    of = subject(LLAMA, quantization=Quantization())
    write(results, latency_record(of))
    write(results, accuracy_record(of))
    found = report(xpubench, results)
    assert (entry(found, "int4"), entry(found, "fp16")) == (("pass", ""), ("not run", ""))
    assert {run["precision"] for run in found["runs"]} == {"int4 float16"}


def test_the_newest_of_runs_that_share_an_id_counts(xpubench: CommandLine, results: Path) -> None:
    old = failed(latency_record(subject(LLAMA), created="2026-01-01T00:00:00Z"), "oom", "no")
    write(results, old, "old")
    write(results, latency_record(subject(LLAMA), created="2026-02-01T00:00:00Z"), "new")
    write(results, accuracy_record(subject(LLAMA)))
    found = report(xpubench, results)
    assert entry(found) == ("pass", "")
    assert len(found["runs"]) == 3
    assert found["repeats"] == 1
    assert len({run["key"] for run in found["runs"]}) == 3
    [(path, reason)] = found["left_out"]
    assert Path(path).parent == results
    assert "repeats the run" in reason


def test_rounds_are_read_with_their_directory(xpubench: CommandLine, results: Path) -> None:
    for number in (1, 2, 10):
        write(results / f"round-{number}", latency_record(subject(LLAMA), seed=number))
    (results / "round-3").write_text("a file")
    write(results / "round-none", latency_record(subject("other")))
    found = report(xpubench, results)
    names = ["round-1", "round-2", "round-10", "round-none"]
    assert [Path(run["directory"]).name for run in found["runs"]] == names
    assert found["repeats"] == 2
    # That they repeat is what they are for.
    assert [Path(path).name for path, _ in found["left_out"]] == ["round-3"]


def test_records_in_directories_below_are_found_and_counted(
    xpubench: CommandLine, results: Path, tmp_path: Path
) -> None:
    """Those of two hosts, with rounds; other files there count only beside records."""
    write(results, latency_record(subject(LLAMA)))
    write(results / "host-a" / "round-1", latency_record(subject(LLAMA)))
    write(results / "host-b", on_device(latency_record(subject(LLAMA)), "Intel(R) Arc(TM) B580 Graphics"))
    (results / "host-b" / "notes.txt").write_text("hello")
    (results / "node_modules").mkdir()
    (results / "node_modules" / "package.json").write_text("{}")
    (results / "logs").mkdir()
    (results / "logs" / "a.log").write_text("a worker's words")
    (results / "report.html").write_text("an earlier page")
    (results / "loop").symlink_to(results)
    found = report(xpubench, results)
    assert found["found"] == [
        [str(results), 1],
        [str(results / "host-a" / "round-1"), 1],
        [str(results / "host-b"), 1],
    ]
    assert [Path(path).name for path, _ in found["left_out"]] == ["notes.txt"]
    # The same run on another device repeats none.
    assert found["repeats"] == 1
    done = xpubench("report", results, "--format", "md")
    assert f"- 1 record in {results}/host-b" in done.out.replace("\\", "")


def test_the_summary_names_the_slowest_and_what_failed(xpubench: CommandLine, results: Path) -> None:
    write(results, latency_record(subject(LLAMA)))
    slow = latency_record(subject("slow"))
    write_changed(results, slow, "slow", lambda data: data["summary"].update(mbu_measured=0.01))
    write(results, failed(latency_record(subject("gone")), "timeout", "no token in 60 s"))
    found = report(xpubench, results)
    assert found["slowest"]["model"] == "slow"
    assert [(run["model"], run["message"]) for run in found["failed"]] == [("gone", "no token in 60 s")]


UNREADABLE = {
    "broken.json": "{",
    "foreign.json": '{"name": "package"}',
    "list.json": "[1, 2]",
    "deep.json": "[" * 100_000,
    "odd-version.json": '{"schema_version": []}',
    "later.json": '{"schema_version": 999}',
    "half.json": '{"schema_version": 1, "id": "x"}',
    "empty.json": "",
    "binary.json": "\0\1",
    "notes.txt": "hello",
}


def test_what_is_no_record_is_listed_and_never_fatal(
    xpubench: CommandLine, results: Path, tmp_path: Path
) -> None:
    record = latency_record(subject(LLAMA))
    write(results, record)
    for name, text in UNREADABLE.items():
        (results / name).write_text(text)
    (results / "latin.json").write_bytes(b'{"a": "\xff"}')
    write_changed(results, record, "half-letter", lambda data: data["spec"]["subject"].update(model="\ud800"))
    write_changed(results, record, "huge", lambda data: data["checks"].update(new_tokens=10**40))
    (results / f"{record.id}.check.npz").write_bytes(b"a sidecar")
    (results / ".aside.json.x").write_text("half")
    (results / "directory.json").mkdir()
    names = {*UNREADABLE, "latin.json", "half-letter.json", "huge.json"}
    found = report(xpubench, results)
    assert {Path(path).name for path, _ in found["left_out"]} == names
    assert len(found["runs"]) == 1
    out = tmp_path / "report.html"
    assert xpubench("report", results, "-o", out).code == 0
    assert all(name in out.read_text() for name in names)


def test_odd_values_inside_a_record_harm_nothing(
    xpubench: CommandLine, results: Path, tmp_path: Path
) -> None:
    record = latency_record(subject(LLAMA))

    def spoil(data: dict[str, Any]) -> None:
        data["environment"] = {"versions": {HOSTILE: HOSTILE}, "deep": {"a": {}}}
        data["created"] = HOSTILE
        data["checks"] = {"validation": HOSTILE}
        data["output"] = {"first_token_ids": [], "first_text": HOSTILE}
        data["summary"]["tokens_per_s"] = float("inf")
        data["summary"]["mbu_measured"] = float("nan")
        data["samples"]["iterations"][0]["next_token_ns"] = [0, -5]

    write_changed(results, record, "odd", spoil)
    write_changed(
        results,
        accuracy_record(subject(LLAMA)),
        "accuracy",
        lambda data: data["accuracy"].update(reference={"acc": 0.5, "n": -1, "source": HOSTILE}),
    )
    write_changed(
        results,
        latency_record(subject(LLAMA)),
        "mistyped",
        lambda data: data.update(checks={"new_tokens": "x"}),
    )
    for form in ("md", "csv", "json", "html"):
        assert xpubench("report", results, "--format", form, "-o", tmp_path / form).code == 0
    assert xpubench("report", "--diff", results, results, "-o", tmp_path / "diff").code == 0
    assert xpubench("history", results, "--model", LLAMA, "-o", tmp_path / "history").code == 0
    assert "<script>alert" not in "".join((tmp_path / one).read_text() for one in ("html", "diff", "history"))


@pytest.mark.parametrize(
    ("command", "name", "begins"),
    [
        (("report",), "a.md", "# "),
        (("report",), "a.JSON", "{"),
        (("report", "--diff"), "a.csv", "model,"),
        (("history", "--model", LLAMA), "a.md", "# "),
        (("report",), "a.txt", "<!doctype html>"),
        (("report", "--format", "md"), "a.html", "# "),
    ],
)
def test_the_name_of_the_file_chooses_the_format(
    xpubench: CommandLine, results: Path, tmp_path: Path, command: tuple[str, ...], name: str, begins: str
) -> None:
    write(results, latency_record(subject(LLAMA)))
    sides = [results] * (1 + ("--diff" in command))
    done = xpubench(command[0], *sides, *command[1:], "-o", tmp_path / name)
    assert done.code == 0, done.err
    assert (tmp_path / name).read_text().lower().startswith(begins)


def test_a_hostile_name_is_text_in_every_format(xpubench: CommandLine, results: Path, tmp_path: Path) -> None:
    write(results, failed(latency_record(subject(HOSTILE)), "crash", HOSTILE))
    write(results, latency_record(subject("=cmd|' /C calc'!A0 | x")))
    write(results, latency_record(subject("../../x"), id="../../x"), "escape")
    out = tmp_path / "page.html"
    assert xpubench("report", results, "-o", out).code == 0
    assert "<script>alert" not in out.read_text()
    assert not (tmp_path.parent / "x").exists()
    markdown = xpubench("report", results, "--format", "md").out
    assert "<script>" not in markdown.replace("\\<", "")
    [line] = [line for line in markdown.splitlines() if line.startswith("| =cmd")]
    assert len(re.findall(r"(?<!\\)\|", line)) == len(re.findall(r"(?<!\\)\|", _header(markdown)))
    rows = list(csv.DictReader(io.StringIO(xpubench("report", results, "--format", "csv").out)))
    assert {row["model"][0] for row in rows if "cmd" in row["model"]} == {"'"}


def _header(markdown: str) -> str:
    return next(line for line in markdown.splitlines() if line.startswith("| Model"))


def test_csv_has_the_figures_with_their_intervals(xpubench: CommandLine, results: Path) -> None:
    record = latency_record(subject(LLAMA))
    write(results, record)
    [row] = csv.DictReader(io.StringIO(xpubench("report", results, "--format", "csv").out))
    assert record.latency is not None
    assert record.latency.next_token_ms is not None
    assert float(row["next"]) == record.latency.next_token_ms.median
    assert (float(row["next_low"]), float(row["next_high"])) == record.latency.next_token_ms.ci95
    assert row["id"] == record.id


@pytest.mark.parametrize("flags", [[], ["--diff", "results"]])
def test_directories_without_records_are_wrong_use(
    xpubench: CommandLine, results: Path, tmp_path: Path, flags: list[str]
) -> None:
    others = [results for _ in flags[1:]]
    line = xpubench("report", *flags[:1], *others, results, "-o", tmp_path / "x.html").error_line
    assert "no records in" in line
    missing = tmp_path / "missing"
    done = xpubench("report", *flags[:1], *(missing for _ in others), missing, "-o", tmp_path / "x.html")
    assert done.code == 2
    assert "cannot read" in done.error_line
    assert not (tmp_path / "x.html").exists()


def test_an_output_that_cannot_be_written_is_wrong_use(
    xpubench: CommandLine, results: Path, tmp_path: Path
) -> None:
    write(results, latency_record(subject(LLAMA)))
    for target in (tmp_path, tmp_path / "none" / "report.html", results / "file" / "x"):
        done = xpubench("report", results, "-o", target)
        assert done.code == 2
        assert "cannot write" in done.error_line
    assert "-o report.html" in xpubench("report", results).error_line
    assert "holds one stack" in xpubench("report", "--diff", results, "-o", tmp_path / "x").error_line
    assert sorted(os.listdir(tmp_path)) == ["results"]
