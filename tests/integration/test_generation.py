"""`generate` on real models: what it measures, checks and writes."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM

from tests.conftest import ROOT, CommandLine
from xpubench.measure.clock import TokenClock
from xpubench.prompts import random_prompt
from xpubench.record import read_record
from xpubench.spec import Workload
from xpubench.weights.pretrained import load_pretrained


@pytest.mark.parametrize("search", [["--greedy"], ["--num-beams", "3"]], ids=["greedy", "beams"])
@pytest.mark.parametrize("cache", [[], ["--use-static-cache"]], ids=["dynamic", "static"])
@pytest.mark.parametrize("batch", [1, 2])
def test_the_tokens_are_those_of_plain_transformers(
    generate: CommandLine, smollm2: Path, search: list[str], cache: list[str], batch: int
) -> None:
    done = generate(smollm2, *search, *cache, "--batch-size", batch, "--max-new-tokens", 6, "--json")
    assert done.code == 0
    (record,) = done.records
    model = AutoModelForCausalLM.from_pretrained(smollm2)
    prompt = random_prompt(49152, frozenset({0, 1, 2}), batch_size=batch, length=8, seed=0, index=0)
    expected = model.generate(
        torch.from_numpy(prompt),
        attention_mask=torch.ones(batch, 8, dtype=torch.int64),
        do_sample=False,
        num_beams=1 if "--greedy" in search else 3,
        max_new_tokens=6,
        min_new_tokens=6,
        eos_token_id=None,
        pad_token_id=2,
    )
    assert record["output"]["first_token_ids"] == expected[0, 8:].tolist()
    # transformers 4 hands a dynamic cache back as a tuple.
    assert record["checks"]["cache"] in (("StaticCache",) if cache else ("DynamicCache", "tuple"))


def test_what_a_record_holds(generate: CommandLine, tiny_llama: Path, tmp_path: Path) -> None:
    done = generate(tiny_llama, "--num-iter", 4, "--num-warmup", 1, "--json")
    assert done.code == 0
    (record,) = done.records
    assert record["status"] == "ok"
    iterations = record["samples"]["iterations"]
    assert [one["sync_policy"] for one in iterations] == [
        *("every_token", "end_to_end", "end_to_end", "every_token", "every_token", "end_to_end")
    ]
    for one in iterations:
        if one["sync_policy"] == "every_token":
            assert len(one["next_token_ns"]) == 3
            assert 0 < one["first_token_ns"] + sum(one["next_token_ns"]) <= one["end_to_end_ns"]
        else:
            assert one["first_token_ns"] is None
    summary = record["summary"]
    assert summary["first_token_ms"]["n"] == 3
    assert summary["next_token_ms"]["n"] == 9
    assert summary["perturbation"] > 0
    assert 0 < summary["mbu_measured"] < 1
    assert summary["mbu_datasheet"] is None
    assert summary["peak_device_bytes"] is None
    assert summary["peak_host_bytes"] > 10**8
    assert record["bandwidth"]["ceiling_gb_per_s"] > 1
    assert record["plan"]["weight_bytes"] == record["runtime"]["weight_bytes"]
    assert record["environment"]["versions"]["torch"] == torch.__version__
    assert record["environment"]["harness"]["commit"]
    path = tmp_path / "results" / f"{record['id']}.json"
    assert json.loads(path.read_text()) == record
    assert read_record(path).id == record["id"]


def test_several_shapes_load_the_model_once(
    generate: CommandLine, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads = []

    def counted(*arguments: Any, **named: Any) -> Any:
        loads.append(arguments)
        return load_pretrained(*arguments, **named)

    monkeypatch.setattr("xpubench.weights.load.load_pretrained", counted)
    done = generate(tiny_llama, "--input-tokens", 40, 8, "--batch-size", 1, 2, "--use-static-cache", "--json")
    assert done.code == 0
    assert len(loads) == 1
    shapes = {
        (one["spec"]["workload"]["input_tokens"], one["spec"]["workload"]["batch_size"]): one
        for one in done.records
    }
    assert set(shapes) == {(40, 1), (40, 2), (8, 1), (8, 2)}
    # A small shape after a large one does not run in the large one's cache.
    positions = {length: one["checks"]["cache_positions"] for (length, _), one in shapes.items()}
    assert positions[8] in (11, 12)
    assert positions[40] in (43, 44)


def test_prompts_differ_between_iterations_and_follow_the_seed(tiny_llama: Path) -> None:
    def prompt(seed: int, index: int) -> list[list[int]]:
        special = frozenset({1, 5})
        return random_prompt(256, special, batch_size=2, length=32, seed=seed, index=index).tolist()  # type: ignore[no-any-return]

    assert prompt(0, 0) == prompt(0, 0)
    assert prompt(0, 0) != prompt(0, 1) != prompt(1, 1)
    assert prompt(0, 0)[0] != prompt(0, 0)[1]
    drawn = {token for index in range(50) for row in prompt(0, index) for token in row}
    assert not drawn & {1, 5}


def test_a_text_prompt_is_used_as_given(generate: CommandLine, smollm2: Path) -> None:
    done = generate(smollm2, "--prompt", "Gravity is", "--max-new-tokens", 8, "--json")
    (record,) = done.records
    assert record["summary"]["input_tokens"] == 3
    assert "physics" in record["output"]["first_text"]
    for one in record["samples"]["iterations"]:
        assert one["tokenize_ns"] > 0
        assert one["detokenize_ns"] > 0


def test_a_text_prompt_needs_a_tokenizer(generate: CommandLine, tiny_llama: Path) -> None:
    done = generate(tiny_llama, "--prompt", "Gravity is")
    assert done.code == 2
    assert "without a tokenizer" in done.error_line


def test_too_many_positions_are_refused_before_the_load(
    generate: CommandLine, tiny_llama: Path, smollm2: Path, tmp_path: Path
) -> None:
    done = generate(tiny_llama, "--input-tokens", 120, "--max-new-tokens", 9)
    assert done.code == 2
    assert "128 positions" in done.error_line
    assert list((tmp_path / "results").iterdir()) == []
    long = generate(smollm2, "--prompt", "word " * 8200)
    assert long.code == 2
    assert "8192 positions" in long.error_line


def test_a_run_that_cannot_fit_says_so_before_it_loads(generate: CommandLine) -> None:
    done = generate("bigscience/bloom", "--dummy-weights", "--json")
    assert done.code == 1
    (record,) = done.records
    assert record["status"] == "oom"
    assert "not loaded: 704.99 GB of weights" in record["failure"]["message"]


def test_one_shape_that_does_not_fit_does_not_stop_the_others(
    generate: CommandLine, tiny_llama: Path
) -> None:
    done = generate(tiny_llama, "--batch-size", 10**9, 1, "--json")
    assert done.code == 1
    assert {one["status"] for one in done.records} == {"oom", "ok"}


def test_running_out_of_memory_while_generating(
    generate: CommandLine, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from xpubench.runtimes.pytorch import PyTorchRuntime

    plain = PyTorchRuntime.generate

    def greedy_for_memory(self: PyTorchRuntime, ids: Any, workload: Workload, policy: Any) -> Any:
        if workload.input_tokens == 9:
            torch.empty(2**60)
        return plain(self, ids, workload, policy)

    monkeypatch.setattr(PyTorchRuntime, "generate", greedy_for_memory)
    done = generate(tiny_llama, "--input-tokens", 9, 8, "--json")
    assert done.code == 1
    assert [one["status"] for one in done.records] == ["oom", "ok"]
    assert "out of memory on cpu" in done.error_line


def test_an_unexpected_error_is_a_crash_with_its_traceback(
    generate: CommandLine, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from xpubench.runtimes.pytorch import PyTorchRuntime

    def broken(*_: Any) -> None:
        raise AssertionError("surprise")

    monkeypatch.setattr(PyTorchRuntime, "generate", broken)
    done = generate(tiny_llama, "--json")
    assert done.code == 1
    (record,) = done.records
    assert record["status"] == "crash"
    assert record["failure"]["message"] == "AssertionError: surprise"
    assert "Traceback" in record["failure"]["log_tail"]


def test_an_error_that_ends_all_shapes_tells_each_of_them_where(
    generate: CommandLine, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise AssertionError("surprise")

    monkeypatch.setattr("xpubench.weights.load.load_pretrained", broken)
    done = generate(tiny_llama, "--batch-size", 1, 2, "--json")
    assert [one["status"] for one in done.records] == ["crash", "crash"]
    assert all("Traceback" in one["failure"]["log_tail"] for one in done.records)


def test_a_short_output_is_a_failure(
    generate: CommandLine, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from xpubench.runtimes.pytorch import PyTorchRuntime

    plain = PyTorchRuntime._arguments

    def shorter(self: PyTorchRuntime, ids: Any, workload: Workload, **more: Any) -> dict[str, Any]:
        return plain(self, ids, workload, **more) | {"max_new_tokens": 2, "min_new_tokens": 2}

    monkeypatch.setattr(PyTorchRuntime, "_arguments", shorter)
    done = generate(tiny_llama, "--json")
    assert done.code == 1
    assert done.records[0]["status"] == "short_output"


def test_an_interrupted_run_keeps_its_samples(
    generate: CommandLine, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from xpubench.runtimes.pytorch import PyTorchRuntime

    plain, calls = PyTorchRuntime.generate, []

    def interrupted(self: PyTorchRuntime, ids: Any, workload: Workload, policy: Any) -> Any:
        calls.append(policy)
        # One warm-up, two measured.
        if len(calls) == 4:
            raise KeyboardInterrupt
        return plain(self, ids, workload, policy)

    monkeypatch.setattr(PyTorchRuntime, "generate", interrupted)
    done = generate(tiny_llama, "--num-iter", 4, "--input-tokens", 8, 9, "--json")
    assert done.code == 1
    (record,) = done.records
    assert record["status"] == "interrupted"
    assert len(record["samples"]["iterations"]) == 2


def test_a_terminated_process_leaves_a_record(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [
            *(sys.executable, ROOT / "run_generation.py", "-m", "smollm2-135m", "--device", "cpu"),
            *("--greedy", "--input-tokens", "64", "--max-new-tokens", "512", "--results-dir", str(tmp_path)),
        ],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("64 in"):
            break
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 1
    process.stderr.close()
    (path,) = tmp_path.glob("*.json")
    assert read_record(path).status == "interrupted"


def test_the_divergence_from_float32(generate: CommandLine, smollm2: Path, tmp_path: Path) -> None:
    float32 = generate(smollm2, "--json").records[0]
    path = tmp_path / "results" / f"{float32['id']}.json"
    same = generate(smollm2, "--seed", 1, "--reference", path, "--json").records[0]["divergence"]
    assert same["top1_agreement"] == 1
    assert same["mean_kl"] < 1e-5
    assert same["first_divergence"] == [None] * 4
    assert same["positions"] == 4 * 32
    rounded = generate(smollm2, "--dtype", "bfloat16", "--reference", path, "--json").records[0]["divergence"]
    again = generate(smollm2, "--dtype", "bfloat16", "--reference", "cpu-float32", "--json")
    assert 0.9 < rounded["top1_agreement"] < 1
    assert 1e-5 < rounded["mean_kl"] < 0.05
    assert again.records[0]["divergence"] == rounded | {"reference": "cpu-float32"}


@pytest.mark.parametrize(
    ("reference", "words"), [("nowhere.json", "no such reference"), ("cpu-float16", "no such reference")]
)
def test_a_reference_that_is_not_there(
    generate: CommandLine, tiny_llama: Path, reference: str, words: str
) -> None:
    done = generate(tiny_llama, "--reference", reference)
    assert done.code == 2
    assert words in done.error_line


def test_a_reference_of_another_model(
    generate: CommandLine, tiny_llama: Path, smollm2: Path, tmp_path: Path
) -> None:
    other = generate(smollm2, "--json").records[0]
    done = generate(tiny_llama, "--reference", tmp_path / "results" / f"{other['id']}.json")
    assert done.code == 2
    assert "this run of" in done.error_line


def test_a_reference_of_another_vocabulary(
    generate: CommandLine, tiny_llama: Path, smollm2: Path, tmp_path: Path
) -> None:
    other = generate(smollm2, "--json").records[0]
    path = tmp_path / "results" / f"{other['id']}.json"
    other["spec"]["subject"]["model"] = str(tiny_llama)
    path.write_text(json.dumps(other))
    done = generate(tiny_llama, "--reference", path)
    assert done.code == 2
    assert "another vocabulary" in done.error_line


def test_a_reference_that_is_no_record_of_a_good_run(
    generate: CommandLine, tiny_llama: Path, tmp_path: Path
) -> None:
    path = tmp_path / "x.json"
    path.write_text("garbage")
    assert "not JSON" in generate(tiny_llama, "--reference", path).error_line
    failed = generate("bigscience/bloom", "--dummy-weights", "--json").records[0]
    done = generate(tiny_llama, "--reference", tmp_path / "results" / f"{failed['id']}.json")
    assert done.code == 2
    assert "failed run (oom)" in done.error_line


def test_a_run_does_not_overwrite_its_reference(
    generate: CommandLine, tiny_llama: Path, tmp_path: Path
) -> None:
    first = generate(tiny_llama, "--json").records[0]
    done = generate(tiny_llama, "--reference", tmp_path / "results" / f"{first['id']}.json")
    assert done.code == 2
    assert "overwrite" in done.error_line


@pytest.fixture(scope="module")
def backends() -> Iterator[dict[str, int]]:
    """Two compiler backends of our own: one that counts the calls of its graphs, and one that also errs."""
    calls = {"counting": 0, "erring": 0}

    def make(name: str, scale: float) -> None:
        def backend(graph: Any, _: Any) -> Any:
            def run(*inputs: Any) -> Any:
                calls[name] += 1
                outputs = graph(*inputs)
                return [
                    one * scale if isinstance(one, torch.Tensor) and one.is_floating_point() else one
                    for one in outputs
                ]

            return run

        torch._dynamo.register_backend(backend, name=name)

    make("counting", 1.0)
    make("erring", 1.5)
    yield calls
    torch.compiler.reset()


@pytest.mark.parametrize("cache", [[], ["--use-static-cache"]], ids=["dynamic", "static"])
def test_compiled_tokens_equal_eager_ones(
    generate: CommandLine, tiny_llama: Path, backends: dict[str, int], cache: list[str]
) -> None:
    eager = generate(tiny_llama, *cache, "--json").records[0]
    backends["counting"] = 0
    compiled = generate(tiny_llama, *cache, "--torch-compile", "--backend", "counting", "--json").records[0]
    if not cache and transformers.__version__.startswith("4."):
        # Its dynamic cache counts in Python, which makes each step a graph of its own.
        assert compiled["status"] in ("ok", "unsupported")
        if compiled["status"] == "unsupported":
            assert "--use-static-cache" in compiled["failure"]["message"]
            return
    assert compiled["status"] == "ok"
    # Every step after the prompt's, of a checked, a warm-up and two measured generations.
    assert backends["counting"] >= 4 * 3
    assert compiled["runtime"]["compile"]["graphs"] >= 1
    assert compiled["output"] == eager["output"]
    assert compiled["id"] != eager["id"]


def test_a_compiler_that_errs_shows_in_the_divergence(
    generate: CommandLine, tiny_llama: Path, backends: dict[str, int]
) -> None:
    flags = ("--use-static-cache", "--torch-compile", "--reference", "cpu-float32", "--json")
    right = generate(tiny_llama, "--backend", "counting", *flags).records[0]["divergence"]
    wrong = generate(tiny_llama, "--backend", "erring", *flags).records[0]["divergence"]
    assert right["mean_kl"] < 1e-5
    assert wrong["mean_kl"] > 1e-3


def test_a_loop_that_does_not_call_the_clock_at_each_token_is_refused(
    generate: CommandLine, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = TokenClock.__call__

    def skipping(self: TokenClock, input_ids: torch.Tensor, scores: Any, **named: Any) -> torch.Tensor:
        going_on = plain(self, input_ids, scores, **named)
        if len(self.stamps_ns) == 2:
            self.stamps_ns.pop()
        return going_on

    monkeypatch.setattr(TokenClock, "__call__", skipping)
    done = generate(tiny_llama, "--json")
    assert done.code == 1
    assert done.records[0]["status"] == "unsupported"
    assert "called 1 times for 4 tokens" in done.error_line


def test_an_interruption_while_profiling_keeps_the_record(
    generate: CommandLine, tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("xpubench.measure.profile.profile", interrupted)
    generate(tiny_llama, "--profile")
    (path,) = (tmp_path / "results").glob("*.json")
    assert read_record(path).status == "ok"


def test_an_unknown_compiler_backend(generate: CommandLine, tiny_llama: Path) -> None:
    done = generate(tiny_llama, "--torch-compile", "--backend", "induktor")
    assert done.code == 2
    assert "did you mean inductor" in done.error_line


def test_a_profile_lies_beside_the_record_and_counts_in_no_figure(
    generate: CommandLine, tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROFILE", "1")
    (record,) = generate(tiny_llama, "--profile_name", "here", "--json").records
    trace = json.loads((tmp_path / "results" / f"{record['id']}.here.trace.json").read_text())
    assert any("aten::" in event.get("name", "") for event in trace["traceEvents"])
    assert "aten::" in (tmp_path / "results" / f"{record['id']}.here.operators.txt").read_text()
    assert len(record["samples"]["iterations"]) == 2


def test_the_table_for_people(generate: CommandLine, tiny_llama: Path, tmp_path: Path) -> None:
    done = generate(tiny_llama, "--token-latency", "--print-memory", "--dtype", "float16")
    assert done.code == 0
    for words in (
        *(
            "first token",
            "next token",
            "end to end",
            "95% interval",
            "p90",
            "tokens/s",
            "MBU",
            "perturbation",
        ),
        *("peak memory", "float16 is slow on CPUs", "time of each token", "plan", "warning", "results/"),
    ):
        assert words in done.out, words
    assert "next, " in done.err
    assert "every_token: " in done.err


def test_the_device_is_chosen_and_told(xpubench: CommandLine, tiny_llama: Path, tmp_path: Path) -> None:
    done = xpubench(
        *("generate", "-m", tiny_llama, "--greedy", "--input-tokens", 8, "--max-new-tokens", 2),
        *("--num-iter", 1, "--results-dir", tmp_path, "--json"),
    )
    assert done.code == 0
    (record,) = done.records
    assert f"using {record['spec']['subject']['device']}" in done.err


@pytest.mark.skipif(torch.cuda.is_available(), reason="the machine has the device")
def test_a_device_that_is_not_there(generate: CommandLine, tiny_llama: Path) -> None:
    done = generate(tiny_llama, "--device", "cuda")
    assert done.code == 2
    assert "no cuda device here (there is: cpu)" in done.error_line


def test_ipex_that_is_not_there(generate: CommandLine, tiny_llama: Path) -> None:
    done = generate(tiny_llama, "--ipex")
    assert done.code == 2
    assert "requirements-ipex-xpu.txt" in done.error_line


def test_a_results_directory_below_a_file(generate: CommandLine, tiny_llama: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = generate(tiny_llama, "--results-dir", tmp_path / "file" / "results")
    assert done.code == 2
    assert "--results-dir" in done.error_line
