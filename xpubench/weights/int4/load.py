"""An INT4 model on its device, from a quantized checkpoint, from float weights, or from random ones."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch

from xpubench.spec import Quantization, Subject
from xpubench.weights.dummy import dummy_tensors
from xpubench.weights.empty import empty_model, parameter_places
from xpubench.weights.int4.checkpoints import float_tensors, read_weights
from xpubench.weights.int4.layout import Applied, Weight, fill, layout, quantized
from xpubench.weights.pretrained import load_tokenizer
from xpubench.weights.source import Source, read_config, source_of


def load_quantized(subject: Subject, recipe: Quantization) -> tuple[Any, Any, str | None, Applied]:
    """The subject's model in INT4, its tokenizer (None where it has none), the commit of its source, and what
    became of its weights. At no time is the whole float model in memory.

    Raises UserError for a recipe that does not fit the model, RunFailure for a checkpoint that is not whole.
    """
    if subject.weights == "dummy":
        config = read_config(subject.model, revision=subject.revision, trust_remote_code=False)
        model, applied = _filled(subject, recipe, config, None)
        return model, None, None, applied
    source = source_of(subject)
    model, applied = _filled(subject, recipe, source.config, source)
    return model, load_tokenizer(source.directory, subject.trust_remote_code), source.revision, applied


def source_weights(
    model: Any, source: Source, recipe: Quantization
) -> Iterator[tuple[str, torch.Tensor, Weight]]:
    """Name in the empty model, float values and quantized weight of each parameter of a checkpoint."""
    tensors = renamed(model, float_tensors(source.directory))
    return quantized(tensors, layout(model, recipe), recipe)


def renamed(model: Any, tensors: Iterable[tuple[str, torch.Tensor]]) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors by their names in the model: some checkpoints leave the body's prefix out or have it too
    often. Those that the model has no place for, such as the second copy of a tied one, are left out."""
    known, prefix = set(parameter_places(model)), f"{model.base_model_prefix}."
    for name, tensor in tensors:
        for candidate in (name, prefix + name, name.removeprefix(prefix)):
            if candidate in known:
                yield candidate, tensor
                break


def _filled(
    subject: Subject, recipe: Quantization, config: dict[str, Any], source: Source | None
) -> tuple[Any, Applied]:
    dtype = getattr(torch, subject.dtype)
    model = empty_model(config, dtype)
    weights: Iterable[tuple[str, Weight]]
    if source is None:
        tensors = dummy_tensors(model, device=subject.device, seed=0)
        weights = _without_source(quantized(tensors, layout(model, recipe), recipe))
    elif recipe.checkpoint is not None:
        weights = read_weights(source.directory)
    else:
        weights = _without_source(source_weights(model, source, recipe))
    return model, fill(model, weights, device=subject.device, dtype=dtype)


def _without_source(
    weights: Iterable[tuple[str, torch.Tensor, Weight]],
) -> Iterator[tuple[str, Weight]]:
    for name, _, weight in weights:
        yield name, weight
