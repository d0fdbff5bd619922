"""Whether the process's threads had a processor when they wanted one, by the kernel's own counters: schedstat
of each thread (https://docs.kernel.org/scheduler/sched-stats.html)."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter_ns

from xpubench.measure.host import TASKS, read_text

# A thread that ran for a smaller share of the time does no work that the other threads wait for.
COMPUTING = 0.05


class Waits:
    """For several blocks of code, the share of each block's time in which the threads did not have to wait
    for a processor."""

    def __init__(self) -> None:
        self._shares: list[float] = []

    @contextmanager
    def watching(self) -> Iterator[None]:
        """A context manager around a block to watch."""
        before, start_ns = _times(), perf_counter_ns()
        yield
        wall_ns = perf_counter_ns() - start_ns
        waited = [
            wait_ns - before.get(thread, (0, 0))[1]
            for thread, (run_ns, wait_ns) in _times().items()
            if run_ns - before.get(thread, (0, 0))[0] > COMPUTING * wall_ns
        ]
        if waited:
            self._shares.append(1 - min(max(waited) / wall_ns, 1.0))

    @property
    def share(self) -> float | None:
        """The smallest share of any computing thread in any block; None where the kernel does not report
        it."""
        return min(self._shares, default=None)


def _times() -> dict[str, tuple[int, int]]:
    """By thread, the nanoseconds in which it ran, and in which it waited for a processor."""
    found = {}
    for path in TASKS.glob("*/schedstat"):
        fields = (read_text(path) or "").split()
        if len(fields) == 3:
            found[path.parent.name] = int(fields[0]), int(fields[1])
    return found
