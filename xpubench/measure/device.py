"""The device of a run as torch sees it: whether it is there, its name, driver, memory and bandwidth."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch

from xpubench.environment import DeviceFacts
from xpubench.errors import UserError
from xpubench.measure.host import cpu_name, free_host_bytes, read_text, reset_host_peak, total_host_bytes
from xpubench.record import Bandwidth

NVIDIA_DRIVER = Path("/sys/module/nvidia/version")


class TorchDevice:
    """The present device of a kind: xpu, cuda or cpu."""

    def __init__(self, kind: str) -> None:
        """UserError when torch cannot use such a device here."""
        check_device(kind)
        self.kind = kind

    def facts(self) -> DeviceFacts:
        """Name, driver and memory, of which the free part is that of this moment."""
        return DeviceFacts(
            kind=self.kind,
            name=device_name(self.kind),
            driver=device_driver(self.kind),
            total_memory_bytes=total_memory_bytes(self.kind),
            free_memory_bytes=free_memory_bytes(self.kind),
        )

    def reset_peaks(self) -> None:
        """Forgets the peaks of memory so far, those of the host too."""
        reset_peaks(self.kind)

    def peak_bytes(self) -> int | None:
        """The most bytes that tensors held since the last reset; None on the CPU."""
        return peak_device_bytes(self.kind)

    def bandwidth(self, dtype: str) -> Bandwidth:
        """The bandwidth of the memory, measured once in a process."""
        return _bandwidth(self.kind, dtype)

    def profile(self, generate: Callable[[], object]) -> tuple[bytes, str]:
        """Runs `generate` once under torch's profiler: a Chrome trace as JSON, and a table of operators."""
        from xpubench.measure.profile import profile

        return profile(generate, self.kind)


@cache
def _bandwidth(kind: str, dtype: str) -> Bandwidth:
    from xpubench.measure.bandwidth import measure_bandwidth

    return measure_bandwidth(kind, dtype)


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
    """The function that waits until the device has done all its work; on the CPU it does nothing."""
    if device == "cpu":
        return lambda: None
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
    """The memory that is free now; None where the driver does not know it, such as that of most integrated
    GPUs, whose `mem_get_info` raises (https://github.com/pytorch/pytorch/issues/159728) or is wrong."""
    if device == "cpu":
        return free_host_bytes()
    try:
        free, total = torch.get_device_module(device).mem_get_info()
    except Exception:  # The type depends on the driver and on torch's version.
        return None
    return int(free) if 0 < free <= total else None


def reset_peaks(device: str) -> None:
    """Forgets the peaks of memory so far, those of the host too."""
    if device != "cpu":
        torch.get_device_module(device).reset_peak_memory_stats()
    reset_host_peak()


def peak_device_bytes(device: str) -> int | None:
    """The most bytes that tensors held on the device since the last reset; None on the CPU."""
    if device == "cpu":
        return None
    return int(torch.get_device_module(device).max_memory_allocated())


def _properties(device: str) -> Any:
    module = torch.get_device_module(device)
    return module.get_device_properties(module.current_device())


def _is_available(device: str) -> bool:
    module: Any = getattr(torch, device, None)
    return module is not None and bool(module.is_available())
