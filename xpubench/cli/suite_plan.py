"""The plan of a suite as a table, with the time that it takes."""

from collections.abc import Sequence
from pathlib import Path

from xpubench.cli.tables import print_table
from xpubench.compare.title import title_of_spec
from xpubench.report.text import NONE, gb, number
from xpubench.run.order import Order, Spec
from xpubench.run.suite_plan import (
    USUAL_SHARES,
    Devices,
    Outlook,
    catalog_device_of,
    defects_met,
    first_token_ms,
    outlooks,
    time_left,
)

COLUMNS = (
    *("run", "weights, GB", "KV cache, GB", "peak, GB", "first token, ms", "next token, ms", "time, s"),
    "state",
)
MINUTE_S, HOUR_S = 60.0, 3600.0


def print_plan(orders: Sequence[Order], directories: Sequence[Path]) -> None:
    """A table of the runs, with the time that the finished ones took and the least that the others can."""
    specs = [spec for order in orders for spec in order.specs]
    devices = _devices(specs)
    runs = outlooks(specs, directories, devices)
    print_table(COLUMNS, (_cells(run, len(directories)) for run in runs))
    pending, first, last = sum(run.pending for run in runs), directories[0], directories[-1]
    print(
        f"{len(runs)} runs in {len(orders)} processes, {len(directories)} round(s); {pending} to run in "
        + (f"{first}" if first == last else f"{first} to {last}")
    )
    print(
        "Memory is an estimate. Token times are the roofline's, the least at the bandwidth below; where no "
        "peak is known, the first token's is that of one pass over the weights."
    )
    for (name, dtype), device in devices.items():
        if device is None:
            print(f"{name}: none here, so no roofline; `xpubench plan --device` takes a data sheet")
        else:
            speed = f"{device.bandwidth_gb_per_s:,.1f} GB/s ({device.bandwidth_source})"
            peak = device.peak_tflop_per_s
            products = "" if peak is None else f", {peak:,.3g} TFLOP/s ({device.peak_source})"
            print(f"{name} in {dtype}: {device.name}, {speed}{products}")
    for one in dict.fromkeys(defect for spec in specs for defect in defects_met(spec)):
        print(f"known defect, {one.where}: {one.text} ({one.source})")
    print(_time_line(runs))


def print_time(orders: Sequence[Order], directories: Sequence[Path]) -> None:
    """Prints the plan's line on the time alone."""
    specs = [spec for order in orders for spec in order.specs]
    print(_time_line(outlooks(specs, directories, _devices(specs))), flush=True)


def _devices(specs: Sequence[Spec]) -> Devices:
    """The devices of the specs, each looked at once for a dtype."""
    subjects = {(spec.subject.device, spec.subject.dtype): spec.subject for spec in reversed(specs)}
    return {key: catalog_device_of(subject) for key, subject in subjects.items()}


def _cells(run: Outlook, rounds: int) -> list[str]:
    plan = run.plan
    figures = [NONE] * 5
    if plan is not None:
        following = plan.roofline_next_token_ms
        first = None if following is None else first_token_ms(plan)
        sizes = map(gb, (plan.weight_bytes, plan.kv_cache_bytes, plan.peak_bytes))
        figures = [*sizes, number(first), number(following)]
    if run.took_s is not None:
        time = f"{run.took_s:.0f}"
    else:
        time = NONE if run.least_s is None else f"≥ {run.least_s:.1f}"
    done = f"{rounds - run.pending} of {rounds} done"
    state = {0: "done", rounds: "to run"}.get(run.pending, done)
    return [title_of_spec(run.spec), *figures, time, state]


def _time_line(runs: Sequence[Outlook]) -> str:
    if not any(run.pending for run in runs):
        return "time: nothing is left to run"
    left = time_left(runs)
    if left.seconds is None:
        return "time: not known before a first run is done"
    if left.done:
        return f"time: about {_span(left.seconds)} without starting the processes, by the {left.done} done"
    others = f"; not in it: {left.unbounded} runs without a bound" if left.unbounded else ""
    slow, fast = (_span(left.seconds / share) for share in USUAL_SHARES)
    shares = f"{USUAL_SHARES[0]:.0%} to {USUAL_SHARES[1]:.0%}"
    return (
        f"time: about {fast} to {slow}, the roofline's lower bound of {_span(left.seconds)} at the {shares} "
        f"of it that published runs reach; downloads, starting and loading come on top{others}"
    )


def _span(seconds: float) -> str:
    if seconds < 2 * MINUTE_S:
        return f"{seconds:.0f} s"
    return f"{seconds / MINUTE_S:.0f} min" if seconds < 2 * HOUR_S else f"{seconds / HOUR_S:.1f} h"
