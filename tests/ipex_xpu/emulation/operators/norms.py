"""Normalizations."""

import torch
from torch import Tensor
from torch.nn import functional

from tests.ipex_xpu.emulation.operators.registry import check, operator

# What torch calls dtypes in its messages.
TYPE_NAMES = {torch.float16: "Half", torch.bfloat16: "BFloat16", torch.float32: "Float"}


@operator("rms_norm(Tensor X, int[] normalized_shape, Tensor W, float epsilon) -> (Tensor, Tensor)")
def rms_norm(x: Tensor, normalized_shape: list[int], weight: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """`x / rms(x) * weight` over the last dimension, and `1 / rms(x)` in float32.

    x: [..., n], weight: [n], result: that of x and [..., 1]. The mean of squares is taken in float32
    (csrc/gpu/aten/operators/RMSNorm.cpp, rms_norm_fw).
    """
    wide = x.float()
    scale = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + epsilon)
    return weight * (wide * scale).to(x.dtype), scale


@operator(
    "fast_layer_norm(Tensor input, int[] normalized_shape, Tensor? weight, Tensor? bias, float eps) -> Tensor"
)
def fast_layer_norm(
    x: Tensor, normalized_shape: list[int], weight: Tensor | None, bias: Tensor | None, eps: float
) -> Tensor:
    """Layer normalization over the last dimension; x and result: [..., n].

    Weights are of x's dtype or float32 (csrc/gpu/aten/operators/LayerNorm.cpp, LayerNormKernelImpl; the file
    is not in the tag's excerpt that was at hand, another version of it was read).
    """
    if weight is not None:
        check(
            weight.dtype in (x.dtype, torch.float32),
            f"expected scalar type {TYPE_NAMES[x.dtype]} but found {TYPE_NAMES[weight.dtype]}",
        )
    return functional.layer_norm(x, normalized_shape, weight, bias, eps)
