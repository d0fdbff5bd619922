"""A record as one flat row: what a history compares, and what the report's tables and matrix are made of."""

from pathlib import Path
from typing import Literal

import msgspec

from xpubench.catalog import TEST_SETS, find_model
from xpubench.compare.accuracy import allowed_drop_points
from xpubench.record import LatencySummary, Record, Statistic
from xpubench.spec import AccuracySpec, RunSpec, Subject

Mode = Literal["fp16", "int4", "distributed"]


class RunRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=False):
    """One run. Latencies in ms with their 95% interval, memory in bytes, accuracies and MBU from 0 to 1.

    `key` names the run in the page; ids that repeat get a number. `acc_partial` is an accuracy that is not of
    the task's whole test set.
    """

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
    spec = record.spec
    subject = spec.subject
    known = find_model(subject.model)
    row = RunRow(
        key=key,
        id=record.id,
        directory=str(path.parent),
        file=path.name,
        created=record.created,
        kind="accuracy" if isinstance(spec, AccuracySpec) else "latency",
        status=record.status,
        message=record.failure.message if record.failure else None,
        model=subject.model,
        family=known.family if known else "other",
        runtime=runtime_of(subject),
        device=subject.device,
        device_name=_device_name(record),
        precision=precision_of(subject),
        mode=_mode(subject),
        weights=subject.weights,
        ranks=subject.tp_size,
        workload=workload_of(record),
        warnings=len(record.warnings),
    )
    if record.summary is not None:
        row = msgspec.structs.replace(
            row,
            peak_device_bytes=record.summary.peak_device_bytes,
            peak_host_bytes=record.summary.peak_host_bytes,
            load_s=record.summary.load_s,
        )
    if record.latency is not None:
        row = _with_latency(row, record.latency)
    if record.accuracy is not None:
        row = _with_accuracy(row, record)
    return row


def runtime_of(subject: Subject) -> str:
    """The stack in a word or two, torch.compile's backend with it."""
    return subject.options.label


def precision_of(subject: Subject) -> str:
    """Such as `float16`, or `int4 float16` for INT4 weights with float16 arithmetic."""
    return f"int4 {subject.dtype}" if subject.quantization else subject.dtype


def workload_of(record: Record) -> str:
    """What was generated, or which task was scored."""
    spec = record.spec
    if isinstance(spec, AccuracySpec):
        limit = f", first {spec.task.limit}" if spec.task.limit else ""
        shots = f", {spec.task.num_fewshot} shots" if spec.task.num_fewshot else ""
        return f"{spec.task.name}{shots}{limit}"
    length = record.latency.input_tokens if record.latency else spec.workload.input_tokens
    return spec.workload.title(length).removesuffix(", dynamic cache")


def _mode(subject: Subject) -> Mode | None:
    """The mode of the guide's table that a run counts for: int4 is INT4 weights on one device, the others
    float16; other precisions count for none."""
    if subject.quantization:
        return "int4" if subject.tp_size == 1 else None
    if subject.dtype != "float16":
        return None
    return "distributed" if subject.tp_size > 1 else "fp16"


def _device_name(record: Record) -> str:
    device = record.environment.device
    return record.spec.subject.device if device is None else device.name


def _with_latency(row: RunRow, summary: LatencySummary) -> RunRow:
    following = summary.next_token_ms
    return msgspec.structs.replace(
        row,
        first_token_ms=summary.first_token_ms.median,
        first_token_ci95=_interval(summary.first_token_ms),
        next_token_ms=following.median if following else None,
        next_token_ci95=_interval(following),
        end_to_end_ms=summary.end_to_end_ms.median,
        tokens_per_s=summary.tokens_per_s,
        mbu_measured=summary.mbu_measured,
        mbu_datasheet=summary.mbu_datasheet,
    )


def _interval(statistic: Statistic | None) -> tuple[float, float] | None:
    return statistic.ci95 if statistic else None


def _with_accuracy(row: RunRow, record: Record) -> RunRow:
    found = record.accuracy
    assert found is not None
    reference = None if found.reference is None else found.reference.acc
    lost = None if found.acc is None or reference is None else 100 * (reference - found.acc)
    return msgspec.structs.replace(
        row,
        acc=found.acc,
        acc_stderr=found.acc_stderr,
        acc_items=found.n,
        acc_partial=found.partial or _other_passages(record.spec),
        acc_reference=reference,
        acc_regression=lost is not None and not found.partial and lost > allowed_drop_points(row.model),
        perplexity=found.perplexity,
    )


def _other_passages(spec: RunSpec | AccuracySpec) -> bool:
    """Whether a local file was scored that is not the task's test set, such as the smoke passages."""
    assert isinstance(spec, AccuracySpec)
    task = spec.task
    return task.data_sha256 is not None and task.data_sha256 != TEST_SETS.get(task.name)
