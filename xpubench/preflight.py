"""What can be known of a run before anything is loaded."""

from typing import Any

from xpubench.catalog import CatalogDevice
from xpubench.catalog.architecture import Architecture
from xpubench.errors import RunFailure, UserError
from xpubench.plan import Plan, make_plan, saved_bytes
from xpubench.spec import DTYPE_BYTES, RunSpec, Subject

IR_BYTES = {"fp32": 4.0, "fp16": 2.0, "int8": 1.0, "int4": 0.5}


def architecture_of(config: dict[str, Any]) -> Architecture | None:
    """The architecture in a transformers config, None where it is none that the planner knows."""
    try:
        return Architecture.from_config(config)
    except UserError:
        return None


def plan_of(architecture: Architecture | None, spec: RunSpec, device: CatalogDevice | None) -> Plan | None:
    """The spec's plan, None where the architecture or, with a text prompt, the length is not known yet."""
    workload = spec.workload
    if architecture is None or workload.input_tokens is None:
        return None
    return make_plan(
        architecture,
        model=spec.subject.model,
        dtype=spec.subject.dtype,
        batch_size=workload.batch_size,
        num_beams=workload.num_beams,
        input_tokens=workload.input_tokens,
        new_tokens=workload.new_tokens,
        device=device,
        quantization=spec.subject.quantization,
        ranks=spec.subject.tp_size,
    )


def check_positions(architecture: Architecture | None, input_tokens: int | None, new_tokens: int) -> None:
    """UserError when prompt and new tokens are more than the model has positions for."""
    limit = architecture.max_positions if architecture else None
    if input_tokens is not None and limit is not None and input_tokens + new_tokens > limit:
        raise UserError(
            f"{input_tokens} input and {new_tokens} new tokens are more than the model's {limit} positions; "
            "lower --input-tokens or --max-new-tokens"
        )


def _least_weight_bytes(architecture: Architecture, subject: Subject) -> int:
    dtype_bytes = DTYPE_BYTES[subject.dtype]
    if subject.openvino is not None:
        # An IR holds weights of its own precision, whatever it computes in; INT4 is the least.
        return int(architecture.parameter_count * IR_BYTES.get(subject.openvino.weight_format or "", 0.5))
    saved = saved_bytes(architecture, dtype_bytes, subject.quantization)
    return architecture.parameter_count * dtype_bytes - saved.weights


def lack_of_memory(
    architecture: Architecture | None, spec: RunSpec, available_bytes: int | None
) -> RunFailure | None:
    """The failure of a run whose weights and KV cache alone are more than the memory that is free."""
    if architecture is None or available_bytes is None:
        return None
    workload, dtype_bytes = spec.workload, DTYPE_BYTES[spec.subject.dtype]
    # The ranks of a GPU run have a device each; those of a CPU run share the host's memory.
    if spec.subject.device != "cpu":
        architecture = architecture.part(spec.subject.tp_size)
    weights = _least_weight_bytes(architecture, spec.subject)
    kv_cache = architecture.kv_cache_bytes(
        sequences=workload.batch_size * workload.num_beams,
        # The length of a text is not known yet.
        positions=(workload.input_tokens or 0) + workload.new_tokens,
        dtype_bytes=dtype_bytes,
    )
    if weights + kv_cache <= available_bytes:
        return None
    return RunFailure(
        "oom",
        f"not loaded: {weights / 1e9:.2f} GB of weights and {kv_cache / 1e9:.2f} GB of KV cache are more "
        f"than the {available_bytes / 1e9:.2f} GB that {spec.subject.device} has free",
    )
