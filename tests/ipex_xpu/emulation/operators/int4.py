"""INT4 weight-only products (csrc/gpu/aten/operators/XEGEMM_INT4.cpp and XEGEMM_INT4.h).

A weight holds eight values of four bits in an int32, the lowest first along k; a value v stands for
`(v - zero point) * scale`, one scale for each group of `group_size` along k. The zero point is 8; other ones
and permuted columns (`g_idx`) are not emulated, as neural-compressor makes none on xpu.

Two libraries read two layouts. oneDNN's, on parts with XMX and 2D block loads: weight [k / 8, n], scales
[k / group_size, n]. XeTLA's, elsewhere and wherever IPEX_COMPUTE_ENG says XETLA: weight [n, k / 8], scales
[n, k / group_size]. Inputs are [..., k] in half, results [..., n].
"""

import torch
from torch import Tensor
from torch.nn import functional

from tests.ipex_xpu.emulation import profiles
from tests.ipex_xpu.emulation.extension import SETTINGS, XPUComputeEng
from tests.ipex_xpu.emulation.operators.registry import check, operator
from tests.ipex_xpu.emulation.products import product_of

WEIGHT = "Tensor weight_scl, Tensor? weight_zp, int group_size"
ORDER = "Tensor? g_idx=None"
GATE_UP = "Tensor input, Tensor weight, Tensor weight_scl, Tensor? weight_zp"


def uses_xetla() -> bool:
    """Which library serves a product (`choose_recommand_compute_eng` in XEGEMM_INT4.cpp)."""
    if profiles.current().fused_attention:
        return SETTINGS.engine == XPUComputeEng.XETLA
    return SETTINGS.engine in (XPUComputeEng.RECOMMEND, XPUComputeEng.XETLA)


def _zero_point(zero_points: Tensor | None) -> int:
    if zero_points is None:
        return 8
    check(zero_points.numel() == 1, "emulated INT4: one zero point for all weights, as of symmetric grids")
    return int(zero_points)


def _unpacked(packed: Tensor, scales: Tensor, zero_points: Tensor | None, group_size: int) -> Tensor:
    """Dequantized weights [n, k] of packed ones [n, k / 8] and scales [n, k / group_size]."""
    check(packed.dtype == torch.int32, "emulated INT4: weights packed in int32")
    shifts = torch.arange(0, 32, 4, dtype=torch.int32)
    values = ((packed[:, :, None] >> shifts) & 15).flatten(1) - _zero_point(zero_points)
    k = values.shape[1]
    size = k if group_size in (-1, 0) else group_size
    wide = scales.repeat_interleave(size, 1)[:, :k]
    check(wide.shape == values.shape, "mm int4: invalid gemm shape")
    return values.to(scales.dtype) * wide


def _product(
    x: Tensor,
    weight: Tensor,
    scales: Tensor,
    zero_points: Tensor | None,
    group_size: int,
    order: Tensor | None = None,
) -> Tensor:
    """`x` times the dequantized weight, [..., n]."""
    check(order is None, "emulated INT4: no permuted columns")
    half = x.half() if x.dtype == torch.float32 else x
    check(half.dtype in (torch.half, torch.bfloat16), "mm int4: invalid gemm shape")
    if uses_xetla():
        dense = _unpacked(weight.flatten(0, -2), scales.flatten(0, -2), zero_points, group_size).t()
    else:
        check(x.is_contiguous(), "emulated oneDNN INT4: the input must be contiguous")
        dense = _unpacked(weight.t(), scales.t(), zero_points, group_size).t()
    check(half.shape[-1] == dense.shape[0], "mm int4: invalid gemm shape")
    return product_of(half, dense.to(half.dtype))


@operator("int4x8_dequantize(Tensor weight, Tensor weight_scl, Tensor? weight_zp, int group_size) -> Tensor")
def int4x8_dequantize(weight: Tensor, scales: Tensor, zero_points: Tensor | None, group_size: int) -> Tensor:
    """The weight [n, k / 8] in XeTLA's layout as [k, n] in the dtype of the scales
    (csrc/gpu/aten/operators/XeInt4Dequantize.cpp)."""
    return _unpacked(weight.flatten(0, -2), scales.flatten(0, -2), zero_points, group_size).t()


@operator(f"mm_int4(Tensor input, Tensor weight, {WEIGHT}, {ORDER}) -> Tensor")
def mm_int4(
    x: Tensor,
    weight: Tensor,
    scales: Tensor,
    zeros: Tensor | None,
    group_size: int,
    order: Tensor | None = None,
) -> Tensor:
    """`x @ weight`."""
    return _product(x, weight, scales, zeros, group_size, order)


@operator(
    "mm_int4_out(Tensor input, Tensor weight, Tensor weight_scl, Tensor? weight_zp, "
    f"Tensor(a!) out, int group_size, {ORDER}) -> ()"
)
def mm_int4_out(
    x: Tensor,
    weight: Tensor,
    scales: Tensor,
    zeros: Tensor | None,
    out: Tensor,
    group_size: int,
    order: Tensor | None = None,
) -> None:
    """`mm_int4` into `out`, as many elements as the result."""
    product = _product(x, weight, scales, zeros, group_size, order)
    out.view(product.shape).copy_(product)


@operator(f"mm_bias_int4(Tensor input, Tensor weight, Tensor? bias, {WEIGHT}, {ORDER}) -> Tensor")
def mm_bias_int4(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    scales: Tensor,
    zeros: Tensor | None,
    group_size: int,
    order: Tensor | None = None,
) -> Tensor:
    """`x @ weight + bias`; bias: [n]. oneDNN takes no bias too; XeTLA does not."""
    check(bias is not None or not uses_xetla(), "bias dim check fail!")
    product = _product(x, weight, scales, zeros, group_size, order)
    return product if bias is None else product + bias


@operator(
    "mm_low_bits(Tensor input, Tensor weight, Tensor weight_scl, Tensor? weight_zp, Tensor? bias, "
    f"bool has_bias, str compute_dtype, str weight_dtype, int group_size, {ORDER}) -> Tensor"
)
def mm_low_bits(
    x: Tensor,
    weight: Tensor,
    scales: Tensor,
    zeros: Tensor | None,
    bias: Tensor | None,
    has_bias: bool,
    compute_dtype: str,
    weight_dtype: str,
    group_size: int,
    order: Tensor | None = None,
) -> Tensor:
    """`mm_bias_int4` or, without a bias, `mm_int4`; it looks at neither of the two dtypes."""
    if has_bias:
        return mm_bias_int4(x, weight, bias, scales, zeros, group_size, order)
    return mm_int4(x, weight, scales, zeros, group_size, order)


@operator(f"mm_add_int4(Tensor input, Tensor weight, {WEIGHT}, Tensor res, {ORDER}) -> Tensor")
def mm_add_int4(
    x: Tensor,
    weight: Tensor,
    scales: Tensor,
    zeros: Tensor | None,
    group_size: int,
    residual: Tensor,
    order: Tensor | None = None,
) -> Tensor:
    """`x @ weight + residual`; residual: as many elements as the result."""
    product = _product(x, weight, scales, zeros, group_size, order)
    return product + residual.reshape(product.shape)


@operator(
    f"mm_bias_add_int4(Tensor input, Tensor weight, Tensor bias, {WEIGHT}, Tensor res, {ORDER}) -> Tensor"
)
def mm_bias_add_int4(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    scales: Tensor,
    zeros: Tensor | None,
    group_size: int,
    residual: Tensor,
    order: Tensor | None = None,
) -> Tensor:
    """`x @ weight + bias + residual`."""
    return mm_add_int4(x, weight, scales, zeros, group_size, residual, order) + bias


@operator(f"mm_silu_mul_int4(Tensor input, Tensor weight, {WEIGHT}, Tensor res, {ORDER}) -> Tensor")
def mm_silu_mul_int4(
    x: Tensor,
    weight: Tensor,
    scales: Tensor,
    zeros: Tensor | None,
    group_size: int,
    factor: Tensor,
    order: Tensor | None = None,
) -> Tensor:
    """`silu(x @ weight) * factor`."""
    return functional.silu(_product(x, weight, scales, zeros, group_size, order)) * factor


@operator(
    f"mm_bias_silu_mul_int4(Tensor input, Tensor weight, Tensor bias, {WEIGHT}, Tensor res, {ORDER}) "
    "-> Tensor"
)
def mm_bias_silu_mul_int4(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    scales: Tensor,
    zeros: Tensor | None,
    group_size: int,
    factor: Tensor,
    order: Tensor | None = None,
) -> Tensor:
    """`silu(x @ weight + bias) * factor`."""
    return functional.silu(_product(x, weight, scales, zeros, group_size, order) + bias) * factor


@operator(
    "mm_bias_gelu_int4(Tensor input, Tensor weight, Tensor weight_scl, Tensor? weight_zp, Tensor bias, "
    f"int group_size, str approximate, {ORDER}) -> Tensor"
)
def mm_bias_gelu_int4(
    x: Tensor,
    weight: Tensor,
    scales: Tensor,
    zeros: Tensor | None,
    bias: Tensor,
    group_size: int,
    approximate: str,
    order: Tensor | None = None,
) -> Tensor:
    """`gelu(x @ weight + bias)`; XeTLA knows the tanh approximation alone."""
    check(approximate == "tanh" or not uses_xetla(), 'approximate == "tanh"')
    return functional.gelu(
        _product(x, weight, scales, zeros, group_size, order) + bias, approximate=approximate
    )


@operator(
    "mm_bias_resadd_resadd_int4(Tensor input, Tensor weight, Tensor bias, Tensor res0, Tensor res1, "
    f"{WEIGHT}, {ORDER}) -> Tensor"
)
def mm_bias_resadd_resadd_int4(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    residual: Tensor,
    other: Tensor,
    scales: Tensor,
    zeros: Tensor | None,
    group_size: int,
    order: Tensor | None = None,
) -> Tensor:
    """`x @ weight + bias + residual + other`."""
    product = _product(x, weight, scales, zeros, group_size, order) + bias
    return product + residual.reshape(product.shape) + other.reshape(product.shape)


@operator(
    "mm_qkv_out_int4(Tensor input, Tensor weight, Tensor weight_scl, Tensor? weight_zp, Tensor? bias, "
    "Tensor(a!) out0, Tensor(b!) out1, Tensor(c!) out2, int group_size) -> ()"
)
def mm_qkv_out_int4(
    x: Tensor,
    weight: Tensor,
    scales: Tensor,
    zeros: Tensor | None,
    bias: Tensor | None,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    group_size: int,
) -> None:
    """The three projections of an attention, in place; the weight's n are those of query, key and value
    together. XeTLA's layout alone: IPEX calls it on no other path."""
    check(uses_xetla(), "emulated mm_qkv_out_int4: XeTLA's layout alone")
    x = x.flatten(0, -2)
    check(x.is_contiguous() and weight.is_contiguous(), "input.is_contiguous() && weight.is_contiguous()")
    product = _product(x, weight, scales, zeros, group_size)
    if bias is not None:
        product = product + bias
    sizes = [out.shape[-1] for out in (query, key, value)]
    for out, part in zip((query, key, value), product.split(sizes, 1), strict=True):
        out.view(part.shape).copy_(part)


def _gate_up(
    x: Tensor,
    weight: Tensor,
    scales: Tensor,
    zeros: Tensor | None,
    group_size: int,
    gate_bias: Tensor | None = None,
    up_bias: Tensor | None = None,
) -> Tensor:
    """`silu(x @ gate + gate_bias) * (x @ up + up_bias)`; weight: [2, n, k / 8] in XeTLA's layout."""
    check(uses_xetla(), "emulated mlp_silu_mul_int4: XeTLA's layout alone")
    gate = _product(x, weight[0], scales[0], zeros, group_size)
    up = _product(x, weight[1], scales[1], zeros, group_size)
    gate = gate if gate_bias is None else gate + gate_bias
    return functional.silu(gate) * (up if up_bias is None else up + up_bias)


@operator(f"mlp_silu_mul_int4({GATE_UP}, int group_size) -> Tensor")
def mlp_silu_mul_int4(
    x: Tensor, weight: Tensor, scales: Tensor, zeros: Tensor | None, group_size: int
) -> Tensor:
    """`silu(x @ weight[0]) * (x @ weight[1])`; weight: [2, n, k / 8]."""
    return _gate_up(x, weight, scales, zeros, group_size)


@operator(f"mlp_bias_silu_mul_int4({GATE_UP}, Tensor bias_gate, int group_size) -> Tensor")
def mlp_bias_silu_mul_int4(
    x: Tensor, weight: Tensor, scales: Tensor, zeros: Tensor | None, bias: Tensor, group_size: int
) -> Tensor:
    """`mlp_silu_mul_int4` with a bias of the gate, [n]."""
    return _gate_up(x, weight, scales, zeros, group_size, gate_bias=bias)


@operator(f"mlp_silu_mul_bias_int4({GATE_UP}, Tensor bias_up, int group_size) -> Tensor")
def mlp_silu_mul_bias_int4(
    x: Tensor, weight: Tensor, scales: Tensor, zeros: Tensor | None, bias: Tensor, group_size: int
) -> Tensor:
    """`mlp_silu_mul_int4` with a bias of the other half, [n]."""
    return _gate_up(x, weight, scales, zeros, group_size, up_bias=bias)


@operator(
    f"mlp_bias_silu_mul_bias_int4({GATE_UP}, Tensor bias_gate, Tensor bias_up, int group_size) -> Tensor"
)
def mlp_bias_silu_mul_bias_int4(
    x: Tensor,
    weight: Tensor,
    scales: Tensor,
    zeros: Tensor | None,
    gate_bias: Tensor,
    up_bias: Tensor,
    group_size: int,
) -> Tensor:
    """`mlp_silu_mul_int4` with both biases, [n] each."""
    return _gate_up(x, weight, scales, zeros, group_size, gate_bias, up_bias)
