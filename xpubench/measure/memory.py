"""Peaks of memory: the allocator's on the device, the process's on the host."""

import contextlib
import resource
from pathlib import Path

import torch

CLEAR_REFS = Path("/proc/self/clear_refs")
STATUS = Path("/proc/self/status")
RESET_PEAK = "5"  # proc(5): resets the peak resident set size to the present one


def reset_peaks(device: str) -> None:
    """Forgets the peaks so far, so that the next ones are those of what follows."""
    if device != "cpu":
        torch.get_device_module(device).reset_peak_memory_stats()
    # Not permitted in some containers: the host's peak is then the whole process's.
    with contextlib.suppress(OSError):
        CLEAR_REFS.write_text(RESET_PEAK)


def peak_device_bytes(device: str) -> int | None:
    """The most bytes that tensors held on the device since the last reset; None on the CPU: nobody counts."""
    if device == "cpu":
        return None
    return int(torch.get_device_module(device).max_memory_allocated())


def peak_host_bytes() -> int:
    """The process's peak resident set size in bytes since the last reset, or since its start where the kernel
    lets nobody reset it (proc(5), VmHWM; getrusage(2), ru_maxrss, where it tells no VmHWM)."""
    try:
        for line in STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
