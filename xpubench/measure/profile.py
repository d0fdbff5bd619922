"""The operators of one generation: a Chrome trace and a table, from torch's profiler."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from torch.profiler import ProfilerActivity
from torch.profiler import profile as torch_profile

ROWS = 40


def profile(generate: Callable[[], object], device: str) -> tuple[bytes, str]:
    """Runs `generate` once under the profiler; a Chrome trace as JSON, and the operators by own time."""
    activities = [ProfilerActivity.CPU]
    if device != "cpu":
        activities.append(getattr(ProfilerActivity, device.upper()))
    with torch_profile(activities=activities, record_shapes=True) as profiler:
        generate()
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "trace.json"
        profiler.export_chrome_trace(str(path))
        trace = path.read_bytes()
    table = profiler.key_averages().table(sort_by=f"self_{device}_time_total", row_limit=ROWS)
    return trace, table
