"""INT4 weights: the grids, the kernels against the values they stand for, and the saved model."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

pytest.importorskip("torchao")

from safetensors.torch import load_file, save_file  # after the check that it is installed
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from tests.conftest import CommandLine, files_of_at_most, specs_of
from tests.integration.test_dummy_weights import FAMILIES, SMALL
from xpubench.errors import RunFailure, UserError
from xpubench.runtimes.registry import DEFAULT
from xpubench.spec import Quantization
from xpubench.weights.dummy import build_dummy, dummy_tensors
from xpubench.weights.empty import empty_model, parameter_places
from xpubench.weights.fingerprint import of_directory
from xpubench.weights.int4.grids import quantize_int4, quantize_int8
from xpubench.weights.int4.kernels import stored_bytes
from xpubench.weights.int4.layout import fill, layout, quantized

GRIDS = ["int4_fullrange", "int4_clip", "int4_asym"]
SMALL_GROUPS = Quantization(group_size=32)


def weight(rows: int = 48, columns: int = 128) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("scale_dtype", ["float16", "float32"])
def test_each_value_is_the_nearest_of_its_grid(grid: str, scale_dtype: str) -> None:
    source = weight()
    found = quantize_int4(
        source,
        Quantization(weight_dtype=grid, group_size=32, scale_dtype=scale_dtype),  # type: ignore[arg-type]
    )
    assert found.scales.dtype == getattr(torch, scale_dtype)
    assert found.codes().max() <= 15
    steps = found.scales.float().abs().repeat_interleave(32, dim=1)
    error = (found.values() - source).abs()
    # At most half a step, but where the positive end of a symmetric grid is one step short.
    inside = error <= steps * 0.501
    assert inside.float().mean() > (0.99 if grid != "int4_fullrange" else 0.97)
    assert (error <= steps * 1.01).all()


def test_the_full_range_grid_holds_the_largest_value_of_each_group() -> None:
    source = weight()
    found = quantize_int4(source, Quantization(group_size=32, scale_dtype="float32"))
    groups, values = source.view(48, 4, 32), found.values().view(48, 4, 32)
    largest = groups.abs().argmax(-1, keepdim=True)
    assert torch.allclose(values.gather(-1, largest), groups.gather(-1, largest))
    assert found.codes().view(48, 4, 32).gather(-1, largest).unique().tolist() == [0]


def test_groups_of_zeros_and_rows_in_blocks() -> None:
    source = torch.zeros(4, 64)
    for grid in GRIDS:
        assert quantize_int4(source, Quantization(weight_dtype=grid)).values().eq(0).all()  # type: ignore[arg-type]
    assert quantize_int8(source).values().eq(0).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e38])
def test_weights_that_have_no_grid(value: float) -> None:
    source = weight()
    source[3, 5] = value
    with pytest.raises(RunFailure, match=r"scale|NaN") as failure:
        quantize_int4(source, SMALL_GROUPS)
    assert failure.value.failure_class == "numerics"


def _int4_and_its_values(fields: dict[str, Any], recipe: Quantization) -> tuple[Any, Any, Any]:
    """An INT4 model in float32, and the plain one with the values that its weights stand for."""
    model = empty_model(fields, torch.float32)
    tensors = dict(dummy_tensors(model, device="cpu", seed=0))
    kinds = layout(model, recipe)
    weights = {name: new for name, _, new in quantized(tensors.items(), kinds, recipe)}
    applied = fill(model, weights.items(), device="cpu", dtype=torch.float32)
    plain = build_dummy(fields, dtype="float32", device="cpu", seed=0)
    for name, places in parameter_places(plain).items():
        module, attribute = places[0]
        new = weights[name]
        values = new if isinstance(new, torch.Tensor) else new.values()
        getattr(module, attribute).data.copy_(values)
    return model, plain, applied


@pytest.mark.parametrize("family", [name for name in FAMILIES if name in CONFIG_MAPPING_NAMES])
@pytest.mark.parametrize("head", ["int8", "high"])
def test_the_kernels_compute_what_the_weights_stand_for(family: str, head: str) -> None:
    fields = {"model_type": family, "tie_word_embeddings": family in ("opt", "qwen2")} | FAMILIES[family]
    recipe = Quantization(group_size=32, head=head, weight_dtype="int4_asym")  # type: ignore[arg-type]
    model, plain, applied = _int4_and_its_values(fields, recipe)
    ids = torch.arange(3, 43)[None]
    with torch.inference_mode():
        for length in (1, 40):
            expected = plain(ids[:, :length]).logits
            assert torch.allclose(model(ids[:, :length]).logits, expected, atol=2e-3, rtol=1e-3)
    assert applied.int4 >= 8
    assert applied.int8 == (0 if head == "high" else 1 if fields["tie_word_embeddings"] else 2)


# Older versions have the experts as linear layers.
fused_experts = pytest.mark.skipif(transformers.__version__.startswith("4."), reason="of transformers 5")
OTHERS = {
    "gpt2": {
        "n_embd": 64,
        "n_layer": 2,
        "n_head": 4,
        "vocab_size": 128,
        "bos_token_id": 1,
        "eos_token_id": 1,
    },
    "mixtral": SMALL | {"num_local_experts": 4},
    "qwen3_moe": SMALL | {"head_dim": 16, "num_experts": 4, "moe_intermediate_size": 32},
}
EXPERTS = ("*.experts", "*.mlp.gate")


@pytest.mark.parametrize(
    ("family", "count", "first"),
    [
        ("gpt2", 8, "transformer.h.0.attn.c_attn.weight of Conv1D"),
        pytest.param("mixtral", 6, "model.layers.0.mlp.experts.gate_up_proj", marks=fused_experts),
        pytest.param("qwen3_moe", 6, "model.layers.0.mlp.experts.gate_up_proj", marks=fused_experts),
    ],
)
def test_matrices_beyond_linear_layers_are_refused(
    generate: CommandLine, tmp_path: Path, family: str, count: int, first: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": family} | OTHERS[family]))
    flags = ("--dummy-weights", "--dtype", "bfloat16", "--woq", "--group_size", 32, "--json")
    done = generate(tmp_path, *flags)
    (record,) = done.records
    assert (done.code, record["status"], record["plan"]) == (1, "unsupported", None)
    assert f"{count} matrices" in done.error_line
    assert first in done.error_line or family != "gpt2"


@fused_experts
def test_experts_that_the_recipe_keeps_are_named(xpubench: CommandLine, tmp_path: Path) -> None:
    fields = {"model_type": "mixtral"} | OTHERS["mixtral"]
    recipe = Quantization(group_size=32, weight_dtype="int4_asym", high_precision=EXPERTS)
    model, plain, applied = _int4_and_its_values(fields, recipe)
    assert (applied.int4, applied.int8, len(applied.high)) == (8, 2, 6)
    assert "model.layers.1.mlp.experts.down_proj" in applied.high
    ids = torch.arange(3, 19)[None]
    with torch.inference_mode():
        assert torch.allclose(model(ids).logits, plain(ids).logits, atol=2e-3, rtol=1e-3)

    # A checkpoint names each expert.
    plain.save_pretrained(tmp_path / "source")
    target = tmp_path / "int4"
    flags = ("quantize", tmp_path / "source", target, "--group_size", 32)
    done = xpubench(*flags)
    assert (done.code, "6 matrices" in done.error_line) == (1, True)
    done = xpubench(*flags, "--woq_keep", *EXPERTS)
    assert (done.code, "experts.0." in done.error_line, target.exists()) == (1, True, False)


def test_a_group_size_that_does_not_divide_a_width() -> None:
    model = empty_model({"model_type": "llama"} | FAMILIES["llama"], torch.float32)
    with pytest.raises(UserError, match=r"groups of 64 do not divide .* with 96; --group_size 32 fits"):
        layout(model, Quantization(group_size=64))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(
    ("globs", "kept"),
    [
        (("lm_head",), {"lm_head"}),
        (("*embed_tokens",), {"model.embed_tokens"}),
        (("lm_head", "*embed_tokens"), {"lm_head", "model.embed_tokens"}),
        (("*.1.*.down_proj",), {"model.layers.1.mlp.down_proj"}),
    ],
)
def test_the_modules_that_a_glob_names_stay_high(tied: bool, globs: tuple[str, ...], kept: set[str]) -> None:
    fields = {"model_type": "llama", "tie_word_embeddings": tied} | FAMILIES["llama"]
    recipe = Quantization(group_size=32, high_precision=globs)
    kinds = layout(empty_model(fields, torch.float32), recipe)
    high = {name.removesuffix(".weight") for name, kind in kinds.items() if kind == "high"}
    tables = {"model.embed_tokens"} if tied else {"model.embed_tokens", "lm_head"}
    # A tied weight stays high where either of its modules does.
    if tied and kept & {"lm_head", "model.embed_tokens"}:
        kept = {"model.embed_tokens"}
    assert {name for name in high if not name.endswith("norm")} == kept
    int8 = {name.removesuffix(".weight") for name, kind in kinds.items() if kind == "int8"}
    assert int8 == tables - kept


@pytest.mark.parametrize(
    ("globs", "words"),
    [
        (
            ("*.down_proj", "*.dwn_proj"),
            r"'\*\.dwn_proj' matches no module that holds a matrix, such as model",
        ),
        # It has none of its own.
        (("*.mlp",), "'\\*\\.mlp' matches no module"),
        (("*",), "leaves no matrix for INT4"),
    ],
)
def test_globs_that_name_nothing_or_everything(globs: tuple[str, ...], words: str) -> None:
    model = empty_model({"model_type": "llama"} | FAMILIES["llama"], torch.float32)
    with pytest.raises(UserError, match=words):
        layout(model, Quantization(group_size=32, high_precision=globs))


def test_matrices_that_the_kernel_refuses_stay_high_and_are_counted(
    generate: CommandLine, tmp_path: Path
) -> None:
    narrow = FAMILIES["llama"] | {"num_key_value_heads": 1, "head_dim": 24}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"} | narrow))
    flags = ("--dummy-weights", "--dtype", "bfloat16", "--woq", "--group_size", 32, "--json")
    done = generate(tmp_path, *flags)
    (record,) = done.records
    applied = record["runtime"]["quantization"]
    assert len(applied["refused"]) == 4
    assert all(name.endswith(("k_proj.weight", "v_proj.weight")) for name in applied["refused"])
    assert any("4 matrices" in warning for warning in record["warnings"])
    done = generate(tmp_path, *flags, "--woq_keep", *("*.q_proj", "*.o_proj", "*.mlp.*"))
    assert (done.code, done.records[0]["status"]) == (1, "unsupported")
    assert "takes none of the matrices" in done.error_line


@pytest.fixture(scope="module")
def saved(short_smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained weights in INT4."""
    import subprocess
    import sys

    directory = tmp_path_factory.mktemp("int4") / "saved"
    command = [sys.executable, "-m", "xpubench", "quantize", str(short_smollm2), str(directory)]
    subprocess.run(command, check=True, capture_output=True)
    return directory


def test_the_saved_model_is_small_and_gives_the_tokens_of_the_one_quantized_on_load(
    generate: CommandLine, short_smollm2: Path, saved: Path
) -> None:
    flags = ("--dtype", "bfloat16", "--woq", "--json")
    (direct,) = generate(short_smollm2, *flags).records
    (reloaded,) = generate(short_smollm2, *flags, "--woq_checkpoint_path", saved).records
    assert reloaded["output"] == direct["output"]
    assert reloaded["id"] == direct["id"]
    size = sum(file.stat().st_size for file in saved.glob("*.safetensors"))
    # More than half of the 49,552,704 weights are the token table, which is INT8.
    assert size < 0.41 * 2 * 49_552_704
    assert reloaded["runtime"]["weight_bytes"] < 0.41 * 2 * 49_552_704
    assert any("not validated for INT4" in warning for warning in reloaded["warnings"])
    assert reloaded["summary"]["step_bytes"] < 0.41 * 2 * 49_552_704


def test_a_saved_model_needs_no_float_model(generate: CommandLine, tiny_llama: Path, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "int4"
    shutil.copytree(tiny_llama, source)
    flags = ("--dtype", "bfloat16", "--woq", "--json")
    (made,) = generate(source, *flags, "--group_size", 32, "--save_model", "--output_dir", target).records
    shutil.rmtree(source)
    (again,) = generate("source", *flags, "--woq_checkpoint_path", target).records
    assert (again["status"], again["output"]) == ("ok", made["output"])
    assert again["fingerprint"]["weights"] == of_directory(tiny_llama).weights


def test_a_model_is_saved_among_the_files_of_the_working_directory(
    xpubench: CommandLine, tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in the guide's script, where --output_dir is ./ and nothing needs --woq."""
    work = tmp_path / "work"
    work.mkdir()
    (work / "mine.txt").write_text("mine")
    monkeypatch.chdir(work)
    shape = ("--greedy", "--input-tokens", 8, "--max-new-tokens", 4, "--num-iter", 2)
    own = ("--json", "--results-dir", tmp_path / "results")
    flags = ("generate", "-m", tiny_llama, "--device", "cpu", *shape, *own)
    (made,) = xpubench(*flags, "--group_size", 32, "--save_model").records
    names = {path.name for path in work.iterdir()}
    assert {"mine.txt", "config.json", "model-00001.safetensors"} <= names
    assert not [name for name in names if name.startswith(".")]
    (again,) = xpubench(*flags, "--woq_checkpoint_path", "./").records
    assert (again["status"], again["output"], again["id"]) == ("ok", made["output"], made["id"])


def test_beams_static_cache_and_accuracy_on_int4(
    generate: CommandLine, short_smollm2: Path, saved: Path
) -> None:
    flags = ("--dtype", "bfloat16", "--woq", "--woq_checkpoint_path", saved, "--json")
    done = generate(short_smollm2, *flags, "--num-beams", 2, "--use-static-cache")
    assert done.code == 0
    pytest.importorskip("lm_eval")
    task = ("--accuracy-only", "--acc-tasks", "lambada_smoke", "--acc-iter", 10, "--json")
    (plain,), (int4,) = (generate(short_smollm2, *how, *task).records for how in ((), flags))
    items = [[item["loglikelihood"] for item in one["accuracy"]["items"]] for one in (plain, int4)]
    assert np.corrcoef(items[0], items[1])[0, 1] > 0.9


def test_the_report_names_the_error_of_each_weight(
    xpubench: CommandLine, tiny_llama: Path, tmp_path: Path
) -> None:
    done = xpubench("quantize", tiny_llama, tmp_path / "int4", "--group_size", 32, "--report", "--json")
    assert done.code == 0
    found = json.loads(done.out)
    assert found["description"]["recipe"]["group_size"] == 32
    errors = found["errors"]
    int4 = [error["relative_l2"] for name, error in errors.items() if "proj" in name]
    assert 0.02 < min(int4) <= max(int4) < 0.2
    assert errors["model.embed_tokens.weight"]["relative_l2"] < 0.02
    assert 0 <= found["divergence"]["top1_agreement"] <= 1
    assert found["divergence"]["mean_kl"] > 0


@pytest.mark.parametrize("runtime", [DEFAULT, "faulty"])
def test_the_command_that_runs_it_chooses_the_runtime_that_it_is_for(
    xpubench: CommandLine, tiny_llama: Path, tmp_path: Path, runtime: str
) -> None:
    done = xpubench("quantize", tiny_llama, tmp_path / "int4", "--group_size", 32, "--runtime", runtime)
    (line,) = (line for line in done.out.splitlines() if line.startswith("run it: "))
    (spec,) = specs_of(line)
    assert spec.subject.runtime == runtime
    assert spec.subject.quantization == Quantization(group_size=32, checkpoint=str(tmp_path / "int4"))


def test_a_crash_while_writing_leaves_the_old_model(
    xpubench: CommandLine, tiny_llama: Path, tmp_path: Path
) -> None:
    target = tmp_path / "int4"
    assert xpubench("quantize", tiny_llama, target, "--group_size", 32).code == 0
    before = {file.name: file.read_bytes() for file in target.iterdir()}

    with files_of_at_most(10_000):
        done = xpubench("quantize", tiny_llama, target, "--group_size", 32, "--woq_dtype", "int4_clip")
    assert (done.code, "File too large" in done.error_line) == (2, True)
    assert {file.name: file.read_bytes() for file in target.iterdir()} == before
    assert os.listdir(tmp_path) == ["int4"]


def test_wrong_targets_and_sources(
    xpubench: CommandLine, generate: CommandLine, tiny_llama: Path, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("precious")
    done = xpubench("quantize", tiny_llama, tmp_path / "other")
    assert (done.code, "is not an INT4 checkpoint" in done.error_line) == (2, True)
    assert xpubench("quantize", tiny_llama, tmp_path / "int4", "--group_size", 32).code == 0
    done = xpubench("quantize", tmp_path / "int4", tmp_path / "again", "--group_size", 32)
    assert (done.code, "quantized already" in done.error_line) == (2, True)
    done = generate(tmp_path / "int4")
    assert (done.code, "--woq --woq_checkpoint_path" in done.error_line) == (2, True)
    done = xpubench("quantize", tiny_llama, tmp_path / "large", "--group_size", 256)
    assert (done.code, "do not divide" in done.error_line) == (2, True)
    assert not (tmp_path / "large").exists()


def test_a_checkpoint_that_lacks_a_part_is_a_bad_model(
    xpubench: CommandLine, generate: CommandLine, tiny_llama: Path, tmp_path: Path
) -> None:
    target = tmp_path / "int4"
    assert xpubench("quantize", tiny_llama, target, "--group_size", 32).code == 0
    (file,) = target.glob("*.safetensors")
    tensors = load_file(file)
    scales = next(name for name in tensors if name.endswith("q_proj.weight.scales"))
    save_file({name: tensor for name, tensor in tensors.items() if name != scales}, file)
    done = generate(tiny_llama, "--dtype", "bfloat16", "--woq", "--woq_checkpoint_path", target, "--json")
    assert done.code == 1
    assert done.records[0]["status"] == "bad_model"
    assert scales in done.records[0]["failure"]["message"]
    save_file(tensors | {"another.weight": tensors[scales].clone()}, file)
    done = generate(tiny_llama, "--dtype", "bfloat16", "--woq", "--woq_checkpoint_path", target, "--json")
    assert done.records[0]["status"] == "bad_model"
    assert "no place for" in done.records[0]["failure"]["message"]


@pytest.mark.parametrize(
    ("fields", "package"),
    [
        ({"quant_method": "gptq", "bits": 4, "group_size": 64}, "gptqmodel"),
        ({"quant_method": "awq", "bits": 4, "group_size": 64, "zero_point": True}, "gptqmodel"),
        ({"quant_method": "compressed-tensors", "format": "pack-quantized"}, "compressed-tensors"),
    ],
)
def test_quantized_checkpoints_of_others_say_what_to_install(
    generate: CommandLine, tiny_llama: Path, tmp_path: Path, fields: dict[str, Any], package: str
) -> None:
    source = tmp_path / "source"
    shutil.copytree(tiny_llama, source)
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"quantization_config": fields}))
    done = generate(source, "--json")
    (record,) = done.records
    assert (done.code, record["status"]) == (1, "unsupported")
    assert f"pip install {package}" in record["failure"]["message"]


@pytest.mark.parametrize("prefix", ["", "model."])
def test_names_with_and_without_the_bodys_prefix(
    xpubench: CommandLine, generate: CommandLine, tiny_llama: Path, tmp_path: Path, prefix: str
) -> None:
    source = tmp_path / "source"
    shutil.copytree(tiny_llama, source)
    (file,) = source.glob("*.safetensors")
    renamed = {
        prefix + name.removeprefix("model.") if name.startswith("model.") else name: tensor
        for name, tensor in load_file(file).items()
    }
    save_file(renamed, file, metadata={"format": "pt"})
    assert xpubench("quantize", source, tmp_path / "int4", "--group_size", 32).code == 0


def test_stored_bytes_are_those_of_the_kernels_form() -> None:
    model = empty_model({"model_type": "llama"} | FAMILIES["llama"], torch.bfloat16)
    tensors = dummy_tensors(model, device="cpu", seed=0)
    kinds = layout(model, SMALL_GROUPS)
    weights = [(name, new) for name, _, new in quantized(tensors, kinds, SMALL_GROUPS)]
    fill(model, weights, device="cpu", dtype=torch.bfloat16)
    layer = model.model.layers[0].mlp.up_proj.weight
    # 4 bits a value, and for 32 of them a scale and an offset in 16 bits.
    assert stored_bytes(layer) == 96 * 64 // 2 + 96 * 2 * 4
