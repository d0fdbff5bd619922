"""The memory bandwidth that this process reaches on the device, which is the ceiling for MBU."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter_ns

import torch

from xpubench.measure.device import free_memory_bytes, synchronizer, total_memory_bytes
from xpubench.record import Bandwidth

CPU_BUFFER_BYTES = 256 * 2**20
CACHES = 4
DEVICE_BUFFER_BYTES = 2 * 2**30
SMALLEST_BUFFER_BYTES = 64 * 2**20
REPEATS = 15
WARM_UP = 2
COLUMNS = 4096
CPUS = Path("/sys/devices/system/cpu")
UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}


def measure_bandwidth(device: str, dtype: str = "bfloat16") -> Bandwidth:
    """Times copies, reads and matrix-vector products of buffers far larger than the caches on the device.

    The fastest repeat counts, as in STREAM (https://www.cs.virginia.edu/stream/ref.html), because other work
    on the machine can only slow a repeat. Raises what the device raises when it cannot hold the buffers.
    """
    size = _buffer_bytes(device)
    synchronize = synchronizer(device)
    with torch.inference_mode():
        source = torch.ones(size // 4, dtype=torch.float32, device=device)
        copy_ns = _time(partial(torch.empty_like(source).copy_, source), synchronize)
        read_ns = _time(source.sum, synchronize)
        kinds = dict.fromkeys(("float32", dtype))
        products = {kind: _time_products(source, kind, synchronize) for kind in kinds}
    del source
    if device != "cpu":
        torch.get_device_module(device).empty_cache()
    matvec_dtype, matvec_ns = min(products.items(), key=lambda item: min(item[1]))
    copy, read, matvec = 2 * size / min(copy_ns), size / min(read_ns), size / min(matvec_ns)
    return Bandwidth(
        ceiling_gb_per_s=max(copy, read, matvec),
        copy_gb_per_s=copy,
        read_gb_per_s=read,
        matvec_gb_per_s=matvec,
        matvec_dtype=matvec_dtype,
        buffer_bytes=size,
        copy_ns=copy_ns,
        read_ns=read_ns,
        matvec_ns=matvec_ns,
    )


def _buffer_bytes(device: str) -> int:
    """A power of two. Two buffers of this size take at most half of the free memory."""
    wanted = CPU_BUFFER_BYTES if device == "cpu" else DEVICE_BUFFER_BYTES
    while device == "cpu" and wanted < CACHES * _last_level_cache_bytes():
        wanted *= 2
    free = free_memory_bytes(device) or total_memory_bytes(device)
    while free is not None and wanted > SMALLEST_BUFFER_BYTES and 4 * wanted > free:
        wanted //= 2
    return wanted


def _last_level_cache_bytes() -> int:
    """The sum of the machine's L3 caches; 0 where the kernel does not tell."""
    caches = {}
    for directory in CPUS.glob("cpu[0-9]*/cache/index3"):
        try:
            text = (directory / "size").read_text().strip()
            caches[(directory / "shared_cpu_list").read_text()] = int(text[:-1]) * UNITS[text[-1]]
        except (OSError, ValueError, LookupError):
            continue
    return sum(caches.values())


def _time_products(source: torch.Tensor, dtype: str, synchronize: Callable[[], None]) -> list[int]:
    # The source's bytes serve as a matrix of any dtype, as their values do not matter.
    matrix = source.view(getattr(torch, dtype)).view(-1, COLUMNS)
    vector = torch.ones(1, COLUMNS, dtype=matrix.dtype, device=matrix.device)
    # A model's linear layer makes this call, which therefore takes the same kernels.
    return _time(lambda: torch.nn.functional.linear(vector, matrix), synchronize)


def _time(work: Callable[[], object], synchronize: Callable[[], None]) -> list[int]:
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
