"""Quantizes a checkpoint to INT4 and saves it, with the error of each weight, the time and the memory."""

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
from xpubench.spec import Subject
from xpubench.weights.empty import empty_model, parameter_places
from xpubench.weights.fingerprint import of_directory
from xpubench.weights.int4.calibrated import write_calibrated
from xpubench.weights.int4.checkpoints import check_target, source_weights, write
from xpubench.weights.int4.grids import QuantizationError, error_of
from xpubench.weights.int4.layout import Weight, check_complete
from xpubench.weights.int4.recipes import CalibratedDescription, CalibratedRecipe, Description
from xpubench.weights.source import source_of

FLOAT16_BYTES = 2


class Quantized(msgspec.Struct, frozen=True, kw_only=True):
    """What was written: the bytes of the weights' files and of the same weights in float16, their ratio, and
    the error of each quantized weight, empty unless asked for; `relative_l2` is the error of all of them."""

    directory: str
    description: Description | CalibratedDescription
    file_bytes: int
    float16_bytes: int
    float16_ratio: float
    quantize_s: float
    peak_host_bytes: int | None
    relative_l2: float | None
    errors: dict[str, QuantizationError]


def save_quantized(subject: Subject, target: Path, progress: Progress, *, with_errors: bool) -> Quantized:
    """Quantizes the subject's weights by its recipe, one at a time, into the directory `target`.

    Raises UserError for what the user must change, RunFailure for a checkpoint that cannot be used.
    """
    recipe = subject.quantization
    if recipe is None:
        raise ValueError("the subject has no recipe")
    check_target(target)
    if subject.weights == "dummy":
        raise UserError("random weights need not be saved; leave out --save_model or --dummy-weights")
    errors: dict[str, QuantizationError] = {}
    started_ns = perf_counter_ns()
    if (quantizer := registry.loader(subject.runtime).quantizer()) is not None:
        progress.say(f"quantizing through the library of {subject.runtime}")
        description = Description(recipe=recipe, source=subject.model, revision=None)
        quantizer(subject, recipe, target)
    else:
        progress.say(f"looking for {subject.model}")
        source = source_of(subject)
        if target.resolve() == source.directory.resolve():
            raise UserError("the quantized model would overwrite its source; choose another directory")
        if "quantization_config" in source.config:
            raise UserError(f"{subject.model} is quantized already; name the float model")
        started_ns = perf_counter_ns()
        model = empty_model(source.config, torch.float16)
        description = Description(
            recipe=recipe,
            source=subject.model,
            revision=source.revision,
            checkpoint=of_directory(source.directory),
        )
        weights = source_weights(model, source, recipe)
        noted = _noted(weights, errors if with_errors else None, progress, set(parameter_places(model)))
        write(target, source.directory, noted, description)
    return _outcome(target, description, started_ns, errors)


def save_calibrated(
    subject: Subject, recipe: CalibratedRecipe, target: Path, progress: Progress
) -> Quantized:
    """Quantizes the subject's model with data into the directory `target`. Raises as `save`."""
    check_target(target)
    started_ns = perf_counter_ns()
    description = write_calibrated(subject, recipe, target, progress)
    return _outcome(target, description, started_ns, {})


def _outcome(
    target: Path,
    description: Description | CalibratedDescription,
    started_ns: int,
    errors: dict[str, QuantizationError],
) -> Quantized:
    quantize_s = (perf_counter_ns() - started_ns) / 1e9
    squares = sum(error.square_sum for error in errors.values())
    error_squares = sum(error.error_square_sum for error in errors.values())
    file_bytes = sum(file.stat().st_size for file in target.glob("*.safetensors"))
    parameters = empty_model(json.loads((target / "config.json").read_text()), torch.float16).parameters()
    float16_bytes = FLOAT16_BYTES * sum(parameter.numel() for parameter in parameters)
    return Quantized(
        directory=str(target),
        description=description,
        file_bytes=file_bytes,
        float16_bytes=float16_bytes,
        float16_ratio=file_bytes / float16_bytes,
        quantize_s=quantize_s,
        peak_host_bytes=peak_host_bytes(),
        relative_l2=(error_squares / squares) ** 0.5 if errors else None,
        errors=errors,
    )


def _noted(
    weights: Iterable[tuple[str, torch.Tensor, Weight]],
    errors: dict[str, QuantizationError] | None,
    progress: Progress,
    missing: set[str],
) -> Iterator[tuple[str, Weight]]:
    """The weights on their way to the disk; their errors are noted, and that none of `missing` stays missing
    is checked."""
    progress.begin("quantizing", len(missing))
    for name, source, weight in weights:
        missing.discard(name)
        if errors is not None and not isinstance(weight, torch.Tensor):
            errors[name] = error_of(source, weight)
        progress.step(name)
        yield name, weight
    check_complete(missing)
