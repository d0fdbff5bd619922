"""What the config of a quantized checkpoint says of its weights."""

from typing import Any

import pytest

from xpubench.accuracy.limits import precision_of
from xpubench.runtimes.pytorch.options import PyTorchDescription
from xpubench.spec import Subject
from xpubench.weights.load import quantized_by


def compressed(**weights: Any) -> dict[str, Any]:
    return {"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": weights}}}


@pytest.mark.parametrize(
    ("fields", "precision"),
    [
        (None, None),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": True}, "int4"),
        ({"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True}, "int4"),
        ({"quant_method": "auto-round", "bits": 8, "packing_format": "auto_round:auto_gptq"}, "int8"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True, "load_in_8bit": False}, "int4"),
        (compressed(num_bits=8), "int8"),
        (compressed(num_bits=8, type="int"), "int8"),
        (compressed(num_bits=8, type="float"), "fp8"),
        (compressed(num_bits=4, type="float", group_size=16), "fp4"),
        ({"quant_method": "auto-round", "bits": 4, "data_type": "mx_fp"}, "fp4"),
        ({"quant_method": "auto-round", "bits": 4, "data_type": "int_asym_float_zp"}, "int4"),
        ({"quant_method": "fp8"}, "fp8"),
        ({"quant_method": "mxfp4"}, "mxfp4"),
    ],
)
def test_a_quantized_checkpoint_is_never_taken_for_its_dtype(
    fields: dict[str, Any] | None, precision: str | None
) -> None:
    assert PyTorchDescription(quantization=quantized_by(fields)).precision_class == precision


@pytest.mark.parametrize(
    ("fields", "limits"),
    [
        (compressed(num_bits=8, type="float"), "int8"),
        (compressed(num_bits=4, type="float"), "int4"),
        ({"quant_method": "mxfp4"}, "int4"),
        ({"quant_method": "gptq", "bits": 3}, "int4"),
        ({"quant_method": "gptq", "bits": 8}, "int8"),
        (None, "bfloat16"),
    ],
)
def test_its_limits_are_those_of_its_bits(fields: dict[str, Any] | None, limits: str) -> None:
    stored = PyTorchDescription(quantization=quantized_by(fields)).went_through
    assert precision_of(Subject(model="m", device="cpu", dtype="bfloat16"), stored=stored) == limits


def test_the_recipe_is_told() -> None:
    found = quantized_by({"quant_method": "gptq", "bits": 4, "group_size": 128, "tokenizer": None})
    assert PyTorchDescription(quantization=found).recipe_text == "bits 4, group_size 128, method gptq"
