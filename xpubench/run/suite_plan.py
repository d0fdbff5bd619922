"""What a suite would run: memory, roofline and time of each run, without loading anything."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from statistics import fmean, median

import msgspec

from xpubench.catalog import CatalogDevice, config_of, identify_device
from xpubench.catalog.architecture import architecture_of
from xpubench.cli.console import title_of
from xpubench.errors import UserError
from xpubench.plan import Plan, plan_of
from xpubench.record import Record, now
from xpubench.report.tables import plain_console, plain_table
from xpubench.report.text import NONE
from xpubench.results import ResultsDirectory
from xpubench.run.order import Order, Spec
from xpubench.run.suite import wanted
from xpubench.run.supervisor import records_of
from xpubench.spec import RunSpec


class Outlook(msgspec.Struct, frozen=True, kw_only=True):
    """A run that is asked for: what it needs, the least time that it can take, what it took where it is done,
    and in how many of the directories it is still to run. Seconds."""

    title: str
    plan: Plan | None
    least_s: float | None
    took_s: float | None
    pending: int


def print_plan(orders: Sequence[Order], directories: Sequence[Path]) -> None:
    """A table of the runs, with the time that the finished ones took and the least that the others can."""
    console = plain_console()
    table = plain_table(
        *("run", "weights, GB", "KV cache, GB", "peak, GB", "first token, ms", "next token, ms", "time, s"),
        "state",
    )
    runs = [_outlook(spec, directories) for order in orders for spec in order.specs]
    for run in runs:
        table.add_row(run.title, *_plan_cells(run.plan), _time_cell(run), _state(run, len(directories)))
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
    for name in dict.fromkeys(spec.subject.device for order in orders for spec in order.specs):
        device = _device(name)
        if device is None:
            console.print(f"{name}: none here, so no roofline; `xpubench plan --device` takes a data sheet")
        else:
            console.print(
                f"{name}: {device.name}, {device.bandwidth_gb_per_s:,.1f} GB/s ({device.bandwidth_source})"
            )
    console.print(_estimate(runs))


def _outlook(spec: Spec, directories: Sequence[Path]) -> Outlook:
    done = [records for path in directories if (records := _done(path, spec))]
    plan = _plan(spec)
    return Outlook(
        title=title_of(Record(id=spec.id, created=now(), spec=spec, environment={}, status="ok")),
        plan=plan,
        least_s=_least_s(spec, plan),
        took_s=_took_s(done[-1]) if done else None,
        pending=len(directories) - len(done),
    )


def _done(directory: Path, spec: Spec) -> list[Record]:
    if not directory.is_dir():
        return []
    results = ResultsDirectory(directory)
    return [] if wanted(results, spec, None) else records_of(results, spec)


def _plan(spec: Spec) -> Plan | None:
    # An IR's weights have a precision of their own, which is not known before the export.
    if not isinstance(spec, RunSpec) or spec.subject.openvino is not None:
        return None
    try:
        architecture = architecture_of(config_of(spec.subject.model))
        return plan_of(architecture, spec, _device(spec.subject.device))
    except UserError:  # unknown here, or for fewer ranks; the run itself will say so
        return None


@cache
def _device(name: str) -> CatalogDevice | None:
    """This machine's device by its data sheet, else by the bandwidth that it reaches now."""
    from xpubench.measure import device

    if name not in device.available_devices():
        return None
    reported, memory = device.device_name(name), device.total_memory_bytes(name)
    if known := identify_device(reported, memory):
        return known
    from xpubench.measure.bandwidth import measure_bandwidth

    return CatalogDevice(
        id=name,
        name=reported,
        reported=[],
        memory_bytes=memory or 0,
        bandwidth_gb_per_s=measure_bandwidth(name).ceiling_gb_per_s,
        bandwidth_source="measured just now, less where other work runs",
    )


def _least_s(spec: Spec, plan: Plan | None) -> float | None:
    """The roofline's time of all generations that a run cannot do without: one that is checked, the warm-up
    until it is steady, and the measured pairs. What loads and starts is not in it."""
    if plan is None or plan.roofline_next_token_ms is None or not isinstance(spec, RunSpec):
        return None
    protocol = spec.protocol
    generations = 1 + min(2, protocol.num_warmup) + 2 * (protocol.num_iter - protocol.num_warmup)
    return generations * (_first_ms(plan) + (plan.new_tokens - 1) * plan.roofline_next_token_ms) / 1e3


def _first_ms(plan: Plan) -> float:
    """Where no peak is known, the prompt costs at least one more pass over the weights."""
    return plan.roofline_first_token_ms or plan.roofline_next_token_ms or 0.0


def _took_s(records: Sequence[Record]) -> float | None:
    """The time of a run: its load and its generations, or its items; None where it failed."""
    seconds = [_seconds(record) for record in records]
    return sum(one for one in seconds if one is not None) if None not in seconds else None


def _seconds(record: Record) -> float | None:
    if record.accuracy is not None and record.accuracy.items_per_s:
        return float(record.runtime.get("load_s", 0)) + record.accuracy.n / record.accuracy.items_per_s
    if record.summary is None:
        return None
    samples = [*record.samples.warmup, *record.samples.iterations]
    return record.summary.load_s + sum(one.end_to_end_ns for one in samples) / 1e9


def _plan_cells(plan: Plan | None) -> list[str]:
    if plan is None:
        return [NONE] * 5
    sizes = (plan.weight_bytes, plan.kv_cache_bytes, plan.peak_bytes)
    following = plan.roofline_next_token_ms
    times = [NONE] * 2 if following is None else [f"{ms:.2f}" for ms in (_first_ms(plan), following)]
    return [f"{size / 1e9:.2f}" for size in sizes] + times


def _time_cell(run: Outlook) -> str:
    if run.took_s is not None:
        return f"{run.took_s:.0f}"
    return NONE if run.least_s is None else f"≥ {run.least_s:.1f}"


def _state(run: Outlook, rounds: int) -> str:
    if run.pending == 0:
        return "done"
    return "to run" if run.pending == rounds else f"{rounds - run.pending} of {rounds} done"


def _estimate(runs: Sequence[Outlook]) -> str:
    """One line on the time of what is to run: by what the finished runs took beside their bounds, or where
    none is done the sum of the bounds."""
    pending = [run for run in runs if run.pending]
    took = [run.took_s for run in runs if run.took_s is not None]
    ratios = [run.took_s / run.least_s for run in runs if run.took_s is not None and run.least_s]
    if not pending:
        return "time: nothing is left to run"
    if not took:
        bounds = [run.pending * run.least_s for run in pending if run.least_s is not None]
        if not bounds:
            return "time: not known before a first run is done"
        rest = len(pending) - len(bounds)
        others = f"; without a bound, and not in it: {rest}" if rest else ""
        return (
            f"time: at least {sum(bounds):.0f} s, the roofline's lower bound: starting, loading and what is "
            f"slower than the memory come on top, often several times as much{others}"
        )
    factor, usual = median(ratios) if ratios else None, fmean(took)
    seconds = sum(
        run.pending * (run.took_s or (run.least_s * factor if run.least_s and factor else usual))
        for run in pending
    )
    return f"time: about {seconds:.0f} s without starting the processes, by the {len(took)} done"
