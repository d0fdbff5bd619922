"""What a finished run's next token latency was expected to be."""

from xpubench.expectation import beside_measured, expected, step_work
from xpubench.explanation import DeviceCard, Expectation
from xpubench.record import LatencySummary
from xpubench.run.session import Session
from xpubench.runtimes.options import RuntimeDescription
from xpubench.spec import RunSpec


def expectation_of(
    session: Session[RunSpec],
    card: DeviceCard,
    spec: RunSpec,
    description: RuntimeDescription,
    summary: LatencySummary,
) -> Expectation | None:
    """What the next token latency was expected to be, beside what it was; None for an unknown architecture,
    and where a step gives several tokens or none after the first."""
    architecture, ceiling = session.facts.architecture, summary.bandwidth_measured_gb_per_s
    if architecture is None or not ceiling or summary.next_token_ms is None or summary.tokens_per_step:
        return None
    work = step_work(
        architecture.part(spec.subject.tp_size),
        spec.workload,
        summary.input_tokens,
        description.step_weight_bytes,
        session.generator.kv_value_bytes(architecture.head_dim),
        spec.subject.tp_size,
    )
    found = expected(
        work,
        card,
        ceiling_gb_per_s=ceiling,
        lowest_gb_per_s=summary.bandwidth_lowest_gb_per_s,
        peak_tflop_per_s=summary.peak_tflop_per_s,
    )
    return beside_measured(found, summary.next_token_ms.median)
