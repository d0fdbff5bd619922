"""lm-eval's kinds of tasks, groups and filters through the command line, on small tasks of our own."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

lm_eval_tasks = pytest.importorskip("lm_eval.tasks")

from tests.conftest import CommandLine  # noqa: E402  # after the check that it is installed
from xpubench.record import decode  # noqa: E402

DOCUMENTS = [
    {"question": "The sky on a clear day is", "choices": [" green", " blue"], "answer": " blue"},
    {"question": "Two and two make", "choices": [" four", " a banana", " Paris"], "answer": " four"},
    {"question": "The capital of France is", "choices": [" Paris", " seven"], "answer": " seven"},
    {"question": "The grass is green and the snow is", "choices": [" Paris", " white"], "answer": " white"},
]
COMMON = "dataset_path: json\ndataset_kwargs: {data_files: {test: DATA}}\ntest_split: test\n"
ACC = "metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]\nmetadata: {version: 1.0}\n"
TASKS = {
    "choosing": 'output_type: multiple_choice\ntarget_delimiter: ""\n'
    'doc_to_text: question\ndoc_to_choice: "{{choices}}"\n'
    'doc_to_target: "{{choices.index(answer)}}"\ntag: [both_choosing]\n' + ACC,
    "naming": 'output_type: multiple_choice\ntarget_delimiter: ""\n'
    'doc_to_text: question\ndoc_to_choice: "{{choices}}"\n'
    "doc_to_target: answer\ntag: [both_choosing]\n" + ACC,
    "continuing": 'output_type: loglikelihood\ndoc_to_text: question\ndoc_to_target: "{{answer}}"\n' + ACC,
    "empty_end": 'output_type: loglikelihood\ndoc_to_text: question\ndoc_to_target: ""\n' + ACC,
    "rolling": 'output_type: loglikelihood_rolling\ndoc_to_text: ""\n'
    'doc_to_target: "{{question}}{{answer}}"\n'
    "metric_list: [{metric: word_perplexity}, {metric: bits_per_byte}]\nmetadata: {version: 1.0}\n",
    "writing": 'output_type: generate_until\ndoc_to_text: question\ndoc_to_target: "{{answer.strip()}}"\n'
    "generation_kwargs: {until: ['.'], max_gen_toks: 4, do_sample: false}\n"
    "metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]\n"
    "filter_list:\n"
    "  - {name: strict, filter: [{function: regex, regex_pattern: '(nothing of it)'},"
    " {function: take_first}]}\n"
    # Whatever the model writes: one of the answers.
    "  - {name: loose, filter: [{function: regex, regex_pattern: '(nothing of it)', fallback: blue},"
    " {function: take_first}]}\n"
    "metadata: {version: 1.0}\n",
}


@pytest.fixture
def accuracy(
    xpubench: CommandLine,
    scripted: CommandLine,
    smollm2: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> CommandLine:
    """`accuracy(task, *flags, script=None)`: a task of ours on the CPU, of the embedded model in float32 or,
    with a script, of the fake runtime."""
    data, here = tmp_path / "data.json", tmp_path / "tasks"
    data.write_text("".join(json.dumps(document) + "\n" for document in DOCUMENTS))
    here.mkdir()
    for name, text in TASKS.items():
        (here / f"{name}.yaml").write_text(f"task: {name}\n" + COMMON.replace("DATA", str(data)) + text)
    (here / "group.yaml").write_text(
        "group: mixed\ntask: [choosing, continuing]\naggregate_metric_list: [{metric: acc}]\n"
    )
    plain = lm_eval_tasks.TaskManager
    monkeypatch.setattr(
        lm_eval_tasks,
        "TaskManager",
        lambda **_: plain(include_path=str(here), include_defaults=False),
    )

    def run(task: str, *flags: object, script: dict[str, Any] | None = None) -> Any:
        task_flags = ("--accuracy-only", "--acc-tasks", *task.split(), *flags)
        if script is not None:
            return scripted(script, *task_flags)
        return xpubench(
            *("generate", "-m", smollm2, "--device", "cpu", "--dtype", "float32", *task_flags),
            *("--json", "--results-dir", tmp_path / "results"),
        )

    return run


@pytest.mark.parametrize("task", ["choosing", "naming"])
def test_several_choices(accuracy: CommandLine, task: str) -> None:
    done = accuracy(task)
    assert done.code == 0, done.err
    found = done.records[0]["accuracy"]
    assert [item["id"] for item in found["items"]] == [0, 1, 2, 3]
    assert [item["correct"] for item in found["items"]] == [True, True, False, True]
    assert (found["acc"], found["perplexity"], found["partial"]) == (0.75, None, False)


def test_the_right_choice_may_be_a_number_or_a_text(accuracy: CommandLine) -> None:
    records = accuracy("choosing naming continuing").records
    one, other, alone = ([item["loglikelihood"] for item in each["accuracy"]["items"]] for each in records)
    assert one == pytest.approx(other)
    assert one == pytest.approx(alone, abs=1e-4)


def test_a_group_and_a_tag_are_one_record_a_task(
    accuracy: CommandLine, xpubench: CommandLine, smollm2: Path, tmp_path: Path
) -> None:
    done = accuracy("mixed both_choosing")
    assert done.code == 0, done.err
    assert [record["accuracy"]["task"] for record in done.records] == ["choosing", "continuing", "naming"]
    for record in done.records:
        assert record["accuracy"]["n"] == 4
        assert record["spec"]["task"]["name"] == record["accuracy"]["task"]
    assert len({record["id"] for record in done.records}) == 3

    # A suite finds them again under the ids of what was asked for.
    suite = tmp_path / "suite.toml"
    suite.write_text(
        f'title = "t"\n[[grid]]\nmodels = ["{smollm2}"]\n'
        'flags = "--device cpu --dtype float32 --accuracy-only --acc-tasks mixed both_choosing"\n'
    )
    assert "0 to run" in xpubench("suite", suite, "--dry-run", "--results-dir", tmp_path / "results").out


def test_of_several_filters_the_first_is_kept(accuracy: CommandLine) -> None:
    done = accuracy("writing", "--acc-iter", 3)
    found = done.records[0]["accuracy"]
    assert found["n"] == 3
    assert [item["id"] for item in found["items"]] == [0, 1, 2]
    assert found["metrics"]["exact_match,strict"] == 0
    assert found["metrics"]["exact_match,loose"] > 0
    assert found["acc"] == 0
    assert found["batch_size"] == 1
    assert found["items_per_s"] > 0
    assert found["partial"] is True


def test_rolling_log_likelihoods_are_the_items(accuracy: CommandLine) -> None:
    found = accuracy("rolling").records[0]["accuracy"]
    losses = [-item["loglikelihood"] for item in found["items"]]
    words = sum(len(f"{one['question']}{one['answer']}".split()) for one in DOCUMENTS)
    assert found["metrics"]["word_perplexity"] == pytest.approx(math.exp(sum(losses) / words), rel=1e-5)
    assert found["perplexity"] is None


@pytest.mark.parametrize("task", ["rolling", "continuing", "choosing"])
def test_nan_fails_the_run_and_its_record_can_be_read(accuracy: CommandLine, task: str) -> None:
    done = accuracy(task, script={"logprob": None})
    assert done.code == 1
    assert done.records[0]["status"] == "numerics"
    assert decode(done.out).accuracy is not None


@pytest.mark.parametrize(("task", "calls_before"), [("choosing", 6), ("rolling", 2), ("continuing", 2)])
def test_an_interruption_keeps_whole_items(accuracy: CommandLine, task: str, calls_before: int) -> None:
    # Each text has another log-probability.
    answers = {choice for one in DOCUMENTS for choice in one["choices"]}
    texts = sorted(answers | {f"{one['question']}{one['answer']}" for one in DOCUMENTS})
    script = {"logprobs": {text: -0.1 - 0.1 * index for index, text in enumerate(texts)}}
    stop = {"faults": [{"stage": "score", "call": calls_before + 1, "error": "KeyboardInterrupt"}]}
    (whole,) = accuracy(task, "--batch-size", 1, script=script).records
    (record,) = accuracy(task, "--batch-size", 1, script=script | stop).records
    assert record["status"] == "interrupted"
    found = record["accuracy"]
    assert 0 < found["n"] < 4
    assert found["partial"] is True
    assert found["reference"] is None
    assert any("the longest ones" in line for line in record["warnings"])
    known = {item["id"]: item for item in whole["accuracy"]["items"]}
    assert len({item["loglikelihood"] for item in known.values()}) == 4
    for item in found["items"]:
        assert item == known[item["id"]]


def test_an_interruption_keeps_texts(accuracy: CommandLine) -> None:
    script = {"faults": [{"stage": "generate", "call": 3, "error": "KeyboardInterrupt"}]}
    record = accuracy("writing", script=script).records[0]
    assert record["status"] == "interrupted"
    assert [item["id"] for item in record["accuracy"]["items"]] == [0, 1]
    assert [item["correct"] for item in record["accuracy"]["items"]] == [False, False]


def test_an_ending_without_a_token_is_not_scored(accuracy: CommandLine) -> None:
    done = accuracy("empty_end")
    assert done.code == 1
    assert done.records[0]["status"] == "unsupported"
    assert "no token of its own" in done.error_line


def test_examples_before_each_item(accuracy: CommandLine) -> None:
    alone, shown = (accuracy("choosing", *flags).records[0] for flags in ((), ("--num-fewshot", 2)))
    assert shown["spec"]["task"]["num_fewshot"] == 2
    before, after = (
        [item["loglikelihood"] for item in record["accuracy"]["items"]] for record in (alone, shown)
    )
    assert before != pytest.approx(after, abs=1e-2)


def test_all_items_asked_one_by_one_are_no_part(accuracy: CommandLine) -> None:
    record = accuracy("continuing", "--acc-iter", 4).records[0]
    assert record["accuracy"]["partial"] is False
    assert not any("partial" in line for line in record["warnings"])


def test_one_item_has_no_error(accuracy: CommandLine) -> None:
    found = accuracy("continuing", "--acc-iter", 1).records[0]["accuracy"]
    assert found["perplexity"] > 1
    assert found["perplexity_stderr"] is None
