"""The device of a run: whether it is there, how to wait for it, its name, driver and memory."""

import functools
import platform
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import psutil
import torch

from xpubench.errors import UserError

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")
NVIDIA_DRIVER = Path("/sys/module/nvidia/version")


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
    if device == "cuda":
        return read_text(NVIDIA_DRIVER)
    version = getattr(_properties(device), "driver_version", None)
    return None if version is None else str(version)


def total_memory_bytes(device: str) -> int | None:
    """The device's memory; on the CPU the machine's or, where smaller, its cgroup's limit."""
    if device == "cpu":
        limits = (limit for limit, _ in _cgroup_memory())
        return min(int(psutil.virtual_memory().total), *limits)
    total = getattr(_properties(device), "total_memory", None)
    return int(total) if total else None


def free_memory_bytes(device: str) -> int | None:
    """The memory that is free now; None where the driver does not know, as of most integrated GPUs, whose
    `mem_get_info` raises (https://github.com/pytorch/pytorch/issues/159728) or gives what cannot be."""
    if device == "cpu":
        unused = (max(limit - used, 0) for limit, used in _cgroup_memory())
        return min(int(psutil.virtual_memory().available), *unused)
    try:
        free, total = torch.get_device_module(device).mem_get_info()
    except Exception:  # whatever this driver and this torch have for "unknown"
        return None
    return int(free) if 0 < free <= total else None


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
    """The limit and the use in bytes of each cgroup that has a limit; a cache of files is no use."""
    yield 2**63 - 1, 0  # no limit, so that there is always a least one
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


def _properties(device: str) -> Any:
    module = torch.get_device_module(device)
    return module.get_device_properties(module.current_device())


def read_text(path: Path) -> str | None:
    """A file's text without the space around it; None where it cannot be read."""
    try:
        return path.read_text().strip()
    except OSError:
        return None


def _nothing() -> None:
    return None


def _is_available(device: str) -> bool:
    module: Any = getattr(torch, device, None)
    return module is not None and bool(module.is_available())


@functools.cache
def _cpu_name() -> str:
    for line in (read_text(Path("/proc/cpuinfo")) or "").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
