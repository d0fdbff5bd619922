"""The directory of an INT4 model: quantized safetensors, the source's config with the recipe, the tokenizer.

The files hold packed codes and scales (see `xpubench.weights.int4.grids`) for any device, which are brought
into a kernel's form when they are loaded. One tensor is written or read at a time.
"""

import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from xpubench.errors import RunFailure, UserError
from xpubench.files import model_aside
from xpubench.spec import Quantization
from xpubench.weights.empty import parameter_places
from xpubench.weights.int4.grids import Int4Weight, Int8Weight
from xpubench.weights.int4.layout import Weight, layout, quantized
from xpubench.weights.int4.recipes import Description, calibrated_description, read_description
from xpubench.weights.source import (
    CONFIG_FILES,
    SAFETENSORS,
    SAFETENSORS_FILE,
    Source,
    pickle_files,
    weight_files,
)

PACKED, INT8, SCALES, ZEROS = ".int4_packed", ".int8", ".scales", ".zeros"
# The largest size of a file. The tensors of one are in memory twice while they are written.
SHARD_BYTES = 128 << 20


def source_weights(
    model: Any, source: Source, recipe: Quantization
) -> Iterator[tuple[str, torch.Tensor, Weight]]:
    """Name in the empty model, float values and quantized weight of each parameter of a checkpoint."""
    return quantized(_float_tensors(model, source.directory), layout(model, recipe), recipe)


def _float_tensors(model: Any, directory: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of a checkpoint by their names in the model: some checkpoints leave the prefix of the
    model's body out or repeat it. Tensors that the model has no place for, such as the second copy of a tied
    one, are left out. RunFailure `unsupported` where the model lacks weights then, which it may have under
    the names or in the form that transformers converts."""
    known, prefix = set(parameter_places(model)), f"{model.base_model_prefix}."
    missing, left = set(known), ""
    for name, tensor in _stored_tensors(directory):
        candidates = (name, prefix + name, name.removeprefix(prefix))
        if place := next((one for one in candidates if one in known), None):
            missing.discard(place)
            yield place, tensor
        else:
            left = left or name
    if missing and left:
        what = f"has no {min(missing)} but {left}, which the model does not have by that name"
        raise RunFailure("unsupported", f"{directory} {what}; --woq converts no names: leave it out")


def _stored_tensors(directory: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Name and values of each tensor, from the .bin files where there are no others."""
    for name, file in _files_of_tensors(directory).items():
        yield name, _read(file, name)
    if not weight_files(directory):
        for file in pickle_files(directory):
            yield from torch.load(file, map_location="cpu", mmap=True, weights_only=True).items()


def write(
    target: Path, source: Path, weights: Iterable[tuple[str, Weight]], description: Description
) -> None:
    """Writes the checkpoint whole or not at all, and replaces one that is there, but not one in the working
    directory. UserError when something else is there or it cannot be written."""
    check_target(target)
    try:
        with model_aside(target) as aside:
            _write_weights(aside, weights)
            for pattern in CONFIG_FILES:
                for file in source.glob(pattern):
                    if not file.name.endswith(".index.json"):
                        shutil.copyfile(file, aside / file.name)
            config = json.loads((source / "config.json").read_text())
            config["quantization_config"] = msgspec.to_builtins(description)
            (aside / "config.json").write_text(json.dumps(config, indent=1))
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot write {target}: {getattr(error, 'strerror', None) or error}") from error


def check_target(target: Path) -> None:
    """UserError when `target` is something other than an INT4 checkpoint, an empty directory, or the working
    directory without a model."""
    if target.exists() and target.samefile(Path()):
        if taken := sorted([*target.glob("config.json"), *target.glob(SAFETENSORS)]):
            raise UserError(
                f"the working directory holds a model ({taken[0].name}), which would be overwritten; give "
                "--output_dir DIR"
            )
        return
    empty = target.is_dir() and not any(target.iterdir())
    ours = target.is_dir() and (read_description(target) or calibrated_description(target))
    if target.exists() and not empty and not ours:
        raise UserError(f"{target} exists and is not an INT4 checkpoint; choose another directory")


def read_weights(directory: Path) -> Iterator[tuple[str, Weight]]:
    """Name and quantized weight of each parameter. RunFailure `bad_model` where one lacks its scales."""
    stored = _files_of_tensors(directory)

    def part(name: str) -> torch.Tensor:
        if name not in stored:
            raise RunFailure("bad_model", f"{directory} lacks {name}")
        return _read(stored[name], name)

    for one in stored:
        if one.endswith(PACKED):
            name = one.removesuffix(PACKED)
            zeros = part(name + ZEROS) if name + ZEROS in stored else None
            yield name, Int4Weight(packed=part(one), scales=part(name + SCALES), zeros=zeros)
        elif one.endswith(INT8):
            name = one.removesuffix(INT8)
            yield name, Int8Weight(values8=part(one), scales=part(name + SCALES))
        elif not one.endswith((SCALES, ZEROS)):
            yield one, part(one)


def _files_of_tensors(directory: Path) -> dict[str, Path]:
    stored: dict[str, Path] = {}
    for file in weight_files(directory):
        with safe_open(file, framework="pt") as opened:
            stored |= dict.fromkeys(opened.keys(), file)
    return stored


def _read(file: Path, name: str) -> torch.Tensor:
    # The file is opened anew for each tensor, so that the pages of earlier ones do not stay in memory.
    with safe_open(file, framework="pt") as opened:
        tensor: torch.Tensor = opened.get_tensor(name)
    return tensor


def _write_weights(directory: Path, weights: Iterable[tuple[str, Weight]]) -> None:
    index: dict[str, str] = {}
    for number, shard in enumerate(_shards(weights), 1):
        name = f"model-{number:05}.safetensors"
        save_file(shard, directory / name, metadata={"format": "pt"})
        index |= dict.fromkeys(shard, name)
    total = sum(file.stat().st_size for file in directory.glob("*.safetensors"))
    fields = {"metadata": {"total_size": total}, "weight_map": index}
    (directory / f"{SAFETENSORS_FILE}.index.json").write_text(json.dumps(fields, indent=1))


def _shards(weights: Iterable[tuple[str, Weight]]) -> Iterator[dict[str, torch.Tensor]]:
    shard: dict[str, torch.Tensor] = {}
    for name, weight in weights:
        parts = {part: tensor.contiguous() for part, tensor in _parts(name, weight).items()}
        if shard and sum(tensor.nbytes for tensor in (shard | parts).values()) > SHARD_BYTES:
            yield shard
            shard = {}
        shard |= parts
    if shard:
        yield shard


def _parts(name: str, weight: Weight) -> dict[str, torch.Tensor]:
    if isinstance(weight, Int8Weight):
        return {name + INT8: weight.values8, name + SCALES: weight.scales}
    if isinstance(weight, Int4Weight):
        zeros = {} if weight.zeros is None else {name + ZEROS: weight.zeros}
        return {name + PACKED: weight.packed, name + SCALES: weight.scales, **zeros}
    return {name: weight}
