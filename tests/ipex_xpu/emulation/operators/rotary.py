"""Rotary position embeddings, in place (csrc/gpu/aten/operators/Rope.cpp)."""

import torch
from torch import Tensor

from tests.ipex_xpu.emulation.operators.registry import operator

ONE = "Tensor query, Tensor sin, Tensor cos, Tensor(a!) out"
BOTH = "Tensor query, Tensor key, Tensor sin, Tensor cos, Tensor(a!) query_out, Tensor(b!) key_out"


@operator(f"apply_rotary_embedding_half({ONE}) -> ()")
def rotate_halves(x: Tensor, sin: Tensor, cos: Tensor, out: Tensor) -> None:
    """Turns the pairs (i, i + n / 2) of the last dimension. All tensors: [..., n]; `out` may be `x`."""
    first, second = x.chunk(2, -1)
    out.copy_(x * cos + torch.cat((-second, first), -1) * sin)


@operator(f"apply_rotary_embedding_half_qk({BOTH}) -> ()")
def rotate_halves_of_both(
    query: Tensor, key: Tensor, sin: Tensor, cos: Tensor, query_out: Tensor, key_out: Tensor
) -> None:
    """`rotate_halves` of queries and keys of one shape."""
    rotate_halves(query, sin, cos, query_out)
    rotate_halves(key, sin, cos, key_out)


@operator(f"apply_rotary_embedding_two({ONE}) -> ()")
def rotate_pairs(x: Tensor, sin: Tensor, cos: Tensor, out: Tensor) -> None:
    """Turns the pairs (2 i, 2 i + 1) of the last dimension. All tensors: [..., n]; `out` may be `x`."""
    turned = torch.stack((-x[..., 1::2], x[..., ::2]), -1).flatten(-2)
    out.copy_(x * cos + turned * sin)


@operator(f"apply_rotary_embedding_two_qk({BOTH}) -> ()")
def rotate_pairs_of_both(
    query: Tensor, key: Tensor, sin: Tensor, cos: Tensor, query_out: Tensor, key_out: Tensor
) -> None:
    """`rotate_pairs` of queries and keys of one shape."""
    rotate_pairs(query, sin, cos, query_out)
    rotate_pairs(key, sin, cos, key_out)
