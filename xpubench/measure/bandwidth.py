"""The memory bandwidth that this process reaches on the device, and with it the ceiling for MBU."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from time import monotonic

import msgspec
import torch

from xpubench.measure.ceilings import highest_shown
from xpubench.measure.device import TorchDevice, synchronizer
from xpubench.measure.random_bits import random_buffer
from xpubench.measure.times import timed_call
from xpubench.record import Bandwidth, CeilingSample, now

CPU_BUFFER_BYTES = 256 * 2**20
CACHES = 4
DEVICE_BUFFER_BYTES = 2 * 2**30
SMALLEST_BUFFER_BYTES = 64 * 2**20
REPEATS = 15
REPEATS_AFTER = 5
# Runs that follow each other faster share a measurement after the timed part.
RECENT_S = 10.0
WARM_UP = 2
COLUMNS = 4096
CPUS = Path("/sys/devices/system/cpu")
UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}


def measure_bandwidth(device: str, dtype: str = "bfloat16", repeats: int = REPEATS) -> Bandwidth:
    """Times copies, reads and matrix-vector products of buffers far larger than the caches on the device.
    They hold random bits, because some GPUs compress regular data between cache and memory. The fastest
    repeat counts, as in STREAM (https://www.cs.virginia.edu/stream/ref.html), because other work on
    the machine can only slow a repeat. Raises what the device raises when it cannot hold the buffers."""
    size = buffer_bytes(device)
    synchronize = synchronizer(device)
    with torch.inference_mode():
        source = random_buffer(size, device)
        copy_ns = _time(partial(torch.empty_like(source).copy_, source), synchronize, repeats)
        read_ns = _time(source.sum, synchronize, repeats)
        kinds = dict.fromkeys(("float32", dtype))
        products = {kind: _time(_product(source, kind), synchronize, repeats) for kind in kinds}
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
        threads=torch.get_num_threads() if device == "cpu" else None,
        copy_ns=copy_ns,
        read_ns=read_ns,
        matvec_ns=matvec_ns,
    )


def first_bandwidth(device: TorchDevice, dtype: str) -> Bandwidth:
    """The bandwidth before anything is loaded, and the highest ceiling that the device has shown."""
    found = measure_bandwidth(device.kind, dtype)
    return msgspec.structs.replace(found, highest=_shown(device, found, now()))


def bandwidth_again(device: TorchDevice, dtype: str, before: Bandwidth) -> Bandwidth:
    """The earlier measurement with a new one in its `after_` fields, made with as many threads, and with the
    highest ceiling that the device has shown by now. A measurement after an earlier run serves for ten
    seconds. Nothing is measured where buffers of the same size no longer fit, because smaller ones could lie
    in a cache."""
    size = before.buffer_bytes
    if size is None or buffer_bytes(device.kind) < size:
        return before
    try:
        with torch_threads(before.threads):
            found, created = _recent_bandwidth(device.kind, dtype, size)
            highest = _shown(device, found, created)
    except Exception:  # The type depends on the device. The run is done and has its figures.
        return before
    return msgspec.structs.replace(
        before,
        after_ceiling_gb_per_s=found.ceiling_gb_per_s,
        after_copy_ns=found.copy_ns,
        after_read_ns=found.read_ns,
        after_matvec_ns=found.matvec_ns,
        highest=highest,
    )


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """A context manager in which torch has that many threads, None for those that it has. A runtime may have
    taken them from torch for its own threads."""
    own = torch.get_num_threads()
    torch.set_num_threads(count or own)
    try:
        yield
    finally:
        torch.set_num_threads(own)


# By device, dtype, bytes of a buffer and threads: the latest measurement, when it was made, and its date.
_recent: dict[tuple[str, str, int, int], tuple[Bandwidth, float, str]] = {}


def _recent_bandwidth(device: str, dtype: str, size: int) -> tuple[Bandwidth, str]:
    """A measurement of the last seconds, or one made now, and its date, which the kept sample has too."""
    key = (device, dtype, size, torch.get_num_threads())
    if key not in _recent or monotonic() - _recent[key][1] > RECENT_S:
        _recent[key] = measure_bandwidth(device, dtype, REPEATS_AFTER), monotonic(), now()
    found, _, created = _recent[key]
    return found, created


def _shown(device: TorchDevice, found: Bandwidth, created: str) -> CeilingSample:
    threads = torch.get_num_threads() if device.kind == "cpu" else None
    sample = CeilingSample(created=created, gb_per_s=found.ceiling_gb_per_s)
    return highest_shown(device.facts(), threads, found.buffer_bytes or 0, sample)


def buffer_bytes(device: str) -> int:
    """A power of two. Two buffers of this size take at most half of the free memory."""
    wanted = CPU_BUFFER_BYTES if device == "cpu" else DEVICE_BUFFER_BYTES
    while device == "cpu" and wanted < CACHES * _last_level_cache_bytes():
        wanted *= 2
    facts = TorchDevice(device).facts()
    free = facts.free_memory_bytes or facts.total_memory_bytes
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


def _product(source: torch.Tensor, dtype: str) -> Callable[[], object]:
    # The source's bytes serve as a matrix of any dtype.
    matrix = source.view(getattr(torch, dtype)).view(-1, COLUMNS)
    vector = torch.ones(1, COLUMNS, dtype=matrix.dtype, device=matrix.device)
    # A model's linear layer makes this call, which therefore takes the same kernels.
    return lambda: torch.nn.functional.linear(vector, matrix)


def _time(work: Callable[[], object], synchronize: Callable[[], None], repeats: int) -> list[int]:
    for _ in range(WARM_UP):
        work()
    return [timed_call(work, synchronize)[1] for _ in range(repeats)]
