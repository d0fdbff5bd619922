"""`--until-decided`: an accuracy run ends when its items decide against a reference's."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("lm_eval")

from tests.conftest import CommandLine, Outcome  # after the check that it is installed
from xpubench.accuracy.decided import decided
from xpubench.accuracy.lm import LEAST_ITEMS, LOOKS
from xpubench.measure.sequential import DECIDES, item_capitals

ITEMS = 400
FINGERPRINT = {"config": "c" * 64, "weights": "a" * 64}
WRONG = -3.0


class Task:
    """A task of `ITEMS` passages, each with an answer of its own, and a reference that has all but ten of
    them right."""

    def __init__(self, scripted: CommandLine, directory: Path) -> None:
        self._scripted, self._directory = scripted, directory
        self.data = directory / "passages.jsonl"
        texts = (f"passage {item} ends in w{item}" for item in range(ITEMS))
        self.data.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        self.wrong = set(range(0, ITEMS, ITEMS // 10))
        (record,) = self.run(self.wrong, "--results-dir", directory / "reference").records
        self.id, self.reference = record["id"], directory / "reference" / f"{record['id']}.json"

    def run(self, wrong: set[int], *flags: object, **fields: object) -> Outcome:
        script = {"logprobs": {f" w{item}": WRONG for item in wrong}} | fields
        return self._scripted(
            script, "--accuracy-only", "--acc-tasks", "lambada_openai", "--acc-data", self.data, *flags
        )

    def until_decided(self, wrong: set[int], *flags: object) -> Outcome:
        return self.run(wrong, "--until-decided", "--reference", self.reference, *flags)


@pytest.fixture
def task(scripted: CommandLine, tmp_path: Path) -> Task:
    return Task(scripted, tmp_path)


def expected(task: Task, wrong: set[int], seed: int) -> tuple[int, str | None]:
    """After how many items the run should end, and on which side, from the definition."""
    order = list(range(ITEMS))
    random.Random(seed).shuffle(order)
    differences = np.array([[float(one in task.wrong) - float(one in wrong) for one in order]])
    crossed = {
        side: item_capitals(differences, ITEMS, 0.03, side)[0] >= DECIDES for side in ("within", "beyond")
    }
    step = max(LEAST_ITEMS, -(-ITEMS // LOOKS))
    for read in range(step, ITEMS, step):
        for side, found in crossed.items():
            if found[:read].any():
                return read, side
    return ITEMS, None


@pytest.mark.parametrize(
    ("wrong", "side", "seed"), [(set(), "within", 0), (set(range(0, ITEMS, 8)), "beyond", 5)]
)
def test_a_run_ends_when_its_items_decide(task: Task, wrong: set[int], side: str, seed: int) -> None:
    read, which = expected(task, wrong, seed)
    assert which == side
    assert read < ITEMS
    done = task.until_decided(wrong, "--seed", seed)
    assert done.code == 0, done.err
    (record,) = done.records
    found, decision = record["accuracy"], record["accuracy"]["decision"]
    assert (decision["decided"], decision["read"], decision["total"]) == (side, read, ITEMS)
    assert (decision["reference"], decision["limit_points"]) == (task.id, 3.0)
    assert (found["n"], found["partial"], len(found["items"])) == (read, True, read)
    order = list(range(ITEMS))
    random.Random(seed).shuffle(order)
    assert [item["id"] for item in found["items"]] == sorted(order[:read])
    assert all(item["correct"] is (item["id"] not in wrong) for item in found["items"])
    assert decision["lost"] == len((wrong - task.wrong) & set(order[:read]))
    assert decision["gained"] == len((task.wrong - wrong) & set(order[:read]))
    assert found["acc"] == pytest.approx(1 - len(wrong & set(order[:read])) / read)
    assert found["task_version"] == json.loads(task.reference.read_text())["accuracy"]["task_version"]
    assert any(f"the first {read} items" in line and f"seed {seed}" in line for line in record["warnings"])
    # The whole run's record has another id, and keeps its file.
    assert record["id"] != task.id


def test_a_loss_near_the_limit_is_read_to_the_end(task: Task) -> None:
    """A loss of 13 of 400 items is 3.25 points. They come first by their number, where they would decide."""
    right = sorted(set(range(ITEMS)) - task.wrong)
    wrong = task.wrong | set(right[:13])
    assert expected(task, wrong, 0) == (ITEMS, None)
    (record,) = task.until_decided(wrong).records
    found = record["accuracy"]
    assert (found["n"], found["partial"], found["decision"]["read"]) == (ITEMS, False, ITEMS)
    assert (found["decision"]["lost"], found["decision"]["decided"]) == (13, "beyond")
    assert found["metrics"]["acc"] == pytest.approx(1 - len(wrong) / ITEMS)


def test_the_terminal_tells_the_decision(task: Task, xpubench: CommandLine, tmp_path: Path) -> None:
    task.until_decided(task.wrong)
    fake = ("--runtime", "fake", "--fake-script", tmp_path / "script.json", "--device", "cpu")
    what = ("--accuracy-only", "--acc-tasks", "lambada_openai", "--acc-data", task.data)
    how = ("--until-decided", "--reference", task.reference, "--results-dir", tmp_path / "shown")
    shown = xpubench("generate", "-m", "smollm2-135m", *fake, *what, *how)
    assert shown.code == 0, shown.err
    assert "a loss within the limit of 3 points by" in " ".join(shown.out.split())


def test_references_that_cannot_serve(task: Task, tmp_path: Path, scripted: CommandLine) -> None:
    def refused(*flags: object, reference: object = task.reference) -> str:
        results = tmp_path / "refused"
        flags = ("--until-decided", "--reference", reference, *flags, "--results-dir", results)
        done = task.run(task.wrong, *flags)
        assert (done.code, done.out) == (2, "")
        assert not list(results.glob("*.json"))
        return done.err.splitlines()[-1]

    assert "holds 400 items and this run has 40" in refused("--acc-iter", 40)
    assert "num_fewshot None, not 1" in refused("--num-fewshot", 1)
    assert "no record that can be read" in refused(reference=tmp_path / "none.json")
    assert "--max-kl" in refused("--max-kl", 1)
    assert "one of --acc-tasks at a time" in refused("--acc-tasks", "lambada_openai", "lambada_standard")
    assert "name lambada_openai, not lambada_standard" in refused("--acc-tasks", "lambada_standard")
    latency = scripted({}, "--results-dir", tmp_path / "latency").records[0]["id"]
    assert "no accuracy run that went well" in refused(reference=tmp_path / "latency" / f"{latency}.json")
    record = json.loads(task.reference.read_text())
    changed = tmp_path / "changed.json"

    def with_(change: Callable[[dict[str, Any]], object]) -> Path:
        other = json.loads(json.dumps(record))
        change(other)
        changed.write_text(json.dumps(other))
        return changed

    other_model = with_(lambda one: one["spec"]["subject"].update(model="/models/llama-3-8b"))
    assert "cannot be compared: another model: llama-3-8b and smollm2-135m" in refused(reference=other_model)
    adapted = with_(lambda one: one["spec"]["subject"].update(lora="/adapters/a"))
    assert "cannot be compared: it ran with the LoRA adapter /adapters/a" in refused(reference=adapted)
    other_version = with_(lambda one: one["accuracy"].update(task_version="0.5"))
    assert "cannot be compared: another task version: 0.5 and " in refused(reference=other_version)
    others = with_(lambda one: one["accuracy"]["items"][0].update(id=ITEMS))
    assert "holds 400 items and this run has 400, or others" in refused(reference=others)
    partial = task.until_decided(task.wrong, "--results-dir", tmp_path / "partial").records[0]["id"]
    assert "without --until-decided" in refused(reference=tmp_path / "partial" / f"{partial}.json")


def test_other_weights_of_the_same_name_are_refused(task: Task, tmp_path: Path) -> None:
    def with_weights(weights: str, name: str) -> Outcome:
        return task.run(
            task.wrong,
            *("--until-decided", "--reference", task.reference, "--results-dir", tmp_path / name),
            fingerprint={"config": "c" * 64, "weights": weights * 64},
        )

    task.run(task.wrong, "--results-dir", task.reference.parent, fingerprint=FINGERPRINT)
    refused, taken = with_weights("b", "refused"), with_weights("a", "taken")
    assert (refused.code, "ran other weights of that name" in refused.error_line) == (2, True)
    assert not list((tmp_path / "refused").glob("*.json"))
    assert taken.code == 0, taken.err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--accuracy-only", "--until-decided"), "--until-decided needs --reference"),
        (("--accuracy-only", "--reference", "x.json"), "with --until-decided"),
        (("--until-decided", "--reference", "x.json"), "--until-decided is for accuracy runs"),
    ],
)
def test_flags_that_do_not_belong_together(
    scripted: CommandLine, flags: tuple[object, ...], message: str
) -> None:
    done = scripted({}, *flags)
    assert done.code == 2
    assert message in done.err.splitlines()[-1]


def test_few_items_are_all_read(task: Task, tmp_path: Path) -> None:
    few = ("--acc-iter", 10)
    (record,) = task.run(task.wrong, *few, "--results-dir", tmp_path / "few").records
    path = tmp_path / "few" / f"{record['id']}.json"
    (record,) = task.run(task.wrong, *few, "--until-decided", "--reference", path).records
    decision: dict[str, Any] = record["accuracy"]["decision"]
    assert (decision["read"], decision["total"], record["accuracy"]["n"]) == (10, 10, 10)


def test_decisions_are_seldom_wrong() -> None:
    """Of 300 orders of 1,000 items of which 31 are lost, that is just beyond 3 points, at most 5% and what
    chance adds are called within."""
    items = np.array([-1.0] * 46 + [1.0] * 15 + [0.0] * 939)
    source = np.random.default_rng(4)
    found = [decided(source.permutation(items)[:990].tolist(), 1000, 0.03) for _ in range(300)]
    assert found.count("within") / 300 <= 0.075
