"""Accuracy through lm-eval: equal to lm-eval's own model, item by item, and kept when something breaks."""

import json
import math
import os
import shutil
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

lm_eval = pytest.importorskip("lm_eval")

from lm_eval import tasks as lm_eval_tasks  # noqa: E402  # after the check that it is installed
from lm_eval.api.instance import Instance  # noqa: E402
from lm_eval.models.huggingface import HFLM  # noqa: E402

from tests.conftest import CommandLine  # noqa: E402
from tests.ipex_xpu.models import save_tokenizer  # noqa: E402
from xpubench.accuracy.length import longest_text  # noqa: E402
from xpubench.accuracy.lm import RuntimeLM  # noqa: E402
from xpubench.accuracy.tasks import SMOKE_FILE  # noqa: E402
from xpubench.errors import RunFailure  # noqa: E402
from xpubench.runtimes.pytorch.runtime import PyTorchRuntime  # noqa: E402
from xpubench.spec import Subject  # noqa: E402

# Of the fake runtime.
SMOKE_RUN = ("--accuracy-only", "--acc-tasks", "lambada_smoke")
PASSAGES = [json.loads(line)["text"] for line in SMOKE_FILE.read_text().splitlines()]


class Silent:
    def say(self, text: str) -> None: ...

    def begin(self, title: str, total: int) -> None: ...

    def step(self, text: str, count: int = 1) -> None: ...

    def downloading(self, under_way: bool) -> None: ...


@pytest.fixture(scope="module")
def runtime(short_smollm2: Path) -> PyTorchRuntime:
    return PyTorchRuntime.load(Subject(model=str(short_smollm2), device="cpu", dtype="float32"))


def ours(runtime: PyTorchRuntime, max_length: int = 8192, batch_size: int = 0) -> RuntimeLM:
    return RuntimeLM(runtime, max_length, Silent(), batch_size=batch_size, budget=256)


def theirs(runtime: PyTorchRuntime, max_length: int = 8192) -> Any:
    return HFLM(
        pretrained=runtime.model, tokenizer=runtime.vocabulary.tokenizer, batch_size=4, max_length=max_length
    )


def requests(kind: str, arguments: list[tuple[Any, ...]]) -> list[Instance]:
    return [
        Instance(request_type=kind, doc={}, arguments=one, idx=0, metadata=("task", index, 1))
        for index, one in enumerate(arguments)
    ]


def pairs() -> list[Instance]:
    split = [text.rsplit(" ", 1) for text in PASSAGES[:6]]
    odd = [("", " Hello world"), ("Two spaces at the end  ", "go over"), ("<|im_start|>user", "\nHi")]
    return requests("loglikelihood", [(context, " " + end) for context, end in split] + odd)


@pytest.mark.parametrize("max_length", [8192, 12], ids=["whole", "truncated"])
def test_log_likelihoods_are_those_of_hflm(runtime: PyTorchRuntime, max_length: int) -> None:
    mine = ours(runtime, max_length)
    found = mine.loglikelihood(pairs())
    expected = theirs(runtime, max_length).loglikelihood(pairs(), disable_tqdm=True)
    assert [one[0] for one in found] == pytest.approx([one[0] for one in expected], abs=1e-3)
    assert [one[1] for one in found] == [one[1] for one in expected]
    assert (mine.truncated > 0) == (max_length == 12)


def test_rolling_log_likelihoods_are_those_of_hflm(runtime: PyTorchRuntime) -> None:
    texts = requests("loglikelihood_rolling", [(" ".join(PASSAGES[:3]),), (PASSAGES[4],)])
    found = ours(runtime, 40).loglikelihood_rolling(texts)
    assert found == pytest.approx(theirs(runtime, 40).loglikelihood_rolling(texts), abs=1e-2)


def test_generated_texts_are_those_of_hflm(runtime: PyTorchRuntime) -> None:
    settings = {"until": ["."], "max_gen_toks": 24, "do_sample": False}
    texts = requests("generate_until", [("The capital of France is", settings), (PASSAGES[0], settings)])
    assert ours(runtime).generate_until(texts) == theirs(runtime).generate_until(texts, disable_tqdm=True)


@pytest.mark.parametrize("special", [None, "8"])
@pytest.mark.parametrize("ends", [[223, 174, 77], None], ids=["generation config", "config"])
def test_texts_end_where_those_of_hflm_end(
    tiny_llama: Path, tmp_path: Path, ends: list[int] | None, special: str | None
) -> None:
    """The config of the tiny Llama names 128 ids that end a text, and its tokenizer here has another one. Its
    tokens are as good as random: 8 is one of them, on which the texts are to stop, too."""
    directory = tmp_path / "tiny"
    shutil.copytree(tiny_llama, directory)
    save_tokenizer(directory)
    if special is not None:
        tokenizer_config = directory / "tokenizer_config.json"
        fields = json.loads(tokenizer_config.read_text()) | {"additional_special_tokens": [special]}
        tokenizer_config.write_text(json.dumps(fields))
    (directory / "generation_config.json").unlink()
    if ends is not None:
        (directory / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
    runtime = PyTorchRuntime.load(Subject(model=str(directory), device="cpu", dtype="float32"))
    assert ("8" in runtime.vocabulary.tokenizer.all_special_tokens) is (special is not None)
    settings = {"until": ["8"], "max_gen_toks": 12, "do_sample": False}
    prompts = ("The capital", "of France", "is", "Once upon", "a time", "there were")
    texts = requests("generate_until", [(prompt, dict(settings)) for prompt in prompts])
    hflm = HFLM(
        pretrained=AutoModelForCausalLM.from_pretrained(directory),
        tokenizer=runtime.vocabulary.tokenizer,
        batch_size=1,
    )
    found = ours(runtime, 128).generate_until(texts)
    assert found == hflm.generate_until(texts, disable_tqdm=True)
    assert len({len(text) for text in found}) > 2


def test_a_text_that_is_longer_than_the_table_of_positions(generate: CommandLine, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = GPT2Config(n_positions=48, n_embd=32, n_layer=2, n_head=2, vocab_size=256)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    save_tokenizer(tmp_path / "gpt2")
    task = ("--accuracy-only", "--acc-tasks", "lambada_smoke", "--acc-iter", 4)
    done = generate(tmp_path / "gpt2", *task, "--json")
    assert done.code == 0, done.err
    found = done.records[0]["accuracy"]
    assert found["truncated"] == 4
    runtime = PyTorchRuntime.load(Subject(model=str(tmp_path / "gpt2"), device="cpu", dtype="float32"))
    hflm = HFLM(pretrained=runtime.model, tokenizer=runtime.vocabulary.tokenizer, batch_size=1)
    split = [text.rsplit(" ", 1) for text in PASSAGES[:4]]
    asked = requests("loglikelihood", [(context, " " + end) for context, end in split])
    expected = [one[0] for one in hflm.loglikelihood(asked, disable_tqdm=True)]
    assert [item["loglikelihood"] for item in found["items"]] == pytest.approx(expected, abs=1e-3)


class Told:
    """A tokenizer that tells how long a text may be."""

    def __init__(self, model_max_length: int) -> None:
        self.model_max_length = model_max_length


@pytest.mark.parametrize(
    ("config", "tokenizer", "length"),
    [
        ({"n_positions": 3, "max_position_embeddings": 4, "n_ctx": 5}, Told(6), 3),
        ({"max_position_embeddings": 4, "n_ctx": 5}, Told(6), 4),
        ({"n_positions": None, "n_ctx": 5}, Told(6), 5),
        ({"max_position_embeddings": 4, "text_config": {"max_position_embeddings": 7}}, Told(6), 7),
        # What the config of a checkpoint leaves out has the default of its class.
        ({"model_type": "llava", "text_config": {"model_type": "mistral"}}, Told(6), 131072),
        # Bloom has no such limit, and Baichuan2-13B names it in the tokenizer.
        ({"model_type": "bloom"}, Told(6), 6),
        ({"model_type": "bloom"}, Told(int(1e30)), 2048),
        ({"model_type": "of_the_hub"}, object(), 2048),
    ],
)
def test_the_longest_text(config: dict[str, Any], tokenizer: Any, length: int) -> None:
    assert longest_text(config, tokenizer) == length


def test_the_head_is_tried_out_before_it_is_used_alone(runtime: PyTorchRuntime, short_smollm2: Path) -> None:
    assert runtime.scores_rows_alone is True
    whole = PyTorchRuntime.load(Subject(model=str(short_smollm2), device="cpu", dtype="float32"))
    plain = whole.model.forward

    def scaled(*arguments: Any, **named: Any) -> Any:
        output = plain(*arguments, **named)
        output["logits"] = output["logits"] * 0.5
        return output

    whole.model.forward = scaled
    assert whole.scores_rows_alone is False
    found = ours(whole).loglikelihood(pairs()[:3])
    expected = theirs(whole).loglikelihood(pairs()[:3], disable_tqdm=True)
    assert [one[0] for one in found] == pytest.approx([one[0] for one in expected], abs=1e-3)


@pytest.fixture
def accuracy(xpubench: CommandLine, short_smollm2: Path, tmp_path: Path) -> CommandLine:
    """`accuracy(*flags)`: the first twelve smoke passages on the CPU in float32, of a model whose answers are
    seldom right; later flags win."""

    def run(*flags: object) -> Any:
        return xpubench(
            *("generate", "-m", short_smollm2, "--device", "cpu", "--dtype", "float32", "--accuracy-only"),
            *("--acc-tasks", "lambada_smoke", "--acc-iter", 12, "--results-dir", tmp_path / "results"),
            *flags,
        )

    return run


def test_what_a_record_holds(accuracy: CommandLine, smollm2: Path) -> None:
    done = accuracy("-m", smollm2, "--json")
    assert done.code == 0
    (record,) = done.records
    found = record["accuracy"]
    assert (found["task"], found["task_version"], found["n"], found["partial"]) == (
        *("lambada_smoke", "1.0", 12),
        True,
    )
    assert [item["id"] for item in found["items"]] == list(range(12))
    right = [item["correct"] for item in found["items"]]
    assert found["acc"] == pytest.approx(sum(right) / 12)
    assert found["acc_stderr"] == pytest.approx(math.sqrt(found["acc"] * (1 - found["acc"]) / 11))
    losses = [-item["loglikelihood"] for item in found["items"]]
    assert found["perplexity"] == pytest.approx(math.exp(sum(losses) / 12))
    assert found["acc"] > 0.5
    assert any("partial run" in line for line in record["warnings"])
    assert record["spec"]["task"]["data_sha256"]


def test_a_local_file_runs_a_lambada_task_and_two_runs_compare(
    accuracy: CommandLine, xpubench: CommandLine, smollm2: Path, tmp_path: Path
) -> None:
    data = tmp_path / "passages.jsonl"
    data.write_text("".join(json.dumps({"text": text}) + "\n" for text in PASSAGES[:5]))
    flags = ("-m", smollm2, "--acc-tasks", "lambada_openai", "--acc-data", data, "--json")
    one, other = (accuracy(*flags, "--dtype", dtype).records[0] for dtype in ("float32", "bfloat16"))
    assert one["accuracy"]["n"] == 5
    paths = [tmp_path / "results" / f"{record['id']}.json" for record in (one, other)]
    done = xpubench("compare", *paths)
    found = json.loads(xpubench("compare", *paths, "--json").out)["runs"][0]["accuracy"]
    lost = one["accuracy"]["acc"] - other["accuracy"]["acc"]
    assert found["accuracy"]["change"] == pytest.approx(-100 * lost)
    # Five items cannot tell a difference of 3 points.
    assert (done.code, "inconclusive" in done.out, "lambada_openai" in done.out) == (3, True, True)
    assert one["accuracy"]["reference"] is None
    assert xpubench("compare", paths[0], paths[0], "--inconclusive-ok").code == 0


def test_the_table_for_people(accuracy: CommandLine) -> None:
    done = accuracy("-m", "smollm2-135m", "--batch-size", 3)
    assert done.code == 0
    for words in ("accuracy", " % +- ", "perplexity", "reference", "a part of all", "batch 3", "items"):
        assert words in done.out, words
    assert "items/s" in done.err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--acc-tasks", "hellaswag", "--acc-data", "FILE"], "--acc-data holds passages for"),
        (["--acc-tasks", "lambada_openai", "--acc-data", "/no/such/file"], "cannot read --acc-data"),
        (["--acc-data", "FILE"], "lambada_smoke has its own passages"),
        (["--acc-tasks", ","], "--acc-tasks names no task"),
        (["--acc-tasks", ""], "--acc-tasks names no task"),
        (["--torch-compile"], "--torch-compile has no effect on whole texts"),
        (["--use-static-cache"], "--use-static-cache is for latency runs"),
        (["--num-beams", "3"], "--num-beams is for latency runs"),
        (["--num-warmup", "0"], "--num-warmup is for latency runs"),
        (["--max-new-tokens", "8"], "--max-new-tokens is for latency runs"),
        (["--prompt", "hi"], "--prompt is for latency runs"),
        (["--profile"], "--profile is for latency runs"),
        (["--acc-iter", "0"], "--acc-iter must be at least 1"),
        (["--reference", "cpu-float32"], "xpubench compare"),
        (["--num-fewshot", "-1"], "--num-fewshot must be at least 0"),
        (["--batch-size", "1", "2"], "takes one --batch-size"),
        (["--dummy-weights", "-m", "smollm2-135m"], "--dummy-weights"),
    ],
    ids=str,
)
def test_wrong_use(accuracy: CommandLine, flags: list[str], words: str) -> None:
    done = accuracy(*flags)
    assert done.code == 2
    assert words in done.error_line


def test_an_unknown_task(accuracy: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """lm-eval's index of all its tasks takes it ten seconds, and that of LAMBADA's none."""
    lambada = Path(lm_eval.__file__).parent / "tasks" / "lambada"
    plain = lm_eval_tasks.TaskManager

    def of_lambada(**given: Any) -> Any:
        signature(plain).bind(**given)
        return plain(include_path=str(lambada), include_defaults=False)

    monkeypatch.setattr(lm_eval_tasks, "TaskManager", of_lambada)
    done = accuracy("--acc-tasks", "lambada_smoky")
    assert (done.code, "did you mean lambada_smoke" in done.error_line) == (2, True)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "is empty"),
        ('{"text": "two words"}\n{"text"\n', "line 2: not JSON"),
        ('{"text": "two words"}\n{"words": 1}\n', "line 2: not"),
        ('{"text": "one"}\n', "line 1: not"),
        ('["two words"]\n', "line 1: not"),
        ('{"text": "two words "}\n', "line 1: not"),
        ('{"text": " word"}\n', "line 1: not"),
        ('{"text": " "}\n', "line 1: not"),
        ('{"text": "two words"}\n\n{"text": "two words"}\n', "line 2: not JSON"),
        ('{"text": "a broken \\ud800"}\n', "line 1: not valid Unicode"),
    ],
)
def test_a_bad_file_of_passages(accuracy: CommandLine, tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "x.jsonl").write_text(content)
    done = accuracy("--acc-tasks", "lambada_openai", "--acc-data", tmp_path / "x.jsonl")
    assert done.code == 2
    assert words in done.error_line


def test_a_model_without_a_tokenizer(accuracy: CommandLine, tiny_llama: Path) -> None:
    done = accuracy("-m", tiny_llama)
    assert done.code == 2
    assert "tokenizer" in done.error_line


def test_a_tokenizer_without_special_tokens(accuracy: CommandLine, tiny_llama_of_bytes: Path) -> None:
    done = accuracy("-m", tiny_llama_of_bytes, "--acc-iter", 3, "--json")
    assert done.code == 0, done.err
    (record,) = done.records
    assert all(item["loglikelihood"] < -1 for item in record["accuracy"]["items"])


def test_no_token_begins_or_ends_a_text(tiny_llama_of_bytes: Path, tmp_path: Path) -> None:
    directory = tmp_path / "endless"
    shutil.copytree(tiny_llama_of_bytes, directory)
    (directory / "generation_config.json").unlink()
    fields = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(fields | {"eos_token_id": None}))
    mine = ours(PyTorchRuntime.load(Subject(model=str(directory), device="cpu", dtype="float32")), 128)
    settings = {"until": [], "max_gen_toks": 6}
    (text,) = mine.generate_until(requests("generate_until", [("Once", settings)]))
    # Each token is a letter of the tokenizer's alphabet.
    assert len(text.replace(" ", "")) == 6
    with pytest.raises(RunFailure, match="neither a BOS nor an EOS token"):
        mine.loglikelihood(requests("loglikelihood", [("", "Hi")]))


def test_data_that_only_the_hub_has(accuracy: CommandLine) -> None:
    done = accuracy("--acc-tasks", "lambada_openai")
    assert done.code == 2
    assert "--acc-data" in done.error_line


def test_an_interruption_keeps_the_items_that_are_done(scripted: CommandLine) -> None:
    script = {"faults": [{"stage": "score", "call": 3, "error": "KeyboardInterrupt"}]}
    done = scripted(script, *SMOKE_RUN, "--acc-iter", 12, "--batch-size", 3)
    assert done.code == 130
    (record,) = done.records
    assert record["status"] == "interrupted"
    assert len(record["accuracy"]["items"]) == 6
    assert record["accuracy"]["partial"] is True


def test_a_smaller_batch_is_tried_where_memory_runs_out(scripted: CommandLine) -> None:
    script = {"faults": [{"stage": "score", "call": 1, "error": "MemoryError"}]}
    done = scripted(script, *SMOKE_RUN, "--acc-iter", 12, "--batch-size", 8)
    assert done.code == 0
    (record,) = done.records
    assert (record["accuracy"]["n"], record["accuracy"]["batch_size"]) == (12, 4)


def test_two_runs_differ_by_the_items_that_changed(
    scripted: CommandLine, xpubench: CommandLine, tmp_path: Path
) -> None:
    words = [f" {text.split()[-1]}" for text in PASSAGES]
    once = [word for word in words if words.count(word) == 1]
    for name, wrong in (("base", once[:3]), ("new", once[2:10])):
        script = {"logprobs": dict.fromkeys(wrong, -2.0)}
        assert scripted(script, *SMOKE_RUN, "--results-dir", tmp_path / name).code == 0
    done = xpubench("compare", tmp_path / "base", tmp_path / "new", "--json")
    (run,) = json.loads(done.out)["runs"]
    assert (run["accuracy"]["gained"], run["accuracy"]["lost"]) == (2, 7)
    assert run["accuracy"]["n"] == 60


def test_nothing_right_at_all_is_no_accuracy(scripted: CommandLine, tmp_path: Path) -> None:
    data = tmp_path / "x.jsonl"
    data.write_text("".join(json.dumps({"text": text}) + "\n" for text in PASSAGES[:3]) + "\n")
    task = ("--accuracy-only", "--acc-tasks", "lambada_openai", "--acc-data", data)
    done = scripted({"logprob": -2.0}, *task, "--acc-iter", 2)
    assert done.records[0]["status"] == "ok"
    assert any("accuracy 0" in line for line in done.records[0]["warnings"])
    whole = scripted({"logprob": -2.0}, *task)
    assert whole.code == 1
    assert whole.records[0]["status"] == "numerics"
    assert "accuracy 0 on all 3 items" in whole.error_line


def test_nan_log_likelihoods_fail_the_run(scripted: CommandLine) -> None:
    done = scripted({"logprob": None}, *SMOKE_RUN)
    assert done.code == 1
    assert done.records[0]["status"] == "numerics"


def test_the_passages_are_those_of_the_hash(accuracy: CommandLine, tmp_path: Path) -> None:
    data, records = tmp_path / "x.jsonl", []
    for passages in (PASSAGES[:4], PASSAGES[4:8]):
        data.write_text("".join(json.dumps({"text": text}) + "\n" for text in passages))
        os.utime(data, (1_577_836_800, 1_577_836_800))
        records += accuracy("--acc-tasks", "lambada_openai", "--acc-data", data, "--json").records
    one, other = records
    assert one["spec"]["task"]["data_sha256"] != other["spec"]["task"]["data_sha256"]
    first, second = ([item["loglikelihood"] for item in each["accuracy"]["items"]] for each in records)
    assert first != pytest.approx(second)


def test_several_tasks_and_the_smoke_passages_are_its_own(accuracy: CommandLine, tmp_path: Path) -> None:
    data = tmp_path / "x.jsonl"
    data.write_text("".join(json.dumps({"text": text}) + "\n" for text in PASSAGES[20:24]))
    tasks = ("--acc-tasks", "lambada_smoke", "lambada_openai", "--acc-data", data)
    done = accuracy("-m", "smollm2-135m", *tasks, "--acc-iter", 60, "--json")
    smoke, openai = done.records
    assert (smoke["accuracy"]["n"], openai["accuracy"]["n"]) == (60, 4)
    assert smoke["accuracy"]["partial"] is False
    assert smoke["accuracy"]["reference"]["acc"] == pytest.approx(smoke["accuracy"]["acc"], abs=0.02)
    # These four passages are not what the catalog's accuracy is of.
    assert openai["accuracy"]["reference"] is None


def test_the_templates_of_a_task_are_compiled_once(accuracy: CommandLine) -> None:
    """lm-eval compiles them for every item, which takes longer than a GPU takes to score it."""
    assert accuracy("--acc-iter", 4).code == 0
    before = lm_eval.utils.env.from_string.cache_info()
    assert accuracy("--acc-iter", 12).code == 0
    after = lm_eval.utils.env.from_string.cache_info()
    assert after.misses == before.misses
    assert after.hits - before.hits >= 12


def test_examples_are_not_what_the_reference_had(accuracy: CommandLine) -> None:
    record = accuracy("-m", "smollm2-135m", "--num-fewshot", 2, "--acc-iter", 2, "--json").records[0]
    assert record["accuracy"]["reference"] is None


def test_a_gap_to_the_reference_is_a_warning(scripted: CommandLine) -> None:
    """The catalog has 70% of smollm2-135m on these passages."""
    share = {f" {text.split()[-1]}": -2.0 for text in PASSAGES[:40]}
    near = {f" {text.split()[-1]}": -2.0 for text in PASSAGES[:20]}
    for logprobs, beyond in ((share, True), (near, False)):
        record = scripted({"logprobs": logprobs}, *SMOKE_RUN).records[0]
        assert any("beyond noise" in line for line in record["warnings"]) is beyond
    # With an adapter it is another model.
    record = scripted({"logprobs": share}, *SMOKE_RUN, "--lora", "adapter").records[0]
    assert record["accuracy"]["reference"] is None
    assert not any("beyond noise" in line for line in record["warnings"])


def test_a_context_of_spaces_is_scored_as_no_context(runtime: PyTorchRuntime) -> None:
    """lm-eval moves the spaces to the continuation, and its own model then stops at an assertion."""
    spaces, nothing = ours(runtime).loglikelihood(requests("loglikelihood", [(" ", "Hi"), ("", " Hi")]))
    assert spaces == pytest.approx(nothing)


def test_requests_are_kept_as_they_are_answered(runtime: PyTorchRuntime) -> None:
    mine, asked = ours(runtime), pairs()
    found = mine.loglikelihood(asked)
    kept = {id(request): answer for request, answer in mine.done}
    assert [kept[id(request)] for request in asked] == found


@pytest.mark.parametrize(("context", "end"), [("I saw th", "e"), ("Hello", ""), ("", "")])
def test_nothing_to_score_fails(runtime: PyTorchRuntime, context: str, end: str) -> None:
    with pytest.raises(RunFailure, match="no token of its own"):
        ours(runtime).loglikelihood(requests("loglikelihood", [(context, end)]))


def test_generation_is_cut_from_the_left_and_counted(runtime: PyTorchRuntime) -> None:
    texts = requests("generate_until", [(PASSAGES[0], {"until": [], "max_gen_toks": 70})])
    mine = ours(runtime, 80)
    assert mine.generate_until(texts) == theirs(runtime, 80).generate_until(texts, disable_tqdm=True)
    assert mine.truncated == 1
    with pytest.raises(RunFailure, match="up to 70 tokens"):
        ours(runtime, 70).generate_until(texts)


@pytest.mark.parametrize("flag", ["--acc-tasks=lambada_smoke", "--acc-iter=5", "--num-fewshot=1"])
def test_accuracy_flags_of_a_latency_run(generate: CommandLine, flag: str) -> None:
    done = generate("smollm2-135m", flag)
    assert done.code == 2
    assert "is for accuracy runs" in done.error_line
