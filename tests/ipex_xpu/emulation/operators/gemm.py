"""Matrix products with what follows them in the same kernel (csrc/gpu/aten/operators/XEGEMM.cpp).

Weights lie transposed, [k, n], as IPEX's modules keep them. Inputs are [..., k] and results [..., n].
"""

import torch
from torch import Tensor
from torch.nn import functional

from tests.ipex_xpu.emulation.operators.registry import check, operator
from tests.ipex_xpu.emulation.products import product_of

QKV = "Tensor input, Tensor weight, Tensor? bias, Tensor(a!) out0, Tensor(b!) out1, Tensor(c!) out2"


def _plus(product: Tensor, residual: Tensor, factor: float) -> Tensor:
    """The residual may have been flattened; the kernel only counts its rows."""
    return product + residual.reshape(product.shape) * factor


def _check_qkv(name: str, x: Tensor, weight: Tensor) -> None:
    check(x.is_contiguous() and weight.is_contiguous(), f"{name}: is_a_contiguous && is_b_row_major")
    check(
        x.dtype == torch.half and weight.dtype == torch.half,
        f"{name}: input.scalar_type() == kHalf && weight.scalar_type() == kHalf",
    )


@operator(f"mm_qkv_out({QKV}) -> ()")
def mm_qkv_out(
    x: Tensor, weight: Tensor, bias: Tensor | None, query: Tensor, key: Tensor, value: Tensor
) -> None:
    """The three projections of an attention with as many key-value heads as heads.

    x: [..., k], weight: [3, k, n], bias: [3, n], outputs: [..., n], written in place since they may be
    slices of a static cache. Half only.
    """
    x = x.flatten(0, -2)
    _check_qkv("mm_qkv_out", x, weight)
    for at, out in enumerate((query, key, value)):
        product = product_of(x, weight[at])
        out.view(product.shape).copy_(product if bias is None else product + bias[at])


@operator(f"mm_qkv_group_out({QKV}) -> ()")
def mm_qkv_group_out(
    x: Tensor, weight: Tensor, bias: Tensor | None, query: Tensor, key: Tensor, value: Tensor
) -> None:
    """The three projections of an attention with groups of heads for one key-value head.

    x: [..., k]; weight: [k, key-value heads, group + 2, head size], the last two of each group being key and
    value; bias: the same without k; outputs: [..., heads x head size], written in place. Half only.
    """
    x = x.flatten(0, -2)
    _check_qkv("mm_qkv_group_out", x, weight)
    product = product_of(x, weight.flatten(1)).view(-1, *weight.shape[1:])
    if bias is not None:
        product = product + bias.view(weight.shape[1:])
    parts = (product[:, :, :-2], product[:, :, -2], product[:, :, -1])
    for out, part in zip((query, key, value), parts, strict=True):
        out.view(x.shape[0], -1).copy_(part.flatten(1))


@operator("mm_resadd(Tensor a, Tensor b, Tensor res, float res_factor) -> Tensor")
def mm_resadd(x: Tensor, weight: Tensor, residual: Tensor, factor: float) -> Tensor:
    """`x @ weight + residual * factor`; residual: as many elements as the result."""
    return _plus(product_of(x, weight), residual, factor)


@operator(
    "mm_bias_resadd(Tensor a, Tensor b, Tensor bias, float bias_factor, Tensor res, float res_factor) "
    "-> Tensor"
)
def mm_bias_resadd(
    x: Tensor, weight: Tensor, bias: Tensor, bias_factor: float, residual: Tensor, factor: float
) -> Tensor:
    """`x @ weight + bias * bias_factor + residual * factor`; bias: [n]."""
    return _plus(product_of(x, weight) + bias * bias_factor, residual, factor)


@operator(
    "mm_bias_resadd_resadd(Tensor a, Tensor b, Tensor bias, float bias_factor, Tensor res0, "
    "float res0_factor, Tensor res1, float res1_factor) -> Tensor"
)
def mm_bias_resadd_resadd(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    bias_factor: float,
    residual: Tensor,
    factor: float,
    other: Tensor,
    other_factor: float,
) -> Tensor:
    """`mm_bias_resadd` with a second residual, as GPT-J's parallel blocks need."""
    return _plus(mm_bias_resadd(x, weight, bias, bias_factor, residual, factor), other, other_factor)


@operator("mm_silu(Tensor a, Tensor b) -> Tensor")
def mm_silu(x: Tensor, weight: Tensor) -> Tensor:
    """`silu(x @ weight)`."""
    return functional.silu(product_of(x, weight))


@operator("mm_resmul(Tensor a, Tensor b, Tensor res) -> Tensor")
def mm_resmul(x: Tensor, weight: Tensor, factor: Tensor) -> Tensor:
    """`(x @ weight) * factor`; factor: [..., n]."""
    return product_of(x, weight) * factor


@operator("matmul_bias_out(Tensor input, Tensor weight, Tensor? bias=None) -> Tensor")
def matmul_bias_out(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x @ weight + bias`; bias: [n]."""
    product = product_of(x, weight)
    return product if bias is None else product + bias


@operator("matmul_gelu(Tensor input, Tensor weight, Tensor? bias, float beta, str approximate) -> Tensor")
def matmul_gelu(x: Tensor, weight: Tensor, bias: Tensor | None, beta: float, approximate: str) -> Tensor:
    """`gelu(x @ weight + bias * beta)`; `approximate` as in `torch.nn.functional.gelu`."""
    return functional.gelu(
        matmul_bias_out(x, weight, None if bias is None else bias * beta), approximate=approximate
    )


@operator("matmul_relu(Tensor input, Tensor weight, Tensor? bias, float beta) -> Tensor")
def matmul_relu(x: Tensor, weight: Tensor, bias: Tensor | None, beta: float) -> Tensor:
    """`relu(x @ weight + bias * beta)`."""
    return functional.relu(matmul_bias_out(x, weight, None if bias is None else bias * beta))


@operator("mm_common(Tensor a, Tensor b) -> Tensor")
def mm_common(x: Tensor, weight: Tensor) -> Tensor:
    """`x @ weight`, after a dequantization."""
    return product_of(x, weight)


@operator("mm_common_out(Tensor a, Tensor b, Tensor(a!) out) -> ()")
def mm_common_out(x: Tensor, weight: Tensor, out: Tensor) -> None:
    """`mm_common` into `out`, as many elements as the result."""
    product = product_of(x, weight)
    out.view(product.shape).copy_(product)


@operator(
    "trans_matmul_add_div_add(Tensor tensor2, int dim1, int dim2, Tensor tensor1, Scalar? oscale, "
    "Tensor? accumul1, Scalar alpha1, Tensor? accumul2, Scalar alpha2) -> Tensor"
)
def trans_matmul_add_div_add(
    other: Tensor,
    dim1: int,
    dim2: int,
    x: Tensor,
    divisor: float | None,
    first: Tensor | None,
    first_factor: float,
    second: Tensor | None,
    second_factor: float,
) -> Tensor:
    """`(x @ other^T + first * first_factor) / divisor + second * second_factor`: attention scores and masks.

    x: [..., m, k], other: [..., n, k], addends: broadcast to [..., m, n]. The two dimensions are read by no
    kernel (csrc/gpu/aten/operators/Linear.cpp).
    """
    scores = product_of(x, other.transpose(-1, -2))
    scores = scores if first is None else scores + first * first_factor
    scores = scores if divisor is None else scores / divisor
    return scores if second is None else scores + second * second_factor
