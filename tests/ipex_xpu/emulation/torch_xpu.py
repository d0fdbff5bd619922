"""What `torch.xpu` answers on the emulated device."""

import contextlib
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch

from tests.ipex_xpu.emulation import profiles
from tests.ipex_xpu.emulation.device import MARKS, QUEUE
from tests.ipex_xpu.emulation.profiles import Profile

# The words of torch where a driver does not tell the free memory.
NO_FREE_MEMORY = "The device ({}) doesn't support querying the available free memory."


class Event:
    """An event; the emulated device has done all its work at once, so that every event is in the past."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.recorded_s = 0.0

    def record(self, *_: Any) -> None:
        self.recorded_s = time.perf_counter()

    def synchronize(self) -> None:
        """Returns at once."""

    def wait(self, *_: Any) -> None:
        """Returns at once."""

    def query(self) -> bool:
        return True

    def elapsed_time(self, end: "Event") -> float:
        """Milliseconds from this event to `end`."""
        return (end.recorded_s - self.recorded_s) * 1e3


class Stream:
    """A stream; all work is done in the order of the calls."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.device = torch.device("xpu", 0)

    def synchronize(self) -> None:
        """Returns at once."""

    def wait_stream(self, *_: Any) -> None:
        """Returns at once."""


def install(profile: Profile) -> None:
    """Replaces the functions of `torch.xpu` that ask a driver. `torch.xpu._is_compiled` stays False, since
    dynamo would otherwise import parts of torch that this build has not."""
    current = [0]
    memory_bytes = profiles.memory_bytes()
    properties = SimpleNamespace(
        name=profile.device_name,
        platform_name="Emulated Level Zero",
        vendor="Intel(R) Corporation",
        driver_version="0.0.0+emulated",
        version="0.0.0",
        total_memory=memory_bytes,
        max_compute_units=profile.compute_units,
        gpu_eu_count=profile.compute_units,
        gpu_subslice_count=profile.compute_units // 8,
        max_work_group_size=1024,
        max_num_sub_groups=64,
        sub_group_sizes=[16, 32],
        has_fp16=True,
        has_fp64=profile.name in ("pvc", "bmg"),
        has_atomic64=True,
        type="gpu",
        architecture=0,
        device_id=0,
    )

    def set_device(device: Any) -> None:
        index = device if isinstance(device, int) else torch.device(device).index or 0
        if not 0 <= index < profiles.device_count():
            raise RuntimeError(
                f"The device index is out of range. It must be in [0, {profiles.device_count()})"
            )
        current[0] = index

    def mem_get_info(device: Any = None) -> tuple[int, int]:
        if not profile.knows_free_memory:
            raise RuntimeError(NO_FREE_MEMORY.format(profile.device_name))
        return memory_bytes - MARKS.allocated_bytes(), memory_bytes

    def memory_stats(device: Any = None) -> dict[str, int]:
        return {
            "allocated_bytes.all.current": MARKS.allocated_bytes(),
            "allocated_bytes.all.peak": MARKS.peak_bytes(),
        }

    def nothing(*_: Any, **__: Any) -> None:
        return None

    def context(*_: Any) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    answers: dict[str, Any] = {
        "is_available": lambda: True,
        "device_count": profiles.device_count,
        "is_initialized": lambda: True,
        "current_device": lambda: current[0],
        "set_device": set_device,
        "synchronize": lambda device=None: QUEUE.wait(),
        "empty_cache": nothing,
        "memory_allocated": lambda device=None: MARKS.allocated_bytes(),
        "memory_reserved": lambda device=None: MARKS.allocated_bytes(),
        "max_memory_allocated": lambda device=None: MARKS.peak_bytes(),
        "max_memory_reserved": lambda device=None: MARKS.peak_bytes(),
        "reset_peak_memory_stats": lambda device=None: MARKS.reset_peak(),
        "reset_accumulated_memory_stats": nothing,
        "memory_stats": memory_stats,
        "mem_get_info": mem_get_info,
        "get_device_name": lambda device=None: profile.device_name,
        "get_device_properties": lambda device=None: properties,
        "get_device_capability": lambda device=None: dict(vars(properties)),
        "is_bf16_supported": lambda including_emulation=True: True,
        "manual_seed": lambda seed: None,
        "manual_seed_all": lambda seed: None,
        "initial_seed": lambda: 0,
        "seed": nothing,
        "seed_all": nothing,
        "get_rng_state": lambda device="xpu": torch.zeros(16, dtype=torch.uint8),
        "set_rng_state": nothing,
        "_lazy_init": nothing,
        "_lazy_call": lambda function, **_: function(),
        "_is_in_bad_fork": lambda: False,
        "init": nothing,
        "current_stream": Stream,
        "Event": Event,
        "Stream": Stream,
        "device": context,
        "stream": context,
    }
    for name, answer in answers.items():
        answer = answer if isinstance(answer, type) and name != "current_stream" else _own(answer)
        for module in (torch.xpu, torch.xpu.memory, torch.xpu.random):
            if module is torch.xpu or hasattr(module, name):
                setattr(module, name, answer)
    torch.accelerator.current_accelerator = lambda check_available=False: torch.device("xpu")
    torch.accelerator.is_available = lambda: True
    torch.accelerator.device_count = _own(profiles.device_count)
    torch.accelerator.current_device_index = lambda: current[0]
    torch.accelerator.synchronize = lambda device=None: QUEUE.wait()
    _profile_the_host_alone()


def _profile_the_host_alone() -> None:
    """Has torch's profiler leave out the activities of xpu, which this build cannot trace."""
    profiler = torch.profiler.profiler._KinetoProfile
    make = profiler.__init__

    def without_xpu(self: Any, *, activities: Any = None, **named: Any) -> None:
        kept = [one for one in activities or () if one != torch.profiler.ProfilerActivity.XPU]
        make(self, activities=kept or None, **named)

    profiler.__init__ = without_xpu


def _own(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of its own for each name, since dynamo refuses one function under two names."""
    return lambda *arguments, **named: function(*arguments, **named)
