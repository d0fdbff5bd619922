"""The memory bandwidth that this process reaches on the device: the ceiling that MBU is a share of."""

from collections.abc import Callable
from functools import cache
from time import perf_counter_ns
from typing import Any

import msgspec
import torch

from xpubench.measure.device import free_memory_bytes, synchronizer

CPU_BUFFER_BYTES = 512 * 2**20
DEVICE_BUFFER_BYTES = 2 * 2**30
SMALLEST_BUFFER_BYTES = 64 * 2**20
REPEATS = 7
WARM_UP = 2
COLUMNS = 4096


class Bandwidth(msgspec.Struct, frozen=True, kw_only=True):
    """Bandwidths in GB/s (10^9 bytes), each of the fastest repeat, with all repeats' times beside them.

    A copy counts the bytes read and written; a matrix-vector product counts the matrix, in the run's dtype
    or in float32, whichever is faster. The ceiling is the larger of copy and product.
    """

    ceiling_gb_per_s: float
    copy_gb_per_s: float
    matvec_gb_per_s: float
    matvec_dtype: str
    buffer_bytes: int
    copy_ns: list[int]
    matvec_ns: list[int]


@cache
def measure_bandwidth(device: str, dtype: str) -> Bandwidth:
    """Times large copies and matrix-vector products, far larger than the caches; once a process."""
    size = _buffer_bytes(device)
    synchronize = synchronizer(device)
    with torch.inference_mode():
        copy_ns = _time_copies(device, size, synchronize)
        products = {name: _time_products(device, size, name, synchronize) for name in ("float32", dtype)}
    matvec_dtype, matvec_ns = min(products.items(), key=lambda item: min(item[1]))
    copy, matvec = 2 * size / min(copy_ns), size / min(matvec_ns)
    return Bandwidth(
        ceiling_gb_per_s=max(copy, matvec),
        copy_gb_per_s=copy,
        matvec_gb_per_s=matvec,
        matvec_dtype=matvec_dtype,
        buffer_bytes=size,
        copy_ns=copy_ns,
        matvec_ns=matvec_ns,
    )


def _buffer_bytes(device: str) -> int:
    wanted = CPU_BUFFER_BYTES if device == "cpu" else DEVICE_BUFFER_BYTES
    free = free_memory_bytes(device)
    while free is not None and wanted > SMALLEST_BUFFER_BYTES and 4 * wanted > free:
        wanted //= 2
    return wanted


def _time_copies(device: str, size: int, synchronize: Callable[[], None]) -> list[int]:
    source = torch.ones(size // 4, dtype=torch.float32, device=device)
    target = torch.empty_like(source)
    return _time(lambda: target.copy_(source), synchronize)


def _time_products(device: str, size: int, dtype: str, synchronize: Callable[[], None]) -> list[int]:
    kind: torch.dtype = getattr(torch, dtype)
    matrix = torch.ones(size // kind.itemsize // COLUMNS, COLUMNS, dtype=kind, device=device)
    vector = torch.ones(1, COLUMNS, dtype=kind, device=device)
    # As a model's layer calls it, so that the product takes the same kernels.
    return _time(lambda: torch.nn.functional.linear(vector, matrix), synchronize)


def _time(work: Callable[[], Any], synchronize: Callable[[], None]) -> list[int]:
    for _ in range(WARM_UP):
        work()
    times = []
    for _ in range(REPEATS):
        synchronize()
        start_ns = perf_counter_ns()
        work()
        synchronize()
        times.append(perf_counter_ns() - start_ns)
    return times
