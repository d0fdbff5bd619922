"""The processes that the kernel kills when memory runs out."""

from pathlib import Path

VMSTAT = Path("/proc/vmstat")


def out_of_memory_kills() -> int:
    """How many the kernel has killed since it started; 0 where it keeps that to itself."""
    try:
        counters = dict(line.split() for line in VMSTAT.read_text().splitlines())
    except OSError:
        return 0
    return int(counters.get("oom_kill", 0))
