"""The rate of matrix products that this process reaches on the device: the ceiling of a prompt's pass."""

from collections.abc import Callable
from functools import partial

import torch

from xpubench.errors import RunFailure
from xpubench.measure.ceilings import highest_peak
from xpubench.measure.device import TorchDevice, synchronizer
from xpubench.measure.random_bits import random_values
from xpubench.measure.times import timed_call
from xpubench.record import MatrixPeak, PeakSample, now

SMALLEST, LARGEST = 256, 8192
# A product is large enough when it takes this long; a smaller one is bound by its launch.
LONG_NS = 15_000_000
# No further repeat begins after this time.
BUDGET_NS = 300_000_000
TRIES, REPEATS = 2, 15


def measure_peak(device: str, dtype: str) -> MatrixPeak:
    """Times the call of a linear layer, rows [n, n] by weights [n, n], for n from 256 in powers of two until
    a product takes 15 ms, and repeats the largest; 2 n^3 operations each. The fastest repeat of any size
    counts, because other work on the machine can only slow one. Raises what the device raises when it cannot
    compute it, and RunFailure where the clock stands still."""
    synchronize, generator = synchronizer(device), torch.Generator().manual_seed(0)

    def values(size: int) -> torch.Tensor:
        return random_values((size, size), getattr(torch, dtype), generator).to(device)

    with torch.inference_mode():
        size, best, times = SMALLEST, 0.0, []
        while True:
            rows, weights = values(size), values(size)
            _time(rows, weights, synchronize)  # The first call chooses and builds the kernel.
            # Another call follows, because one alone may have waited for other work.
            times = [_time(rows, weights, synchronize) for _ in range(TRIES)]
            best = max(best, _tflop_per_s(size, min(times)))
            if min(times) >= LONG_NS or size == LARGEST:
                break
            size *= 2
        while len(times) < REPEATS and sum(times) < BUDGET_NS:
            times.append(_time(rows, weights, synchronize))
    best = max(best, _tflop_per_s(size, min(times)))
    return MatrixPeak(tflop_per_s=best, dtype=dtype, size=size, times_ns=times)


def first_peak(device: TorchDevice, dtype: str) -> MatrixPeak | None:
    """The rate before anything is loaded, and the highest that the device has shown in that dtype; None where
    the device cannot compute the products."""
    try:
        found = measure_peak(device.kind, dtype)
    except RunFailure:
        raise
    except Exception:  # The type depends on the device. A run needs no peak.
        return None
    threads = torch.get_num_threads() if device.kind == "cpu" else None
    sample = PeakSample(created=now(), tflop_per_s=found.tflop_per_s)
    return found.shown(highest_peak(device.facts(), threads, dtype, sample))


def _tflop_per_s(size: int, time_ns: int) -> float:
    return 2 * size**3 / time_ns / 1e3


def _time(rows: torch.Tensor, weights: torch.Tensor, synchronize: Callable[[], None]) -> int:
    return timed_call(partial(torch.nn.functional.linear, rows, weights), synchronize)[1]
