"""How long the ranks take to sum tensors of several sizes."""

from collections.abc import Callable
from functools import partial
from statistics import median
from time import perf_counter_ns

import msgspec
import torch
import torch.distributed as dist

from xpubench.explanation import Spread

SIZES_BYTES = tuple(1 << power for power in range(12, 27, 2))  # 4 KiB to 64 MiB
WARM_UP, REPEATS, ROUNDS = 3, 15, 3


class AllReduce(msgspec.Struct, frozen=True, kw_only=True):
    """The sum of a tensor of `size_bytes` over all n ranks: the median time of the slowest rank, and the rate
    at which each rank's data move in a ring, 2 (n - 1) / n of the bytes over that time, in GB/s."""

    size_bytes: int
    latency_us: float
    bus_gb_per_s: float


def measure_all_reduce(
    device: str, synchronize: Callable[[], None], gather: Callable[[float], list[float]]
) -> list[AllReduce]:
    """Measures each size; every rank calls it, and `gather` collects one number from each rank."""
    ranks = dist.get_world_size()
    found = []
    for size_bytes in SIZES_BYTES:
        tensor = torch.zeros(size_bytes // 4, device=device)
        times_ns = _times_ns(partial(dist.all_reduce, tensor), synchronize)
        latest_ns = max(gather(median(times_ns)))
        bus_gb_per_s = 2 * (ranks - 1) / ranks * size_bytes / latest_ns
        found.append(AllReduce(size_bytes=size_bytes, latency_us=latest_ns / 1e3, bus_gb_per_s=bus_gb_per_s))
    return found


def measure_sum(
    add_up: Callable[[], object],
    synchronize: Callable[[], None],
    gather: Callable[[list[float]], list[list[float]]],
) -> Spread:
    """The time of one sum over the ranks in ns, on the rank that takes longest, over rounds; every rank calls
    it, and `gather` collects the numbers of each rank."""
    rounds = gather([median(_times_ns(add_up, synchronize)) for _ in range(ROUNDS)])
    latest = [max(times) for times in zip(*rounds, strict=True)]
    return Spread(low=min(latest), middle=median(latest), high=max(latest))


def _times_ns(add_up: Callable[[], object], synchronize: Callable[[], None]) -> list[int]:
    times_ns = []
    for _ in range(WARM_UP + REPEATS):
        dist.barrier()
        synchronize()
        start_ns = perf_counter_ns()
        add_up()
        synchronize()
        times_ns.append(perf_counter_ns() - start_ns)
    return times_ns[WARM_UP:]
