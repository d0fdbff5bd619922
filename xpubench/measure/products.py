"""The bandwidth at which products of one row read their weights, at the sizes of a model's matrices."""

from functools import partial

import torch

from xpubench.measure.bandwidth import buffer_bytes
from xpubench.measure.device import synchronizer
from xpubench.measure.random_bits import random_buffer
from xpubench.measure.times import timed_call

# The matrices are [n, n]. Small ones are read more slowly, and on a device with its own memory they are bound
# by launches.
SIZES = {"cpu": (512, 2048)}
DEVICE_SIZES = (4096, 8192)
ROUNDS = 3


def product_rates(device: str, dtype: str) -> list[float]:
    """The rates in GB/s, for each size and round, at which a row is multiplied with one matrix after the
    other, until a buffer far larger than the caches was read completely."""
    kind, synchronize = getattr(torch, dtype), synchronizer(device)
    rates = []
    with torch.inference_mode():
        source = random_buffer(buffer_bytes(device), device).view(kind)
        for size in SIZES.get(device, DEVICE_SIZES):
            matrices = source[: source.numel() // size**2 * size**2].view(-1, size, size)
            row = torch.ones(1, size, dtype=kind, device=device)
            torch.nn.functional.linear(row, matrices[0])
            for _ in range(ROUNDS):
                _, time_ns = timed_call(partial(_multiply, row, matrices), synchronize)
                rates.append(matrices.nbytes / time_ns)
    return rates


def _multiply(row: torch.Tensor, matrices: torch.Tensor) -> None:
    for matrix in matrices:
        torch.nn.functional.linear(row, matrix)
