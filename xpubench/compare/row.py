"""A record as one flat row: what a history compares, and what the report's tables and matrix are made of."""

from pathlib import Path
from typing import Any, Literal

import msgspec

from xpubench.catalog import find_model
from xpubench.compare.accuracy import below_published, other_items
from xpubench.record import LatencySummary, Record
from xpubench.spec import AccuracySpec, Subject

Mode = Literal["fp16", "int4", "distributed"]


class RunRow(msgspec.Struct, frozen=True, kw_only=True):
    """One run. Latencies in ms with their 95% interval, memory in bytes, accuracies and MBU from 0 to 1.
    `key` names the run in the page; ids that repeat get a number. `acc_partial` tells that the accuracy is
    not that of the task's whole test set."""

    key: str
    id: str
    directory: str
    file: str
    created: str
    kind: Literal["latency", "accuracy"]
    status: str
    message: str | None
    model: str
    family: str
    runtime: str
    device: str
    device_name: str
    precision: str
    mode: Mode | None
    weights: str
    ranks: int
    workload: str
    first_token_ms: float | None = None
    first_token_ci95: tuple[float, float] | None = None
    next_token_ms: float | None = None
    next_token_ci95: tuple[float, float] | None = None
    end_to_end_ms: float | None = None
    tokens_per_s: float | None = None
    mbu_measured: float | None = None
    mbu_datasheet: float | None = None
    peak_device_bytes: int | None = None
    peak_host_bytes: int | None = None
    load_s: float | None = None
    acc: float | None = None
    acc_stderr: float | None = None
    acc_items: int | None = None
    acc_partial: bool | None = None
    acc_reference: float | None = None
    acc_regression: bool = False
    perplexity: float | None = None
    warnings: int = 0


def row_of(record: Record, path: Path, key: str) -> RunRow:
    """The row of a record that lies in the file `path`."""
    spec, subject, device = record.spec, record.spec.subject, record.environment.device
    known = find_model(subject.model)
    return RunRow(
        key=key,
        directory=str(path.parent),
        file=path.name,
        kind="accuracy" if isinstance(spec, AccuracySpec) else "latency",
        message=record.failure.message if record.failure else None,
        family=known.family if known else "other",
        runtime=subject.options.label,
        device_name=device.name if device else subject.device,
        precision=f"int4 {subject.dtype}" if subject.quantization else subject.dtype,
        mode=_mode(subject),
        ranks=subject.tp_size,
        workload=_workload(record),
        warnings=len(record.warnings),
        **_same(record, "id", "created", "status"),
        **_same(subject, "model", "device", "weights"),
        **_same(record.summary, "peak_device_bytes", "peak_host_bytes", "load_s"),
        **_latency(record.latency),
        **_accuracy(record),
    )


def _mode(subject: Subject) -> Mode | None:
    """The mode of the guide's table that a run counts for: int4 is INT4 weights on one device, the others
    float16; other precisions count for none."""
    if subject.quantization:
        return "int4" if subject.tp_size == 1 else None
    if subject.dtype != "float16":
        return None
    return "distributed" if subject.tp_size > 1 else "fp16"


def _workload(record: Record) -> str:
    """The shape that was generated, or the task that was scored."""
    spec = record.spec
    if isinstance(spec, AccuracySpec):
        limit = f", first {spec.task.limit}" if spec.task.limit else ""
        shots = f", {spec.task.num_fewshot} shots" if spec.task.num_fewshot else ""
        return f"{spec.task.name}{shots}{limit}"
    length = record.latency.input_tokens if record.latency else spec.workload.input_tokens
    return spec.workload.title(length).removesuffix(", dynamic cache")


def _same(found: msgspec.Struct | None, *names: str) -> dict[str, Any]:
    """The fields that a row has under the same names."""
    return {} if found is None else {name: getattr(found, name) for name in names}


def _latency(summary: LatencySummary | None) -> dict[str, Any]:
    if summary is None:
        return {}
    first, following = summary.first_token_ms, summary.next_token_ms
    return _same(summary, "tokens_per_s", "mbu_measured", "mbu_datasheet") | {
        "first_token_ms": first.median,
        "first_token_ci95": first.ci95,
        "next_token_ms": following.median if following else None,
        "next_token_ci95": following.ci95 if following else None,
        "end_to_end_ms": summary.end_to_end_ms.median,
    }


def _accuracy(record: Record) -> dict[str, Any]:
    found = record.accuracy
    if found is None or not isinstance(record.spec, AccuracySpec):
        return {}
    return _same(found, "acc", "acc_stderr", "perplexity") | {
        "acc_items": found.n,
        "acc_partial": other_items(record),
        "acc_reference": found.reference.acc if found.reference else None,
        "acc_regression": below_published(record),
    }
