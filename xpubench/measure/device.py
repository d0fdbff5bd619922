"""The device of a run: whether it is there, how to wait for it, its name, driver and memory."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from xpubench.errors import UserError
from xpubench.measure.host import cpu_name, free_host_bytes, read_text, reset_host_peak, total_host_bytes

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
        return cpu_name()
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
        return total_host_bytes()
    total = getattr(_properties(device), "total_memory", None)
    return int(total) if total else None


def free_memory_bytes(device: str) -> int | None:
    """The memory that is free now; None where the driver does not know, as of most integrated GPUs, whose
    `mem_get_info` raises (https://github.com/pytorch/pytorch/issues/159728) or gives what cannot be."""
    if device == "cpu":
        return free_host_bytes()
    try:
        free, total = torch.get_device_module(device).mem_get_info()
    except Exception:  # whatever this driver and this torch have for "unknown"
        return None
    return int(free) if 0 < free <= total else None


def reset_peaks(device: str) -> None:
    """Forgets the peaks of memory so far, so that the next ones are those of what follows."""
    if device != "cpu":
        torch.get_device_module(device).reset_peak_memory_stats()
    reset_host_peak()


def peak_device_bytes(device: str) -> int | None:
    """The most bytes that tensors held on the device since the last reset; None on the CPU: nobody counts."""
    if device == "cpu":
        return None
    return int(torch.get_device_module(device).max_memory_allocated())


def _properties(device: str) -> Any:
    module = torch.get_device_module(device)
    return module.get_device_properties(module.current_device())


def _nothing() -> None:
    return None


def _is_available(device: str) -> bool:
    module: Any = getattr(torch, device, None)
    return module is not None and bool(module.is_available())
