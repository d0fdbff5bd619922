"""Whether the process's threads had a processor when they wanted one, by the kernel's own counters: schedstat
of each thread (https://docs.kernel.org/scheduler/sched-stats.html)."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter_ns

from xpubench.measure.host import TASKS, read_text

# A thread that wanted a processor for a smaller share of the time does no work that the others wait for.
COMPUTING = 0.05


class Waits:
    """For several blocks of code, the share of the time in which a thread wanted a processor and had one:
    run / (run + wait), of the thread with the smallest share."""

    def __init__(self) -> None:
        self._shares: list[float] = []

    @contextmanager
    def watching(self) -> Iterator[None]:
        """A context manager around a block to watch."""
        before, start_ns = _times(), perf_counter_ns()
        yield
        wall_ns = perf_counter_ns() - start_ns
        after = _times()
        grown = [_grown(times, before.get(thread, (0, 0))) for thread, times in after.items()]
        shares = [
            run_ns / (run_ns + wait_ns) for run_ns, wait_ns in grown if run_ns + wait_ns > COMPUTING * wall_ns
        ]
        if after:
            self._shares.append(min(shares, default=1.0))

    @property
    def share(self) -> float | None:
        """The smallest share of any thread in any block, 1 where no thread wanted a processor for long; None
        where the kernel does not report it."""
        return min(self._shares, default=None)


def _grown(after: tuple[int, int], before: tuple[int, int]) -> tuple[int, int]:
    return after[0] - before[0], after[1] - before[1]


def _times() -> dict[str, tuple[int, int]]:
    """By thread, the nanoseconds in which it ran, and in which it waited for a processor."""
    found = {}
    for path in TASKS.glob("*/schedstat"):
        fields = (read_text(path) or "").split()
        if len(fields) == 3:
            found[path.parent.name] = int(fields[0]), int(fields[1])
    return found
