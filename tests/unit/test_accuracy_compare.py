"""Comparing accuracy item by item."""

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from tests.conftest import CommandLine
from xpubench.accuracy.batches import form_batch, run_batches
from xpubench.compare.items import judge_items, mcnemar
from xpubench.environment import Environment
from xpubench.record import Accuracy, Item, Record, WeightsFingerprint
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
        subject=Subject(model=changes.pop("model", "m"), device="cpu", dtype="float32"),
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
    ("n", "lost", "gained", "verdict", "code"),
    [
        (200, 0, 0, "same", 0),
        # Few items, of which chance explains the loss, though it is beyond the limit of 3 points.
        (60, 2, 0, "inconclusive", 3),
        (200, 5, 0, "inconclusive", 3),
        (200, 6, 0, "worse", 1),
        (200, 0, 6, "better", 0),
        (200, 10, 10, "inconclusive", 3),
        # Many items, of which chance explains no loss: the limit tells whether it counts.
        (5153, 150, 0, "worse", 1),
        (5153, 40, 5, "same", 0),
        (5153, 100, 100, "same", 0),
    ],
)
def test_verdicts(compare: CommandLine, n: int, lost: int, gained: int, verdict: str, code: int) -> None:
    right = n // 2
    base = record([index < right for index in range(n)])
    new = record(
        [lost <= index < right for index in range(right)] + [index < gained for index in range(n - right)]
    )
    done = compare(base, new, "--json")
    (run,) = json.loads(done.out)["runs"]
    assert (done.code, run["verdict"]) == (code, verdict)
    assert (run["accuracy"]["lost"], run["accuracy"]["gained"], run["accuracy"]["n"]) == (lost, gained, n)
    judged = run["primary"]
    assert judged["change"] == pytest.approx(100 * (gained - lost) / n)
    assert judged["low"] < judged["change"] < judged["high"]
    assert (judged["to_decide"] is not None) == (verdict == "inconclusive")


def test_the_interval_covers_the_difference() -> None:
    """Of 60 items, 10% of which one side alone has right: in at least 94% of draws."""
    source = np.random.default_rng(1)
    covered, tried = 0, 1000
    for _ in range(tried):
        gained, lost, _ = source.multinomial(60, [0.04, 0.06, 0.9])
        low, high = judge_items(int(gained), int(lost), 60, 3.0).ends or (0.0, 0.0)
        covered += low <= -2 <= high
    assert covered >= 0.94 * tried


@pytest.mark.parametrize(
    ("gained", "lost", "n", "verdict"),
    [
        (3, 4, 200, "same"),
        (0, 5, 200, "worse"),
        (0, 0, 60, "same"),
        # Wald's error of five lost of 60 would call chance out of the question before the test does.
        (0, 4, 60, "worse"),
        (0, 5, 60, "worse"),
        (1, 6, 60, "worse"),
        (2, 3, 60, "worse"),
    ],
)
def test_as_many_items_as_it_says_decide_and_one_less_does_not(
    gained: int, lost: int, n: int, verdict: str
) -> None:
    few = judge_items(gained, lost, n, 3.0)
    assert (few.verdict, few.to_decide is not None) == ("inconclusive", True)

    def with_items(items: int) -> str:
        return judge_items(round(gained * items / n), round(lost * items / n), items, 3.0).verdict

    assert with_items(few.to_decide or 0) == verdict
    assert with_items((few.to_decide or 0) - 1) == "inconclusive"


@pytest.mark.parametrize("differing", [0.0, 0.02, 0.15])
@pytest.mark.parametrize("n", [60, 200, 1000, 5153])
def test_the_loss_that_it_says_would_show_is_called_worse(n: int, differing: float) -> None:
    """In nine of ten draws of items, of which as many differ as now, or as are lost."""
    count = round(n * differing / 2)
    loss = (judge_items(count, count, n, 3.0).detectable or 0.0) / 100
    share = max(2 * count / n, loss)
    draws = np.random.default_rng(1).multinomial(
        n, [(share - loss) / 2, (share + loss) / 2, 1 - share], size=1000
    )
    kinds, times = np.unique(draws[:, :2], axis=0, return_counts=True)
    worse = [judge_items(int(gained), int(lost), n, 3.0).verdict == "worse" for gained, lost in kinds]
    assert 0.87 <= np.dot(worse, times) / 1000 <= 0.93


def test_too_few_items_show_no_loss() -> None:
    """McNemar's test finds no loss below six items, and chance explains any loss of five."""
    assert judge_items(0, 1, 5, 3.0).detectable is None


def test_a_perplexity_beyond_its_limit_is_named(compare: CommandLine) -> None:
    done = compare(BASE, record([index < 100 for index in range(200)], perplexity=1e30))
    assert (done.code, "beyond their limits: perplexity changed, ratio 3.7" in done.out) == (0, True)


def test_a_perplexity_has_the_interval_of_its_items(compare: CommandLine) -> None:
    assert BASE.accuracy is not None
    items = [
        msgspec.structs.replace(item, loglikelihood=-1.2 - 0.01 * (item.id % 3))
        for item in BASE.accuracy.items
    ]
    worse = msgspec.structs.replace(BASE.accuracy, items=items, perplexity=2.7 * 2.718**0.21)
    done = compare(BASE, msgspec.structs.replace(BASE, accuracy=worse))
    assert "perplexity worse, ratio 1.23" in done.out


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
        (msgspec.structs.replace(BASE, accuracy=None), "the new run holds no accuracy"),
        (record([True] * 200, model="org/other"), "another model: m and other"),
    ],
)
def test_what_cannot_be_compared(compare: CommandLine, new: Record, words: str) -> None:
    done = compare(BASE, new)
    assert (done.code, "not comparable: " in done.out and words in done.out) == (2, True)


def test_a_converted_model_of_another_name_is_the_same_by_its_checkpoint(compare: CommandLine) -> None:
    sides = [
        msgspec.structs.replace(one, fingerprint=WeightsFingerprint(config="c", weights="w"))
        for one in (BASE, record([True] * 100 + [False] * 100, model="exported"))
    ]
    assert compare(*sides).code == 0


def test_records_without_items_cannot_be_compared(compare: CommandLine) -> None:
    assert BASE.accuracy is not None
    empty = msgspec.structs.replace(BASE, accuracy=msgspec.structs.replace(BASE.accuracy, items=[]))
    assert "the records hold no items of lambada_openai" in compare(empty, empty).out


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
