"""How much of the machine's cores a process had, and warnings where that was too little."""

from collections.abc import Sequence

from xpubench.measure.host import CpuClock
from xpubench.record import CpuUse

# A run warns where runnable threads waited for a larger share of the time than the first, or where the cgroup
# was stopped for a larger share of the wall time than the second.
MOST_WAITING = 0.05


def between(before: CpuClock, after: CpuClock) -> CpuUse:
    """The use of the cores between two readings. The waiting time of a thread that has ended is no longer
    counted, so that the sum over all threads can fall; it counts as zero then."""
    waited_ns = _difference(before.waited_ns, after.waited_ns)
    return CpuUse(
        wall_ns=after.wall_ns - before.wall_ns,
        cpu_ns=after.cpu_ns - before.cpu_ns,
        waited_ns=None if waited_ns is None else max(0, waited_ns),
        stopped_ns=_difference(before.stopped_ns, after.stopped_ns),
    )


def _difference(before: int | None, after: int | None) -> int | None:
    return None if before is None or after is None else after - before


def cores(uses: Sequence[CpuUse]) -> float | None:
    """The cores that the process had on average; None where nothing was measured."""
    wall_ns = sum(one.wall_ns for one in uses)
    return sum(one.cpu_ns for one in uses) / wall_ns if wall_ns else None


def cores_wanted(uses: Sequence[CpuUse]) -> float | None:
    """The cores that the threads would have used without waiting; None where the kernel does not report
    it."""
    got = cores(uses)
    if got is None or any(one.waited_ns is None for one in uses):
        return None
    return got + sum(one.waited_ns or 0 for one in uses) / sum(one.wall_ns for one in uses)


def too_few_cores(uses: Sequence[CpuUse]) -> list[str]:
    """Warnings about threads that waited for cores, and about a limit that stopped them."""
    got, wanted = cores(uses), cores_wanted(uses)
    found = []
    if got is not None and wanted is not None and wanted - got > MOST_WAITING * wanted:
        found.append(
            f"the process's threads wanted {wanted:.1f} cores and got {got:.1f}: other work took the "
            "rest, or there are more threads than cores; wait for a quiet machine, or set fewer threads"
        )
    wall_ns, stopped_ns = sum(one.wall_ns for one in uses), sum(one.stopped_ns or 0 for one in uses)
    if stopped_ns > MOST_WAITING * wall_ns:
        found.append(
            f"the container's limit stopped the process for {stopped_ns / wall_ns:.0%} of the measured time; "
            "give it more cores, or set fewer threads"
        )
    return found
