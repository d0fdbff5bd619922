"""Latency runs held against each other: verdicts, exit codes, and the forms for people and machines."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import msgspec
import pytest

from tests import records
from tests.conftest import ROOT, CommandLine
from xpubench.record import Record, encode
from xpubench.results import ResultsDirectory
from xpubench.spec import Quantization, RunSpec

BASE = records.latency_record(records.subject())


def slowed(factor: float, seed: int = 1, **fields: Any) -> Record:
    return records.latency_record(
        records.subject(**fields), next_ms=20.0 * factor, first_ms=200.0 * factor, seed=seed
    )


@pytest.fixture
def compare(xpubench: CommandLine, tmp_path: Path) -> CommandLine:
    """`compare(base, new, *flags)` of two records."""

    def run(base: Record, new: Record, *flags: object) -> Any:
        for name, record in (("base.json", base), ("new.json", new)):
            (tmp_path / name).write_bytes(encode(record))
        return xpubench("compare", tmp_path / "base.json", tmp_path / "new.json", *flags)

    return run


@pytest.mark.parametrize(
    ("factor", "flags", "verdict", "code"),
    [
        (1.0, [], "same", 0),
        (1.1, [], "slower", 1),
        (0.9, [], "faster", 0),
        (1.1, ["--latency-limit", 15], "same", 0),
        (1.03, ["--latency-limit", 1], "slower", 1),
    ],
)
def test_the_verdict_is_the_exit_code(
    compare: CommandLine, factor: float, flags: list[object], verdict: str, code: int
) -> None:
    done = compare(BASE, slowed(factor), *flags)
    assert done.code == code
    (run,) = json.loads(compare(BASE, slowed(factor), *flags, "--json").out)["runs"]
    assert run["verdict"] == verdict
    assert run["next_token"]["low"] < factor < run["next_token"]["high"]
    assert f"{verdict}: " in done.out


def test_int4_beside_float16(compare: CommandLine) -> None:
    faster = slowed(0.5, quantization=Quantization())
    done = compare(BASE, faster)
    assert done.code == 0
    assert "quantization: none and RTN int4_fullrange groups of 64" in done.out


def test_one_latency_slower_and_the_other_faster_is_slower_and_says_both(compare: CommandLine) -> None:
    new = records.latency_record(records.subject(), next_ms=10.0, first_ms=400.0, seed=1)
    done = compare(BASE, new)
    assert done.code == 1
    assert "first token slower" in done.out
    assert "next token faster" in done.out


def test_memory_that_grew_counts_as_slower(compare: CommandLine) -> None:
    assert BASE.summary is not None
    assert BASE.summary.peak_device_bytes
    larger = msgspec.structs.replace(
        BASE.summary, peak_device_bytes=int(1.2 * BASE.summary.peak_device_bytes)
    )
    done = compare(BASE, msgspec.structs.replace(BASE, summary=larger))
    assert (done.code, "peak memory larger, ratio 1.200" in done.out) == (1, True)
    assert compare(BASE, msgspec.structs.replace(BASE, summary=larger), "--memory-limit", 30).code == 0


def changed_workload(**fields: Any) -> Record:
    assert isinstance(BASE.spec, RunSpec)
    workload = msgspec.structs.replace(BASE.spec.workload, **fields)
    return msgspec.structs.replace(BASE, spec=msgspec.structs.replace(BASE.spec, workload=workload))


@pytest.mark.parametrize(
    ("new", "words"),
    [
        (changed_workload(batch_size=2), "another batch_size: 1 and 2"),
        (changed_workload(num_beams=4), "another num_beams: 1 and 4"),
        (records.latency_record(records.subject("gpt2")), "another model: Llama-2-7b-hf and gpt2"),
        (records.latency_record(records.subject(weights="dummy")), "other weights: pretrained and dummy"),
        (records.failed(BASE, "oom", "no memory"), "the new run has no figures (status oom)"),
        (records.accuracy_record(records.subject()), "one is a latency, the other an accuracy"),
    ],
)
def test_what_cannot_be_compared_says_which_field(compare: CommandLine, new: Record, words: str) -> None:
    done = compare(BASE, new)
    assert (done.code, words in done.out) == (2, True)


def test_directories_are_matched_by_the_run(xpubench: CommandLine, tmp_path: Path) -> None:
    other = records.latency_record(records.subject("gpt2"))
    for record in (BASE, other):
        records.write(tmp_path / "a", record)
    for record in (slowed(1.2), records.latency_record(records.subject("facebook/opt-6.7b"))):
        records.write(tmp_path / "b", record)
    (tmp_path / "b" / "foreign.json").write_text("{}")
    done = xpubench("compare", tmp_path / "a", tmp_path / "b", "--json")
    found = json.loads(done.out)
    assert done.code == 1
    assert [run["verdict"] for run in found["runs"]] == ["slower"]
    assert "gpt2" in found["only_base"][0]
    assert "opt-6.7b" in found["only_new"][0]
    assert "foreign.json" in found["left_out"][0]


def test_a_baseline_kept_in_one_file(xpubench: CommandLine, tmp_path: Path) -> None:
    other = records.latency_record(records.subject("gpt2"))
    (tmp_path / "baseline.jsonl").write_bytes(encode(BASE) + b"\n" + encode(other) + b"\n")
    records.write(tmp_path / "new", slowed(1.0))
    done = xpubench("compare", tmp_path / "baseline.jsonl", tmp_path / "new")
    assert done.code == 0
    assert "only in the base: gpt2" in done.out
    (tmp_path / "baseline.jsonl").write_bytes(encode(BASE) + b"\nnonsense\n")
    done = xpubench("compare", tmp_path / "baseline.jsonl", tmp_path / "new")
    assert (done.code, "line 2" in done.error_line) == (2, True)


def test_nothing_in_common_is_not_comparable(xpubench: CommandLine, tmp_path: Path) -> None:
    records.write(tmp_path / "a", BASE)
    records.write(tmp_path / "b", records.latency_record(records.subject("gpt2")))
    done = xpubench("compare", tmp_path / "a", tmp_path / "b")
    assert (done.code, "no run is in both" in done.out) == (2, True)
    (tmp_path / "empty").mkdir()
    done = xpubench("compare", tmp_path / "a", tmp_path / "empty")
    assert (done.code, "no records" in done.error_line) == (2, True)


def test_junit_and_markdown_hold_hostile_names(compare: CommandLine) -> None:
    hostile = records.subject('<script>alert("|")</script>')
    base, new = (
        records.latency_record(hostile, next_ms=ms, first_ms=10 * ms, seed=int(ms)) for ms in (20.0, 30.0)
    )
    suite = ElementTree.fromstring(compare(base, new, "--format", "junit").out)
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("1", "1", "0")
    (failure,) = suite.iter("failure")
    assert failure.get("type") == "slower"
    row = compare(base, new, "--format", "md").out.splitlines()[2]
    assert "<script>" not in row
    assert row.replace("\\|", "").count("|") == 7


@pytest.mark.parametrize("form", ["table", "md", "json", "junit"])
def test_a_record_with_half_a_letter_is_refused(xpubench: CommandLine, tmp_path: Path, form: str) -> None:
    path = records.write_changed(
        tmp_path, BASE, "half", lambda data: data["spec"]["subject"].update(model="\ud800")
    )
    done = xpubench("compare", path, path, "--format", form)
    assert (done.code, "written again" in done.error_line) == (2, True)


@pytest.mark.parametrize("value", ["-1", "nan", "much"])
def test_a_limit_that_is_none(compare: CommandLine, value: str) -> None:
    done = compare(BASE, BASE, "--latency-limit", value)
    assert (done.code, "--latency-limit: must be a number of at least 0" in done.error_line) == (2, True)


def round_of(directory: Path, number: int, *, slow: float, **fields: Any) -> str:
    """A record in a round that was so slow for what runs beside; its id."""
    record = records.latency_record(
        records.subject(**fields), next_ms=20.0 * slow, first_ms=200.0 * slow, seed=number
    )
    records.write(directory / f"round-{number}", record)
    return record.id


def test_rounds_are_held_together_in_pairs(xpubench: CommandLine, tmp_path: Path) -> None:
    """Each side drifts by 30% from round to round; what is 10% slower in every round is slower."""
    for number, drift in enumerate((1.0, 1.3, 0.9), 1):
        round_of(tmp_path / "a", number, slow=drift)
        round_of(tmp_path / "b", number, slow=drift * 1.1)
        one = round_of(tmp_path / "c", number, slow=drift)
        other = round_of(tmp_path / "c", number, slow=drift * 1.1, runtime="ipex")
    done = xpubench("compare", tmp_path / "a", tmp_path / "b", "--json")
    (run,) = json.loads(done.out)["runs"]
    assert (done.code, run["verdict"]) == (1, "slower")
    assert 1.08 < run["next_token"]["low"] <= run["next_token"]["high"] < 1.12
    # Two runs of one suite, by the file's name without the round.
    done = xpubench("compare", tmp_path / "c" / f"{one}.json", tmp_path / "c" / f"{other}.json", "--json")
    (run,) = json.loads(done.out)["runs"]
    assert (done.code, run["verdict"]) == (1, "slower")
    assert 1.08 < run["next_token"]["low"] <= run["next_token"]["high"] < 1.12


def test_a_round_that_failed_is_not_left_out(xpubench: CommandLine, tmp_path: Path) -> None:
    for directory in ("a", "b"):
        for number in (1, 2):
            round_of(tmp_path / directory, number, slow=1.0)
    (tmp_path / "b" / "round-1" / f"{BASE.id}.json").write_bytes(encode(records.failed(BASE, "oom", "full")))
    done = xpubench("compare", tmp_path / "a", tmp_path / "b")
    assert (done.code, "the new run has no figures (status oom)" in done.out) == (2, True)


def test_a_baseline_out_of_git(tmp_path: Path) -> None:
    """As docs/report.md has it: records one after the other in a file, read back from a tag by a pipe."""
    records.write(tmp_path / "results", BASE)
    results = ResultsDirectory(tmp_path / "new")
    results.write(slowed(1.2))
    results.write(records.latency_record(records.subject("gpt2")))
    script = """
    git init -q . && cat results/*.json > baseline.json && git add baseline.json
    git -c user.name=t -c user.email=t@example.org commit -qm baseline && git tag v1 && rm baseline.json
    "$0" -m xpubench compare <(git show v1:baseline.json) <(cat new/*.json) --json
    """
    done = subprocess.run(
        ["bash", "-ec", script, sys.executable],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    assert [run["verdict"] for run in found["runs"]] == ["slower"]
    assert "gpt2" in found["only_new"][0]


def test_a_run_that_the_new_set_lacks_shows_in_junit(xpubench: CommandLine, tmp_path: Path) -> None:
    for record in (BASE, records.latency_record(records.subject("gpt2"))):
        records.write(tmp_path / "a", record)
    records.write(tmp_path / "b", slowed(1.0))
    found = ElementTree.fromstring(
        xpubench("compare", tmp_path / "a", tmp_path / "b", "--format", "junit").out
    )
    assert (found.get("tests"), found.get("failures"), found.get("skipped")) == ("2", "0", "1")
    (skipped,) = found.iterfind("testcase[skipped]")
    assert "gpt2" in (skipped.get("name") or "")
