"""What a run will need and can reach, from shapes and a data sheet alone: bytes and roofline times."""

from collections.abc import Sequence
from typing import Literal

import msgspec

from xpubench.catalog import CatalogDevice
from xpubench.catalog.architecture import Architecture
from xpubench.errors import RunFailure, UserError
from xpubench.explanation import Expectation
from xpubench.runtimes.options import OWN_INT4_METHOD
from xpubench.spec import DTYPE_BYTES, WHOLE_ROW, Quantization, RunSpec, Subject, Workload

Bound = Literal["compute", "memory"]

# The new tokens of a generation at a depth: one ends the prompt, and the others are next tokens.
DEPTH_TOKENS = 9


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes, and lower bounds of times. A field is None where the device or the figure that it needs is not
    known. `peak_bytes` adds an estimate of the prefill's activations to the weights and the KV cache;
    `fits` compares weights and KV cache, which are those of the loaded model in a record, and before a load
    can be lower bounds of them, with the device's memory. `expectation` is that of
    `xpubench plan`. Over several ranks, all figures are those of the rank that holds the most, with a device
    of its own."""

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
    expectation: Expectation | None = None


class StoredWeights(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes of all weights, and of those that a decoding step reads."""

    weights: int
    step: int


def plan_of(
    architecture: Architecture | None,
    spec: RunSpec,
    device: CatalogDevice | None,
    stored: StoredWeights | None = None,
    kv_value_bytes: float | None = None,
) -> Plan | None:
    """The plan of a run, None where the architecture or, with a text prompt, the length is not known yet. The
    weights are the `stored` ones of a loaded model and each value of its KV cache has `kv_value_bytes`;
    without a loaded model, both are what the subject is known to store at least. UserError where so many
    ranks cannot share the model.

    Roofline (Williams et al. 2009): a phase takes at least its bytes / the bandwidth and at least its
    operations / the peak; a decoding step is bound by its bytes. The prefill runs batch x beams sequences, as
    transformers repeats the prompt for each beam first.
    """
    subject, workload, input_tokens = spec.subject, spec.workload, spec.workload.input_tokens
    if architecture is None or input_tokens is None:
        return None
    architecture = architecture.part(subject.tp_size)
    sequences, dtype_bytes = workload.batch_size * workload.num_beams, DTYPE_BYTES[subject.dtype]
    stored = stored or stored_weights(architecture, subject)
    positions = input_tokens + workload.new_tokens
    value_bytes = kv_value_bytes or least_kv_value_bytes(subject)
    kv_cache = architecture.kv_cache_bytes(sequences=sequences, positions=positions, value_bytes=value_bytes)
    activations = activation_bytes(architecture, sequences, input_tokens, dtype_bytes)
    step_bytes = decode_bytes_per_step(architecture, workload, input_tokens, stored.step, value_bytes)
    prefill_flop = architecture.prefill_flop(sequences=sequences, tokens=input_tokens)
    first_ms, bound = _first_token(stored.step, prefill_flop, subject.dtype, device)
    return Plan(
        model=subject.model,
        dtype=subject.dtype,
        ranks=subject.tp_size,
        quantization=subject.quantization,
        device=device.id if device else None,
        batch_size=workload.batch_size,
        num_beams=workload.num_beams,
        input_tokens=input_tokens,
        new_tokens=workload.new_tokens,
        weight_bytes=stored.weights,
        kv_cache_bytes=kv_cache,
        activation_bytes=activations,
        peak_bytes=stored.weights + kv_cache + activations,
        device_memory_bytes=device.memory_bytes if device else None,
        fits=stored.weights + kv_cache <= device.memory_bytes if device else None,
        step_bytes=step_bytes,
        prefill_flop=prefill_flop,
        roofline_first_token_ms=first_ms,
        first_token_bound=bound,
        roofline_next_token_ms=step_bytes / device.bandwidth_gb_per_s / 1e6 if device else None,
    )


def own_weights(architecture: Architecture, subject: Subject) -> StoredWeights | None:
    """The weights of a runtime that stores them in a precision of its own, None for other runtimes. A
    decoding step is assumed to read the same share of them as it reads of the architecture's parameters."""
    weights = subject.options.weight_bytes(subject.model, architecture.parameter_count)
    if weights is None:
        return None
    share = architecture.step_weight_parameters / architecture.parameter_count
    return StoredWeights(weights=weights, step=int(weights * min(share, 1.0)))


def stored_weights(architecture: Architecture, subject: Subject) -> StoredWeights:
    """The weights as the runtime stores them, or as dtype and recipe do, or a quantized checkpoint. A recipe
    stores the layers' matrices with 4 bits a value and one scale a group, where a row is one group as if all
    rows were as long as the longest, and the token table and the output head with one byte a value, unless
    the recipe keeps them in high precision. The kernels' other fields beside the scale, and modules that the
    recipe keeps in high precision by name, are not counted. Of a quantized checkpoint, the layers' matrices
    and an output head that is not tied have at least the bits that its config names; scales, and matrices of
    more bits, are not counted."""
    if (own := own_weights(architecture, subject)) is not None:
        return own
    dtype_bytes, recipe, bits = DTYPE_BYTES[subject.dtype], subject.quantization, architecture.weight_bits
    matrix: float = dtype_bytes
    table = head = matrix
    if recipe is not None:
        longest_row = max(architecture.hidden_size, architecture.intermediate_size)
        group_size = longest_row if recipe.group_size == WHOLE_ROW else recipe.group_size
        matrix = 0.5 + DTYPE_BYTES[recipe.scale_dtype] / group_size
        if recipe.head == "int8":
            table = head = 1
    elif bits is not None and subject.weights == "pretrained":
        matrix = bits / 8
        head = head if architecture.tied else matrix
    of_matrices = architecture.num_layers * architecture.linear_parameters * (dtype_bytes - matrix)
    of_table = architecture.embedding_parameters * (dtype_bytes - table)
    of_head = architecture.head_parameters * (dtype_bytes - head)
    saved, saved_in_step = of_matrices + of_table, of_matrices + of_head
    return StoredWeights(
        weights=architecture.parameter_count * dtype_bytes - int(saved + of_head * (not architecture.tied)),
        step=architecture.step_weight_parameters * dtype_bytes - int(saved_in_step),
    )


def check_int4(architecture: Architecture | None, subject: Subject) -> None:
    """UserError for a recipe of this tool and a mixture of experts. transformers 5 has the experts of a layer
    in one tensor, which such a recipe does not quantize; those of transformers 4 are linear layers, and
    which of the two is installed is not known here."""
    own = subject.options.int4_method == OWN_INT4_METHOD
    if subject.quantization is not None and own and architecture is not None and architecture.experts > 1:
        what = f"the experts of {architecture.model_type} have no INT4 form in transformers 5"
        raise UserError(f"{what}, and are most of its weights; leave out --woq")


def least_kv_value_bytes(subject: Subject) -> float:
    """The fewest bytes of a value in the KV cache: those of the dtype, where the runtime knows no others."""
    return subject.options.least_kv_value_bytes or DTYPE_BYTES[subject.dtype]


def decode_bytes_per_step(
    architecture: Architecture, workload: Workload, input_tokens: int, weights: int, kv_value_bytes: float
) -> int:
    """Bytes that a decoding step must read: the `weights` once, without the experts that no sequence uses
    (`Architecture.touched_experts`), and the KV cache of each sequence, as a mean over the steps. Step
    n, counted from 1, attends to input_tokens + n tokens; it computes the key and value of the last of
    them itself."""
    sequences = workload.batch_size * workload.num_beams
    mean_positions = input_tokens + max(workload.new_tokens - 2, 0) / 2
    read = int(weights * architecture.step_share(sequences))
    return read + int(sequences * mean_positions * architecture.kv_values_per_token * kv_value_bytes)


def activation_bytes(architecture: Architecture, sequences: int, tokens: int, dtype_bytes: int) -> int:
    """An estimate of the bytes that the prefill holds at its peak: in one layer the residual stream, a
    norm's output, queries, keys, values and the MLP's intermediate values; after the layers the last
    token's logits and their copy in float32."""
    attention = (architecture.num_heads + 2 * architecture.num_kv_heads) * architecture.head_dim
    inner = 2 * architecture.intermediate_size * architecture.experts_per_token
    layer = tokens * (2 * architecture.hidden_size + max(attention, inner))
    return sequences * (layer * dtype_bytes + architecture.vocab_size * (dtype_bytes + 4))


def _first_token(
    weight_bytes: int, flop: int, dtype: str, device: CatalogDevice | None
) -> tuple[float | None, Bound | None]:
    # The catalog's peaks are those of 16-bit matrix engines; the weights' bytes alone would be far too low.
    if device is None or device.peak_tflop_per_s is None or dtype == "float32":
        return None, None
    memory_ms = weight_bytes / device.bandwidth_gb_per_s / 1e6
    compute_ms = flop / device.peak_tflop_per_s / 1e9
    return (compute_ms, "compute") if compute_ms > memory_ms else (memory_ms, "memory")


def check_positions(architecture: Architecture | None, input_tokens: int | None, new_tokens: int) -> None:
    """UserError when prompt and new tokens need more positions than the model has."""
    limit = architecture.max_positions if architecture else None
    if input_tokens is not None and limit is not None and input_tokens + new_tokens > limit:
        tokens = f"{input_tokens} input and {new_tokens} new tokens"
        hint = "lower --input-tokens or --max-new-tokens"
        raise UserError(f"{tokens} are more than the model's {limit} positions; {hint}")


def check_depths(architecture: Architecture | None, depths: Sequence[int]) -> None:
    """UserError for a depth behind which the model has no positions for the tokens that are measured."""
    limit = architecture.max_positions if architecture else None
    deepest = max(depths, default=0)
    if limit is not None and depths and deepest + 1 + DEPTH_TOKENS > limit:
        tokens = f"--depths {deepest} and {DEPTH_TOKENS + 1} tokens behind it"
        raise UserError(f"{tokens} are more than the model's {limit} positions; lower --depths")


def check_beam_count(architecture: Architecture | None, num_beams: int) -> None:
    """UserError for more beams than the vocabulary has tokens, because the first step of a beam search has
    no more different continuations."""
    tokens = architecture.vocab_size if architecture else None
    if tokens is not None and num_beams > tokens:
        raise UserError(f"{num_beams} beams are more than the model's {tokens} tokens; lower --num-beams")


def lack_of_memory(
    architecture: Architecture | None, spec: RunSpec, available_bytes: int | None
) -> RunFailure | None:
    """The failure of a run whose weights and KV cache exceed the free memory, even with the fewest bytes
    that they may have; None where they may fit."""
    if architecture is None or available_bytes is None:
        return None
    workload, subject = spec.workload, spec.subject
    # Each rank of a GPU run has its own device; those of a CPU run share the host's memory.
    if subject.device != "cpu":
        architecture = architecture.part(subject.tp_size)
    weights = stored_weights(architecture, subject).weights
    kv_cache = architecture.kv_cache_bytes(
        sequences=workload.batch_size * workload.num_beams,
        # The length of a text is not known yet.
        positions=(workload.input_tokens or 0) + workload.new_tokens,
        value_bytes=least_kv_value_bytes(subject),
    )
    if weights + kv_cache <= available_bytes:
        return None
    needed = f"{weights / 1e9:.2f} GB of weights and {kv_cache / 1e9:.2f} GB of KV cache"
    free = f"the {available_bytes / 1e9:.2f} GB that {subject.device} has free"
    return RunFailure("oom", f"not loaded: {needed} are more than {free}")
