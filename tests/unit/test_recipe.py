"""The flags of INT4 and the recipe in a checkpoint's config: what fits together and what is refused."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.conftest import CommandLine
from xpubench.catalog import model
from xpubench.catalog.architecture import Architecture
from xpubench.errors import RunFailure
from xpubench.plan import stored_weights
from xpubench.runtimes.openvino.recipe import fitting_group_size
from xpubench.spec import Protocol as MeasuringProtocol
from xpubench.spec import Quantization, RunSpec, Subject, Workload
from xpubench.weights.int4.recipes import Description, checkpoint_recipe


def checkpoint(directory: Path, fields: dict[str, Any] | None = None, **recipe: Any) -> Path:
    """A directory whose config says what an INT4 checkpoint's does."""
    description = Description(recipe=Quantization(**recipe), source="smollm2-135m", revision=None)
    directory.mkdir(exist_ok=True)
    quantization = msgspec.to_builtins(description) if fields is None else fields
    config = {"model_type": "llama", "quantization_config": quantization}
    (directory / "config.json").write_text(json.dumps(config))
    return directory


def generate(xpubench: CommandLine, *flags: object) -> str:
    done = xpubench("generate", "-m", "smollm2-135m", "--device", "cpu", *flags)
    assert done.code == 2
    return done.error_line


@pytest.mark.parametrize("flag", [["--group_size", 64], ["--woq_keep", "x"]])
def test_flags_of_int4_need_woq(xpubench: CommandLine, flag: list[object]) -> None:
    assert "give --woq too" in generate(xpubench, *flag)


def test_a_saved_model_is_quantized_without_woq_too(xpubench: CommandLine, tmp_path: Path) -> None:
    saved = ["--woq_checkpoint_path", checkpoint(tmp_path / "saved")]
    assert "group_size 64, not 32" in generate(xpubench, *saved, "--group_size", 32)
    assert "no quantized model" in generate(xpubench, "--woq_checkpoint_path", tmp_path / "none")


def test_a_group_size_that_no_kernel_takes(xpubench: CommandLine) -> None:
    assert "one of 32, 64, 128, 256, not 48" in generate(xpubench, "--woq", "--group_size", 48)


def test_a_directory_to_save_in_needs_something_to_save(xpubench: CommandLine, tmp_path: Path) -> None:
    assert "give --save_model too" in generate(xpubench, "--woq", "--output_dir", tmp_path)


def test_a_model_in_the_working_directory_is_not_overwritten(
    xpubench: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(checkpoint(tmp_path / "model"))
    before = Path("config.json").read_text()
    assert "holds a model (config.json)" in generate(xpubench, "--save_model")
    assert Path("config.json").read_text() == before


@pytest.mark.parametrize(
    ("flags", "field"),
    [
        (["--group_size", 32], "group_size 64, not 32"),
        (["--woq_dtype", "int4_asym"], "weight_dtype int4_fullrange, not int4_asym"),
        (["--scale_dtype", "bf16"], "scale_dtype float16, not bfloat16"),
        (["--woq_head", "high"], "head int8, not high"),
    ],
)
def test_a_recipe_that_is_not_the_flags(
    xpubench: CommandLine, tmp_path: Path, flags: list[object], field: str
) -> None:
    saved = checkpoint(tmp_path / "saved")
    assert field in generate(xpubench, "--woq", "--woq_checkpoint_path", saved, *flags)


def test_a_checkpoint_of_another_model(xpubench: CommandLine, tmp_path: Path) -> None:
    saved = checkpoint(tmp_path / "saved")
    done = xpubench("generate", "-m", "gpt2", "--device", "cpu", "--woq", "--woq_checkpoint_path", saved)
    assert (done.code, "quantized from smollm2-135m" in done.error_line) == (2, True)


def test_a_checkpoint_for_another_runtime(xpubench: CommandLine, tmp_path: Path) -> None:
    ours = checkpoint(tmp_path / "ours")
    assert "for --runtime pytorch" in generate(xpubench, "--woq", "--ipex", "--woq_checkpoint_path", ours)
    theirs = checkpoint(tmp_path / "theirs", {"quant_method": "rtn", "group_size": 64, "sym": True})
    assert "for --runtime ipex" in generate(xpubench, "--woq", "--woq_checkpoint_path", theirs)
    gptq = checkpoint(tmp_path / "gptq", {"quant_method": "gptq"})
    assert "without --woq" in generate(xpubench, "--woq", "--woq_checkpoint_path", gptq)


@pytest.mark.parametrize(
    ("size", "title", "scale_bytes"),
    [
        (16, "RTN int4_fullrange groups of 16", 2 / 16),
        (512, "RTN int4_fullrange groups of 512", 2 / 512),
        # The longest rows have one scale.
        (-1, "RTN int4_fullrange one group a row", 2 / 11_008),
    ],
)
def test_a_checkpoint_of_neural_compressor_has_the_group_size_of_its_config(
    tmp_path: Path, size: int, title: str, scale_bytes: float
) -> None:
    saved = checkpoint(tmp_path / "saved", {"quant_method": "rtn", "group_size": size, "sym": True})
    recipe = checkpoint_recipe(saved, Quantization(head="high"), "m", "rtn", given=set())
    assert (recipe.group_size, recipe.title, recipe.checkpoint) == (size, title, str(saved))
    subject = Subject(model="m", device="cpu", dtype="bfloat16", quantization=recipe)
    workload = Workload(input_tokens=8, new_tokens=4)
    assert RunSpec(subject=subject, workload=workload, protocol=MeasuringProtocol()).id
    llama = Architecture.from_config(model("meta-llama/Llama-2-7b-hf").config())
    matrices = 32 * (4 * 4096 * 4096 + 3 * 4096 * 11_008)
    of_matrices = stored_weights(llama, subject).weights - 2 * (2 * 32_000 * 4096 + 65 * 4096)
    assert of_matrices == pytest.approx(matrices * (0.5 + scale_bytes), abs=2)


@pytest.mark.parametrize("size", [0, -2, "64", None, True])
def test_a_group_size_without_sense_in_a_checkpoint(tmp_path: Path, size: object) -> None:
    saved = checkpoint(tmp_path / "saved", {"quant_method": "rtn", "group_size": size})
    with pytest.raises(RunFailure, match="group_size") as raised:
        checkpoint_recipe(saved, Quantization(), "m", "rtn", given=set())
    assert raised.value.failure_class == "bad_model"
    ours = checkpoint(tmp_path / "ours", group_size=48)
    with pytest.raises(RunFailure, match="not 48"):
        checkpoint_recipe(ours, Quantization(), "smollm2-135m", "xpubench-rtn", given=set())


def test_no_checkpoint_there(xpubench: CommandLine, tmp_path: Path) -> None:
    assert "no quantized model" in generate(xpubench, "--woq", "--woq_checkpoint_path", tmp_path / "none")


def test_where_a_checkpoint_lies_is_not_part_of_the_id_and_its_recipe_is() -> None:
    def spec(recipe: Quantization | None) -> str:
        subject = Subject(model="m", device="cpu", dtype="bfloat16", quantization=recipe)
        return RunSpec(
            subject=subject,
            workload=Workload(input_tokens=8, new_tokens=4),
            protocol=MeasuringProtocol(),
        ).id

    assert spec(Quantization()) == spec(Quantization(checkpoint="/somewhere"))
    assert len({spec(None), spec(Quantization()), spec(Quantization(group_size=32))}) == 3


@pytest.mark.parametrize(
    ("hidden", "intermediate", "size"), [(4096, 11008, None), (576, 1536, 64), (64, 96, 32), (50, 100, -1)]
)
def test_the_groups_of_an_ir_fit_the_model(hidden: int, intermediate: int, size: int | None) -> None:
    """NNCF's own groups of 128 do not divide the rows of every model; SmolLM2 has 576 values in one."""
    config = {
        "model_type": "llama",
        "vocab_size": 64,
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
    }
    assert fitting_group_size(config) == size
    assert fitting_group_size(config | {"model_type": "unheard of"}) is None


CALIBRATED = ("--algorithm", "autoround")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--iters", 5], "--iters is for --algorithm autoround or awq"),
        (["--dataset", "texts.txt"], "--dataset is for --algorithm autoround or awq"),
        ([*CALIBRATED], "give --dataset FILE"),
        ([*CALIBRATED, "--dataset", "t", "--woq_head", "int8"], "--woq_head is for --algorithm rtn"),
        ([*CALIBRATED, "--dataset", "t", "--report"], "--report is for --algorithm rtn"),
        ([*CALIBRATED, "--dataset", "t", "--woq_dtype", "int4_clip"], "not int4_clip"),
        ([*CALIBRATED, "--dataset", "t", "--device", "xpu"], "quantizes on the CPU"),
        ([*CALIBRATED, "--dataset", "t", "--ipex"], "leave out --runtime"),
        ([*CALIBRATED, "--dataset", "t", "--seqlen", 0], "--seqlen must be at least 1, not 0"),
        ([*CALIBRATED, "--dataset", "t", "--group_size", 48], "one of 32, 64, 128, 256, not 48"),
        (["--algorithm", "awq", "--dataset", "t", "--iters", 5], "leave it out with awq"),
        ([*CALIBRATED, "--dataset", "nowhere.txt"], "nowhere.txt cannot be read: No such file"),
    ],
)
def test_calibration_that_does_not_fit(
    xpubench: CommandLine, tmp_path: Path, flags: list[object], words: str
) -> None:
    done = xpubench("quantize", "smollm2-135m", tmp_path / "out", *flags)
    assert (done.code, words in done.error_line) == (2, True), done.error_line
    assert not (tmp_path / "out").exists()
