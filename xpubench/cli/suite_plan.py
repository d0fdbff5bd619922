"""The plan of a suite as a table, with the time that it takes."""

from collections.abc import Sequence
from pathlib import Path

from xpubench.cli.tables import plain_console, plain_table
from xpubench.compare.title import title_of_spec
from xpubench.plan import Plan
from xpubench.report.text import NONE, gb, number
from xpubench.run.order import Order
from xpubench.run.suite_plan import Outlook, device_of, first_token_ms, outlooks, time_left


def print_plan(orders: Sequence[Order], directories: Sequence[Path]) -> None:
    """A table of the runs, with the time that the finished ones took and the least that the others can."""
    console = plain_console()
    table = plain_table(
        *("run", "weights, GB", "KV cache, GB", "peak, GB", "first token, ms", "next token, ms", "time, s"),
        "state",
    )
    specs = [spec for order in orders for spec in order.specs]
    devices = {name: device_of(name) for name in dict.fromkeys(spec.subject.device for spec in specs)}
    runs = outlooks(specs, directories, devices)
    for run in runs:
        table.add_row(
            title_of_spec(run.spec), *_plan_cells(run.plan), _time_cell(run), _state(run, len(directories))
        )
    console.print(table)
    pending = sum(run.pending for run in runs)
    console.print(
        f"{len(runs)} runs in {len(orders)} processes, {len(directories)} round(s); {pending} to run in "
        + (str(directories[0]) if len(directories) == 1 else f"{directories[0]} to {directories[-1]}")
    )
    console.print(
        "Memory is an estimate. Tokens are the roofline's, the least at the bandwidth below; where no peak "
        "is known, the first one's is a pass over the weights."
    )
    for name, device in devices.items():
        if device is None:
            console.print(f"{name}: none here, so no roofline; `xpubench plan --device` takes a data sheet")
        else:
            console.print(
                f"{name}: {device.name}, {device.bandwidth_gb_per_s:,.1f} GB/s ({device.bandwidth_source})"
            )
    console.print(_time_line(runs))


def _plan_cells(plan: Plan | None) -> list[str]:
    if plan is None:
        return [NONE] * 5
    sizes = (plan.weight_bytes, plan.kv_cache_bytes, plan.peak_bytes)
    following = plan.roofline_next_token_ms
    times = [None, None] if following is None else [first_token_ms(plan), following]
    return [*map(gb, sizes), *map(number, times)]


def _time_cell(run: Outlook) -> str:
    if run.took_s is not None:
        return f"{run.took_s:.0f}"
    return NONE if run.least_s is None else f"≥ {run.least_s:.1f}"


def _state(run: Outlook, rounds: int) -> str:
    if run.pending == 0:
        return "done"
    return "to run" if run.pending == rounds else f"{rounds - run.pending} of {rounds} done"


def _time_line(runs: Sequence[Outlook]) -> str:
    if not any(run.pending for run in runs):
        return "time: nothing is left to run"
    left = time_left(runs)
    if left.seconds is None:
        return "time: not known before a first run is done"
    if left.done:
        return f"time: about {left.seconds:.0f} s without starting the processes, by the {left.done} done"
    others = f"; without a bound, and not in it: {left.unbounded}" if left.unbounded else ""
    return (
        f"time: at least {left.seconds:.0f} s, the roofline's lower bound: starting, loading and what is "
        f"slower than the memory come on top, often several times as much{others}"
    )
