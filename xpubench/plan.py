"""What a run will need and can reach, from shapes and a data sheet alone: bytes and roofline times."""

from typing import Literal

import msgspec

from xpubench.catalog import CatalogDevice
from xpubench.catalog.architecture import Architecture
from xpubench.errors import RunFailure, UserError
from xpubench.spec import DTYPE_BYTES, Quantization, RunSpec, Subject

Bound = Literal["compute", "memory"]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes and lower bounds of times. None where the device or its figure is not known.

    `peak_bytes` adds to weights and KV cache an estimate of the prefill's activations; `fits` compares
    weights and KV cache, which are exact, with the device's memory. Over several ranks all is of the one
    that holds the most, on a device of its own.
    """

    model: str
    dtype: str
    ranks: int = 1
    quantization: Quantization | None = None
    device: str | None
    batch_size: int
    num_beams: int
    input_tokens: int
    new_tokens: int
    weight_bytes: int
    kv_cache_bytes: int
    activation_bytes: int
    peak_bytes: int
    device_memory_bytes: int | None
    fits: bool | None
    step_bytes: int
    prefill_flop: int
    roofline_first_token_ms: float | None
    first_token_bound: Bound | None
    roofline_next_token_ms: float | None


def make_plan(
    architecture: Architecture,
    *,
    model: str,
    dtype: str,
    batch_size: int,
    num_beams: int,
    input_tokens: int,
    new_tokens: int,
    device: CatalogDevice | None,
    quantization: Quantization | None = None,
    ranks: int = 1,
    stored: "StoredWeights | None" = None,
) -> Plan:
    """The plan of one workload. Roofline (Williams et al. 2009): a phase takes at least its bytes / the
    bandwidth and at least its operations / the peak; a decoding step is bound by its bytes.

    The prompt's phase runs batch x beams sequences, as transformers repeats the prompt for each beam first.
    The weights are those of dtype and recipe, or the `stored` ones where a runtime keeps its own.
    UserError where so many ranks cannot share the model.
    """
    architecture = architecture.part(ranks)
    dtype_bytes = DTYPE_BYTES[dtype]
    sequences = batch_size * num_beams
    stored = stored or _stored(architecture, dtype_bytes, quantization)
    weight_bytes, step_weight_bytes = stored.weights, stored.step
    kv_cache_bytes = architecture.kv_cache_bytes(
        sequences=sequences, positions=input_tokens + new_tokens, dtype_bytes=dtype_bytes
    )
    activations = activation_bytes(architecture, sequences, input_tokens, dtype_bytes)
    step_bytes = decode_bytes_per_step(
        architecture,
        weight_bytes_per_step=step_weight_bytes,
        sequences=sequences,
        input_tokens=input_tokens,
        new_tokens=new_tokens,
        kv_value_bytes=dtype_bytes,
    )
    prefill_flop = architecture.prefill_flop(sequences=sequences, tokens=input_tokens)
    first_ms, bound = _first_token(step_weight_bytes, prefill_flop, dtype, device)
    return Plan(
        model=model,
        dtype=dtype,
        ranks=ranks,
        quantization=quantization,
        device=device.id if device else None,
        batch_size=batch_size,
        num_beams=num_beams,
        input_tokens=input_tokens,
        new_tokens=new_tokens,
        weight_bytes=weight_bytes,
        kv_cache_bytes=kv_cache_bytes,
        activation_bytes=activations,
        peak_bytes=weight_bytes + kv_cache_bytes + activations,
        device_memory_bytes=device.memory_bytes if device else None,
        fits=weight_bytes + kv_cache_bytes <= device.memory_bytes if device else None,
        step_bytes=step_bytes,
        prefill_flop=prefill_flop,
        roofline_first_token_ms=first_ms,
        first_token_bound=bound,
        roofline_next_token_ms=step_bytes / device.bandwidth_gb_per_s / 1e6 if device else None,
    )


class StoredWeights(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes of all weights, and of those that a decoding step reads."""

    weights: int
    step: int


def _stored(architecture: Architecture, dtype_bytes: int, recipe: Quantization | None) -> StoredWeights:
    saved = saved_bytes(architecture, dtype_bytes, recipe)
    return StoredWeights(
        weights=architecture.parameter_count * dtype_bytes - saved.weights,
        step=architecture.step_weight_parameters * dtype_bytes - saved.step,
    )


class Saved(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes that quantization takes off the weights, and off those that a decoding step reads."""

    weights: int
    step: int


def saved_bytes(architecture: Architecture, dtype_bytes: int, recipe: Quantization | None) -> Saved:
    """What a recipe saves: the layers' matrices take 4 bits a value and a scale a group; token table and
    output head one byte a value, unless they stay as they are. Kernels keep somewhat more beside a scale;
    modules that the recipe keeps high by name are not known here."""
    if recipe is None:
        return Saved(weights=0, step=0)
    int4_bytes = 0.5 + DTYPE_BYTES[recipe.scale_dtype] / recipe.group_size
    layers = int(architecture.num_layers * architecture.linear_parameters * (dtype_bytes - int4_bytes))
    if recipe.head != "int8":
        return Saved(weights=layers, step=layers)
    table, head = architecture.embedding_parameters, architecture.head_parameters
    rest = dtype_bytes - 1
    return Saved(
        weights=layers + rest * (table + (0 if architecture.tied else head)), step=layers + rest * head
    )


def decode_bytes_per_step(
    architecture: Architecture,
    *,
    weight_bytes_per_step: int,
    sequences: int,
    input_tokens: int,
    new_tokens: int,
    kv_value_bytes: float,
) -> int:
    """Bytes that a decoding step must read: the weights once, and each sequence's KV cache.

    The mean over the steps that give the next tokens: the n-th of them, from 1, attends to
    input_tokens + n tokens, of which the last one's key and value are at hand.
    """
    steps = new_tokens - 1
    mean_positions = input_tokens + max(steps - 1, 0) / 2
    kv_bytes = sequences * mean_positions * architecture.kv_values_per_token * kv_value_bytes
    return weight_bytes_per_step + int(kv_bytes)


def activation_bytes(architecture: Architecture, sequences: int, tokens: int, dtype_bytes: int) -> int:
    """An estimate of the most that the prefill holds at once: in one layer the residual stream, a norm's
    output, queries, keys, values and the MLP's inner values; then the last token's logits and their copy in
    float32."""
    attention = (architecture.num_heads + 2 * architecture.num_kv_heads) * architecture.head_dim
    layer = tokens * (2 * architecture.hidden_size + max(attention, 2 * architecture.intermediate_size))
    return sequences * (layer * dtype_bytes + architecture.vocab_size * (dtype_bytes + 4))


def _first_token(
    weight_bytes: int, flop: int, dtype: str, device: CatalogDevice | None
) -> tuple[float | None, Bound | None]:
    if device is None:
        return None, None
    memory_ms = weight_bytes / device.bandwidth_gb_per_s / 1e6
    # The catalog's peaks are those of 16-bit matrix engines; the weights' bytes alone would be far too low.
    if device.peak_tflop_per_s is None or dtype == "float32":
        return None, None
    compute_ms = flop / device.peak_tflop_per_s / 1e9
    return (compute_ms, "compute") if compute_ms > memory_ms else (memory_ms, "memory")


def plan_of(
    architecture: Architecture | None,
    spec: RunSpec,
    device: CatalogDevice | None,
    stored: StoredWeights | None = None,
) -> Plan | None:
    """The spec's plan, None where the architecture or, with a text prompt, the length is not known yet. The
    weights are the `stored` ones of a loaded model, or else what its runtime is known to keep."""
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
        stored=stored or own_weights(architecture, spec.subject),
    )


def own_weights(architecture: Architecture, subject: Subject) -> StoredWeights | None:
    """The weights of a runtime that keeps them in a precision of its own, None where it does not. A step
    reads the share of them that it reads of the architecture's parameters."""
    weights = subject.options.weight_bytes(subject.model, architecture.parameter_count)
    if weights is None:
        return None
    share = architecture.step_weight_parameters / architecture.parameter_count
    return StoredWeights(weights=weights, step=int(weights * min(share, 1.0)))


def check_positions(architecture: Architecture | None, input_tokens: int | None, new_tokens: int) -> None:
    """UserError when prompt and new tokens are more than the model has positions for."""
    limit = architecture.max_positions if architecture else None
    if input_tokens is not None and limit is not None and input_tokens + new_tokens > limit:
        raise UserError(
            f"{input_tokens} input and {new_tokens} new tokens are more than the model's {limit} positions; "
            "lower --input-tokens or --max-new-tokens"
        )


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
    own = own_weights(architecture, spec.subject)
    weights = (own or _stored(architecture, dtype_bytes, spec.subject.quantization)).weights
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
