"""What the config of a quantized checkpoint says of its weights."""

from typing import Any

import pytest

from xpubench.runtimes.pytorch.options import PyTorchDescription
from xpubench.weights.load import quantized_by

COMPRESSED = {
    "quant_method": "compressed-tensors",
    "config_groups": {"group_0": {"weights": {"num_bits": 8}}},
}


@pytest.mark.parametrize(
    ("fields", "precision"),
    [
        (None, None),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": True}, "int4"),
        ({"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True}, "int4"),
        ({"quant_method": "auto-round", "bits": 8, "packing_format": "auto_round:auto_gptq"}, "int8"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True, "load_in_8bit": False}, "int4"),
        (COMPRESSED, "int8"),
        ({"quant_method": "fp8"}, "fp8"),
        ({"quant_method": "mxfp4"}, "mxfp4"),
    ],
)
def test_a_quantized_checkpoint_is_never_taken_for_its_dtype(
    fields: dict[str, Any] | None, precision: str | None
) -> None:
    assert PyTorchDescription(quantization=quantized_by(fields)).precision_class == precision


def test_the_recipe_is_told() -> None:
    found = quantized_by({"quant_method": "gptq", "bits": 4, "group_size": 128, "tokenizer": None})
    assert PyTorchDescription(quantization=found).recipe_text == "bits 4, group_size 128, method gptq"
