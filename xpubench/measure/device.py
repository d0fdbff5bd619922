"""The device of a run as torch sees it: whether it is there, its name, driver, memory and bandwidth."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch

from xpubench.environment import DeviceFacts
from xpubench.errors import UserError
from xpubench.measure.host import (
    CpuClock,
    available_host_bytes,
    cpu_clock,
    cpu_name,
    free_host_bytes,
    read_text,
    reset_host_peak,
    total_host_bytes,
)
from xpubench.record import Bandwidth, MatrixPeak

NVIDIA_DRIVER = Path("/sys/module/nvidia/version")


class TorchDevice:
    """The current device of a kind: xpu, cuda or cpu."""

    def __init__(self, kind: str) -> None:
        """UserError when torch cannot use such a device here."""
        if kind not in (found := available_devices()):
            why = f"no {kind} device here (there is: {', '.join(found)})"
            raise UserError(f"{why}; xpubench doctor says what is missing")
        self.kind = kind
        self._module: Any = None if kind == "cpu" else torch.get_device_module(kind)

    def facts(self) -> DeviceFacts:
        """Name, driver, and memory with its free part at this moment. Driver and memory are None where torch
        does not report them. The memory of a CPU is the machine's or, where that is smaller, the limit of its
        cgroup."""
        if self._module is None:
            total, free = total_host_bytes(), free_host_bytes()
            return DeviceFacts(kind="cpu", name=cpu_name(), total_memory_bytes=total, free_memory_bytes=free)
        properties = self._module.get_device_properties(self._module.current_device())
        driver = (
            read_text(NVIDIA_DRIVER) if self.kind == "cuda" else getattr(properties, "driver_version", None)
        )
        return DeviceFacts(
            kind=self.kind,
            name=str(self._module.get_device_name()),
            driver=None if driver is None else str(driver),
            total_memory_bytes=getattr(properties, "total_memory", None) or None,
            free_memory_bytes=self._free_memory_bytes(),
        )

    def _free_memory_bytes(self) -> int | None:
        """The free memory; None where the driver does not know it, such as that of most integrated GPUs,
        whose `mem_get_info` raises (https://github.com/pytorch/pytorch/issues/159728) or is wrong."""
        try:
            free, total = self._module.mem_get_info()
        except Exception:  # The type depends on the driver and on torch's version.
            return None
        return int(free) if 0 < free <= total else None

    def reset_peaks(self) -> None:
        """Resets the peaks of memory, on the device and on the host."""
        if self._module is not None:
            self._module.reset_peak_memory_stats()
        reset_host_peak()

    def peak_bytes(self) -> int | None:
        """The most bytes that tensors held since the last reset; None on the CPU."""
        return None if self._module is None else int(self._module.max_memory_allocated())

    def available_host_bytes(self) -> int | None:
        """The memory that the whole machine has available now."""
        return available_host_bytes()

    def cpu_clock(self) -> CpuClock | None:
        """The process's use of the machine's cores so far."""
        return cpu_clock()

    def bandwidth(self, dtype: str) -> Bandwidth:
        """The bandwidth of the memory, measured once in a process, and the highest of the device so far."""
        return _bandwidth(self.kind, dtype)

    def bandwidth_again(self, dtype: str, before: Bandwidth) -> Bandwidth:
        """The earlier measurement with a new, shorter one in its `after_` fields."""
        from xpubench.measure.bandwidth import bandwidth_again

        return bandwidth_again(self, dtype, before)

    def matrix_peak(self, dtype: str) -> MatrixPeak | None:
        """The rate of matrix products in the dtype, measured once in a process, and the highest that the
        device has shown; None where the device cannot compute them."""
        return _matrix_peak(self.kind, dtype)

    def profile(self, generate: Callable[[], object]) -> tuple[bytes, str]:
        """Runs `generate` once under torch's profiler: a Chrome trace as JSON, and a table of operators."""
        from xpubench.measure.profile import profile

        return profile(generate, self.kind)


@cache
def _bandwidth(kind: str, dtype: str) -> Bandwidth:
    from xpubench.measure.bandwidth import first_bandwidth

    return first_bandwidth(TorchDevice(kind), dtype)


@cache
def _matrix_peak(kind: str, dtype: str) -> MatrixPeak | None:
    from xpubench.measure.matmul import first_peak

    return first_peak(TorchDevice(kind), dtype)


def available_devices() -> list[str]:
    """The devices of this machine that torch can use, the preferred one first."""
    modules = {device: getattr(torch, device, None) for device in ("xpu", "cuda")}
    return [device for device, module in modules.items() if module and module.is_available()] + ["cpu"]


def synchronizer(device: str) -> Callable[[], None]:
    """The function that waits until the device has done all its work; on the CPU it does nothing."""
    if device == "cpu":
        return lambda: None
    wait: Callable[[], None] = torch.get_device_module(device).synchronize
    return wait
