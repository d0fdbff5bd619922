"""How the time between two marks of a trace divides among operators.

On a CPU the operators' own time is the device's. On an accelerator it is the union of the intervals in which
any of its queues works; an interval in which several kernels run belongs to them in equal parts, and to a
collective only where nothing else runs. While the device waits, the time belongs to what the host is
doing: a call of the driver, an operator that dispatches, or Python where no operator runs. Where the next
kernel was launched before the device began to wait, the host is ahead and the device is idle.
"""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from xpubench.explanation import PartName
from xpubench.measure.ledger.batched import parts_of_batched
from xpubench.measure.ledger.operators import (
    is_composed,
    is_fused,
    part_of_call,
    part_of_kernel,
    part_of_operator,
)
from xpubench.measure.ledger.trace import CALL_KINDS, Activity, ProfilerTrace

PYTHON, IDLE = "Python and the generation loop", "the device, behind its queue"
Span = tuple[float, float]


class Owner(NamedTuple):
    """What a piece of time is charged to: an operator, a kernel or a call by its name, and the part of the
    token that it belongs to."""

    name: str
    part: PartName


class Account(NamedTuple):
    """The accounts of one window: the time in ns and the number of calls of each owner, and the number of
    events that the profiler recorded within its time, each of which made that time longer."""

    times: dict[Owner, float]
    calls: dict[Owner, float]
    events: dict[Owner, float]


class Call(NamedTuple):
    """A call of the host with its place among the others: the owner of its own time, the part of the kernels
    that are launched within it (None where it is not known), and the index of the call around it."""

    owner: Owner
    kernels: PartName | None
    parent: int | None


def accounts(trace: ProfilerTrace) -> list[Account]:
    """The account of each of the trace's windows."""
    on_device = bool(trace.device)
    calls = _placed(trace.calls, on_device)
    kernels = [_kernel(one, trace, calls, launched) for one, launched in _with_launches(trace)]
    return [_account(window, trace, calls, kernels) for window in trace.windows]


class Kernel(NamedTuple):
    """An activity of the device: its interval, its owner, and when its launch returned."""

    start: float
    end: float
    owner: Owner
    launched: float | None


def _placed(activities: list[Activity], on_device: bool) -> list[Call]:
    """Each call with its parent and its part. Calls that compute within an attention operator belong to
    attention."""
    stack: list[int] = []
    parents: list[int | None] = []
    for activity in activities:
        while stack and activities[stack[-1]].end <= activity.start:
            stack.pop()
        parents.append(stack[-1] if stack else None)
        stack.append(len(parents) - 1)
    # An operator that calls another one of the same name leaves the work to it.
    delegating = {
        parent
        for activity, parent in zip(activities, parents, strict=True)
        if parent is not None
        and (
            is_composed(activities[parent].name)
            or activities[parent].name == activity.name
            # A compiled graph that contains named kernels only wraps them.
            or is_fused(activity.name)
        )
    }
    batched = parts_of_batched(
        (index, one.name)
        for index, one in enumerate(activities)
        if one.kind not in CALL_KINDS and index not in delegating
    )
    placed: list[Call] = []
    for index, (activity, parent) in enumerate(zip(activities, parents, strict=True)):
        around = None if parent is None else placed[parent].kernels
        own = batched.get(index) or part_of_operator(activity.name)
        placed.append(_call(activity, own, parent, around, index in delegating, on_device))
    return placed


def _call(
    activity: Activity,
    own: PartName | None,
    parent: int | None,
    around: PartName | None,
    delegates: bool,
    on_device: bool,
) -> Call:
    if activity.kind in CALL_KINDS:
        return Call(Owner(activity.name, part_of_call(activity.name)), around, parent)
    if own == "host":
        return Call(Owner(activity.name, "host"), around, parent)
    kernels = around if around in ("attention", "collectives") else own or around
    if on_device or delegates:
        # Where an accelerator computes, the host's own time in an operator is dispatch.
        part: PartName = "collectives" if own == "collectives" and not on_device else "host"
    else:
        part = kernels if own is not None and kernels is not None else "unknown_kernels"
    return Call(Owner(activity.name, part), kernels, parent)


def _with_launches(trace: ProfilerTrace) -> Iterator[tuple[Activity, int | None]]:
    """Each activity of the device with the index of the call that launched it."""
    launches = {
        one.correlation: index
        for index, one in enumerate(trace.calls)
        if one.kind in CALL_KINDS and one.correlation is not None
    }
    operators = {
        one.external: index
        for index, one in enumerate(trace.calls)
        if one.kind not in CALL_KINDS and one.external is not None
    }
    for activity in trace.device:
        yield activity, launches.get(activity.correlation, operators.get(activity.external))


def _kernel(activity: Activity, trace: ProfilerTrace, calls: list[Call], launched: int | None) -> Kernel:
    own, around = part_of_kernel(activity.name), None if launched is None else calls[launched].kernels
    part = own if own == "collectives" else around or own or "unknown_kernels"
    end = None if launched is None else trace.calls[launched].end
    return Kernel(activity.start, activity.end, Owner(activity.name, part), end)


def _account(window: Span, trace: ProfilerTrace, calls: list[Call], kernels: list[Kernel]) -> Account:
    account = Account(defaultdict(float), defaultdict(float), defaultdict(float))
    within = [one for one in kernels if one.start < window[1] and one.end > window[0]]
    waiting = list(_device_time(window, within, account))
    first = bisect_left(trace.calls, window[0], key=lambda one: one.start)
    last = bisect_left(trace.calls, window[1], key=lambda one: one.start)
    segments = list(_host_segments(window, trace.calls[first:last], first, calls))
    _host_time(segments, waiting, account)
    starts = [gap[0] for gap in waiting]
    for index in range(first, last):
        start, parent = trace.calls[index].start, calls[index].parent
        owner = Owner(PYTHON, "host") if parent is None else calls[parent].owner
        account.calls[calls[index].owner] += 1
        place = bisect_right(starts, start) - 1
        # Recording an event while the device works does not make the token longer.
        if place >= 0 and start < waiting[place][1]:
            account.events[owner] += 1
    return account


def _device_time(window: Span, kernels: list[Kernel], account: Account) -> Iterator[Span]:
    """Charges the device's time in the window, and gives the intervals in which it waits for the host."""
    bounds = sorted({*window, *(min(max(at, window[0]), window[1]) for one in kernels for at in one[:2])})
    order = sorted(range(len(kernels)), key=lambda index: kernels[index].start)
    active: list[int] = []
    waits_from: float | None = None
    for low, high in pairwise(bounds):
        while order and kernels[order[0]].start <= low:
            active.append(order.pop(0))
        active = [index for index in active if kernels[index].end > low]
        if active:
            if waits_from is not None:
                yield from _wait((waits_from, low), kernels[active[0]], account)
                waits_from = None
            _share(high - low, [kernels[index].owner for index in active], account)
        elif waits_from is None:
            waits_from = low
    for kernel in kernels:
        account.calls[kernel.owner] += 1
    if waits_from is not None:
        yield waits_from, window[1]


def _wait(gap: Span, following: Kernel, account: Account) -> Iterator[Span]:
    """The part of a gap before a kernel in which the kernel was not launched yet; the rest of the gap is idle
    time."""
    launched = gap[1] if following.launched is None else min(max(following.launched, gap[0]), gap[1])
    if launched < gap[1]:
        account.times[Owner(IDLE, "idle")] += gap[1] - launched
    if launched > gap[0]:
        yield gap[0], launched


def _share(time: float, owners: list[Owner], account: Account) -> None:
    counted = [owner for owner in owners if owner.part != "collectives"] or owners
    for owner in counted:
        account.times[owner] += time / len(counted)


def _host_segments(
    window: Span, activities: list[Activity], first: int, calls: list[Call]
) -> Iterator[tuple[float, float, Owner]]:
    """The window, cut wherever the innermost call of the host changes, with the owner of that call."""
    python, at = Owner(PYTHON, "host"), window[0]
    stack: list[tuple[float, Owner]] = []
    for offset, activity in enumerate(activities):
        while stack and stack[-1][0] <= activity.start:
            end, owner = stack.pop()
            if end > at:
                yield at, end, owner
                at = end
        if activity.start > at:
            yield at, activity.start, stack[-1][1] if stack else python
            at = activity.start
        end = min(activity.end, window[1], stack[-1][0] if stack else window[1])
        stack.append((end, calls[first + offset].owner))
    while stack:
        end, owner = stack.pop()
        if end > at:
            yield at, end, owner
            at = end
    if window[1] > at:
        yield at, window[1], python


def _host_time(segments: list[tuple[float, float, Owner]], waiting: list[Span], account: Account) -> None:
    """Charges the segments' time within the intervals; both are in the order of their starts."""
    place = 0
    for start, end, owner in segments:
        while place < len(waiting) and waiting[place][1] <= start:
            place += 1
        index = place
        while index < len(waiting) and waiting[index][0] < end:
            account.times[owner] += min(end, waiting[index][1]) - max(start, waiting[index][0])
            index += 1
