"""What a Chrome trace of torch's profiler (kineto) says: the host's calls, the device's activities, marks.

The format is the one of `torch.profiler.profile.export_chrome_trace`: complete events (`ph` X) with `ts` and
`dur` in microseconds. Categories are `cpu_op`, `user_annotation`, `cuda_runtime`, `cuda_driver`,
`xpu_runtime`, `xpu_driver` on the host and `kernel`, `gpu_memcpy`, `gpu_memset` on the devices; `overhead`
and `python_function` are the profiler's own and count nowhere.
"""

from collections.abc import Iterable
from itertools import pairwise
from typing import Any, NamedTuple

import msgspec

from xpubench.errors import RunFailure

STEP, BEGIN = "xpubench::step", "xpubench::begin"
OPERATOR_KINDS = ("cpu_op", "user_annotation")
CALL_KINDS = ("cuda_runtime", "cuda_driver", "xpu_runtime", "xpu_driver")
DEVICE_KINDS = ("kernel", "gpu_memcpy", "gpu_memset")


class Activity(NamedTuple):
    """A host's call or a device's activity. Times are in nanoseconds of the trace's clock; `lane` is the
    thread of a call, and the device and queue of an activity. A kernel has the `correlation` of the call that
    launched it, and both may have the `external` id of the operator around that call."""

    name: str
    kind: str
    start: float
    end: float
    lane: tuple[Any, ...]
    correlation: Any = None
    external: Any = None


class ProfilerTrace(NamedTuple):
    """The host's calls and the device's activities, both ordered by their starts, and the intervals of the
    marks: `begin` for the start of the generation, and one mark for each step, which ends when the step's
    token is known."""

    calls: list[Activity]
    device: list[Activity]
    begin: tuple[float, float]
    steps: list[tuple[float, float]]

    @property
    def windows(self) -> list[tuple[float, float]]:
        """The first token's time, and those of the next ones, without the marks themselves."""
        marks = [self.begin, *self.steps]
        return [(one[1], following[0]) for one, following in pairwise(marks)]


class _Arguments(msgspec.Struct):
    device: Any = None
    stream: Any = None
    queue: Any = msgspec.field(name="sycl queue", default=None)
    correlation: Any = None
    external: Any = msgspec.field(name="External id", default=None)


class _Event(msgspec.Struct):
    name: str = ""
    ph: str = ""
    cat: str = ""
    ts: float = 0.0
    dur: float = 0.0
    pid: Any = None
    tid: Any = None
    args: _Arguments = msgspec.field(default_factory=_Arguments)


class _File(msgspec.Struct):
    events: list[_Event] = msgspec.field(name="traceEvents")


def read_trace(text: bytes) -> ProfilerTrace:
    """The trace in a Chrome trace's JSON. RunFailure `unsupported` where it lacks the marks of the steps."""
    events = [one for one in msgspec.json.decode(text, type=_File).events if one.ph == "X"]
    # Times count from the first event, because sums of large floats would lose the nanoseconds.
    zero = min((one.ts for one in events), default=0.0)
    marks = sorted((one for one in events if one.name in (STEP, BEGIN)), key=lambda one: one.ts)
    begins = [one for one in marks if one.name == BEGIN]
    steps = [one for one in marks if one.name == STEP and one.cat != "gpu_user_annotation"]
    if not begins or not steps:
        raise RunFailure("unsupported", "the profiler's trace lacks the marks of the steps")
    thread = (begins[0].pid, begins[0].tid)
    return ProfilerTrace(
        calls=_sorted(
            _activity(one, zero, (one.pid, one.tid))
            for one in events
            if one.cat in (*OPERATOR_KINDS, *CALL_KINDS) and (one.pid, one.tid) == thread
        ),
        device=_sorted(
            _activity(one, zero, (one.args.device, one.args.stream, one.args.queue))
            for one in events
            if one.cat in DEVICE_KINDS
        ),
        begin=_span(begins[0], zero),
        steps=[_span(one, zero) for one in steps],
    )


def _activity(event: _Event, zero: float, lane: tuple[Any, ...]) -> Activity:
    start, end = _span(event, zero)
    return Activity(
        name=event.name,
        kind=event.cat,
        start=start,
        end=end,
        lane=lane,
        correlation=event.args.correlation,
        external=event.args.external,
    )


def _span(event: _Event, zero: float) -> tuple[float, float]:
    start = (event.ts - zero) * 1e3
    return start, start + event.dur * 1e3


def _sorted(activities: Iterable[Activity]) -> list[Activity]:
    return sorted(activities, key=lambda one: (one.start, -one.end))
