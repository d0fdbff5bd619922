"""The devices that llama.cpp finds, and the device of a run."""

import ctypes
from functools import cache
from typing import Any, NamedTuple

from xpubench.environment import DeviceFacts
from xpubench.errors import UserError
from xpubench.measure.device import TorchDevice
from xpubench.measure.host import reset_host_peak
from xpubench.runtimes.base import Device
from xpubench.runtimes.llama_cpp.library import library
from xpubench.runtimes.llama_cpp.options import GgmlDevice

# The kinds of devices in the order of ggml's enumeration.
KINDS = ("cpu", "gpu", "integrated gpu", "accelerator")
GPUS = ("gpu", "integrated gpu")


class BackendDevice(NamedTuple):
    """A device of ggml: a pointer to it, and its own description."""

    handle: int
    name: str
    description: str
    kind: str

    @property
    def is_gpu(self) -> bool:
        return self.kind in GPUS

    def memory_bytes(self) -> tuple[int | None, int | None]:
        """The free memory now and the whole memory in bytes; None where the backend reports 0."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        _ggml("memory", None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)(
            self.handle, ctypes.byref(free), ctypes.byref(total)
        )
        return free.value or None, total.value or None

    def facts(self) -> GgmlDevice:
        """The facts that a record holds about it."""
        return GgmlDevice(
            name=self.name,
            description=self.description,
            kind=self.kind,
            total_memory_bytes=self.memory_bytes()[1],
        )


@cache
def backend_devices() -> list[BackendDevice]:
    """All devices of this build. Raises the same UserError as `library`."""
    handles = map(_ggml("get", ctypes.c_void_p, ctypes.c_size_t), range(_ggml("count", ctypes.c_size_t)()))
    name, description = (_ggml(one, ctypes.c_char_p, ctypes.c_void_p) for one in ("name", "description"))
    kind = _ggml("type", ctypes.c_int, ctypes.c_void_p)
    return [
        BackendDevice(
            handle=one,
            name=name(one).decode(),
            description=description(one).decode(),
            kind=dict(enumerate(KINDS)).get(kind(one), "unknown"),
        )
        for one in handles
    ]


def gpu_of(kind: str) -> BackendDevice | None:
    """The device that gets the layers of a run on a kind of device (torch's name): the first GPU, or None for
    the CPU. UserError where this build finds no GPU."""
    if kind == "cpu":
        return None
    for one in backend_devices():
        if one.is_gpu:
            return one
    found = ", ".join(one.name for one in backend_devices())
    raise UserError(
        f"this build of llama.cpp finds no GPU (it finds: {found}); build it for one (docs/llama-cpp.md), or "
        "give --device cpu"
    )


def device_of(kind: str) -> Device:
    """The device of a run. UserError where llama.cpp finds no such device, or torch, which measures the
    bandwidth of its memory, finds none."""
    gpu = gpu_of(kind)
    return TorchDevice(kind) if gpu is None else _Gpu(kind, gpu)


class _Gpu(TorchDevice):
    """A GPU whose bandwidth torch measures, and whose other facts come from ggml. The memory that llama.cpp
    uses on it is not known."""

    def __init__(self, kind: str, gpu: BackendDevice) -> None:
        super().__init__(kind)
        self._gpu = gpu

    def facts(self) -> DeviceFacts:
        free, total = self._gpu.memory_bytes()
        return DeviceFacts(
            kind=self.kind,
            name=self._gpu.description,
            driver=super().facts().driver,
            total_memory_bytes=total,
            free_memory_bytes=free,
        )

    def reset_peaks(self) -> None:
        reset_host_peak()

    def peak_bytes(self) -> int | None:
        return None


def _ggml(name: str, result: Any, *arguments: Any) -> Any:
    """The function `ggml_backend_dev_NAME`, which llama-cpp-python does not declare."""
    function = getattr(library().llama_cpp._lib, f"ggml_backend_dev_{name}")
    function.restype, function.argtypes = result, list(arguments)
    return function
