"""OpenVINO's runtimes on real exports, in their own environment (`make test-openvino`)."""

import json
import os
import shutil
import statistics
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("openvino_genai")

from tests.conftest import CommandLine  # after the check that there is something to test
from tests.openvino.models import RUNTIMES, save_model, tokens
from xpubench.record import read_record
from xpubench.runtimes.openvino.steps import token_ns
from xpubench.weights.pretrained import ending_of


@pytest.mark.parametrize(
    ("method", "needs"),
    [("gptq", "gptqmodel"), ("awq", "requires gptqmodel"), ("auto-round", "requires auto-round")],
)
def test_a_quantized_checkpoint_is_not_quantized_again(
    xpubench: CommandLine, tmp_path: Path, method: str, needs: str
) -> None:
    """What converts hub checkpoints is no part of the environment: they are `unsupported` without it."""
    model = save_model(tmp_path / "model", "llama")
    config = json.loads((model / "config.json").read_text())
    config["quantization_config"] = {"quant_method": method, "bits": 4, "group_size": 32}
    (model / "config.json").write_text(json.dumps(config))
    done = xpubench("export", model, tmp_path / "ir", "--weight-format", "int4")
    assert done.code == 2
    assert f"{method} weights already" in done.error_line
    done = xpubench("export", model, tmp_path / "ir")
    assert done.code == 1
    assert "unsupported" in done.error_line
    assert needs in done.error_line
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_checkpoint_that_lacks_weights_is_not_exported(xpubench: CommandLine, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    model = save_model(tmp_path / "model", "llama")
    weights = load_file(model / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    done = xpubench("export", model, tmp_path / "ir", "--weight-format", "fp32")
    assert done.code == 1
    assert "bad_model" in done.error_line
    assert "up_proj" in done.error_line
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_int8_above_a_billion_parameters_is_said(xpubench: CommandLine, tmp_path: Path) -> None:
    model = save_model(tmp_path / "model", "llama")
    size = 2 * 10**9
    header = json.dumps({"huge": {"dtype": "F16", "shape": [size // 2], "data_offsets": [0, size]}}).encode()
    with (model / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + size)  # a hole, no bytes on the disk
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"dtype": "float16"}))
    done = xpubench("export", model, tmp_path / "ir")
    assert "int8, Optimum's default above a billion parameters" in done.err
    assert "bad_model" in done.error_line


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_beam_search(generate: CommandLine, llama: Path, runtime: str) -> None:
    flags = ("--num-beams", 4, "--max-new-tokens", 8, "--json")
    done = generate(llama, "--runtime", runtime, *flags)
    assert len(tokens(done)) == 8
    if runtime != "openvino-genai":
        assert tokens(done) == tokens(generate(llama, *flags))
        assert done.records[0]["checks"]["tokens"]["regret"] is not None


@pytest.mark.parametrize("runtime", ["openvino", "openvino-base"])
def test_divergence_of_a_float32_ir_is_nothing(generate: CommandLine, llama_ir: Path, runtime: str) -> None:
    done = generate(
        *(llama_ir, "--runtime", runtime, "--reference", "cpu-float32", "--json"),
        *("--ov-config", "KV_CACHE_PRECISION=f32"),
    )
    (record,) = done.records
    assert record["divergence"]["top1_agreement"] == 1.0
    assert record["divergence"]["mean_kl"] < 1e-5
    assert record["runtime"]["applied"]["INFERENCE_PRECISION_HINT"] == "f32"
    assert record["runtime"]["applied"]["KV_CACHE_PRECISION"] == "f32"


def test_the_runtimes_of_one_ir_compute_in_one_precision(
    generate: CommandLine, llama_ir: Path, tmp_path: Path
) -> None:
    """A CPU without bfloat16 computes in float32, which GenAI's pipeline does not show."""
    results, classes = tmp_path / "results", []
    for runtime in ("openvino-base", "openvino-genai"):
        flags = ("--runtime", runtime, "--dtype", "bfloat16", "--results-dir", results, "--json")
        (record,) = generate(llama_ir, *flags).records
        loaded = read_record(results / f"{record['id']}.json").runtime
        assert loaded is not None
        classes.append(loaded.precision_class)
    assert classes[0] == classes[1] is not None


def test_precisions_that_differ_from_what_was_asked(generate: CommandLine, llama_ir: Path) -> None:
    """GenAI, which does not show its model, warns as the others do. A plugin that has another default needs
    no warning."""

    def told(runtime: str, words: str, *flags: str) -> tuple[list[str], dict[str, Any]]:
        (record,) = generate(llama_ir, "--runtime", runtime, *flags, "--json").records
        return [one for one in record["warnings"] if words in one], record["runtime"]

    of_base, base = told("openvino-base", "the KV cache is")
    assert bool(of_base) is (base["applied"]["KV_CACHE_PRECISION"] != "f32")
    of_genai, genai = told("openvino-genai", "the KV cache is")
    assert of_genai == of_base
    # GenAI's own default: no limit.
    assert f"max_num_batched_tokens: {2**64 - 1}" in genai["scheduler"]
    assert genai["prefix_caching"] is False
    of_optimum, optimum = told("openvino", "f16 was asked", "--dtype", "float16")
    assert bool(of_optimum) is (optimum["applied"]["INFERENCE_PRECISION_HINT"] != "f16")
    assert told("openvino-genai", "f16 was asked", "--dtype", "float16")[0] == of_optimum


def test_an_ir_is_held_against_a_record_of_its_checkpoint(
    generate: CommandLine, llama: Path, llama_ir: Path, tmp_path: Path
) -> None:
    (record,) = generate(llama, "--json").records
    reference = tmp_path / "results" / f"{record['id']}.json"
    own = ("--reference", reference, "--json", "--ov-config", "KV_CACHE_PRECISION=f32")
    done = generate(llama_ir, "--runtime", "openvino-base", *own)
    assert done.code == 0, done.err
    assert done.records[0]["divergence"]["top1_agreement"] == 1.0
    other = generate(save_model(tmp_path / "opt", "opt"), "--reference", reference)
    assert other.code == 2
    assert "the reference" in other.error_line


def test_a_tokenizer_that_openvino_cannot_convert(
    xpubench: CommandLine, generate: CommandLine, tmp_path: Path
) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {word: index for index, word in enumerate(("?", "one", "two", "three"))}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.CharDelimiterSplit(" ")
    model = save_model(tmp_path / "model", "llama")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="?").save_pretrained(model)
    done = xpubench("export", model, tmp_path / "ir", "--weight-format", "fp32")
    assert done.code == 0, done.err
    assert "the tokenizer stays transformers' own" in done.err
    prompt = ("--prompt", "one two three", "--json")
    expected = generate(model, *prompt).records[0]["output"]
    assert generate(tmp_path / "ir", "--runtime", "openvino-genai", *prompt).records[0]["output"] == expected


def test_what_was_applied_is_read_back(generate: CommandLine, llama_ir: Path) -> None:
    (record,) = generate(
        *(llama_ir, "--runtime", "openvino-base", "--json", "--kv-cache-precision", "u8"),
        *("--dynamic-quantization-group-size", 32, "--threads", 1, "--num-streams", 1),
    ).records
    applied = record["runtime"]["applied"]
    assert applied["KV_CACHE_PRECISION"] == "u8"
    assert str(applied["DYNAMIC_QUANTIZATION_GROUP_SIZE"]) == "32"
    assert applied["INFERENCE_NUM_THREADS"] == 1
    assert record["runtime"]["torch_threads"] == 1
    # Keys and values of 2 layers x 2 heads x 16, at 9 positions on average, with 8 bytes of scales a head.
    cache = 9 * 2 * 2 * 2 * 16 * (1 + 8 / 16)
    assert step_bytes(record) == pytest.approx(record["runtime"]["step_weight_bytes"] + cache, rel=1e-6)


def step_bytes(record: dict[str, Any]) -> float:
    """What MBU counts, from the record's figures."""
    ms = record["summary"]["next_token_ms"]["median"]
    summary = record["summary"]
    found: float = summary["mbu_measured"] * summary["bandwidth_measured_gb_per_s"] * ms * 1e6
    return found


def stamped(record: dict[str, Any]) -> dict[str, Any]:
    """The iteration whose tokens were all stamped."""
    (found,) = [one for one in record["samples"]["iterations"] if one["sync_policy"] == "every_token"]
    return dict(found)


@pytest.mark.parametrize(
    ("sizes", "drafts", "expected"),
    [
        ([2, 2, 2], False, [10, 20, 40]),
        # The second prompt ends two steps after the first.
        ([1, 1, 2, 1, 1], False, [40, 80, 160]),
        # The second sequence waits until the first is finished.
        ([2, 1, 1, 1, 1], False, [10, 80, 160]),
        # Each step gives each sequence one token or two.
        ([2, 4], True, [10, 15, 20]),
    ],
)
def test_a_batch_has_a_token_when_all_of_its_sequences_have_it(
    sizes: list[int], drafts: bool, expected: list[int]
) -> None:
    ends_ms = [10 * 2**step / 1e6 for step in range(len(sizes))]
    raw = SimpleNamespace(m_new_token_times=ends_ms, m_batch_sizes=sizes)
    assert token_ns(raw, 2, 3, drafts=drafts) == expected


def test_every_token_is_stamped(generate: CommandLine, llama: Path) -> None:
    for runtime in RUNTIMES:
        own: list[object] = ["--kv-cache-precision", "f16"]
        if runtime == "openvino-genai":
            own += ["--ov-scheduler", "max_num_batched_tokens=12", "enable_prefix_caching=1"]
            # The two prompts of 8 tokens end in different steps.
            own += ["--batch-size", 1, 2, "--explain"]
        flags = (*own, "--max-new-tokens", 6, "--json")
        record, *batch = generate(llama, "--runtime", runtime, *flags).records
        cache = 10 * 2 * 2 * 2 * 16 * 2
        assert step_bytes(record) == pytest.approx(record["runtime"]["step_weight_bytes"] + cache, rel=1e-6)
        if runtime == "openvino-genai":
            assert "max_num_batched_tokens: 12" in record["runtime"]["scheduler"]
            assert record["runtime"]["prefix_caching"] is True
            # The metrics of steps do not say how long the second prompt took.
            assert record["explanation"]["first"] is not None
            assert len(stamped(batch[0])["next_token_ns"]) == 5
            assert batch[0]["explanation"] is None
            assert any("the prompts take several steps" in one for one in batch[0]["warnings"])
        one = stamped(record)
        assert len(one["next_token_ns"]) == 5
        assert 0 < one["first_token_ns"] < one["end_to_end_ns"]
        assert one["first_token_ns"] + sum(one["next_token_ns"]) <= one["end_to_end_ns"]
        assert record["checks"]["logits_finite"] is (None if runtime == "openvino-genai" else True)


def test_the_export_is_cached_by_content(generate: CommandLine, tmp_path: Path) -> None:
    model = save_model(tmp_path / "model", "llama", seed=1)
    first = generate(model, "--runtime", "openvino-base")
    assert first.code == 0
    assert "exporting" in first.err
    again = generate(model, "--runtime", "openvino")
    assert "in the cache" in again.err
    save_model(model, "llama", seed=2)
    assert "exporting" in generate(model, "--runtime", "openvino-base").err


def test_the_recipe_lies_beside_the_ir(
    xpubench: CommandLine, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The working directory will do where it is empty."""
    model, out = tmp_path / "model", tmp_path / "ir"
    shutil.copytree(llama, model)
    (model / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 7]}))
    out.mkdir()
    monkeypatch.chdir(out)
    done = xpubench("export", model, ".", "--weight-format", "int4", "--sym", "--group-size", 32)
    assert done.code == 0
    kept = json.loads((out / "xpubench_recipe.json").read_text())
    assert kept["recipe"] == {"model": str(model), "weight_format": "int4", "sym": True, "group_size": 32}
    assert "openvino" in kept["versions"]
    # The IR has what says where texts end, too.
    assert ending_of(out) == [2, 7]


def test_export_leaves_what_is_not_its_own(xpubench: CommandLine, llama: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine"
    out.mkdir()
    (out / "letter.txt").write_text("dear")
    done = xpubench("export", llama, out, "--weight-format", "fp32")
    assert done.code == 2
    assert "holds other files" in done.error_line
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    assert [path.name for path in out.iterdir()] == ["letter.txt"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--weight-format", "fp16", "--group-size", 64], "int4"),
        (["--weight-format", "int4", "--gptq"], "--dataset"),
        (["--weight-format", "int4", "--awq", "--dataset", "nothing.txt"], "neither a local text file"),
        (["--weight-format", "int4", "--ratio", 2], "between 0 and 1"),
        (["--weight-format", "int4", "--group-size", 48], "group size"),
        (["--lora", "nowhere"], "not a LoRA adapter"),
    ],
)
def test_exports_that_cannot_be(
    xpubench: CommandLine, llama: Path, tmp_path: Path, flags: list[object], words: str
) -> None:
    done = xpubench("export", llama, tmp_path / "ir", *flags)
    assert done.code == 2
    assert words in done.error_line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--runtime", "openvino-bas"], "did you mean openvino-base"),
        (["--runtime", "openvino-base", "--ov-config", "INFERENCE_NUM_THREDS=1"], "INFERENCE_NUM_THREADS"),
        (["--runtime", "openvino-base", "--ov-config", "THREADS"], "KEY=VALUE"),
        (["--runtime", "openvino-base", "--ov-config", "INFERENCE_NUM_THREADS=all"], "INFERENCE_NUM_THREADS"),
        (["--runtime", "openvino", "--ov-device", "GPU"], "leave one of the two out"),
        (["--kv-cache-precision", "u8"], "has no effect on --runtime pytorch"),
        (["--runtime", "openvino", "--prompt-lookup"], "openvino-genai"),
        (["--runtime", "openvino-genai", "--num-assistant-tokens", 3], "--draft-model or --prompt-lookup"),
        (["--runtime", "openvino-genai", "--ov-scheduler", "cache_sizes=1"], "did you mean cache_size"),
        (
            [
                *("--runtime", "openvino-genai", "--ov-config", "ATTENTION_BACKEND=SDPA"),
                *("--ov-scheduler", "cache_size=1"),
            ],
            "leave out --ov-scheduler",
        ),
        (["--runtime", "openvino", "--dummy-weights"], "--dummy-weights"),
    ],
)
def test_flags_that_cannot_be(generate: CommandLine, llama: Path, flags: list[object], words: str) -> None:
    done = generate(llama, *flags)
    assert done.code == 2
    assert words in done.error_line


def test_an_ir_without_its_weights(generate: CommandLine, llama_ir: Path) -> None:
    (llama_ir / "openvino_model.bin").unlink()
    done = generate(llama_ir, "--runtime", "openvino-base")
    assert done.code == 1
    assert "bad_model" in done.error_line
    assert "openvino_model.bin" in done.error_line


def test_an_ir_of_another_task(generate: CommandLine, llama_ir: Path) -> None:
    import numpy as np
    from openvino import Model, opset13
    from openvino import save_model as save_ir

    ids = opset13.parameter([-1, -1], np.int64, name="input_ids")
    ids.output(0).set_names({"input_ids"})
    result = opset13.relu(opset13.convert(ids, "f32"))
    result.output(0).set_names({"last_hidden_state"})
    save_ir(Model([result], [ids]), llama_ir / "openvino_model.xml")
    done = generate(llama_ir, "--runtime", "openvino-base")
    assert done.code == 1
    assert "no stateful language model" in done.error_line


def save_adapter(directory: Path, base: Path, seed: int = 3, **settings: Any) -> Path:
    """A random adapter of PEFT, of which every part that it trains differs from the base model."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(base)
    asked = {"target_modules": ["q_proj", "v_proj"]} | settings
    adapted = get_peft_model(model, LoraConfig(r=4, lora_alpha=12, task_type="CAUSAL_LM", **asked))
    for name, parameter in adapted.named_parameters():
        if parameter.requires_grad and "lora_A" not in name:
            torch.nn.init.normal_(parameter, std=0.3)
    adapted.save_pretrained(directory)
    return directory


def test_lora_merged_and_unmerged(generate: CommandLine, llama: Path, tmp_path: Path) -> None:
    adapter = save_adapter(tmp_path / "adapter", llama)
    flags = ("--max-new-tokens", 8, "--json")
    done = generate(llama, "--lora", adapter, *flags)
    merged, fingerprint = tokens(done), done.records[0]["fingerprint"]
    assert len(fingerprint["adapter"]) == 64
    assert merged != tokens(generate(llama, *flags))
    for runtime in RUNTIMES:
        done = generate(llama, "--runtime", runtime, "--lora", adapter, *flags)
        assert tokens(done) == merged, runtime
        assert done.records[0]["fingerprint"] == fingerprint, runtime
    # GenAI applies it unmerged; the reference is PyTorch's merged model.
    against = ("--lora", adapter, "--reference", "cpu-float32", "--json")
    (record,) = generate(llama, "--runtime", "openvino-genai", *against).records
    assert record["divergence"]["top1_agreement"] == 1.0
    assert record["divergence"]["mean_kl"] is None
    assert set(record["divergence"]["first_divergence"]) == {None}


def test_adapters_that_genai_does_not_apply(
    generate: CommandLine,
    xpubench: CommandLine,
    llama: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    adapter, ir = save_adapter(tmp_path / "adapter", llama), tmp_path / "ir"
    monkeypatch.chdir(tmp_path)
    assert xpubench("export", llama, ir, "--weight-format", "fp32", "--lora", "adapter").code == 0
    # The path is good in other directories too.
    assert json.loads((ir / "xpubench_recipe.json").read_text())["recipe"]["lora"] == str(adapter)
    genai = ("--runtime", "openvino-genai", "--lora", "adapter")
    twice = generate(ir, *genai)
    assert twice.code == 2
    assert f"has the LoRA adapter {adapter} merged into its weights" in twice.error_line
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"rank_pattern": {"q_proj": 32}}))
    scaled = generate(llama, *genai)
    assert scaled.code == 2
    assert "scales of its own for some modules (rank_pattern)" in scaled.error_line


@pytest.mark.parametrize(
    "settings",
    [
        {"modules_to_save": ["lm_head"]},
        {"bias": "lora_only"},
        {"use_dora": True},
        {"target_modules": ["embed_tokens"]},
        {"trainable_token_indices": list(range(128))},
    ],
)
def test_adapters_that_hold_more_than_matrices(
    generate: CommandLine, tmp_path: Path, settings: dict[str, Any]
) -> None:
    """They are merged with all that they hold; GenAI knows matrices alone."""
    base = save_model(tmp_path / "base", "qwen2")
    adapter, flags = save_adapter(tmp_path / "adapter", base, **settings), ("--max-new-tokens", 8, "--json")
    assert tokens(generate(base, "--lora", adapter, *flags)) != tokens(generate(base, *flags))
    done = generate(base, "--runtime", "openvino-genai", "--lora", adapter)
    assert (done.code, "holds more than matrices" in done.error_line) == (2, True)


@pytest.mark.parametrize("runtime", ["pytorch", *RUNTIMES])
def test_a_lora_of_another_base(generate: CommandLine, llama: Path, tmp_path: Path, runtime: str) -> None:
    adapter = save_adapter(tmp_path / "adapter", llama)
    other = save_model(tmp_path / "gptj", "gptj")
    done = generate(other, "--runtime", runtime, "--lora", adapter)
    assert done.code == 2
    assert "does not fit this model" in done.error_line


def test_several_runtimes_in_one_table(generate: CommandLine, llama: Path, tmp_path: Path) -> None:
    done = generate(llama, "--runtime", "pytorch,openvino-base", "--rounds", 2, "--kv-cache-precision", "u8")
    assert done.code == 0, done.err
    lines = [line.split() for line in done.out.splitlines()]
    assert [words[0] for words in lines if words and words[0] in ("pytorch", "openvino-base")] == [
        "pytorch",
        "openvino-base",
    ]
    assert "2 rounds" in done.out
    assert len(list((tmp_path / "results").glob("round-*/*.json"))) == 4
    # The order rotates.
    turns = [line.partition(": ")[2] for line in done.err.splitlines() if line.startswith("round")]
    assert turns == ["pytorch", "openvino-base", "openvino-base", "pytorch"]


def test_the_embedded_model(generate: CommandLine, xpubench: CommandLine, tmp_path: Path) -> None:
    flags = ("--prompt", "The capital of France is", "--max-new-tokens", 8, "--json")
    expected = generate("smollm2-135m", *flags).records[0]["output"]
    for runtime in RUNTIMES:
        drafts = ("--prompt-lookup", "--num-assistant-tokens", 3) if runtime == "openvino-genai" else ()
        done = generate("smollm2-135m", "--runtime", runtime, *drafts, *flags)
        assert done.records[0]["output"] == expected, runtime
        drafting = done.records[0]["samples"]["iterations"][0]["drafting"]
        if runtime == "openvino-genai":
            assert sum(drafting["step_tokens"]) == 8
            assert drafting["drafted"] is None
        else:
            assert drafting is None
    (ir,) = (Path(os.environ["XDG_CACHE_HOME"]) / "xpubench" / "openvino").glob("smollm2-135m-fp32-*")
    (record,) = generate(ir, "--runtime", "openvino-genai", "--draft-model", ir, *flags).records
    assert record["output"] == expected
    assert record["summary"]["acceptance"] > 0.5  # the model drafts for itself


def test_a_draft_that_is_another_model(generate: CommandLine, xpubench: CommandLine, tmp_path: Path) -> None:
    """The same model in INT4 drafts other tokens now and then; the main model's are the result."""
    flags = ("--prompt", "one two three one two three one two", "--max-new-tokens", 24, "--json")
    (plain,) = generate("smollm2-135m", "--runtime", "openvino-genai", *flags).records
    rounded = tmp_path / "rounded"
    recipe = ("--weight-format", "int4", "--group-size", 64)
    assert xpubench("export", "smollm2-135m", rounded, *recipe).code == 0
    drafts = ("--draft-model", rounded, "--num-assistant-tokens", 4)
    (record,) = generate("smollm2-135m", "--runtime", "openvino-genai", *drafts, *flags).records
    assert record["output"] == plain["output"]
    assert (plain["summary"]["tokens_per_step"], plain["summary"]["acceptance"]) == (None, None)
    lookup = ("--prompt-lookup", "--num-assistant-tokens", 4)
    (looked,) = generate("smollm2-135m", "--runtime", "openvino-genai", *lookup, *flags).records
    assert looked["output"] == plain["output"]
    assert looked["summary"]["tokens_per_step"] > 1  # the text repeats itself
    assert looked["summary"]["acceptance"] is None  # GenAI does not tell how many tokens it looked up
    summary = record["summary"]
    assert 1 < summary["tokens_per_step"] <= 5
    assert 0 < summary["acceptance"] < 1
    for one in record["samples"]["iterations"]:
        drafting = one["drafting"]
        assert sum(drafting["step_tokens"]) == 24
        assert 0 < drafting["accepted"] < drafting["drafted"]
        assert drafting["main_ns"] > 0
        assert drafting["draft_ns"] > 0
    stamped = [one for one in record["samples"]["iterations"] if one["next_token_ns"]]
    steps_s = [sum(one["next_token_ns"]) / (len(one["drafting"]["step_tokens"]) - 1) / 1e9 for one in stamped]
    gb_per_s = summary["step_bytes"] / statistics.median(steps_s) / 1e9
    reached = summary["mbu_measured"] * summary["bandwidth_measured_gb_per_s"]
    assert reached == pytest.approx(gb_per_s, rel=1e-6)


def test_accuracy(xpubench: CommandLine, tmp_path: Path) -> None:
    pytest.importorskip("lm_eval")

    def items(*flags: str) -> Any:
        return xpubench(
            *("generate", "-m", "smollm2-135m", "--device", "cpu", "--dtype", "float32", "--accuracy-only"),
            *("--acc-tasks", "lambada_smoke", "--acc-iter", 8, "--results-dir", tmp_path, "--json", *flags),
        )

    expected = [item["loglikelihood"] for item in items().records[0]["accuracy"]["items"]]
    for runtime in ("openvino", "openvino-base"):
        done = items("--runtime", runtime)
        assert done.code == 0, done.err
        found = done.records[0]["accuracy"]
        assert found["scores_rows_alone"] is False
        assert [item["loglikelihood"] for item in found["items"]] == pytest.approx(expected, abs=0.02)
    hidden = items("--runtime", "openvino-genai")
    assert hidden.code == 1
    assert "unsupported" in hidden.error_line
    assert "openvino-base" in hidden.error_line


def test_nothing_is_sent_and_no_consent_is_written(
    xpubench: CommandLine, llama: Path, tmp_path: Path
) -> None:
    """In a process of its own, as the libraries are imported there for the first time."""
    import subprocess
    import sys

    home = tmp_path / "home"
    home.mkdir()
    code = (
        "import socket, sys\n"
        "def refuse(*_, **__): raise AssertionError('network')\n"
        "socket.socket.connect = refuse\n"
        f"sys.argv = ['xpubench', 'export', {str(llama)!r}, {str(tmp_path / 'ir')!r}]\n"
        "from xpubench.cli.main import main\n"
        "codes = [main()]\n"
        f"for runtime in {RUNTIMES!r}:\n"
        f"    sys.argv = ['xpubench', 'generate', '-m', {str(tmp_path / 'ir')!r}, '--runtime', runtime,\n"
        "        *'--device cpu --greedy --input-tokens 8 --max-new-tokens 2 --num-iter 1'.split(),\n"
        f"        '--num-warmup', '0', '--results-dir', {str(tmp_path / 'results')!r}]\n"
        "    codes.append(main())\n"
        "assert not sys.modules.get('openvino_telemetry'), 'telemetry'\n"
        "sys.exit(max(codes))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"HOME": str(home), "PATH": "", "HF_HUB_OFFLINE": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not (home / "intel").exists()
    shutil.rmtree(home)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_plan_has_the_bytes_of_the_ir(generate: CommandLine, llama: Path, runtime: str) -> None:
    (record,) = generate(llama, "--runtime", runtime, "--weight-format", "int8", "--greedy", "--json").records
    (plain,) = generate(llama, "--greedy", "--json").records
    assert record["plan"]["weight_bytes"] == record["runtime"]["weight_bytes"]
    assert record["plan"]["weight_bytes"] < 0.5 * plain["plan"]["weight_bytes"]
    # One plan: the peak and the bytes of a step rest on the same weights.
    other = record["plan"]["kv_cache_bytes"] + record["plan"]["activation_bytes"]
    assert record["plan"]["peak_bytes"] == record["plan"]["weight_bytes"] + other
    assert record["plan"]["step_bytes"] > record["runtime"]["step_weight_bytes"]
