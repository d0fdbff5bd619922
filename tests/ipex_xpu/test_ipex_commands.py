"""The guide's script with `--ipex` on the emulated GPUs: what is right, refused, or found wrong."""

import json
import sys
from pathlib import Path

import pytest

from tests.ipex_xpu.conftest import Command, ErrorOf, ModelOf
from tests.ipex_xpu.models import FAMILIES, GROUP

INT4 = ("--woq", "--group_size", GROUP)
STATIC = "--use-static-cache"


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "bloom"])
@pytest.mark.parametrize("cache", [[], [STATIC]], ids=["dynamic", "static"])
def test_greedy_tokens_are_those_of_plain_transformers(
    generate: Command, model_of: ModelOf, error_of: ErrorOf, family: str, cache: list[str]
) -> None:
    done = generate(model_of(family), "--greedy", *cache, "--batch-size", 2)
    assert done.code == 0, done.err
    (record,) = done.records
    assert record["runtime"]["ipex_optimized"] is True
    assert error_of(family, done) <= 1


@pytest.mark.parametrize("family", ["llama3", "qwen2", "opt"])
def test_beams_over_a_dynamic_cache(
    generate: Command, model_of: ModelOf, error_of: ErrorOf, family: str
) -> None:
    done = generate(model_of(family), "--num-beams", 4)
    assert done.code == 0, done.err
    assert error_of(family, done) <= 1


def test_bloom_without_autocast(generate: Command, model_of: ModelOf, error_of: ErrorOf) -> None:
    """Under autocast torch's layer norm gives float32, which the version of IPEX's kernel that was read
    refuses beside half weights."""
    done = generate(model_of("bloom"), "--greedy", "--disable-auto-cast")
    assert done.code == 0, done.err
    assert error_of("bloom", done) <= 1
    refused = generate(model_of("bloom"), "--greedy")
    assert refused.code == 1
    assert "expected scalar type Float but found Half; try --disable-auto-cast" in refused.error_line


@pytest.mark.parametrize("family", ["llama3", "phi3", "gptj", "qwen2"])
def test_int4_tokens_are_those_of_the_weights_in_float32(
    generate: Command, model_of: ModelOf, error_of: ErrorOf, family: str
) -> None:
    done = generate(model_of(family), "--greedy", STATIC, *INT4)
    assert done.code == 0, done.err
    assert done.records[0]["runtime"]["quantization"]["library"]["group_size"] == GROUP
    assert error_of(family, done) <= 1


def test_the_bytes_of_int4_are_those_of_packed_weights_and_scales(
    generate: Command, model_of: ModelOf
) -> None:
    """IPEX keeps scales and zero points beside the packed weights, and a bias for every linear layer."""
    done = generate(model_of("llama3"), "--greedy", *INT4)
    assert done.code == 0, done.err
    # Of two layers: query, key and value of grouped heads and output, then the three of the MLP.
    shapes = [(256, 256), (256, 128), (256, 128), (256, 256), (256, 512), (256, 512), (512, 256)] * 2
    scales = [inputs // GROUP * outputs * 2 for inputs, outputs in shapes]
    packed = [inputs * outputs // 2 + outputs * 2 + 1 for inputs, outputs in shapes]
    head, norms = 256 * 256 * 2, 5 * 256 * 2
    described = done.records[0]["runtime"]
    assert described["step_weight_bytes"] == sum(scales) + sum(packed) + head + norms
    assert described["weight_bytes"] == described["step_weight_bytes"] + head


def test_int4_in_the_other_layout(generate: Command, model_of: ModelOf, error_of: ErrorOf) -> None:
    """Without XMX IPEX's INT4 takes XeTLA's kernels and layout."""
    done = generate(model_of("qwen2"), "--greedy", *INT4, profile="mtl")
    assert done.code == 0, done.err
    assert error_of("qwen2", done) <= 1


@pytest.mark.parametrize("profile", ["arc", "mtl"])
def test_wrong_tokens_of_ipex_are_found_before_the_timing(
    generate: Command, model_of: ModelOf, error_of: ErrorOf, profile: str
) -> None:
    """Parts without 2D block loads miss Llama's causal mask. Qwen2 keeps its mask."""
    wrong = generate(model_of("llama3"), "--greedy", profile=profile)
    assert wrong.code == 1
    assert "numerics" in wrong.error_line
    assert "no causal mask" in wrong.error_line
    (record,) = wrong.records
    assert (record["status"], record["samples"]["iterations"], record.get("summary")) == (
        "numerics",
        [],
        None,
    )
    right = generate(model_of("qwen2"), "--greedy", profile=profile)
    assert right.code == 0, right.err
    assert error_of("qwen2", right) <= 1


@pytest.mark.parametrize(
    ("family", "profile", "flags", "words"),
    [
        ("gptj", "mtl", (), "IPEX left GPTJForCausalLM unoptimized"),
        ("opt", "arc", (), "IPEX left OPTForCausalLM unoptimized"),
        ("opt", "pvc", INT4, "this model take no INT4 weights"),
        ("glm4", "pvc", INT4, "GLM take no INT4 weights"),
        ("gptj", "pvc", ("--num-beams", 4), "no beams over a dynamic cache"),
        ("glm4", "pvc", ("--num-beams", 4), "no beams over a dynamic cache"),
    ],
)
def test_what_ipex_does_not_run_is_refused(
    generate: Command, model_of: ModelOf, family: str, profile: str, flags: tuple[object, ...], words: str
) -> None:
    search = () if "--num-beams" in flags else ("--greedy",)
    done = generate(model_of(family), *search, *flags, profile=profile)
    assert done.code == 1
    assert "unsupported" in done.error_line
    assert words in done.error_line


@pytest.mark.parametrize("weights", ["float16", "int4"])
def test_a_search_leaves_nothing_for_the_next_one(
    command: Command, source: Path, model_of: ModelOf, weights: str
) -> None:
    """IPEX's classes keep the beam index of the last search and the kind of the first cache."""
    done = command(sys.executable, "-m", "tests.ipex_xpu.searches", model_of("qwen2"), weights, source=source)
    assert done.code == 0, done.err
    for answers in json.loads(done.out.splitlines()[-1]).values():
        assert all(one == answers[0] for one in answers)


def test_the_engine_in_force_is_recorded(command: Command, source: Path, model_of: ModelOf) -> None:
    """INT4 layers choose their own engine, also where the shell exports another one before IPEX is loaded."""
    line = (
        *(sys.executable, "run_generation.py", "-m", model_of("qwen2"), "--benchmark", "--device", "xpu"),
        *("--ipex", "--dtype", "float16", "--greedy", "--input-tokens", 8, "--max-new-tokens", 4, "--json"),
        *("--num-iter", 2, "--num-warmup", 1, "--results-dir", model_of("qwen2").parent / "engines"),
    )
    plain = command(*line, source=source, IPEX_COMPUTE_ENG="4")
    int4 = command(*line, *INT4, source=source, IPEX_COMPUTE_ENG="4")
    assert (plain.code, int4.code) == (0, 0), plain.err + int4.err
    assert plain.records[0]["runtime"]["compute_engine"] == "xetla"
    assert int4.records[0]["runtime"]["compute_engine"] == "recommend"


def test_the_command_in_a_new_process(command: Command, source: Path, model_of: ModelOf) -> None:
    """The other tests fork a process that has imported the libraries; this one imports them itself."""
    done = command(
        *(sys.executable, "run_generation.py", "-m", model_of("llama3"), "--benchmark", "--device", "xpu"),
        *("--ipex", "--dtype", "float16", "--greedy", "--input-tokens", 8, "--max-new-tokens", 4),
        *("--num-iter", 2, "--num-warmup", 1, "--results-dir", model_of("llama3").parent / "r", "--json"),
        source=source,
    )
    assert done.code == 0, done.err
    assert done.records[0]["runtime"]["ipex_optimized"] is True


@pytest.mark.parametrize("family", ["llama3", "qwen2", "phi3", "opt"])
def test_beams_over_a_static_cache_as_the_guide_has_them(
    generate: Command, model_of: ModelOf, error_of: ErrorOf, family: str
) -> None:
    done = generate(model_of(family), "--num-beams", 4, STATIC, "--token-latency", "--batch-size", 2)
    assert done.code == 0, done.err
    (record,) = done.records
    assert error_of(family, done) <= 1
    stamped = [one for one in record["samples"]["iterations"] if one["sync_policy"] == "every_token"]
    assert stamped
    for iteration in stamped:
        # Every token has its time, and the last one's ends with the call.
        assert len(iteration["next_token_ns"]) == record["spec"]["workload"]["new_tokens"] - 1
        assert min(iteration["next_token_ns"]) > 0
        assert iteration["first_token_ns"] + sum(iteration["next_token_ns"]) <= iteration["end_to_end_ns"]


def test_other_beam_widths_over_a_static_cache_are_refused(generate: Command, model_of: ModelOf) -> None:
    done = generate(model_of("llama3"), "--num-beams", 3, STATIC)
    assert done.code == 1
    assert "static cache takes 1 or 4 beams, not 3" in done.error_line
    assert generate(model_of("llama3"), "--num-beams", 3).code == 0


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_other_dtypes_than_float16_are_refused_before_the_load(
    generate: Command, model_of: ModelOf, dtype: str
) -> None:
    done = generate(model_of("llama3"), "--greedy", "--dtype", dtype)
    assert done.code == 2
    assert "--dtype float16" in done.error_line
    assert not done.calls


def test_every_decoder_block_is_replaced_and_counted(generate: Command, model_of: ModelOf) -> None:
    (record,) = generate(model_of("llama3"), "--greedy").records
    blocks = record["runtime"]["decoder_blocks"]
    assert blocks == record["runtime"]["optimized_blocks"] > 1


def test_unoptimized_models_are_measured_where_that_is_asked_for(
    generate: Command, model_of: ModelOf, error_of: ErrorOf
) -> None:
    done = generate(model_of("gptj"), "--greedy", "--allow-unoptimized", profile="mtl")
    assert done.code == 0, done.err
    assert done.records[0]["runtime"]["ipex_optimized"] is False
    assert error_of("gptj", done) <= 1
    plain = generate(model_of("llama3"), "--greedy", "--disable_optimize_transformers", "--dtype", "bfloat16")
    assert plain.code == 0, plain.err
    assert plain.records[0]["runtime"]["ipex_optimized"] is False


def test_a_saved_int4_model_gives_the_same_tokens(
    generate: Command, model_of: ModelOf, error_of: ErrorOf, tmp_path: Path
) -> None:
    saved = tmp_path / "int4"
    first = generate(model_of("qwen2"), "--greedy", *INT4, "--save_model", "--output_dir", saved)
    again = generate(model_of("qwen2"), "--greedy", *INT4, "--woq_checkpoint_path", saved)
    assert (first.code, again.code) == (0, 0), first.err + again.err
    assert error_of("qwen2", again) <= 1
    assert first.records[0]["output"]["first_token_ids"] == again.records[0]["output"]["first_token_ids"]
    # What neural-compressor calls int4_fullrange on xpu lacks the lowest value.
    assert again.records[0]["runtime"]["quantization"]["weight_dtype"] == "int4_clip"
