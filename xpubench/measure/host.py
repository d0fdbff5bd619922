"""The host of a run, without torch: its processor, its memory, the limits of its cgroups."""

import contextlib
import functools
import platform
import resource
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from time import perf_counter_ns, process_time_ns
from typing import NamedTuple

import psutil

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")
CLEAR_REFS = Path("/proc/self/clear_refs")
STATUS = Path("/proc/self/status")
SMAPS_ROLLUP = Path("/proc/self/smaps_rollup")
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
TASKS = Path("/proc/self/task")
VMSTAT = Path("/proc/vmstat")
RESET_PEAK = "5"  # proc(5): resets the peak resident set size to the present one


def total_host_bytes() -> int:
    """The machine's memory or, where that is smaller, its cgroup's limit."""
    limits = (limit for limit, _ in _cgroup_memory())
    return min(int(psutil.virtual_memory().total), *limits)


def free_host_bytes() -> int:
    """The memory that the process can still take."""
    unused = (max(limit - used, 0) for limit, used in _cgroup_memory())
    return min(int(psutil.virtual_memory().available), *unused)


def available_host_bytes() -> int:
    """The memory that the machine has available now, whatever the process's limit (MemAvailable, proc(5))."""
    return int(psutil.virtual_memory().available)


def reset_host_peak() -> None:
    """Resets the process's peak of memory. Where a container does not permit that, the peak stays that of the
    whole life of the process."""
    with contextlib.suppress(OSError):
        CLEAR_REFS.write_text(RESET_PEAK)


def peak_host_bytes() -> int:
    """The process's peak resident set size in bytes since the last reset, or since its start where it cannot
    be reset (proc(5), VmHWM; where that is missing getrusage(2), ru_maxrss)."""
    for line in (read_text(STATUS) or "").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class ResidentMemory(NamedTuple):
    """The process's memory in bytes: all resident memory, the anonymous part of it, which no file backs, and
    the part of that in huge pages."""

    resident_bytes: int | None
    anonymous_bytes: int | None
    huge_page_bytes: int | None


def resident_memory() -> ResidentMemory:
    """The process's memory now; None for what the kernel does not report."""
    found = dict.fromkeys(("Rss", "Anonymous", "AnonHugePages"))
    for line in (read_text(SMAPS_ROLLUP) or "").splitlines():
        name, _, rest = line.partition(":")
        if name in found:
            found[name] = int(rest.split()[0]) * 1024
    return ResidentMemory(*found.values())


def transparent_huge_pages() -> str | None:
    """The kernel's policy for transparent huge pages: always, madvise or never; None where it has none."""
    words = (read_text(HUGE_PAGES) or "").split()
    return next((word.strip("[]") for word in words if word.startswith("[")), None)


class CpuClock(NamedTuple):
    """The wall clock and the process's counters at one moment, in nanoseconds: the CPU time of all its
    threads, the time for which its present threads waited for a core, and the time for which its cgroup was
    stopped at its limit. Differences of two readings describe the interval between them."""

    wall_ns: int
    cpu_ns: int
    waited_ns: int | None
    stopped_ns: int | None


def cpu_clock() -> CpuClock:
    """The counters now."""
    waited_ns, stopped_ns = _waited_ns(), _stopped_ns()
    return CpuClock(perf_counter_ns(), process_time_ns(), waited_ns, stopped_ns)


def _waited_ns() -> int | None:
    """The time that all threads have waited in run queues (schedstat, proc(5)); None where the kernel does
    not count it."""
    texts = [read_text(task / "schedstat") for task in TASKS.glob("*")]
    # A thread may end between the listing and the reading.
    delays = [int(text.split()[1]) for text in texts if text]
    return sum(delays) if delays else None


def _stopped_ns() -> int | None:
    """The longest time for which one of the process's cgroups was stopped at its limit, in ns (cgroup v2's
    `throttled_usec`, v1's `throttled_time`)."""
    found = []
    for directory in cgroup_directories("cpu"):
        counters = dict(line.split() for line in (read_text(directory / "cpu.stat") or "").splitlines())
        if "throttled_usec" in counters:
            found.append(int(counters["throttled_usec"]) * 1000)
        elif "throttled_time" in counters:
            found.append(int(counters["throttled_time"]))
    return max(found, default=None)


def out_of_memory_kills() -> int:
    """How many processes the kernel's out-of-memory killer has killed since the boot; 0 where the kernel does
    not report it."""
    counters = dict(line.split() for line in (read_text(VMSTAT) or "").splitlines())
    return int(counters.get("oom_kill", 0))


def cgroup_directories(controller: str) -> list[Path]:
    """The directories of the process's cgroup and of those above it, each of which may limit it, in the
    hierarchy of version 1 or 2 that has the controller (cgroups(7))."""
    found: list[Path] = []
    for line in (read_text(OWN_CGROUPS) or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = CGROUPS / controller if controllers else CGROUPS
        own = PurePosixPath(path.lstrip("/"))
        found.extend(root / directory for directory in dict.fromkeys((own, *own.parents)))
    return found


def _cgroup_memory() -> Iterator[tuple[int, int]]:
    """The limit and the use in bytes of each cgroup that has a limit. The cache of files does not count."""
    yield 2**63 - 1, 0  # There is always at least this pair, which limits nothing.
    for directory in cgroup_directories("memory"):
        for limit_name, used_name, cache_name in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            limit, used = read_text(directory / limit_name), read_text(directory / used_name)
            if limit and limit.isdecimal() and used:
                lines = (read_text(directory / "memory.stat") or "").splitlines()
                cached = dict(line.split() for line in lines).get(cache_name, "0")
                yield int(limit), int(used) - int(cached)


def read_text(path: Path) -> str | None:
    """A file's text without surrounding white space; None where it cannot be read."""
    try:
        return path.read_text().strip()
    except OSError:
        return None


@functools.cache
def cpu_name() -> str:
    for line in (read_text(Path("/proc/cpuinfo")) or "").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
