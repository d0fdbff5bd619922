"""A subject made ready: checked, surrounded, loaded. What latency and accuracy runs begin with."""

from time import perf_counter_ns
from typing import Any

import msgspec

from xpubench.catalog import CatalogDevice, find_model, identify_device
from xpubench.catalog.architecture import Architecture, architecture_of
from xpubench.measure.device import (
    available_devices,
    check_device,
    device_name,
    free_memory_bytes,
    total_memory_bytes,
)
from xpubench.measure.environment import capture
from xpubench.progress import Progress
from xpubench.runtimes.base import Runtime, runtime_class
from xpubench.spec import Subject
from xpubench.weights.source import read_config


class Ground(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a subject and of the machine before the load. Memory in bytes."""

    config: dict[str, Any]
    architecture: Architecture | None
    environment: dict[str, Any]
    device: CatalogDevice | None
    available_bytes: int | None


def first_device(runtime: str) -> str:
    """The preferred device of those that the runtime finds here; UserError where it cannot be set up."""
    runtime_class(runtime).set_up()
    return available_devices()[0]


def survey(subject: Subject) -> Ground:
    """Checks that the subject can be asked for here, and captures the surroundings.

    Raises UserError for what the user must change, RunFailure for a config that cannot be used.
    """
    runtime_type = runtime_class(subject.runtime)
    runtime_type.set_up()
    check_device(subject.device)
    runtime_type.check(subject)
    config = read_config(
        subject.weights_from, revision=subject.revision, trust_remote_code=subject.trust_remote_code
    )
    total = total_memory_bytes(subject.device)
    return Ground(
        config=config,
        architecture=architecture_of(config),
        environment=capture(subject.device),
        device=identify_device(device_name(subject.device), total),
        available_bytes=free_memory_bytes(subject.device) or total,
    )


def fetch(subject: Subject, progress: Progress) -> None:
    """Downloads and checks the checkpoint, which counts neither in the load's time nor in its memory."""
    runtime_class(subject.runtime).fetch(subject, progress.say)


def load(subject: Subject, progress: Progress) -> tuple[Runtime, float]:
    """The loaded subject, and the seconds that it took."""
    progress.say(f"loading {subject.weights_from} in {subject.dtype} on {subject.device}")
    start_ns = perf_counter_ns()
    runtime = runtime_class(subject.runtime).load(subject)
    return runtime, (perf_counter_ns() - start_ns) / 1e9


def precision_warnings(subject: Subject, runtime: Runtime) -> list[str]:
    """What to doubt about a run's precision: what was not applied as asked; of INT4 also a model that the
    guide did not validate, weights that a kernel refused."""
    whole = runtime.describe()
    asked, applied = whole.get("asked") or {}, whole.get("applied") or {}
    warnings = _not_as_asked(asked, applied, "INFERENCE_PRECISION_HINT", "KV_CACHE_PRECISION")
    cache = applied.get("KV_CACHE_PRECISION", "f32")
    if subject.dtype == "float32" and cache != "f32" and "KV_CACHE_PRECISION" not in asked:
        warnings.append(f"the KV cache is {cache}, OpenVINO's default; --ov-config KV_CACHE_PRECISION=f32")
    recipe, described = subject.quantization, whole.get("quantization")
    if recipe is None or described is None:
        return warnings
    known = find_model(subject.model)
    if known is None or not known.int4:
        warnings.append(f"{subject.model} is not validated for INT4")
    asked, applied = described["asked"], described["applied"]
    warnings += _not_as_asked(asked, applied, "weight_dtype", "compute_dtype")
    if refused := applied.get("refused"):
        warnings.append(
            f"{len(refused)} matrices that the INT4 kernel does not take stay in high precision, "
            f"first {refused[0]}"
        )
    if subject.device == "cpu" and subject.dtype == "float32" and subject.runtime == "pytorch":
        warnings.append("the CPU's INT4 kernel is slow in float32; bfloat16 is the one to use")
    return warnings


def _not_as_asked(asked: dict[str, Any], applied: dict[str, Any], *names: str) -> list[str]:
    return [
        f"{name}: {asked[name]} was asked, {applied[name]} is applied"
        for name in names
        if asked.get(name) is not None and applied.get(name, asked[name]) != asked[name]
    ]
