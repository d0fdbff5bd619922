"""Titles of runs."""

from pathlib import Path

from xpubench.record import Record
from xpubench.spec import AccuracySpec, RunSpec


def title_of(record: Record) -> str:
    """A run in one line, with the number of input tokens that it really had."""
    return title_of_spec(record.spec, record.latency.input_tokens if record.latency else None)


def title_of_spec(spec: RunSpec | AccuracySpec, input_tokens: int | None = None) -> str:
    """A spec in one line; `input_tokens` is given where the run had another number than the spec asks."""
    subject = spec.subject
    parts = [subject.model, subject.runtime, f"{subject.device} {subject.dtype}"]
    if subject.tp_size > 1:
        parts.append(f"{subject.tp_size} ranks")
    if subject.quantization is not None:
        parts.append(subject.quantization.title)
    parts += subject.options.words
    if subject.lora is not None:
        parts.append(f"LoRA {Path(subject.lora).name}")
    if subject.weights == "dummy":
        parts.append("dummy weights")
    if isinstance(spec, AccuracySpec):
        return " · ".join([*parts, spec.task.name])
    return " · ".join([*parts, spec.workload.title(input_tokens or spec.workload.input_tokens)])
