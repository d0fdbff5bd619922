"""Verdicts on traces of xpu and cuda that are made by hand: nothing here ran on such a device."""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.goal import Goal
from tests.traces import Kind, TraceBuilder
from xpubench.measure.ledger.accounts import accounts
from xpubench.measure.ledger.facts import RunFacts
from xpubench.measure.ledger.ledger import ledger_of
from xpubench.measure.ledger.profiled import measured_tokens
from xpubench.measure.ledger.trace import read_trace
from xpubench.measure.ledger.verdict import verdict_of
from xpubench.runtimes.registry import DEFAULT, options_class
from xpubench.spec import Protocol, RunSpec, Subject, Workload

LAYERS, STEP = 8, 10_000.0
KINDS: tuple[Kind, ...] = ("xpu", "cuda")


def synchronized(trace: TraceBuilder, at: float, number: int, length: float) -> None:
    """The host waits for the device at each layer, and then dispatches the next one."""
    trace.operator("aten::linear", at, at + 0.6 * length)
    trace.call("launch", at + 0.5 * length, at + 0.55 * length, number)
    trace.kernel("gemm", at + 0.55 * length, at + 0.8 * length, number)
    trace.call("synchronize", at + 0.61 * length, at + 0.82 * length)


def summed(trace: TraceBuilder, at: float, number: int, length: float) -> None:
    """An all-reduce takes longer than the layer that it follows."""
    trace.operator("aten::linear", at, at + 0.05 * length)
    trace.call("launch", at + 0.01 * length, at + 0.02 * length, number)
    trace.kernel("gemm", at + 0.02 * length, at + 0.4 * length, number)
    trace.call("launch", at + 0.03 * length, at + 0.04 * length, number + 1000)
    trace.kernel("all_reduce", at + 0.4 * length, at + 0.98 * length, number + 1000)


def launched(trace: TraceBuilder, at: float, number: int, length: float) -> None:
    """Short kernels, each behind a slow call of the driver."""
    for index in range(4):
        begin, each = at + index * length / 4, length / 4
        trace.call("launch", begin, begin + 0.7 * each, number + 1000 * index)
        trace.kernel("elementwise", begin + 0.7 * each, begin + each, number + 1000 * index)


def reading(trace: TraceBuilder, at: float, number: int, length: float) -> None:
    """The device is busy with products, and the host far ahead."""
    trace.operator("aten::linear", at, at + 0.05 * length)
    trace.call("launch", at + 0.01 * length, at + 0.02 * length, number)
    trace.kernel("gemm", at + 0.02 * length, at + length, number)


PLANTED: dict[str, tuple[str, Callable[[TraceBuilder, float, int, float], None]]] = {
    "a synchronization at each layer": ("host", synchronized),
    "a slow all-reduce": ("communication", summed),
    "slow launches": ("launches", launched),
    "a clean run": ("bandwidth", reading),
}


def run(arguments: argparse.Namespace, directory: Path) -> Iterator[Goal]:
    """Whether each has its verdict on both kinds of devices."""
    for kind in KINDS:
        for name, (cause, layer) in PLANTED.items():
            trace = TraceBuilder(kind)
            trace.mark("begin", 0)
            for step in range(1, 5):
                trace.mark("step", step * STEP)
                for index in range(LAYERS if step < 4 else 0):
                    length = STEP / LAYERS
                    layer(trace, step * STEP + index * length, 100 * step + index, length)
            found, said = _verdict(kind, trace.text())
            yield Goal(f"wrong verdicts, {name}, {kind} trace: {cause}", found != cause, 0, "", said)


def _verdict(kind: Kind, trace: bytes) -> tuple[str, str]:
    _, token = measured_tokens([accounts(read_trace(trace))], 0.0)
    assert token is not None
    assert token.profiled_ns is not None
    subject = Subject(model="m", device=kind, dtype="float16", options=options_class(DEFAULT)())
    spec = RunSpec(subject=subject, workload=Workload(input_tokens=8, new_tokens=4), protocol=Protocol())
    # The weights are as many bytes as the ceiling of 100 GB/s reads in 90% of the step.
    facts = RunFacts(
        spec=spec, next_ns=token.profiled_ns, weight_bytes=int(0.9 * STEP * 1e3 * 100), ceiling_gb_per_s=100.0
    )
    ledger = ledger_of("next", token, facts, None)
    assert ledger is not None
    verdict = verdict_of(ledger, facts)
    return verdict.cause, verdict.message
