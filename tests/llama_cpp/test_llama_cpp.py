"""llama.cpp on a real model, in an environment of its own (`make test-llama-cpp`)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import CommandLine
from tests.llama_cpp.models import record_of, tokens
from xpubench.accuracy import divergence
from xpubench.measure.rounding import logit_difference, logit_limit
from xpubench.runtimes.base import Generator, Scorer, TokenIds
from xpubench.runtimes.llama_cpp.gguf_file import read_gguf
from xpubench.runtimes.llama_cpp.options import LlamaCppOptions
from xpubench.runtimes.registry import loader
from xpubench.spec import Subject, Workload

SMOLLM2 = "smollm2-135m"
BLOCKS = 30
TEXTS = (
    "The capital of France is",
    "  two spaces, 12345 and 3.14; don't\n\n\tstop",
    "Grüße aus Köln, 東京, наверное 🙂",
    "def f(x):\n    return x ** 2  # squares",
    "<|im_start|>user\nHello<|im_end|>\n",
    "",
)


def scorer_of(generator: Generator) -> Scorer:
    assert generator.scorer is not None
    return generator.scorer


def loaded(model: object, **options: Any) -> Generator:
    found = read_gguf(str(model))
    own = LlamaCppOptions(weights=found.weights, **options)
    return loader("llama-cpp").load(Subject(model=str(model), device="cpu", dtype="float32", options=own))


@pytest.fixture(scope="module")
def llama(float16: Path) -> Iterator[Generator]:
    """The float16 file in llama.cpp."""
    generator = loaded(float16)
    yield generator
    generator.close()


@pytest.fixture(scope="module")
def pytorch() -> Iterator[Generator]:
    """The same model in PyTorch in float32."""
    generator = loader("pytorch").load(Subject(model=SMOLLM2, device="cpu", dtype="float32"))
    yield generator
    generator.close()


def prompts(generator: Generator, batch: int, length: int) -> TokenIds:
    rng = np.random.default_rng(0)
    return rng.integers(10, generator.vocabulary.size, (batch, length), dtype=np.int64)


def greedy(generator: Generator, ids: TokenIds, new_tokens: int) -> TokenIds:
    workload = Workload(input_tokens=ids.shape[1], new_tokens=new_tokens, batch_size=len(ids))
    generator.prepare(workload)
    found: TokenIds = generator.generate(ids, workload, "every_token").tokens
    return found


def logits_along(generator: Generator, ids: TokenIds, forced: TokenIds) -> Any:
    workload = Workload(input_tokens=ids.shape[1], new_tokens=forced.shape[1], batch_size=len(ids))
    generator.prepare(workload)
    return scorer_of(generator).trace(ids, workload, forced)[1]


def test_a_run_of_the_embedded_model(generate: CommandLine) -> None:
    done = generate(SMOLLM2, "--runtime", "llama-cpp", "--threads", 1, "--max-new-tokens", 6, "--json")
    record = record_of(done)
    found, summary = record["runtime"], record["summary"]
    gguf = read_gguf(SMOLLM2)
    assert record["spec"]["subject"]["options"]["weights"] == "Q4_1"
    assert len(record["output"]["first_token_ids"]) == 6
    # A Q4 file is not planned as one of the run's dtype.
    assert record["plan"]["weight_bytes"] == found["weight_bytes"] == gguf.weight_bytes < 100_000_000
    assert found["step_weight_bytes"] == gguf.weight_bytes
    assert found["tensor_bytes"] == gguf.tensor_bytes
    assert (found["weights"], found["source"]) == ("Q4_1", SMOLLM2)
    assert found["threads"] == 1
    assert (found["cache_type_k"], found["cache_type_v"], found["flash_attention"]) == ("f16", "f16", None)
    assert [one["kind"] for one in found["devices"]] == ["cpu"]
    assert found["device"] is None
    assert "AVX" in found["build"] or "NEON" in found["build"]
    assert summary["peak_device_bytes"] is None
    assert record["environment"]["versions"]["llama-cpp-python"]
    # The untimed generation, the one of warm-up and the two measured ones: 8 ids in, 5 passes after them.
    perf = found["perf"]
    assert (perf["prompt_tokens"], perf["eval_tokens"]) == (4 * 8, 4 * 5)
    assert 0 < perf["eval_ms"] / perf["eval_tokens"] <= 1.5 * summary["next_token_ms"]["mean"]
    (stamped,) = [one for one in record["samples"]["iterations"] if one["sync_policy"] == "every_token"]
    assert len(stamped["next_token_ns"]) == 5
    assert stamped["first_token_ns"] + sum(stamped["next_token_ns"]) <= stamped["end_to_end_ns"]
    checks = record["checks"]
    assert checks["tokens"]["scored"] > 0
    assert checks["tokens"]["regret"] <= checks["tokens"]["regret_limit"]
    assert checks["logits_finite"] is True
    # The last token is known before its own key and value are needed.
    assert (checks["cache"], checks["cache_positions"]) == ("llama.cpp's, keys f16, values f16", 8 + 6 - 1)
    # Cached keys and values of 3 heads of 64 in 30 layers, at 10 positions on average.
    cache = 10 * 2 * 30 * 3 * 64 * 2
    bandwidth = summary["bandwidth_measured_gb_per_s"]
    step_bytes = summary["mbu_measured"] * bandwidth * summary["next_token_ms"]["median"] * 1e6
    assert step_bytes == pytest.approx(gguf.weight_bytes + cache, rel=1e-6)


def test_its_time_lies_in_the_library_or_outside_of_it(generate: CommandLine) -> None:
    flags = ("--runtime", "llama-cpp", "--threads", 1, "--max-new-tokens", 12, "--explain", "--json")
    record = record_of(generate(SMOLLM2, *flags))
    found, ledger = record["explanation"], record["explanation"]["next"]
    parts = {one["name"]: one["ns"] for one in ledger["parts"]}
    assert set(parts) == {"stack", "host"}
    # The library computes; Python only takes the most probable token.
    assert parts["stack"] > parts["host"] > 0
    assert any("does not show its operators" in note for note in found["notes"])
    # On a busy machine the ledger may be refused.
    assert found["verdict"]["cause"] in ("unclear", "clock")
    if ledger["refused"] is None:
        assert "inside" in found["verdict"]["message"]


def test_a_directory_and_its_file(generate: CommandLine, float16: Path) -> None:
    by_file, by_directory = (
        generate(model, "--runtime", "llama-cpp", "--json") for model in (float16, float16.parent)
    )
    assert tokens(by_file) == tokens(by_directory)
    record = record_of(by_file)
    assert record["spec"]["subject"]["options"]["weights"] == "F16"
    assert record["plan"] is not None
    assert record["fingerprint"] == record_of(by_directory)["fingerprint"]
    assert record["runtime"]["files"] == [float16.name]


def test_the_weights_in_the_dtype_of_the_run(
    generate: CommandLine, float16: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The converted file is as the tests' own, stays in the cache, and comes from the same checkpoint."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    flags = ("--runtime", "llama-cpp", "--json")
    first, again, given, own = (
        generate(SMOLLM2, *flags, "--dequantize", "--dtype", "float16"),
        generate(SMOLLM2, *flags, "--dequantize", "--dtype", "float16"),
        generate(SMOLLM2, *flags),
        generate(float16, *flags),
    )
    record, found = record_of(first), record_of(first)["runtime"]
    assert (found["weights"], found["dequantized_from"], found["source"]) == ("F16", "Q4_1", SMOLLM2)
    assert (found["weight_bytes"], tokens(first)) == (record_of(own)["runtime"]["weight_bytes"], tokens(own))
    assert record["plan"]["weight_bytes"] == pytest.approx(found["weight_bytes"], rel=0.01)
    assert record["spec"]["subject"]["options"]["weights"] == "F16"
    assert record["fingerprint"] == record_of(given)["fingerprint"]
    assert record["id"] != record_of(given)["id"]
    assert record_of(given)["runtime"]["dequantized_from"] is None
    assert "converting" in first.err
    assert ("converting" in again.err, tokens(again)) == (False, tokens(first))
    assert len(list((tmp_path / "cache" / "xpubench" / "gguf").rglob("*.gguf"))) == 1


def test_tokens_are_the_most_probable_ones_of_the_own_logits(llama: Generator) -> None:
    ids = prompts(llama, 2, 12)
    found = greedy(llama, ids, 10)
    assert found.shape == (2, 10)
    assert (logits_along(llama, ids, found).argmax(-1) == found).all()
    again = greedy(llama, ids, 10)
    assert (again == found).all()


def test_the_end_token_ends_nothing(llama: Generator) -> None:
    text = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
    ids = np.array([llama.vocabulary.encode(text)], dtype=np.int64)
    (found,) = greedy(llama, ids, 48)
    assert len(found) == 48
    assert llama.vocabulary.tokenizer.eos_token_id in found[:-1].tolist()


def test_tokens_and_probabilities_are_pytorchs(llama: Generator, pytorch: Generator) -> None:
    ids = divergence.check_prompts(pytorch.vocabulary, None, 0)
    workload = Workload(input_tokens=ids.shape[1], new_tokens=32, batch_size=len(ids))
    expected = divergence.trace(pytorch, ids, workload)
    own = divergence.trace(llama, ids, workload)
    logits = divergence.forced_logits(llama, ids, expected.tokens, workload)
    found = divergence.compare("pytorch", expected, own, logits)
    assert found.mean_kl is not None
    assert found.mean_kl < 1e-3
    assert found.top1_agreement > 0.97
    # PyTorch finds llama.cpp's tokens the most probable too, but for near ties.
    for prompt, chosen in zip(ids, own.tokens, strict=True):
        regrets = scorer_of(pytorch).regrets(prompt[None], chosen[None], 1)
        assert regrets.max() < 2 * logit_limit("float16", BLOCKS)


def test_the_rows_of_a_batch_are_those_of_single_prompts(llama: Generator) -> None:
    ids = prompts(llama, 3, 12)
    forced = greedy(llama, ids, 8)
    together = logits_along(llama, ids, forced)
    for row in range(3):
        alone = logits_along(llama, ids[row : row + 1], forced[row : row + 1])
        assert logit_difference(together[row], alone[0]) < logit_limit("float16", BLOCKS)
        # Another row is not as near.
        assert logit_difference(together[(row + 1) % 3], alone[0]) > 10 * logit_limit("float16", BLOCKS)


def test_prompts_that_take_several_passes(llama: Generator) -> None:
    """4 x 600 ids are more than one call takes, and 600 more than are computed at once."""
    ids = prompts(llama, 4, 600)
    found = greedy(llama, ids, 2)
    for row in (0, 3):
        regrets = scorer_of(llama).regrets(ids[row : row + 1], found[row : row + 1], 1)
        assert regrets.max() < 2 * logit_limit(llama.rounding, BLOCKS)
    wrong = scorer_of(llama).regrets(ids[:1], found[:1] + 1, 1)
    assert wrong.max() > 2 * logit_limit(llama.rounding, BLOCKS)


def test_the_scores_of_texts(llama: Generator, pytorch: Generator) -> None:
    """Of different lengths, padded on the right, with some positions scored."""
    ids = prompts(llama, 2, 12)
    ids[1, 7:] = 0
    rows = np.zeros(ids.shape, dtype=np.bool_)
    rows[0, 9:12] = rows[1, 4:7] = True
    targets = np.array([5, 6, 7, 8, 9, 10], dtype=np.int64)
    own, best = scorer_of(llama).target_logprobs(ids, rows, targets)
    expected, _ = scorer_of(pytorch).target_logprobs(ids, rows, targets)
    assert own == pytest.approx(expected, abs=0.15)
    assert best.tolist() == [False] * 6
    assert np.ptp(expected) > 1
    chosen = greedy(llama, ids[:1], 1)[0]
    last = np.zeros((1, 12), dtype=np.bool_)
    last[0, -1] = True
    assert scorer_of(llama).target_logprobs(ids[:1], last, chosen)[1].tolist() == [True]


@pytest.mark.parametrize("text", TEXTS)
def test_the_tokenizer_is_transformers(llama: Generator, pytorch: Generator, text: str) -> None:
    ids = llama.vocabulary.encode(text)
    assert ids == pytorch.vocabulary.encode(text)
    assert llama.vocabulary.decode(ids) == pytorch.vocabulary.decode(ids)
    own, theirs = llama.vocabulary.tokenizer, pytorch.vocabulary.tokenizer
    assert own.decode(ids) == theirs.decode(ids)
    for name in ("eos_token_id", "bos_token_id", "pad_token_id"):
        assert getattr(own, name) == getattr(theirs, name), name
    # llama.cpp ends a text at that of its pre-training too.
    ends = {own.decode([one]) for one in llama.vocabulary.end_ids}
    assert {"<|im_end|>", "<|endoftext|>"} <= ends
    assert "<|im_start|>" not in ends
    # The GGUF marks the tokens of its pre-training as control tokens too.
    assert set(own.all_special_ids) > set(theirs.all_special_ids)


def test_the_types_of_the_cache_take_effect(llama: Generator, float16: Path) -> None:
    ids = prompts(llama, 1, 64)
    forced = greedy(llama, ids, 4)
    plain = logits_along(llama, ids, forced)
    differences = []
    for kind in ("f32", "q8_0", "q4_0"):
        # With flash attention, llama.cpp's CPU kernels round a float32 cache to float16.
        flash = "off" if kind == "f32" else "on"
        other = loaded(float16, cache_type_k=kind, cache_type_v=kind, flash_attn=flash)
        differences.append(logit_difference(logits_along(other, ids, forced), plain))
        # A block of 32 values has a scale of 2 bytes.
        assert other.kv_value_bytes(64) == {"f32": 4, "q8_0": 34 / 32, "q4_0": 18 / 32}[kind]
        assert other.rounding == {"f32": "float16"}.get(kind, "int8")
        other.close()
    assert 0 < differences[0] < differences[1] < differences[2]


def test_flash_attention_is_as_asked(generate: CommandLine) -> None:
    for asked, found in (("on", True), ("off", False)):
        done = generate(SMOLLM2, "--runtime", "llama-cpp", "--flash-attn", asked, "--json")
        assert record_of(done)["runtime"]["flash_attention"] is found


def test_a_coarse_cache_passes_the_checks(generate: CommandLine) -> None:
    flags = ("--cache-type-k", "q4_0", "--cache-type-v", "q4_0", "--max-new-tokens", 24, "--batch-size", 2)
    record = record_of(generate(SMOLLM2, "--runtime", "llama-cpp", *flags, "--json"))
    assert record["checks"]["tokens"]["scored"] > 0
    # llama.cpp counts the steps of a batch as prompts.
    assert record["runtime"]["perf"] is None


def test_the_reference(generate: CommandLine, tmp_path: Path) -> None:
    flags = ("--runtime", "llama-cpp", "--json")
    found = record_of(generate(SMOLLM2, "--reference", "cpu-float32", *flags))["divergence"]
    # The weights are the same; llama.cpp rounds the activations to 8 bits.
    assert 1e-5 < found["mean_kl"] < 0.02
    assert found["top1_agreement"] > 0.9
    assert found["limits"]["kl_warning"] == 0.2
    plain = record_of(generate(SMOLLM2, "--json"))
    path = tmp_path / "results" / f"{plain['id']}.json"
    assert record_of(generate(SMOLLM2, "--reference", path, *flags))["divergence"]["mean_kl"] < 0.02


def test_accuracy(xpubench: CommandLine, tmp_path: Path) -> None:
    pytest.importorskip("lm_eval")

    def items(*flags: str) -> list[float]:
        done = xpubench(
            *("generate", "-m", SMOLLM2, "--device", "cpu", "--dtype", "float32", "--accuracy-only"),
            *("--acc-tasks", "lambada_smoke", "--acc-iter", 8, "--results-dir", tmp_path, "--json", *flags),
        )
        found = record_of(done)["accuracy"]
        assert found["scores_rows_alone"] is True
        return [item["loglikelihood"] for item in found["items"]]

    expected, own = items(), items("--runtime", "llama-cpp")
    assert own == pytest.approx(expected, abs=0.5)
    assert own != expected
    assert abs(np.mean(own) - np.mean(expected)) < 0.1


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (["--num-beams", 4], 1, "has no beam search; give --greedy"),
        (["--use-static-cache"], 1, "leave out --use-static-cache"),
        (["--dummy-weights"], 2, "llama.cpp needs a GGUF"),
        (["--lora", "nowhere"], 2, "merge it first"),
        (["--device", "xpu"], 2, "finds no GPU (it finds: CPU)"),
        (["-m", "nowhere.gguf"], 2, "no such GGUF: nowhere.gguf"),
        (["-m", "meta-llama/Llama-2-7b-hf"], 2, "no such GGUF: meta-llama/Llama-2-7b-hf"),
    ],
)
def test_what_cannot_be(generate: CommandLine, flags: list[object], code: int, words: str) -> None:
    done = generate(SMOLLM2, "--runtime", "llama-cpp", *flags)
    assert (done.code, words in done.error_line) == (code, True), done.err


def test_a_broken_file(generate: CommandLine, float16: Path, tmp_path: Path) -> None:
    with float16.open("rb") as file:
        (tmp_path / "cut.gguf").write_bytes(file.read(10_000_000))
    done = generate(tmp_path / "cut.gguf", "--runtime", "llama-cpp")
    assert (done.code, "is not a complete GGUF" in done.error_line) == (2, True)


def test_a_whole_file_that_llama_cpp_does_not_load(generate: CommandLine, tmp_path: Path) -> None:
    from tests.unit.test_llama_cpp_options import write_gguf

    path = write_gguf(tmp_path / "model.gguf")
    done = generate(path, "--runtime", "llama-cpp")
    assert done.code == 1
    assert "bad_model" in done.error_line
    done = generate(path, "--runtime", "llama-cpp", "--dequantize")
    assert (done.code, "does not convert" in done.error_line) == (1, True), done.err


def test_it_stands_beside_pytorch(generate: CommandLine) -> None:
    done = generate(SMOLLM2, "--runtime", "pytorch,llama-cpp", "--rounds", 1)
    assert done.code == 0, done.err
    names = [line.split()[0] for line in done.out.splitlines() if line.split()]
    assert [name for name in names if name in ("pytorch", "llama-cpp")] == ["pytorch", "llama-cpp"]
