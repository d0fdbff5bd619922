"""The directory of an INT4 model: quantized safetensors, the source's config with the recipe, the tokenizer.

Independent of device and kernel: packed codes and scales (see `xpubench.weights.int4.grids`), which are
brought into a kernel's form when they are loaded. Written and read a tensor at a time.
"""

import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from xpubench.errors import RunFailure, UserError
from xpubench.files import directory_aside
from xpubench.weights.int4.grids import Int4Weight, Int8Weight
from xpubench.weights.int4.layout import Weight
from xpubench.weights.int4.recipes import Description, read_description
from xpubench.weights.source import CONFIG_FILES, SAFETENSORS_FILE, pickle_files, weight_files

PACKED, INT8, SCALES, ZEROS = ".int4_packed", ".int8", ".scales", ".zeros"
# A file is written when it has so many bytes: what waits is held twice while it is written.
SHARD_BYTES = 128 << 20


def float_tensors(directory: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Name and values of each tensor of a checkpoint, one at a time; of .bin files where it has no other."""
    for name, file in _stored(directory).items():
        yield name, _read(file, name)
    if not weight_files(directory):
        for file in pickle_files(directory):
            yield from torch.load(file, map_location="cpu", mmap=True, weights_only=True).items()


def write(
    target: Path, source: Path, weights: Iterable[tuple[str, Weight]], description: Description
) -> None:
    """Writes the checkpoint whole or not at all; one that lies there is replaced.

    Raises UserError when something else lies there or it cannot be written.
    """
    check_target(target)
    try:
        with directory_aside(target, replace=True) as aside:
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
    """UserError when something other than an INT4 checkpoint lies at `target`."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not target.is_dir() or read_description(target) is None:
        raise UserError(f"{target} exists and is no INT4 checkpoint; choose another directory")


def read_weights(directory: Path) -> Iterator[tuple[str, Weight]]:
    """Name and quantized weight of each parameter. RunFailure `bad_model` where one lacks its scales."""
    stored = _stored(directory)

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


def _stored(directory: Path) -> dict[str, Path]:
    """The file in which each tensor lies."""
    stored: dict[str, Path] = {}
    for file in weight_files(directory):
        with safe_open(file, framework="pt") as opened:
            stored |= dict.fromkeys(opened.keys(), file)
    return stored


def _read(file: Path, name: str) -> torch.Tensor:
    # Opened anew for each tensor: the pages of those before it do not stay in memory.
    with safe_open(file, framework="pt") as opened:
        tensor: torch.Tensor = opened.get_tensor(name)
    return tensor


def _write_weights(directory: Path, weights: Iterable[tuple[str, Weight]]) -> None:
    waiting: dict[str, torch.Tensor] = {}
    index: dict[str, str] = {}
    count = 0

    def flush() -> None:
        nonlocal count
        if not waiting:
            return
        count += 1
        name = f"model-{count:05}.safetensors"
        save_file(waiting, directory / name, metadata={"format": "pt"})
        index.update(dict.fromkeys(waiting, name))
        waiting.clear()

    for name, weight in weights:
        parts = {part: tensor.contiguous() for part, tensor in _parts(name, weight).items()}
        size = sum(tensor.nbytes for tensor in parts.values())
        if sum(tensor.nbytes for tensor in waiting.values()) + size > SHARD_BYTES:
            flush()
        waiting |= parts
    flush()
    total = sum(file.stat().st_size for file in directory.glob("*.safetensors"))
    (directory / f"{SAFETENSORS_FILE}.index.json").write_text(
        json.dumps({"metadata": {"total_size": total}, "weight_map": index}, indent=1)
    )


def _parts(name: str, weight: Weight) -> dict[str, torch.Tensor]:
    if isinstance(weight, Int8Weight):
        return {name + INT8: weight.values8, name + SCALES: weight.scales}
    if isinstance(weight, Int4Weight):
        zeros = {} if weight.zeros is None else {name + ZEROS: weight.zeros}
        return {name + PACKED: weight.packed, name + SCALES: weight.scales, **zeros}
    return {name: weight}
