"""The operators of one generation, from torch's profiler."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch.profiler import ProfilerActivity
from torch.profiler import profile as torch_profile

ROWS = 40
# The names of the collectives of the process groups and of DeepSpeed's shared-memory all-reduce.
COLLECTIVES = ("gloo:", "nccl:", "xccl:", "deepspeed::inference_all_reduce")


def profile(generate: Callable[[], object], device: str) -> tuple[bytes, str]:
    """Runs `generate` once under the profiler: a Chrome trace as JSON, and a table of operators by own
    time."""
    with profiler(device, record_shapes=True) as recorded:
        generate()
    table = recorded.key_averages().table(sort_by=f"self_{device}_time_total", row_limit=ROWS)
    return chrome_trace(recorded), table


def chrome_trace(recorded: torch_profile) -> bytes:
    """The Chrome trace of a profiler that has ended, as JSON."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "trace.json"
        recorded.export_chrome_trace(str(path))
        return path.read_bytes()


def time_in_collectives(generate: Callable[[], object], device: str) -> tuple[int, int]:
    """Runs `generate` once under the profiler: how many collectives it called, and the nanoseconds from each
    one's start to its end on this rank, waiting for the others included."""
    with profiler(device) as recorded:
        generate()
    events = [event for event in recorded.key_averages() if event.key.startswith(COLLECTIVES)]
    times_us = [max(event.cpu_time_total, getattr(event, "device_time_total", 0)) for event in events]
    return sum(event.count for event in events), round(sum(times_us) * 1e3)


def profiler(device: str, **named: Any) -> torch_profile:
    """Torch's profiler of the host and the device, with these other arguments."""
    # Otherwise Kineto writes about its stages to standard error, between the harness's own lines.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    activities = [getattr(ProfilerActivity, kind.upper()) for kind in dict.fromkeys(("cpu", device))]
    return torch_profile(activities=activities, **named)
