"""Records and limits that cannot be compared: each says which field it is."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests import records
from tests.comparing import BASE
from tests.conftest import CommandLine
from xpubench.record import Record, Samples
from xpubench.spec import RunSpec


def changed_workload(**fields: Any) -> Record:
    assert isinstance(BASE.spec, RunSpec)
    workload = msgspec.structs.replace(BASE.spec.workload, **fields)
    return msgspec.structs.replace(BASE, spec=msgspec.structs.replace(BASE.spec, workload=workload))


def with_times(ns: int | None) -> Record:
    """The record with all times so long, or without any."""
    rows = [
        msgspec.structs.replace(one, first_token_ns=one.first_token_ns and ns, end_to_end_ns=ns or 0)
        for one in BASE.samples.iterations
    ]
    return msgspec.structs.replace(BASE, samples=Samples(iterations=[] if ns is None else rows))


@pytest.mark.parametrize(
    ("new", "words"),
    [
        (changed_workload(batch_size=2), "another batch_size: 1 and 2"),
        (changed_workload(num_beams=4), "another num_beams: 1 and 4"),
        (records.latency_record(records.subject("gpt2")), "another model: Llama-2-7b-hf and gpt2"),
        (records.latency_record(records.subject(weights="dummy")), "other weights: pretrained and dummy"),
        (records.accuracy_record(records.subject()), "one is a latency, the other an accuracy"),
        (with_times(None), "the new run has no samples"),
        (with_times(0), "the new run has samples of 0 ns or less"),
        (with_times(-5), "the new run has samples of 0 ns or less"),
        (
            msgspec.structs.replace(BASE, checks=msgspec.structs.replace(BASE.checks, logits_finite=False)),
            "the new run has logits that are not finite",
        ),
    ],
)
def test_what_cannot_be_compared_says_which_field(compare: CommandLine, new: Record, words: str) -> None:
    done = compare(BASE, new)
    assert (done.code, words in done.out) == (2, True)


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
