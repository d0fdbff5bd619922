"""Finite floating point values of random bits, which no hardware can compress and no two of which are equal
by design."""

import torch

# By dtype: the integer type of its bits, the bits that are drawn, and those that are set. Sign, mantissa and
# the two lowest bits of the exponent are drawn, which gives magnitudes from 1/8 to below 2.
PATTERNS = {
    torch.float32: (torch.int32, ~0x7E000000, 0x3E000000),
    torch.bfloat16: (torch.int16, ~0x7E00, 0x3E00),
    torch.float16: (torch.int16, ~0x7000, 0x3000),
}
# All bits of each 16 but the two upper ones of the exponent are drawn. The result is a number in float32,
# bfloat16 and float16 that is neither NaN nor subnormal, which would slow a CPU down.
WIDE_DRAWN, WIDE_SET = ~0x6000, 0x2000
# Random bits are drawn for this many bytes and then repeated, because drawing takes longer than reading.
BLOCK_BYTES = 4 * 2**20


def random_values(shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator) -> torch.Tensor:
    """Values of random sign, mantissa and low exponent on the CPU, of magnitudes from 1/8 to below 2."""
    integers, drawn, fixed = PATTERNS[dtype]
    limit = 2 ** (8 * dtype.itemsize - 1)
    bits = torch.randint(-limit, limit, shape, dtype=integers, generator=generator)
    return bits.bitwise_and_(drawn).bitwise_or_(fixed).view(dtype)


def random_buffer(size_bytes: int, device: str) -> torch.Tensor:
    """A buffer of that many bytes, a multiple of `BLOCK_BYTES`, on the device, as float32 of shape
    (size / 4,). Its bytes are finite numbers in float16 and bfloat16 too."""
    block = torch.randint(-(2**15), 2**15, (BLOCK_BYTES // 2,), dtype=torch.int16, device=device)
    block = block.bitwise_and_(WIDE_DRAWN).bitwise_or_(WIDE_SET)
    return block.repeat(size_bytes // BLOCK_BYTES).view(torch.float32)
