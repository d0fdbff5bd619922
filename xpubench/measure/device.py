"""The device of a run: whether it is there, how to wait for it, its name, driver and memory."""

import functools
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch

from xpubench.errors import UserError

CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
OUT_OF_MEMORY_WORDS = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "out_of_device_memory",
    "out_of_host_memory",
    "out_of_resources",
)


def available_devices() -> list[str]:
    """The devices of this machine that torch can use, the preferred one first."""
    return [device for device in ("xpu", "cuda") if _is_available(device)] + ["cpu"]


def check_device(device: str) -> None:
    """UserError when torch cannot use the device here."""
    found = available_devices()
    if device not in found:
        raise UserError(
            f"no {device} device here (there is: {', '.join(found)}); xpubench doctor says what is missing"
        )


def synchronizer(device: str) -> Callable[[], None]:
    """What waits until the device has done all its work; nothing on the CPU."""
    if device == "cpu":
        return _nothing
    wait: Callable[[], None] = torch.get_device_module(device).synchronize
    return wait


def device_name(device: str) -> str:
    """The name that the driver reports, or the CPU's model name."""
    if device == "cpu":
        return _cpu_name()
    return str(torch.get_device_module(device).get_device_name())


def device_driver(device: str) -> str | None:
    """The driver's version, None where torch does not tell."""
    if device == "cpu":
        return None
    properties = torch.get_device_module(device).get_device_properties(0)
    version = getattr(properties, "driver_version", None)
    if version is None and device == "cuda":
        version = torch.version.cuda
    return None if version is None else str(version)


def total_memory_bytes(device: str) -> int | None:
    """The device's memory; on the CPU the machine's or, where smaller, the container's limit."""
    if device == "cpu":
        return min(int(psutil.virtual_memory().total), _cgroup_limit())
    total = getattr(torch.get_device_module(device).get_device_properties(0), "total_memory", None)
    return int(total) if total else None


def free_memory_bytes(device: str) -> int | None:
    """The memory that is free now; None where the driver of an integrated GPU does not know or errs."""
    if device == "cpu":
        return min(int(psutil.virtual_memory().available), _cgroup_limit())
    try:
        free, total = torch.get_device_module(device).mem_get_info()
    except (AttributeError, RuntimeError, NotImplementedError):
        return None
    return int(free) if 0 < free <= total else None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on the device or on the host."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(
        words in str(error).lower() for words in OUT_OF_MEMORY_WORDS
    )


def _nothing() -> None:
    return None


def _is_available(device: str) -> bool:
    module: Any = getattr(torch, device, None)
    return module is not None and bool(module.is_available())


@functools.cache
def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _cgroup_limit() -> int:
    try:
        return int(CGROUP_LIMIT.read_text())
    except (OSError, ValueError):  # no cgroup, or "max"
        return 2**63 - 1
