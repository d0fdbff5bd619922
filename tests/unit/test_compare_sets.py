"""Sets of runs against each other, runs that failed among them, and the forms for people and machines."""

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest
from scipy.stats import false_discovery_control

from tests import records
from tests.comparing import BASE, DRIFT, only_run, slowed
from tests.conftest import ROOT, CommandLine
from xpubench.record import Record, encode
from xpubench.report.comparison import COLUMNS
from xpubench.results import ResultsDirectory

FAILED = records.failed(BASE, "oom", "no memory")


@pytest.mark.parametrize(
    ("base", "new", "verdict", "code"),
    [
        (BASE, FAILED, "newly failing: oom: no memory", 1),
        (FAILED, BASE, "no longer failing: oom before", 0),
        (FAILED, FAILED, "failing in both: oom before, oom now", 2),
    ],
)
def test_runs_that_failed(compare: CommandLine, base: Record, new: Record, verdict: str, code: int) -> None:
    done = compare(base, new)
    assert (done.code, verdict in done.out) == (code, True)


def test_a_run_that_fails_in_both_does_not_count(
    in_turns: CommandLine, xpubench: CommandLine, tmp_path: Path
) -> None:
    in_turns(1.0)
    broken = records.failed(records.latency_record(records.subject("gpt2")), "crash", "it broke")
    for side in "ab":
        records.write(tmp_path / side, broken)
    done = xpubench("compare", tmp_path / "a", tmp_path / "b")
    assert (done.code, "failing in both" in done.out) == (0, True)


def test_directories_are_matched_by_the_run(
    xpubench: CommandLine, in_turns: CommandLine, tmp_path: Path
) -> None:
    in_turns(1.2)
    records.write(tmp_path / "b", records.latency_record(records.subject("facebook/opt-6.7b")))
    (tmp_path / "b" / "foreign.json").write_text("{}")
    done = xpubench("compare", tmp_path / "a", tmp_path / "b", "--json")
    found = json.loads(done.out)
    assert done.code == 1
    assert [run["verdict"] for run in found["runs"]] == ["slower"]
    assert "opt-6.7b" in found["only_new"][0]
    assert "foreign.json" in found["left_out"][0]


@pytest.mark.parametrize("allowed", ["gpt2", "gp*", "ID"])
def test_a_run_that_the_new_set_lacks_fails_unless_it_may(
    xpubench: CommandLine, in_turns: CommandLine, tmp_path: Path, allowed: str
) -> None:
    in_turns(1.0)
    lacking = records.latency_record(records.subject("gpt2"))
    records.write(tmp_path / "a", lacking)
    sides = tmp_path / "a", tmp_path / "b"
    done = xpubench("compare", *sides)
    assert (done.code, "missing" in done.out) == (1, True)
    found = ElementTree.fromstring(xpubench("compare", *sides, "--format", "junit").out)
    assert [found.get(name) for name in ("tests", "failures", "skipped")] == ["2", "1", "0"]
    flags = ("--allow-missing", lacking.id if allowed == "ID" else allowed)
    done = xpubench("compare", *sides, *flags)
    assert (done.code, "only in the base: gpt2" in done.out) == (0, True)
    found = ElementTree.fromstring(xpubench("compare", *sides, *flags, "--format", "junit").out)
    assert [found.get(name) for name in ("tests", "failures", "skipped")] == ["2", "0", "1"]


def test_a_baseline_kept_in_one_file(xpubench: CommandLine, tmp_path: Path) -> None:
    other = records.latency_record(records.subject("gpt2"))
    (tmp_path / "baseline.jsonl").write_bytes(encode(BASE) + b"\n" + encode(other) + b"\n")
    records.write(tmp_path / "new", slowed(1.0))
    sides = tmp_path / "baseline.jsonl", tmp_path / "new"
    done = xpubench("compare", *sides, "--allow-missing", "gpt2", "--inconclusive-ok")
    assert done.code == 0
    assert "only in the base: gpt2" in done.out
    (tmp_path / "baseline.jsonl").write_bytes(encode(BASE) + b"\nnonsense\n")
    done = xpubench("compare", *sides)
    assert (done.code, "line 2" in done.error_line) == (2, True)


def test_an_empty_set_is_not_comparable(xpubench: CommandLine, tmp_path: Path) -> None:
    records.write(tmp_path / "a", BASE)
    (tmp_path / "empty").mkdir()
    done = xpubench("compare", tmp_path / "a", tmp_path / "empty")
    assert (done.code, "no records" in done.error_line) == (2, True)


def test_of_many_runs_chance_is_told(xpubench: CommandLine, tmp_path: Path) -> None:
    """Ten runs, the first of them 20% slower."""
    for run in range(10):
        of = records.subject(f"model-{run}")
        for number in (1, 2, 3):
            records.round_of(tmp_path / "a", number, of=of)
            slow = (1.2 if run == 0 else 1.0) * (1 + 0.01 * ((run * number) % 3 - 1))
            records.round_of(tmp_path / "b", number, of=of, slow=slow, second=True)
    done = xpubench("compare", tmp_path / "a", tmp_path / "b", "--json")
    found = json.loads(done.out)
    assert (found["judged"], found["false_by_chance"]) == (10, 0.5)
    expected = false_discovery_control([run["primary"]["p_value"] for run in found["runs"]])
    assert [run["adjusted_p"] for run in found["runs"]] == pytest.approx(expected.tolist())
    out = xpubench("compare", tmp_path / "a", tmp_path / "b").out
    assert "of 10 runs changed, where chance gives about 0.5" in out
    assert "left after adjustment: model-0" in out


HOSTILE = '<script>alert("|")</script>\x07\x1b[31m\ufffe'


def test_junit_and_markdown_hold_hostile_names(
    in_turns: CommandLine, xpubench: CommandLine, tmp_path: Path
) -> None:
    of = records.subject(HOSTILE)
    for number in (1, 2, 3):
        records.round_of(tmp_path / "a", number, of=of)
        records.round_of(tmp_path / "b", number, of=of, slow=1.5, second=True)
    sides = tmp_path / "a", tmp_path / "b"
    suite = ElementTree.fromstring(xpubench("compare", *sides, "--format", "junit").out)
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("1", "1", "0")
    (failure,) = suite.iter("failure")
    assert failure.get("type") == "slower"
    row = xpubench("compare", *sides, "--format", "md").out.splitlines()[2]
    assert "<script>" not in row
    assert row.replace("\\|", "").count("|") == len(COLUMNS) + 1
    table = xpubench("compare", *sides).out
    assert "\x1b" not in table
    # The column is narrow, so that the name goes on in the next row.
    assert "\\x1b[31" in table


def test_junit_says_what_differs_and_what_either_side_warns_of(xpubench: CommandLine, tmp_path: Path) -> None:
    versions = dict.fromkeys(("torch", "transformers", "numpy", "one", "two", "three"), "1.0")
    elsewhere = msgspec.structs.replace(records.ENVIRONMENT, versions=versions)
    base = msgspec.structs.replace(BASE, warnings=["noise of the base"])
    new = msgspec.structs.replace(
        slowed(1.5, runtime="ipex"), environment=elsewhere, warnings=["noise of the new"]
    )
    sides = records.write(tmp_path, base, "base"), records.write(tmp_path, new, "new")
    suite = ElementTree.fromstring(xpubench("compare", *sides, "--format", "junit").out)
    told = suite.findtext("testcase/system-out") or ""
    assert "next token, ratio 1.5" in told.splitlines()[0]
    for words in ("runtime: pytorch and ipex", "base: noise of the base", "new: noise of the new"):
        assert words in told
    # All of the facts, of which a terminal has the first four.
    assert all(f"versions.{name} " in told for name in versions)
    assert "more" not in told


def test_two_runs_of_one_suite_by_the_name_of_their_files(xpubench: CommandLine, tmp_path: Path) -> None:
    """`DIR/ID.json` stands for all rounds of that run."""
    for number, drift in enumerate(DRIFT, 1):
        one = records.round_of(tmp_path, number, slow=drift)
        of = records.subject(runtime="ipex")
        other = records.round_of(tmp_path, number, slow=drift * 1.1, of=of, second=True)
    done = xpubench("compare", tmp_path / f"{one.id}.json", tmp_path / f"{other.id}.json", "--json")
    run = only_run(done)
    assert (done.code, run["verdict"]) == (1, "slower")
    assert 1.08 < run["primary"]["low"] <= run["primary"]["high"] < 1.12


def test_a_round_that_failed_is_not_left_out(xpubench: CommandLine, tmp_path: Path) -> None:
    for number in (1, 2, 3, 4):
        records.round_of(tmp_path / "a", number)
        records.round_of(tmp_path / "b", number, second=True)
    failed = encode(records.failed(BASE, "oom", "full"))
    (tmp_path / "b" / "round-1" / f"{BASE.id}.json").write_bytes(failed)
    done = xpubench("compare", tmp_path / "a", tmp_path / "b")
    assert (done.code, "newly failing: oom in 1 of 4 rounds: full" in done.out) == (1, True)
    # A round of the base that failed says nothing about the new run.
    done = xpubench("compare", tmp_path / "b", tmp_path / "a")
    assert (done.code, "base: 1 of 4 rounds failed and are left out" in done.out) == (0, True)


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
    assert done.returncode == 3, done.stderr
    found = json.loads(done.stdout)
    assert [run["verdict"] for run in found["runs"]] == ["inconclusive"]
    assert "gpt2" in found["only_new"][0]
