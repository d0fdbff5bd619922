"""Rounding to nearest on INT4 and INT8 grids: the quantized weight, its values, and its error.

A weight of shape (N, K) is cut along each row into G = K / group size groups that share a scale s:

- `int4_fullrange`: value = q * s with q in -8..7, where s = e / -8 and e is the group's value of largest
  magnitude, so that e itself is on the grid. The scale may be negative.
- `int4_clip`: value = q * s with q in -7..7 and s = max|w| / 7.
- `int4_asym`: value = (u - z) * s with u in 0..15, s = (max - min) / 15 over a range widened to hold 0, and
  the whole zero point z = round(-min / s).

The first and the last are those of neural-compressor's RTN (`quant_tensor`, symmetric with and without
`full_range`, and asymmetric). Here the scale is rounded to its stored type before it quantizes the values.
"""

import msgspec
import torch

from xpubench.errors import RunFailure
from xpubench.spec import Quantization

# Rows are quantized in blocks of about this many values, so that float32 copies stay small.
BLOCK_VALUES = 1 << 23
MIDDLE = 8


class Int4Weight(msgspec.Struct, frozen=True, kw_only=True):
    """`packed`: the codes u as of `pack`, int32 (N, K/8); `scales`: (N, G); `zeros`: uint8 (N, G), None where
    all are 8. A value is (u - zero) * scale."""

    packed: torch.Tensor
    scales: torch.Tensor
    zeros: torch.Tensor | None

    @property
    def shape(self) -> tuple[int, int]:
        """(N, K) of the weight."""
        return self.packed.shape[0], self.packed.shape[1] * 8

    @property
    def group_size(self) -> int:
        """Values that share a scale."""
        return int(self.shape[1] // self.scales.shape[1])

    def codes(self) -> torch.Tensor:
        """The codes, uint8 (N, K) in 0..15."""
        return unpack(self.packed)

    def values(self) -> torch.Tensor:
        """The weight in float32, of shape (N, K)."""
        rows, groups = self.scales.shape
        zeros = MIDDLE if self.zeros is None else self.zeros[..., None].float()
        codes = self.codes().view(rows, groups, -1).float()
        return ((codes - zeros) * self.scales[..., None].float()).view(self.shape)


class Int8Weight(msgspec.Struct, frozen=True, kw_only=True):
    """`values8`: int8 (N, K); `scales`: bfloat16 (N,), which both 16-bit types hold. A value is q * scale."""

    values8: torch.Tensor
    scales: torch.Tensor

    def values(self) -> torch.Tensor:
        """The weight in float32, of shape (N, K)."""
        return self.values8.float() * self.scales[:, None].float()


class QuantizationError(msgspec.Struct, frozen=True, kw_only=True):
    """How far a quantized weight is from its source: ||w' - w|| / ||w|| (L2) and max |w' - w|. The two sums
    of squares give the relative error over many weights."""

    relative_l2: float
    max_abs: float
    error_square_sum: float
    square_sum: float


def quantize_int4(weight: torch.Tensor, recipe: Quantization) -> Int4Weight:
    """The weight (N, K), of any floating type, on the recipe's grid; K is a multiple of the group size.
    RunFailure `numerics` where a value is NaN or infinite, or a scale overflows its type."""
    blocks = [_int4_block(rows, recipe) for rows in weight.split(_rows_at_once(weight))]
    zeros = [block.zeros for block in blocks if block.zeros is not None]
    return Int4Weight(
        packed=torch.cat([block.packed for block in blocks]),
        scales=torch.cat([block.scales for block in blocks]),
        zeros=torch.cat(zeros) if zeros else None,
    )


def quantize_int8(weight: torch.Tensor) -> Int8Weight:
    """The weight (N, K) in -127..127 with a scale a row. Raises as `quantize_int4`."""
    values, scales = [], []
    for rows in weight.split(_rows_at_once(weight)):
        scale = _stored_scales(rows.float().abs().amax(-1) / 127, torch.bfloat16)
        scales.append(scale)
        values.append((rows / scale.float()[:, None]).round_().clamp_(-127, 127).to(torch.int8))
    return Int8Weight(values8=torch.cat(values), scales=torch.cat(scales))


def error_of(weight: torch.Tensor, quantized: Int4Weight | Int8Weight) -> QuantizationError:
    """The error of a quantized weight against its source, both (N, K)."""
    error = quantized.values() - weight.float()
    square_sum = float(weight.float().square().sum(dtype=torch.float64))
    error_square_sum = float(error.square().sum(dtype=torch.float64))
    return QuantizationError(
        relative_l2=(error_square_sum / square_sum) ** 0.5 if square_sum else 0.0,
        max_abs=float(error.abs().max()),
        error_square_sum=error_square_sum,
        square_sum=square_sum,
    )


def _rows_at_once(weight: torch.Tensor) -> int:
    return max(1, BLOCK_VALUES // int(weight.shape[1]))


def _int4_block(weight: torch.Tensor, recipe: Quantization) -> Int4Weight:
    rows, width = weight.shape
    groups = weight.float().view(rows, width // recipe.group_size, recipe.group_size)
    low, high = groups.amin(-1), groups.amax(-1)
    least = 0
    if recipe.weight_dtype == "int4_fullrange":
        scales = torch.where(high > -low, high, low) / -8
    elif recipe.weight_dtype == "int4_clip":
        scales, least = torch.maximum(high, -low) / 7, 1
    else:
        low, high = low.clamp(max=0), high.clamp(min=0)
        scales = (high - low) / 15
    scales = _stored_scales(scales, getattr(torch, recipe.scale_dtype))
    steps = (groups / scales.float()[..., None]).round_()
    zeros = None
    if recipe.weight_dtype == "int4_asym":
        zeros = (-low / scales.float()).round_().clamp_(0, 15)
    codes = steps.add_(MIDDLE if zeros is None else zeros[..., None]).clamp_(least, 15)
    packed = pack(codes.to(torch.uint8).view(rows, width))
    return Int4Weight(packed=packed, scales=scales, zeros=None if zeros is None else zeros.to(torch.uint8))


def pack(codes: torch.Tensor) -> torch.Tensor:
    """Codes, uint8 (N, K) in 0..15, as int32 (N, K/8) with eight codes each, the first in the lowest bits."""
    return (codes[:, ::2] | codes[:, 1::2] << 4).contiguous().view(torch.int32)


def unpack(packed: torch.Tensor) -> torch.Tensor:
    """The inverse of `pack`."""
    pairs = packed.contiguous().view(torch.uint8)
    return torch.stack((pairs & 15, pairs >> 4), dim=-1).view(packed.shape[0], -1)


def _stored_scales(scales: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The scales, rounded to the type that they are stored in. The scale of a group of zeros is 1, because
    values are divided by it."""
    if not bool(torch.isfinite(scales).all()):
        raise RunFailure("numerics", "a weight is NaN or infinite and has no INT4 grid")
    stored = scales.to(dtype)
    if not bool(torch.isfinite(stored).all()):
        raise RunFailure("numerics", f"a scale is too large for {dtype}; use another --scale_dtype")
    return torch.where(stored == 0, torch.ones_like(stored), stored)
