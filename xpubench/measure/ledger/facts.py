"""The facts about a run that a ledger and its verdict need in addition to the stack's measurements."""

import msgspec

from xpubench.catalog.architecture import Architecture
from xpubench.measure.ledger.middle import middle_mean
from xpubench.record import Record, Samples
from xpubench.runtimes.options import RuntimeDescription
from xpubench.spec import RunSpec


class RunFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The latencies of the first and of the next token in nanoseconds, each the mean of the middle half of
    the timed ones, so that a disturbed token does not count; the bytes of weights and of KV cache that a step
    must read; the bandwidth ceiling in GB/s; the floating point operations of the products with weights in
    the prompt's pass and in a step; the peak rate of matrix products in TFLOP/s; what was really loaded. None
    stands for what is not known."""

    spec: RunSpec
    runtime: RuntimeDescription | None = None
    first_ns: float | None = None
    next_ns: float | None = None
    weight_bytes: int | None = None
    kv_bytes: int | None = None
    ceiling_gb_per_s: float | None = None
    first_product_flop: int | None = None
    next_product_flop: int | None = None
    peak_tflop_per_s: float | None = None


def facts_of(record: Record, architecture: Architecture | None) -> RunFacts:
    """The facts of a finished latency run, and of its model's architecture where the planner knows it."""
    assert isinstance(record.spec, RunSpec)
    workload = record.spec.workload
    sequences, part = workload.batch_size * workload.num_beams, None
    if architecture is not None:
        part = architecture.part(record.spec.subject.tp_size)
    weights = _weight_bytes(record, 1.0 if part is None else part.step_share(sequences))
    step = record.latency.step_bytes if record.latency else None

    def product_flop(tokens: int | None) -> int | None:
        return part.product_flop(sequences=sequences, tokens=tokens) if part and tokens else None

    return RunFacts(
        spec=record.spec,
        runtime=record.runtime,
        first_ns=_mean(first_tokens(record.samples)),
        next_ns=_mean(next_tokens(record.samples)),
        weight_bytes=weights,
        kv_bytes=None if weights is None or step is None else max(step - weights, 0),
        ceiling_gb_per_s=record.bandwidth.highest_gb_per_s if record.bandwidth else None,
        first_product_flop=product_flop(record.latency.input_tokens if record.latency else None),
        next_product_flop=product_flop(1),
        peak_tflop_per_s=record.peak.highest_tflop_per_s if record.peak else None,
    )


def first_tokens(samples: Samples) -> list[int]:
    """The first token's latency in each timed generation in which tokens were stamped."""
    return [one.first_token_ns for one in samples.iterations if one.first_token_ns is not None]


def next_tokens(samples: Samples) -> list[int]:
    """The latencies of all next tokens in the timed generations in which tokens were stamped."""
    return [ns for one in samples.iterations for ns in one.next_token_ns or ()]


def _weight_bytes(record: Record, step_share: float) -> int | None:
    if record.runtime is None or not record.runtime.step_weight_bytes:
        return None
    return int(record.runtime.step_weight_bytes * step_share)


def _mean(values: list[int]) -> float | None:
    return middle_mean(values) if values else None
