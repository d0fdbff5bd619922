"""The words that name a run."""

from pathlib import Path

from xpubench.record import Record
from xpubench.spec import AccuracySpec


def title_of(record: Record) -> str:
    """The run in one line."""
    subject = record.spec.subject
    parts = [subject.model, subject.runtime, f"{subject.device} {subject.dtype}"]
    if subject.tp_size > 1:
        parts.append(f"{subject.tp_size} ranks")
    if subject.quantization is not None:
        parts.append(subject.quantization.title)
    if subject.openvino is not None and subject.openvino.weight_format is not None:
        parts.append(subject.openvino.weight_format)
    if subject.lora is not None:
        parts.append(f"LoRA {Path(subject.lora).name}")
    if subject.torch_compile:
        parts.append(f"torch.compile {subject.torch_compile}")
    if subject.weights == "dummy":
        parts.append("dummy weights")
    spec = record.spec
    if isinstance(spec, AccuracySpec):
        return " · ".join([*parts, spec.task.name])
    input_tokens = record.summary.input_tokens if record.summary else spec.workload.input_tokens
    return " · ".join([*parts, spec.workload.title(input_tokens)])
