"""llama.cpp's options and GGUF files, without its library."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.quants import quantize

from tests.conftest import CommandLine
from xpubench.accuracy.limits import precision_of
from xpubench.cli.generation import add_flags
from xpubench.cli.main import Parser
from xpubench.cli.options import specs_from
from xpubench.compare.title import title_of_spec
from xpubench.errors import UserError
from xpubench.runtimes.llama_cpp.gguf_file import files_of, fingerprint_of, origin_of, read_gguf
from xpubench.runtimes.llama_cpp.library import unused_instructions
from xpubench.runtimes.llama_cpp.options import LlamaCppDescription, LlamaCppOptions
from xpubench.spec import DTYPE_BYTES, Protocol, RunSpec, Subject, Workload
from xpubench.weights.fingerprint import of_directory

HIDDEN, VOCABULARY = 64, 96
Q4, Q8, F32 = GGMLQuantizationType.Q4_0, GGMLQuantizationType.Q8_0, GGMLQuantizationType.F32


def write_gguf(
    path: Path, *, head: bool = True, experts: int = 0, vocabulary: int = VOCABULARY, **fields: str
) -> Path:
    """A GGUF with one matrix of 4 bits, an embedding of 8 bits, a norm of float32 and with `head` an output
    of 8 bits; its sizes are those of no model. With `experts`, two of them are used."""
    writer = GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(128)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(128)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    for name, text in fields.items():
        writer.add_string(name.replace("__", "."), text)
    if experts:
        writer.add_expert_count(experts)
        writer.add_expert_used_count(2)

    def add(name: str, shape: tuple[int, ...], kind: GGMLQuantizationType) -> None:
        data = quantize(np.ones(shape, dtype=np.float32), kind)
        writer.add_tensor(name, data, raw_dtype=kind)

    add("token_embd.weight", (vocabulary, HIDDEN), Q8)
    add("blk.0.ffn_up.weight", (512, HIDDEN), Q4)
    add("blk.0.attn_norm.weight", (HIDDEN,), F32)
    if experts:
        add("blk.0.ffn_down_exps.weight", (experts, 128, HIDDEN), Q4)
    if head:
        add("output.weight", (vocabulary, HIDDEN), Q8)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


# 32 values take 34 bytes in Q8_0 and 18 in Q4_0.
EMBEDDING, MATRIX, NORM = VOCABULARY * HIDDEN // 32 * 34, 512 * HIDDEN // 32 * 18, 4 * HIDDEN


@pytest.mark.parametrize(
    ("head", "weights", "step"),
    [
        (True, 2 * EMBEDDING + MATRIX + NORM, EMBEDDING + MATRIX + NORM),
        # The embedding is the head too.
        (False, EMBEDDING + MATRIX + NORM, EMBEDDING + MATRIX + NORM),
    ],
)
def test_the_bytes_are_those_of_the_tensors(tmp_path: Path, head: bool, weights: int, step: int) -> None:
    found = read_gguf(str(write_gguf(tmp_path / "model.gguf", head=head)))
    assert (found.weight_bytes, found.step_weight_bytes) == (weights, step)
    assert (found.weights, found.matrix_types) == ("Q4_0", ("Q4_0", "Q8_0"))
    options = LlamaCppOptions(weights="Q4_0")
    assert options.weight_bytes(str(tmp_path), parameters=10**9) == weights


def test_the_bytes_of_a_step_have_all_experts_of_which_the_architecture_knows_the_share(
    tmp_path: Path,
) -> None:
    found = read_gguf(str(write_gguf(tmp_path / "model.gguf", experts=8)))
    experts = 8 * 128 * HIDDEN // 32 * 18
    assert found.weight_bytes == 2 * EMBEDDING + MATRIX + NORM + experts
    assert found.step_weight_bytes == EMBEDDING + MATRIX + NORM + experts
    assert found.mixture == {"num_local_experts": 8, "num_experts_per_tok": 2, "model_type": "mixtral"}
    assert read_gguf(str(write_gguf(tmp_path / "dense.gguf"))).mixture == {}


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "model.gguf")
    before = read_gguf(str(path))
    write_gguf(path, head=False)
    assert read_gguf(str(path)).weight_bytes < before.weight_bytes


def test_a_directory_with_one_gguf(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "model.gguf")
    (tmp_path / "readme.md").write_text("")
    assert files_of(str(tmp_path)) == files_of(str(path)) == (path,)


def test_a_split_gguf_is_one_model(tmp_path: Path) -> None:
    parts = [write_gguf(tmp_path / f"big-0000{number}-of-00002.gguf") for number in (1, 2)]
    assert files_of(str(tmp_path)) == files_of(str(parts[1])) == tuple(parts)
    assert read_gguf(str(tmp_path)).weight_bytes == 2 * (2 * EMBEDDING + MATRIX + NORM)
    parts[1].unlink()
    with pytest.raises(UserError, match="lacks big-00002-of-00002"):
        files_of(str(tmp_path))


def refusals(directory: Path) -> dict[str, tuple[Path, str]]:
    """By a case's name, what is given as model and what the refusal says."""
    whole = write_gguf(directory / "whole.gguf").read_bytes()
    made: dict[str, tuple[Path, str]] = {}
    for name, data in {
        "empty": b"",
        "no magic": b"GGML" + whole[4:],
        "a text": b"version https://git-lfs.github.com/spec/v1\n",
        "cut in the header": whole[:200],
        "cut in the tensors": whole[:-1000],
    }.items():
        made[name] = (directory / f"{name.replace(' ', '-')}.gguf", "is not a complete GGUF")
        made[name][0].write_bytes(data)
    for name in ("one", "two"):
        (directory / "several").mkdir(exist_ok=True)
        write_gguf(directory / "several" / f"{name}.gguf")
    made["several"] = (directory / "several", "give one of the files: one.gguf, two.gguf")
    (directory / "none").mkdir()
    made["none"] = (directory / "none", "holds no complete GGUF")
    made["missing"] = (directory / "nowhere.gguf", "no such GGUF")
    made["no home"] = (Path("~nobody-of-that-name/model.gguf"), "no such GGUF: ~nobody")
    return made


@pytest.mark.parametrize(
    "case",
    [
        *("empty", "no magic", "a text", "cut in the header", "cut in the tensors"),
        *("several", "none", "missing", "no home"),
    ],
)
def test_what_is_no_gguf(tmp_path: Path, case: str) -> None:
    path, words = refusals(tmp_path)[case]
    with pytest.raises(UserError, match=words) as raised:
        read_gguf(str(path))
    assert len(str(raised.value).splitlines()) == 1
    assert LlamaCppOptions().weight_bytes(str(path), parameters=8) is None


def test_where_a_gguf_comes_from(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "model.gguf")
    assert origin_of(str(path)) is None
    named = write_gguf(tmp_path / "named.gguf", general__source__huggingface__repository="who/what")
    assert (found := origin_of(str(named))) is not None
    assert found.model == "who/what"
    url = "https://huggingface.co/who/what"
    named = write_gguf(tmp_path / "address.gguf", general__source__repo_url=url)
    assert (found := origin_of(str(named))) is not None
    assert found.model == "who/what"
    elsewhere = write_gguf(tmp_path / "elsewhere.gguf", general__source__repo_url="https://example.org/a/b")
    assert origin_of(str(elsewhere)) is None
    # A config alone, as repositories of GGUF files have one, is no checkpoint.
    (tmp_path / "config.json").write_text("{}")
    assert origin_of(str(path)) is None
    assert (found := origin_of(str(named))) is not None
    assert found.model == "who/what"
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    assert (found := origin_of(str(path))) is not None
    assert found.model == str(tmp_path)


def test_a_gguf_has_the_fingerprint_of_its_checkpoint(tmp_path: Path) -> None:
    """A GGUF and its checkpoint are one model, although their files differ."""
    path = write_gguf(tmp_path / "model.gguf")
    named = write_gguf(tmp_path / "named.gguf", general__source__huggingface__repository="who/what")
    own = fingerprint_of(str(path))
    assert own is not None
    # The checkpoint is elsewhere, and nobody knows in which revision.
    assert fingerprint_of(str(named)) is None
    write_gguf(path, head=False)
    other = fingerprint_of(str(path))
    assert other is not None
    assert other.weights != own.weights
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    assert fingerprint_of(str(path)) == fingerprint_of(str(named)) == of_directory(tmp_path)


def spec(weights: str, dtype: Any = "float32", **options: Any) -> RunSpec:
    subject = Subject(
        model="m.gguf", device="cpu", dtype=dtype, options=LlamaCppOptions(weights=weights, **options)
    )
    return RunSpec(subject=subject, workload=Workload(input_tokens=8, new_tokens=4), protocol=Protocol())


@pytest.mark.parametrize(
    ("weights", "precision", "limits"),
    [
        ("F32", "float32", "float32"),
        # What the products are rounded to comes from the loaded model.
        ("F16", "float16", "float32"),
        ("BF16", "bfloat16", "float32"),
        ("Q8_0", "int8", "int8"),
        ("Q6_K", "int6", "int8"),
        ("Q5_K", "int5", "int4"),
        ("Q4_1", "int4", "int4"),
        ("Q4_K", "int4", "int4"),
        ("IQ4_XS", "int4", "int4"),
        ("MXFP4", "int4", "int4"),
        ("IQ3_S", "int3", "int4"),
        ("Q2_K", "int2", "int4"),
        ("IQ2_XXS", "int2", "int4"),
        ("TQ1_0", "int1", "int4"),
    ],
)
def test_the_precision_is_the_files(weights: str, precision: str, limits: str) -> None:
    subject = spec(weights, dtype="float32").subject
    assert subject.options.precision == precision
    assert precision_of(subject) == limits
    described = LlamaCppDescription(weights=weights, tensor_bytes={weights: 70, "F32": 1})
    assert described.precision_class == precision
    assert precision_of(spec("").subject, stored=described.precision_class) == limits
    assert weights in title_of_spec(spec(weights))


@pytest.mark.parametrize("weights", ["F64", "I16", "Q_NEW"])
def test_another_type_is_a_class_of_its_own(weights: str) -> None:
    assert LlamaCppDescription(weights=weights).precision_class == weights.lower()


def test_the_recipe_names_the_types_by_their_bytes() -> None:
    sizes = {"Q8_0": 30_081_024, "F32": 140_544, "Q4_1": 66_355_200}
    assert LlamaCppDescription(weights="Q4_1", tensor_bytes=sizes).recipe_text == (
        "GGUF Q4_1 69%, Q8_0 31% of the bytes"
    )
    assert LlamaCppDescription(weights="Q4_0", tensor_bytes={"Q4_0": 9}).recipe_text == "GGUF Q4_0"
    # A file of floating point weights has no recipe.
    assert LlamaCppDescription(weights="F16", tensor_bytes={"F16": 90, "F32": 1}).recipe_text is None


def test_the_type_of_the_blocks_is_that_of_the_weights(tmp_path: Path) -> None:
    """The table and the head of a small model can hold more values than its blocks."""
    found = read_gguf(str(write_gguf(tmp_path / "model.gguf", vocabulary=1024)))
    assert found.tensor_bytes["Q8_0"] > 2 * found.tensor_bytes["Q4_0"]
    assert found.weights == "Q4_0"


def test_what_changes_the_figures_changes_the_id() -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"cache_type_k": "q8_0"},
        {"cache_type_v": "q8_0"},
        {"flash_attn": "on"},
        {"n_gpu_layers": 3},
        {"threads": 2},
        {"dequantize": True},
    ]
    ids = [spec("F16", **one).id for one in changes] + [spec("Q4_0").id]
    assert len(set(ids)) == len(ids)
    assert "KV f16/q8_0" in title_of_spec(spec("F16", cache_type_v="q8_0"))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--woq"], "a GGUF is quantized when it is made"),
        (["--ipex"], "another flag chose llama-cpp"),
        (["--torch-compile"], "has no effect on --runtime llama-cpp"),
        (["--ov-device", "CPU"], "has no effect on --runtime llama-cpp"),
        (["--cache-type-k", "q9_0"], "invalid choice: 'q9_0'"),
        (["--cache-type-v", "q8_0", "--flash-attn", "off"], "needs flash attention"),
        (["--n-gpu-layers", 3], "leave it out with --device cpu"),
        (["--n-gpu-layers", -1, "--device", "xpu"], "--n-gpu-layers must be at least 0"),
        (["--threads", 0], "--threads must be at least 1"),
    ],
)
def test_flags_that_cannot_be(generate: CommandLine, tmp_path: Path, flags: list[object], words: str) -> None:
    model = write_gguf(tmp_path / "model.gguf")
    done = generate(model, "--runtime", "llama-cpp", *flags)
    assert (done.code, words in done.err, "Traceback" in done.err) == (2, True, False), done.err
    assert not (tmp_path / "results").exists()


def test_its_flags_are_not_for_others(generate: CommandLine) -> None:
    done = generate("smollm2-135m", "--flash-attn", "on")
    assert (done.code, "choose --runtime llama-cpp" in done.error_line) == (2, True)


@pytest.mark.parametrize(
    ("flags", "kind", "precision", "weight_bytes"),
    [
        (["--device", "cpu"], "BF16", "bfloat16", 2),
        (["--device", "cuda"], "F16", "float16", 2),
        (["--device", "cpu", "--dtype", "float32"], "F32", "float32", 4),
    ],
)
def test_dequantized_weights_have_the_dtype(
    tmp_path: Path, flags: list[str], kind: str, precision: str, weight_bytes: int
) -> None:
    model = str(write_gguf(tmp_path / "model.gguf"))
    parser = Parser(prog="run_generation.py")
    add_flags(parser)
    args = parser.parse_args(["-m", model, "--runtime", "llama-cpp", "--dequantize", *flags])
    (found,) = specs_from(args, args.device)
    assert isinstance(found.subject.options, LlamaCppOptions)
    assert (found.subject.options.weights, found.subject.options.precision) == (kind, precision)
    # The plan's bytes are those of the dtype, not of the file.
    assert found.subject.options.weight_bytes(model, parameters=100) is None
    assert DTYPE_BYTES[found.subject.dtype] == weight_bytes


def test_dequantized_weights_may_be_as_far_from_a_reference_as_quantized_ones() -> None:
    described = LlamaCppDescription(weights="F16", dequantized_from="Q4_1", tensor_bytes={"F16": 9})
    assert (described.precision_class, described.recipe_text) == ("float16", None)
    assert precision_of(spec("F16").subject, stored=described.went_through) == "int4"


AVX512 = "flags\t\t: fpu fma f16c avx2 avx512f avx512_vnni\n"


@pytest.mark.parametrize(
    ("build", "cpuinfo", "unused"),
    [
        ("CPU : AVX2 = 1 | F16C = 1 | FMA = 1 | ", AVX512, ["AVX512", "AVX512_VNNI"]),
        ("CPU : AVX2 = 1 | F16C = 1 | FMA = 1 | AVX512 = 1 | AVX512_VNNI = 1 | ", AVX512, []),
        ("CPU : AVX2 = 1 | F16C = 0 | FMA = 1 | ", "flags : fma f16c avx2\n", ["F16C"]),
        # Another architecture has no such line.
        ("CPU : NEON = 1 | ", "Features : asimd\n", []),
    ],
)
def test_instructions_that_a_build_does_not_use(build: str, cpuinfo: str, unused: list[str]) -> None:
    assert unused_instructions(build, cpuinfo) == unused
