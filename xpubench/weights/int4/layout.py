"""Which weights of a model are quantized, and the INT4 model that holds them."""

from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from typing import Any, Literal, TypeAlias

import torch

from xpubench.errors import RunFailure, UserError
from xpubench.runtimes.options import AppliedQuantization
from xpubench.spec import GROUP_SIZES, Quantization
from xpubench.weights.empty import parameter_places
from xpubench.weights.int4 import kernels
from xpubench.weights.int4.grids import Int4Weight, Int8Weight, quantize_int4, quantize_int8

PLAIN = (torch.nn.Embedding, torch.nn.Linear)
WeightKind = Literal["int4", "int8", "high"]
Weight: TypeAlias = torch.Tensor | Int4Weight | Int8Weight


def layout(model: Any, recipe: Quantization) -> dict[str, WeightKind]:
    """The precision of each parameter of an empty model, by its first name. Linear layers are INT4. Token
    table and output head are INT8, unless the recipe keeps them in high precision or their classes are
    not torch's own. Everything else stays in high precision. UserError for a group size that does not
    divide a layer's width."""
    head, table = model.get_output_embeddings(), model.get_input_embeddings()
    kinds: dict[str, WeightKind] = {}
    widths: dict[str, int] = {}
    for name, places in parameter_places(model).items():
        modules = [module for module, attribute in places if attribute == "weight"]
        kinds[name] = "high"
        if any(module is head or module is table for module in modules):
            if recipe.head == "int8" and all(type(module) in PLAIN for module in modules):
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
    """Name, source and quantized weight of each tensor."""
    for name, tensor in tensors:
        if kinds[name] == "int4":
            yield name, tensor, quantize_int4(tensor, recipe)
        elif kinds[name] == "int8":
            yield name, tensor, quantize_int8(tensor)
        else:
            yield name, tensor, tensor


def fill(
    model: Any, weights: Iterable[tuple[str, Weight]], *, device: str, dtype: torch.dtype
) -> AppliedQuantization:
    """Puts weights into an empty model in the form that the device's kernels take. RunFailure `bad_model` for
    weights that are missing or of another shape."""
    places = parameter_places(model)
    tables: dict[str, Int8Weight] = {}
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
            tables[name] = kernels.int8_parameters(weight, device, dtype)
            continue
        if isinstance(weight, Int4Weight) and not kernels.kernel_takes(weight.shape, device):
            refused.append(name)
            weight = weight.values()
        if isinstance(weight, Int4Weight):
            int4 += 1
            parameter = kernels.int4_parameter(weight, device, dtype)
        else:
            if weight.dim() == 2:
                high.append(name)
            parameter = torch.nn.Parameter(weight.to(device, dtype), requires_grad=False)
        for module, attribute in places[name]:
            setattr(module, attribute, parameter)
    check_complete(missing)
    for name, table in tables.items():
        for module, _ in places[name]:
            _replace(model, module, _int8_module(module, table, device, dtype))
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, buffer.to(device))
    precision = str(dtype).removeprefix("torch.")
    return AppliedQuantization(
        kernel=kernels.tensor_class(device).__name__,
        compute_dtype=precision,
        scale_dtype=precision,
        int4=int4,
        int8=len(tables),
        high=high,
        refused=refused,
    )


def check_complete(missing: set[str]) -> None:
    """RunFailure `bad_model` where weights are missing, by name."""
    if missing:
        raise RunFailure("bad_model", f"{len(missing)} weights are missing, first {min(missing)}")


def _int8_module(module: Any, table: Int8Weight, device: str, dtype: torch.dtype) -> Any:
    if isinstance(module, torch.nn.Embedding):
        return kernels.Int8Embedding(table)
    if device == "cpu":
        return kernels.Int8Head(table, module.bias)
    # No INT8 kernel of an accelerator was measured, so the head runs there in 16 bits, with INT8's values.
    module.weight = torch.nn.Parameter(table.values().to(dtype), requires_grad=False)
    return module


def _replace(model: torch.nn.Module, old: torch.nn.Module, new: torch.nn.Module) -> None:
    for path, module in list(model.named_modules()):
        if module is old and new is not old:
            parent, _, name = path.rpartition(".")
            setattr(model.get_submodule(parent), name, new)


def _check_widths(widths: dict[str, int], group_size: int) -> None:
    wrong = {name: width for name, width in widths.items() if width % group_size}
    if not wrong:
        return
    fitting = [str(size) for size in GROUP_SIZES if all(width % size == 0 for width in widths.values())]
    hint = f"--group_size {' or '.join(fitting)} fits" if fitting else "no group size fits this model"
    name, width = next(iter(wrong.items()))
    layers = f"{len(wrong)} of {len(widths)} layers, first {name} with {width}"
    raise UserError(f"groups of {group_size} do not divide the width of {layers}; {hint}")
