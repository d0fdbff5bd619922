"""Runs of which rounds failed, and runs that one set lacks: what they make of a comparison."""

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from msgspec.structs import replace

from tests import records
from tests.conftest import CommandLine
from xpubench.record import Record
from xpubench.spec import Quantization


def rounds(directory: Path, failing: set[int], *, second: bool) -> None:
    """Five rounds of a run, of which some failed."""

    def crashed(record: Record) -> Record:
        return records.failed(record, "crash", "it broke")

    for number in range(1, 6):
        records.round_of(
            directory, number, second=second, changed=crashed if number in failing else lambda one: one
        )


NONE, ONE, OTHER, ALL = set[int](), {2}, {4}, {1, 2, 3, 4, 5}


@pytest.mark.parametrize("others", [True, False], ids=["with another run", "alone"])
@pytest.mark.parametrize(
    ("base", "new", "words", "code"),
    [
        (NONE, ONE, "newly failing: crash in 1 of 5 rounds: it broke", 1),
        (NONE, ALL, "newly failing: crash in 5 of 5 rounds: it broke", 1),
        (ONE, NONE, "base: 1 of 5 rounds failed and are left out", 0),
        (ONE, OTHER, "newly failing: crash in 1 of 5 rounds, of the base in 1 of 5: it broke", 1),
        (ONE, ALL, "newly failing: crash in 5 of 5 rounds, of the base in 1 of 5: it broke", 1),
        (ALL, NONE, "no longer failing: crash before", 0),
        (ALL, ONE, "failing in both: crash before, crash now in 1 of 5 rounds", None),
        (ALL, ALL, "failing in both: crash before, crash now", None),
    ],
)
def test_rounds_that_failed(
    xpubench: CommandLine,
    tmp_path: Path,
    base: set[int],
    new: set[int],
    words: str,
    code: int | None,
    others: bool,
) -> None:
    """Without a code, the run does not count, and alone it is nothing compared."""
    rounds(tmp_path / "a", base, second=False)
    rounds(tmp_path / "b", new, second=True)
    if others:
        for number in range(1, 6):
            for side in "ab":
                of = records.subject("gpt2")
                records.round_of(tmp_path / side, number, of=of, second=side == "b")
    done = xpubench("compare", tmp_path / "a", tmp_path / "b", "--json")
    run = next(one for one in json.loads(done.out)["runs"] if "gpt2" not in one["title"])
    assert words in [f"{run['verdict']}: {run['reason']}", *run["warnings"]]
    assert done.code == (code if code is not None else 0 if others else 2)


def test_a_set_that_lacks_every_run_fails(xpubench: CommandLine, tmp_path: Path) -> None:
    """Also where what is left of both sets fails in both."""
    records.write(tmp_path / "a", records.latency_record(records.subject("gpt2")))
    rounds(tmp_path / "a", ALL, second=False)
    rounds(tmp_path / "b", ALL, second=True)
    done = xpubench("compare", tmp_path / "a", tmp_path / "b")
    assert (done.code, "missing" in done.out, "failing in both" in done.out) == (1, True, True)
    done = xpubench("compare", tmp_path / "a", tmp_path / "b", "--allow-missing", "gpt2")
    assert done.code == 2
    records.write(tmp_path / "c", records.latency_record(records.subject("opt-125m")))
    done = xpubench("compare", tmp_path / "a", tmp_path / "c")
    assert (done.code, done.out.count("the new set lacks it")) == (1, 2)
    nothing = ("compare", tmp_path / "a", tmp_path / "c", "--allow-missing", "*")
    for form in ("table", "md"):
        done = xpubench(*nothing, "--format", form)
        assert (done.code, "not comparable: no run is in both" in done.out) == (2, True)
    for arguments, count in ((nothing, "3"), (("compare", tmp_path / "b", tmp_path / "b"), "2")):
        done = xpubench(*arguments, "--format", "junit")
        suite = ElementTree.fromstring(done.out)
        assert (done.code, suite.get("errors"), suite.get("tests")) == (2, "1", count)


def test_a_round_that_is_left_out_differs_in_nothing(xpubench: CommandLine, tmp_path: Path) -> None:
    """What stands beside the verdict is about the rounds that it is of."""

    def elsewhere(record: Record) -> Record:
        environment = replace(record.environment, python="3.13.0")
        other = replace(record, environment=environment, warnings=["the machine was busy"])
        return records.failed(other, "interrupted", "by the user")

    for number in range(1, 6):
        records.round_of(tmp_path / "a", number)
        records.round_of(tmp_path / "b", number, second=True)
    records.round_of(tmp_path / "a", 6, changed=elsewhere)
    [run] = json.loads(xpubench("compare", tmp_path / "a", tmp_path / "b", "--json").out)["runs"]
    assert (run["environment"], run["verdict"]) == ([], "same")
    assert run["warnings"][-1] == "base: 1 of 6 rounds failed and are left out"
    assert "busy" not in str(run["warnings"])


def of_ir(record: Record) -> Record:
    """The record of an INT4 IR in a directory, of which only the loaded model tells what it is."""
    assert record.runtime is not None
    ir = {"recipe": {"model": records.subject().model, "weight_format": "int4"}}
    return replace(record, runtime=replace(record.runtime, ir=ir))


def not_loaded(record: Record) -> Record:
    return replace(records.failed(record, "oom", "no memory"), runtime=None)


@pytest.mark.parametrize("failing", [{2}, {1, 2, 3}])
def test_a_round_that_did_not_load_is_one_of_its_run(
    xpubench: CommandLine, tmp_path: Path, failing: set[int]
) -> None:
    """For `report --diff` too, which would else call the other rounds faster, or the run not run at all."""
    of = records.subject("/ir/llama", runtime="openvino")
    for number in (1, 2, 3):
        records.round_of(tmp_path / "a", number, of=of, changed=of_ir)
        change = not_loaded if number in failing else of_ir
        records.round_of(tmp_path / "b", number, of=of, slow=0.9, second=True, changed=change)
    sides = tmp_path / "a", tmp_path / "b"
    [run] = json.loads(xpubench("compare", *sides, "--json").out)["runs"]
    [pair] = json.loads(xpubench("report", "--diff", *sides, "--format", "json").out)["pairs"]
    assert run["verdict"] == pair["comparison"]["verdict"] == "newly failing"


def test_the_work_of_a_base_is_that_of_a_round_that_went_well(xpubench: CommandLine, tmp_path: Path) -> None:
    of = records.subject("/ir/llama", runtime="openvino")
    int4 = records.subject(runtime="ipex", quantization=Quantization())
    for number in (1, 2, 3):
        records.round_of(tmp_path / "a", number, of=of, changed=not_loaded if number == 3 else of_ir)
        records.round_of(tmp_path / "b", number, of=int4, second=True)
    [run] = json.loads(xpubench("compare", tmp_path / "a", tmp_path / "b", "--json").out)["runs"]
    assert run["warnings"][-1] == "base: 1 of 3 rounds failed and are left out"


def test_the_answers_of_a_base_are_those_of_a_round_that_went_well(
    xpubench: CommandLine, tmp_path: Path
) -> None:
    for number in (1, 2, 3):
        for side, token in (("a", 1), ("b", 2)):
            fails = side == "a" and number == 3
            record = records.round_of(
                tmp_path / side,
                number,
                second=side == "b",
                changed=not_loaded if fails else lambda one: one,
            )
            if not fails:
                np.savez(
                    tmp_path / side / f"round-{number}" / f"{record.id}.check.npz",
                    prompt_ids=np.arange(8).reshape(2, 4),
                    tokens=np.full((2, 3), token),
                    top_ids=np.tile(np.arange(5), (2, 3, 1)),
                    top_logprobs=np.log(np.full((2, 3, 5), 0.15)),
                )
    done = xpubench("compare", tmp_path / "a", tmp_path / "b")
    assert "other tokens on 2 of 2 check prompts" in done.out
