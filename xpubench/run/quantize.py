"""A checkpoint to INT4, saved, with the error of each weight and the time and memory that it took."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from time import perf_counter_ns

import msgspec
import torch

from xpubench.errors import UserError
from xpubench.measure.host import peak_host_bytes
from xpubench.progress import Progress
from xpubench.runtimes import registry
from xpubench.runtimes.base import Quantizer
from xpubench.spec import Quantization, Subject
from xpubench.weights.empty import empty_model, parameter_places
from xpubench.weights.int4.checkpoints import check_target, source_weights, write
from xpubench.weights.int4.grids import QuantizationError, error_of
from xpubench.weights.int4.layout import Weight, check_complete
from xpubench.weights.int4.recipes import Description
from xpubench.weights.source import source_of

FLOAT16_BYTES = 2


class Quantized(msgspec.Struct, frozen=True, kw_only=True):
    """What was written: bytes of the weights' files, their share of the same weights in float16, and of each
    quantized weight the error, empty unless asked for; `relative_l2` is over all of them."""

    directory: str
    description: Description
    file_bytes: int
    float16_bytes: int
    float16_ratio: float
    quantize_s: float
    peak_host_bytes: int | None
    relative_l2: float | None
    errors: dict[str, QuantizationError]


def save(subject: Subject, target: Path, progress: Progress, *, with_errors: bool) -> Quantized:
    """Quantizes the subject's weights by its recipe, one at a time, into the directory `target`.

    Raises UserError for what the user must change, RunFailure for a checkpoint that cannot be used.
    """
    recipe = subject.quantization
    if recipe is None:
        raise ValueError("the subject has no recipe")
    check_target(target)
    if subject.weights == "dummy":
        raise UserError("random weights need not be saved; leave out --save_model or --dummy-weights")
    if (quantizer := registry.loader(subject.runtime).quantizer()) is not None:
        return _saved_by(quantizer, subject, recipe, target, progress)
    progress.say(f"looking for {subject.model}")
    source = source_of(subject)
    if target.resolve() == source.directory.resolve():
        raise UserError("the quantized model would overwrite its source; choose another directory")
    if "quantization_config" in source.config:
        raise UserError(f"{subject.model} is quantized already; name the float model")
    started_ns = perf_counter_ns()
    model = empty_model(source.config, torch.float16)
    description = Description(recipe=recipe, source=subject.model, revision=source.revision)
    errors: dict[str, QuantizationError] = {}
    weights = _watched(
        source_weights(model, source, recipe), errors if with_errors else None, progress, model
    )
    write(target, source.directory, weights, description)
    return _quantized(target, description, started_ns, errors)


def _quantized(
    target: Path, description: Description, started_ns: int, errors: dict[str, QuantizationError]
) -> Quantized:
    file_bytes = sum(file.stat().st_size for file in target.glob("*.safetensors"))
    config = json.loads((target / "config.json").read_text())
    parameters = empty_model(config, torch.float16).parameters()
    float16_bytes = FLOAT16_BYTES * sum(parameter.numel() for parameter in parameters)
    return Quantized(
        directory=str(target),
        description=description,
        file_bytes=file_bytes,
        float16_bytes=float16_bytes,
        float16_ratio=file_bytes / float16_bytes,
        quantize_s=(perf_counter_ns() - started_ns) / 1e9,
        peak_host_bytes=peak_host_bytes(),
        relative_l2=_overall(errors),
        errors=errors,
    )


def _saved_by(
    quantizer: Quantizer, subject: Subject, recipe: Quantization, target: Path, progress: Progress
) -> Quantized:
    """Leaves the quantization to the runtime's own library."""
    progress.say(f"quantizing through the library of {subject.runtime}")
    started_ns = perf_counter_ns()
    quantizer(subject, recipe, target)
    return _quantized(target, Description(recipe=recipe, source=subject.model, revision=None), started_ns, {})


def _watched(
    weights: Iterable[tuple[str, torch.Tensor, Weight]],
    errors: dict[str, QuantizationError] | None,
    progress: Progress,
    model: torch.nn.Module,
) -> Iterator[tuple[str, Weight]]:
    """The weights on their way to the disk, each one's error noted."""
    missing = set(parameter_places(model))
    progress.begin("quantizing", len(missing))
    for name, source, weight in weights:
        missing.discard(name)
        if errors is not None and not isinstance(weight, torch.Tensor):
            errors[name] = error_of(source, weight)
        progress.step(name)
        yield name, weight
    check_complete(missing)


def _overall(errors: dict[str, QuantizationError]) -> float | None:
    if not errors:
        return None
    error_square_sum = sum(error.error_square_sum for error in errors.values())
    return float((error_square_sum / sum(error.square_sum for error in errors.values())) ** 0.5)
