"""Which weights of a model are quantized, and the INT4 model that holds them."""

from collections.abc import Iterable, Iterator, Sequence
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
# The modules and attribute names of one parameter.
Places: TypeAlias = list[tuple[torch.nn.Module, str]]


def layout(model: Any, recipe: Quantization) -> dict[str, WeightKind]:
    """The precision of each parameter of an empty model, by its first name. Modules that the recipe names
    stay in high precision. The other linear layers are INT4; token table and output head are INT8, unless
    the recipe keeps them in high precision or their classes are not torch's own. Tables of positions,
    vectors and scalars stay in high precision. RunFailure `unsupported` where the model has other matrices;
    UserError where none is left for INT4, for a glob that matches nothing, and for a group size that does
    not divide a layer's width."""
    head, table = model.get_output_embeddings(), model.get_input_embeddings()
    all_places = parameter_places(model)
    kept = _kept(model, all_places, recipe.high_precision)
    kinds: dict[str, WeightKind] = {}
    widths: dict[str, int] = {}
    others: list[str] = []
    for name, places in all_places.items():
        modules = [module for module, attribute in places if attribute == "weight"]
        owner = places[0][0]
        kinds[name] = "high"
        if any(module in kept for module, _ in places):
            continue
        if any(module is head or module is table for module in modules):
            if recipe.head == "int8" and all(type(module) in PLAIN for module in modules):
                kinds[name] = "int8"
        elif modules and all(type(module) is torch.nn.Linear for module in modules):
            kinds[name], widths[name] = "int4", modules[0].in_features
        elif _is_matrix(places) and not isinstance(owner, torch.nn.Embedding):
            others.append(f"{name} of {type(owner).__name__}")
    if others:
        what = f"{len(others)} matrices that are not those of linear layers, first {others[0]}"
        hint = "leave out --woq, or keep them in high precision with --woq_keep"
        raise RunFailure("unsupported", f"{type(model).__name__} has {what}, and no INT4 for them; {hint}")
    if not widths:
        raise UserError(f"--woq_keep {' '.join(recipe.high_precision)} leaves no matrix for INT4; keep fewer")
    _check_widths(widths, recipe.group_size)
    return kinds


def matching(names: Sequence[str], globs: Sequence[str]) -> list[str]:
    """The names of modules that match one of the globs. UserError for a glob that matches none."""
    for glob in globs:
        if not any(fnmatch(name, glob) for name in names):
            some = ", ".join(names[:3])
            raise UserError(f"--woq_keep {glob!r} matches no module that holds a matrix, such as {some}")
    return [name for name in names if any(fnmatch(name, glob) for glob in globs)]


def _kept(model: Any, places: dict[str, Places], globs: Sequence[str]) -> set[Any]:
    """The modules with matrices of their own that the globs name."""
    owners = {module for found in places.values() if _is_matrix(found) for module, _ in found}
    named = {name: module for name, module in model.named_modules() if module in owners}
    return {named[name] for name in matching(list(named), globs)}


def _is_matrix(places: Places) -> bool:
    return bool(getattr(*places[0]).dim() > 1)


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
    weights that are missing or of another shape, `unsupported` where none is in INT4."""
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
            if weight.dim() > 1:
                high.append(name)
            parameter = torch.nn.Parameter(weight.to(device, dtype), requires_grad=False)
        for module, attribute in places[name]:
            setattr(module, attribute, parameter)
    check_complete(missing)
    if not int4:
        raise RunFailure(
            "unsupported", f"the INT4 kernel of {device} takes none of the matrices; leave out --woq"
        )
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
