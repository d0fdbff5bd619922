"""Matrix products of many rows in float16 as a GPU computes them, summed in float32 and rounded at the end.

On a CPU that is also several times faster than torch's own product in float16, but for few rows slower.
"""

import torch
from torch import Tensor
from torch.nn import functional

MANY_ROWS = 16


def product_of(x: Tensor, weight: Tensor) -> Tensor:
    """x: [..., k], weight: [k, n] -> [..., n] in the dtype of x."""
    if not _is_large(x):
        return torch.matmul(x, weight)
    return torch.matmul(x.float(), weight.float()).to(x.dtype)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x: [..., k], weight: [n, k], bias: [n] -> [..., n] in the dtype of x."""
    if not _is_large(x) or weight.dtype != torch.half:
        return functional.linear(x, weight, bias)
    return functional.linear(x.float(), weight.float(), None if bias is None else bias.float()).to(x.dtype)


def _is_large(x: Tensor) -> bool:
    return bool(x.dtype == torch.half and x.shape[:-1].numel() >= MANY_ROWS)
