"""From float weights to an INT4 model: which weights are quantized, and the model that holds them."""

from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from typing import Any, Literal, TypeAlias

import msgspec
import torch

from xpubench.errors import RunFailure, UserError
from xpubench.spec import GROUP_SIZES, Quantization
from xpubench.weights.empty import parameter_places
from xpubench.weights.int4.grids import Int4Weight, Int8Weight, quantize_int4, quantize_int8
from xpubench.weights.int4.kernels import (
    Int8Embedding,
    Int8Head,
    int4_parameter,
    int8_parameters,
    kernel_takes,
)

WeightKind = Literal["int4", "int8", "high"]
Weight: TypeAlias = torch.Tensor | Int4Weight | Int8Weight


class Applied(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the weights: matrices in INT4 and in INT8, matrices left in high precision (by name),
    and of the latter those that the device's kernel refused."""

    int4: int
    int8: int
    high: list[str]
    refused: list[str]


def layout(model: Any, recipe: Quantization) -> dict[str, WeightKind]:
    """How each parameter of an empty model is kept, by its first name.

    Linear layers are INT4; the token table and the output head, where plain, are INT8 unless the recipe keeps
    them high; all else is high. Raises UserError for a group size that does not divide a layer's width.
    """
    head, table = model.get_output_embeddings(), model.get_input_embeddings()
    kinds: dict[str, WeightKind] = {}
    widths: dict[str, int] = {}
    for name, places in parameter_places(model).items():
        modules = [module for module, attribute in places if attribute == "weight"]
        kinds[name] = "high"
        if any(module is head or module is table for module in modules):
            if recipe.head == "int8" and all(_plain(module) for module in modules):
                kinds[name] = "int8"
        elif any(fnmatch(name.removesuffix(".weight"), glob) for glob in recipe.high_precision):
            continue
        elif modules and all(type(module) is torch.nn.Linear for module in modules):
            kinds[name], widths[name] = "int4", modules[0].in_features
    _check_widths(widths, recipe.group_size)
    return kinds


def quantized(
    tensors: Iterable[tuple[str, torch.Tensor]], kinds: dict[str, WeightKind], recipe: Quantization
) -> Iterator[tuple[str, torch.Tensor, Weight]]:
    """Name, source and quantized weight, one at a time."""
    for name, tensor in tensors:
        if kinds[name] == "int4":
            yield name, tensor, quantize_int4(tensor, recipe)
        elif kinds[name] == "int8":
            yield name, tensor, quantize_int8(tensor)
        else:
            yield name, tensor, tensor


def fill(model: Any, weights: Iterable[tuple[str, Weight]], *, device: str, dtype: torch.dtype) -> Applied:
    """Puts weights into an empty model in the form that the device's kernels take.

    Raises RunFailure `bad_model` for weights that are missing or of another shape.
    """
    places = parameter_places(model)
    tables: list[tuple[str, Int8Weight]] = []
    high: list[str] = []
    refused: list[str] = []
    int4 = 0
    missing = set(places)
    for name, weight in weights:
        if name not in places:
            raise RunFailure("bad_model", f"the model has no place for the weight {name}")
        missing.discard(name)
        expected = tuple(getattr(*places[name][0]).shape)
        found = tuple(weight.values8.shape if isinstance(weight, Int8Weight) else weight.shape)
        if found != expected:
            raise RunFailure("bad_model", f"{name} has shape {found}, the config asks for {expected}")
        if isinstance(weight, Int8Weight):
            tables.append((name, int8_parameters(weight, device, dtype)))
            continue
        if isinstance(weight, Int4Weight) and not kernel_takes(weight.shape, device):
            refused.append(name)
            weight = weight.values()
        if isinstance(weight, Int4Weight):
            int4 += 1
            parameter = int4_parameter(weight, device, dtype)
        else:
            if weight.dim() == 2:
                high.append(name)
            parameter = torch.nn.Parameter(weight.to(device, dtype), requires_grad=False)
        for module, attribute in places[name]:
            setattr(module, attribute, parameter)
    check_complete(missing)
    for name, table in tables:
        for module, _ in places[name]:
            _replace(model, module, _int8_module(module, table, device, dtype))
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, buffer.to(device))
    return Applied(int4=int4, int8=len(tables), high=high, refused=refused)


def check_complete(missing: set[str]) -> None:
    """RunFailure `bad_model` where weights are missing, by name."""
    if missing:
        raise RunFailure("bad_model", f"{len(missing)} weights are missing, first {min(missing)}")


def _int8_module(
    module: torch.nn.Module, table: Int8Weight, device: str, dtype: torch.dtype
) -> torch.nn.Module:
    if isinstance(module, torch.nn.Embedding):
        return Int8Embedding(table)
    assert isinstance(module, torch.nn.Linear)
    if device == "cpu":
        return Int8Head(table, module.bias)
    # No INT8 kernel of theirs was measured: on accelerators the head runs in 16 bits, with INT8's values.
    module.weight = torch.nn.Parameter(table.values().to(dtype), requires_grad=False)
    return module


def _replace(model: torch.nn.Module, old: torch.nn.Module, new: torch.nn.Module) -> None:
    for path, module in list(model.named_modules()):
        if module is old and new is not old:
            parent, _, name = path.rpartition(".")
            setattr(model.get_submodule(parent), name, new)


def _plain(module: torch.nn.Module) -> bool:
    return type(module) in (torch.nn.Embedding, torch.nn.Linear)


def _check_widths(widths: dict[str, int], group_size: int) -> None:
    wrong = {name: width for name, width in widths.items() if width % group_size}
    if not wrong:
        return
    fitting = [str(size) for size in GROUP_SIZES if not any(width % size for width in widths.values())]
    hint = f"--group_size {' or '.join(fitting)} fits" if fitting else "no group size fits this model"
    name, width = next(iter(wrong.items()))
    raise UserError(
        f"groups of {group_size} do not divide the width of {len(wrong)} of {len(widths)} layers, "
        f"first {name} with {width}; {hint}"
    )
