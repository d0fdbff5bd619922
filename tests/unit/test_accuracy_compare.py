"""Comparing accuracy item by item."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.conftest import CommandLine
from xpubench.accuracy.batches import form_batch, run_batches
from xpubench.compare.accuracy import compare_accuracies, mcnemar
from xpubench.environment import Environment
from xpubench.record import Accuracy, Item, Record, encode
from xpubench.spec import AccuracySpec, AccuracyTask, Subject


def record(correct: list[bool], **changes: Any) -> Record:
    items = [Item(id=index, loglikelihood=-1.0, correct=right) for index, right in enumerate(correct)]
    accuracy = Accuracy(
        task="lambada_openai",
        task_version="1.0",
        acc=sum(correct) / len(correct),
        acc_stderr=0.01,
        perplexity=2.7,
        perplexity_stderr=0.1,
        n=len(items),
        partial=False,
        metrics={},
        items=items,
        items_per_s=1.0,
        truncated=0,
        batch_tokens=1024,
        batch_size=None,
        padding_side="right",
        scores_rows_alone=True,
        lm_eval_version="0.4.13",
    )
    spec = AccuracySpec(
        subject=Subject(model="m", device="cpu", dtype="float32"),
        task=AccuracyTask(name="lambada_openai", data_sha256=changes.pop("data_sha256", None)),
    )
    return Record(
        id=spec.id,
        created="2026-11-21T00:00:00Z",
        spec=spec,
        environment=Environment(),
        status="ok",
        accuracy=msgspec.structs.replace(accuracy, **changes),
    )


def with_lost(lost: int, gained: int = 0) -> Record:
    """Of 200 items of which the base has the first 100 right."""
    return record([index >= lost for index in range(100)] + [index < gained for index in range(100)])


BASE = with_lost(0)


@pytest.mark.parametrize(
    ("lost", "gained", "verdict"),
    [(0, 0, "ok"), (2, 0, "ok"), (3, 0, "warning"), (5, 0, "warning"), (6, 0, "regression"), (10, 10, "ok")],
)
def test_verdicts(lost: int, gained: int, verdict: str) -> None:
    found = compare_accuracies(BASE, with_lost(lost, gained))
    assert found.verdict == verdict
    assert (found.lost, found.gained, found.n) == (lost, gained, 200)
    assert found.difference_points == pytest.approx((gained - lost) / 2)


def test_mcnemar_by_hand() -> None:
    assert mcnemar(0, 0) == 1
    # Two-sided: both ways in which all five go one way.
    assert mcnemar(0, 5) == pytest.approx(2 / 2**5)
    assert mcnemar(1, 4) == pytest.approx(2 * (1 + 5) / 2**5)


@pytest.mark.parametrize(
    ("new", "words"),
    [
        (record([True] * 200, task="lambada_standard"), "another task: lambada_openai and lambada_standard"),
        (record([True] * 200, task_version="2.0"), "another task version"),
        (record([True] * 199), "other items: 200 and 199 of lambada_openai"),
        (record([True] * 200, data_sha256="abc"), "content of the data file"),
        (msgspec.structs.replace(BASE, status="numerics"), "status numerics"),
        (msgspec.structs.replace(BASE, accuracy=None), "no accuracy"),
    ],
)
def test_what_cannot_be_compared(new: Record, words: str) -> None:
    found = compare_accuracies(BASE, new)
    assert found.verdict == "not comparable"
    assert words in found.reason


def test_records_without_items_cannot_be_compared() -> None:
    assert BASE.accuracy is not None
    empty = msgspec.structs.replace(BASE, accuracy=msgspec.structs.replace(BASE.accuracy, items=[]))
    assert compare_accuracies(empty, empty).reason == "the records hold no items of lambada_openai"


@pytest.mark.parametrize(("lost", "code"), [(0, 0), (4, 0), (20, 1)])
def test_the_exit_code_is_the_verdict(xpubench: CommandLine, tmp_path: Path, lost: int, code: int) -> None:
    for name, one in (("a.json", BASE), ("b.json", with_lost(lost))):
        (tmp_path / name).write_bytes(encode(one))
    done = xpubench("compare", tmp_path / "a.json", tmp_path / "b.json")
    assert done.code == code
    assert "McNemar" in done.out
    told = json.loads(xpubench("compare", tmp_path / "a.json", tmp_path / "b.json", "--json").out)
    assert told["runs"][0]["accuracy"]["lost"] == lost


def test_compare_of_what_is_no_record(xpubench: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    assert xpubench("compare", tmp_path / "a.json", tmp_path / "b.json").code == 2
    assert "schema_version" in xpubench("compare", tmp_path / "a.json", tmp_path / "a.json").error_line


def test_batches_hold_to_the_budget() -> None:
    assert form_batch([10, 9, 8], budget=25, batch_size=0) == 2
    assert form_batch([10, 9, 8], budget=5, batch_size=0) == 1
    assert form_batch([10, 9, 8], budget=5, batch_size=2) == 2


@pytest.mark.parametrize("batch_size", [0, 8])
def test_running_out_of_memory_halves_the_batch_and_keeps_what_is_done(batch_size: int) -> None:
    done: list[int] = []
    tried: list[int] = []

    def work(batch: list[int]) -> None:
        tried.append(len(batch))
        if len(batch) > 2:
            raise MemoryError
        done.extend(batch)

    lengths = [5, 9, 7, 3, 8, 6, 4, 2]
    batches = list(run_batches(lengths, work, budget=100, batch_size=batch_size))
    counts = [batch.sequences for batch in batches]
    assert sorted(done) == list(range(8))
    assert sum(counts) == 8
    assert done[0] == 1  # the longest
    assert tried[:3] == [8, 4, 2]
    assert len(tried) < 10
    # What was used in the end is told, not what was asked.
    assert batches[-1].budget < 100
    assert batches[-1].batch_size == (2 if batch_size else 0)


def test_one_sequence_that_does_not_fit_ends_the_search() -> None:
    def work(batch: list[int]) -> None:
        raise MemoryError

    with pytest.raises(MemoryError):
        list(run_batches([5, 4], work, budget=100, batch_size=0))
