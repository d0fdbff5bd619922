"""A record as one flat row, which a history compares and which the report's tables and matrix are made of."""

from pathlib import Path
from typing import Any, Literal

import msgspec

from xpubench.catalog import find_model
from xpubench.catalog.platforms import platform_of
from xpubench.compare.accuracy import below_published, other_items
from xpubench.compare.work import checkpoint_name, precision_class, recipe_text
from xpubench.explanation import Cause, PartName
from xpubench.record import LatencySummary, Record
from xpubench.spec import DTYPE_BYTES, AccuracySpec

Mode = Literal["fp16", "int4", "distributed", "bf16", "int8"]
# The modes of one device by their precision class.
MODES: dict[str, Mode] = {"float16": "fp16", "int4": "int4", "bfloat16": "bf16", "int8": "int8"}


class RunRow(msgspec.Struct, frozen=True, kw_only=True):
    """One run. Latencies in ms with their 95% interval, memory in bytes, accuracies, MBU and the prompt's
    share of the peak from 0 to 1. `key` names the run in the page; ids that repeat get a number. `checkpoint`
    and `weights_digest` tell which model it is, `lora` the adapter on it, `precision_class` what really ran,
    `recipe` the dtype, the quantization and the runtime's options that are not the defaults, in words, and
    `platform` where, None where the record does not name the device. `tokens_checked` tells whether the timed
    tokens of a latency run were looked at, and `acc_partial` that the accuracy is not that of the task's
    whole test set. `bound_by` is the verdict on the tokens' time, and `next_parts` the parts of a next
    token's time as shares of its latency, empty where there is no ledger or it was refused."""

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
    platform: str | None
    checkpoint: str
    weights_digest: str | None
    lora: str | None
    precision: str
    precision_class: str
    recipe: list[str]
    mode: Mode | None
    weights: str
    ranks: int
    workload: str
    first_token_ms: float | None = None
    first_token_ci95: tuple[float, float] | None = None
    next_token_ms: float | None = None
    next_token_ci95: tuple[float, float] | None = None
    end_to_end_ms: float | None = None
    prompt_tokens_per_s: float | None = None
    prompt_share_of_peak: float | None = None
    tokens_per_s: float | None = None
    mbu_measured: float | None = None
    mbu_datasheet: float | None = None
    peak_device_bytes: int | None = None
    peak_host_bytes: int | None = None
    load_s: float | None = None
    tokens_checked: bool = False
    top1_agreement: float | None = None
    mean_kl: float | None = None
    acc: float | None = None
    acc_stderr: float | None = None
    acc_items: int | None = None
    acc_partial: bool | None = None
    acc_reference: float | None = None
    acc_regression: bool = False
    perplexity: float | None = None
    warnings: int = 0
    bound_by: Cause | None = None
    next_parts: dict[PartName, float] = {}


def row_of(record: Record, path: Path, key: str) -> RunRow:
    """The row of a record that lies in the file `path`."""
    spec, subject, device = record.spec, record.spec.subject, record.environment.device
    checkpoint, precision = checkpoint_name(record), precision_class(record)
    known, lora = find_model(checkpoint), record.adapter
    shown = precision if precision in DTYPE_BYTES else f"{precision} {subject.dtype}"
    return RunRow(
        key=key,
        directory=str(path.parent),
        file=path.name,
        kind="accuracy" if isinstance(spec, AccuracySpec) else "latency",
        message=record.failure.message if record.failure else None,
        family=known.family if known else "other",
        runtime=subject.options.label,
        device_name=device.name if device else subject.device,
        platform=platform_of(subject.device, device),
        checkpoint=checkpoint,
        weights_digest=record.fingerprint.weights if record.fingerprint else None,
        lora=lora,
        precision=shown,
        precision_class=precision,
        recipe=[shown, *_recipe(record)],
        mode=_mode(precision, subject.tp_size) if lora is None else None,
        tokens_checked=_tokens_checked(record),
        ranks=subject.tp_size,
        workload=_workload(record),
        warnings=len(record.warnings),
        **_same(record, "id", "created", "status"),
        **_same(subject, "model", "device", "weights"),
        **_same(record.summary, "peak_device_bytes", "peak_host_bytes", "load_s"),
        **_same(record.divergence, "top1_agreement", "mean_kl"),
        **_latency(record.latency),
        **_accuracy(record),
        **_explanation(record),
    )


def _recipe(record: Record) -> list[str]:
    """How the weights were quantized, and what else differs from the defaults of the recipe and of the
    runtime's options, in words. An option that says the precision of the weights is left out, which an IR
    that was exported before does not need."""
    subject, told = record.spec.subject, recipe_text(record)
    recipe, options = subject.quantization, subject.options
    own = [] if recipe is None else _changed(recipe, "compute_dtype", "high_precision")
    names = (name for name in options.__struct_fields__ if getattr(options, name) != options.precision)
    return [*(told.split(", ") if told else []), *own, *_changed(options, *names)]


def _changed(part: msgspec.Struct, *names: str) -> list[str]:
    """The fields with these names that differ from their defaults, in words."""
    defaults = {field.name: field.default for field in msgspec.structs.fields(part)}
    values = {name: getattr(part, name) for name in names}
    return [f"{name} {value}" for name, value in values.items() if value not in (defaults[name], {})]


def _mode(precision: str, ranks: int) -> Mode | None:
    """The mode of the guide's table that a model's run belongs to, None where it belongs to none. Over ranks
    the guide's table has float16 only."""
    if ranks > 1:
        return "distributed" if precision == "float16" else None
    return MODES.get(precision)


def _tokens_checked(record: Record) -> bool:
    tokens = record.checks.tokens
    return tokens is not None and tokens.compared + tokens.scored > 0


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
    same = ("tokens_per_s", "prompt_tokens_per_s", "prompt_share_of_peak", "mbu_measured", "mbu_datasheet")
    return _same(summary, *same) | {
        "first_token_ms": first.median,
        "first_token_ci95": first.ci95,
        "next_token_ms": following.median if following else None,
        "next_token_ci95": following.ci95 if following else None,
        "end_to_end_ms": summary.end_to_end_ms.median,
    }


def _explanation(record: Record) -> dict[str, Any]:
    found = record.explanation
    if found is None:
        return {}
    ledger = found.next if found.next is not None and found.next.refused is None else None
    return {
        "bound_by": found.verdict.cause if found.verdict else None,
        "next_parts": {part.name: part.ns / ledger.wall_ns for part in ledger.parts} if ledger else {},
    }


def _accuracy(record: Record) -> dict[str, Any]:
    found = record.accuracy
    if found is None or record.status != "ok" or not isinstance(record.spec, AccuracySpec):
        return {}
    return _same(found, "acc", "acc_stderr", "perplexity") | {
        "acc_items": found.n,
        "acc_partial": other_items(record),
        "acc_reference": found.reference.acc if found.reference else None,
        "acc_regression": below_published(record),
    }
