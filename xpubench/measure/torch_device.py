"""The device of a run, as torch sees it."""

from collections.abc import Callable
from functools import cache

from xpubench.environment import DeviceFacts
from xpubench.measure.bandwidth import measure_bandwidth
from xpubench.measure.device import (
    check_device,
    device_driver,
    device_name,
    free_memory_bytes,
    peak_device_bytes,
    reset_peaks,
    total_memory_bytes,
)
from xpubench.record import Bandwidth


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
        """Forgets the peaks of memory so far, the host's too."""
        reset_peaks(self.kind)

    def peak_bytes(self) -> int | None:
        """The most bytes that tensors held since the last reset; None on the CPU."""
        return peak_device_bytes(self.kind)

    def bandwidth(self, dtype: str) -> Bandwidth:
        """The bandwidth of the memory, measured once a process."""
        return _bandwidth(self.kind, dtype)

    def profile(self, generate: Callable[[], object]) -> tuple[bytes, str]:
        """One call of `generate` under torch's profiler: a Chrome trace as JSON, and a table of operators."""
        from xpubench.measure.profile import profile

        return profile(generate, self.kind)


_bandwidth = cache(measure_bandwidth)
