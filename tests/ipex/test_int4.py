"""INT4 through neural-compressor on the real CPU build of IPEX, in its own environment (`make test-ipex`)."""

import json
import os
from pathlib import Path

import pytest
import torch

pytest.importorskip("intel_extension_for_pytorch")

from tests.conftest import CommandLine  # after the check that there is something to test
from xpubench.spec import Quantization
from xpubench.weights.int4.grids import quantize_int4

INT4 = ("--ipex", "--woq", "--json")


@pytest.mark.parametrize(
    ("grid", "theirs"),
    [
        ("int4_fullrange", {"scheme": "sym", "full_range": True}),
        ("int4_clip", {"scheme": "sym"}),
        ("int4_asym", {"scheme": "asym"}),
    ],
)
def test_the_grids_are_those_of_neural_compressor(grid: str, theirs: dict[str, object]) -> None:
    from neural_compressor.torch.algorithms.weight_only.utility import quant_tensor

    source = torch.randn(32, 256, generator=torch.Generator().manual_seed(0))
    recipe = Quantization(weight_dtype=grid, scale_dtype="float32")  # type: ignore[arg-type]
    expected = quant_tensor(source.clone(), bits=4, group_size=64, **theirs)
    assert torch.allclose(quantize_int4(source, recipe).values(), expected, atol=1e-6)


def test_quantize_save_reload(generate: CommandLine, smollm2: Path, tmp_path: Path) -> None:
    (direct,) = generate(smollm2, *INT4).records
    applied = direct["runtime"]["quantization"]
    assert direct["spec"]["subject"]["quantization"]["weight_dtype"] == "int4_fullrange"
    assert (applied["weight_dtype"], applied["library"]["group_size"]) == ("int4_clip", 64)
    assert (applied["compute_dtype"], direct["runtime"]["compute_engine"]) == ("float32", None)
    assert any("int4_fullrange was asked for, int4_clip" in warning for warning in direct["warnings"])
    assert direct["runtime"]["ipex_optimized"] is True

    target = tmp_path / "int4"
    (saved,) = generate(smollm2, *INT4, "--save_model", "--output_dir", target).records
    (again,) = generate(
        smollm2, *INT4, "--woq_checkpoint_path", target, "--use-static-cache", "--num-beams", 1
    ).records
    assert saved["output"] == again["output"] == direct["output"]
    assert "IPEX_COMPUTE_ENG" not in os.environ
    size = sum(file.stat().st_size for file in target.glob("*.safetensors"))
    assert size < 0.7 * 2 * 134_515_008


def test_the_command_that_quantizes(xpubench: CommandLine, smollm2: Path, tmp_path: Path) -> None:
    done = xpubench("quantize", smollm2, tmp_path / "int4", "--ipex", "--report", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["description"]["recipe"]["head"] == "high"
    assert found["divergence"]["top1_agreement"] > 0.3


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--dtype", "bfloat16"], "--dtype float32"),
        (["--compute_dtype", "fp16"], "not in fp16"),
        (["--woq_head", "int8"], "leave out --woq_head"),
        (["--dummy-weights"], "quantizes checkpoints"),
    ],
)
def test_what_neural_compressor_does_not_do(
    generate: CommandLine, smollm2: Path, flags: list[str], words: str
) -> None:
    done = generate(smollm2, *INT4, *flags)
    assert (done.code, words in done.error_line) == (2, True)


def test_a_saved_model_that_is_broken_is_a_bad_model(
    generate: CommandLine, smollm2: Path, tmp_path: Path
) -> None:
    target = tmp_path / "int4"
    assert generate(smollm2, *INT4, "--save_model", "--output_dir", target).code == 0
    for file in target.glob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:-1000])
    done = generate(smollm2, *INT4, "--woq_checkpoint_path", target)
    assert (done.code, done.records[0]["status"]) == (1, "bad_model")
