"""A rank's part of a model, made by reading only the slices of the weights that it needs.

AutoTP itself tells which slices these are. It shards a model of one layer whose weights hold the number of
their row at every place, and then one whose weights hold the number of their column. The numbers that are
left on this rank are those of the rows and columns to read.
"""

import re
from collections.abc import Callable, Iterator
from itertools import zip_longest
from typing import Any, Protocol

import msgspec
import torch
from safetensors import safe_open

from xpubench.weights.dummy import BLOCK, SPREAD, TURN, Filler
from xpubench.weights.empty import empty_model, transformers_config
from xpubench.weights.source import Source, weight_files

Segments = list[tuple[int, int]]  # (start, stop) of runs of rows or of columns
Shard = Callable[[Any, torch.dtype], Any]  # shards a model and gives this rank's part

LAYER = re.compile(r"\.\d+\.")
# The most bytes of a matrix that are read at once, in addition to the part itself.
CHUNK_BYTES = 4 << 20
# The vocabulary of the model that AutoTP is tried on can be short, because AutoTP does not cut it here.
PROBE_VOCABULARY = 64


class Cut(msgspec.Struct, frozen=True):
    """The rows and columns of a weight that a rank holds; None is all of them."""

    rows: Segments | None
    columns: Segments | None

    def shape_of(self, whole: torch.Size) -> tuple[int, ...]:
        """The shape of the part of a weight of that shape."""
        cuts = zip_longest(whole, (self.rows, self.columns)[: len(whole)])
        return tuple(size if cut is None else sum(stop - start for start, stop in cut) for size, cut in cuts)


class WeightReader(Protocol):
    """Reads weights by their names in the whole model."""

    def read(self, name: str, start: int, stop: int, columns: Segments | None) -> torch.Tensor:
        """Rows `start` to `stop` of a weight, and of these the columns."""


def sharded_model(
    config: dict[str, Any], dtype: torch.dtype, shard: Shard, weights: Callable[[Any], WeightReader | None]
) -> Any | None:
    """This rank's part of the config's model in `dtype`, read slice by slice. None where that is
    impossible: `weights`, called with the empty model, returns None, or the layers are not all cut in
    the same way."""
    model = empty_model(config, dtype)
    source = weights(model)
    if source is None:
        return None
    shapes = {name: one.shape for name, one in model.named_parameters(remove_duplicate=False)}
    cuts = find_cuts(config, shard)
    part = shard(model, dtype)
    wanted = dict(part.named_parameters())
    for name, parameter in wanted.items():
        cut = cuts.get(LAYER.sub(".0.", name))
        if cut is None or name not in shapes or cut.shape_of(shapes[name]) != tuple(parameter.shape):
            return None
    for name, parameter in wanted.items():
        fill_shard(parameter, source, name, cuts[LAYER.sub(".0.", name)], shapes[name])
        parameter.requires_grad_(False)
    return part.eval()


def find_cuts(config: dict[str, Any], shard: Shard) -> dict[str, Cut]:
    """How the weights of the first layer, and those outside the layers, are cut for this rank."""
    rows, columns = (_numbers(config, shard, axis) for axis in (0, 1))
    return {name: Cut(rows[name], columns[name]) for name in rows}


def _numbers(config: dict[str, Any], shard: Shard, axis: int) -> dict[str, Segments | None]:
    """The slices along one axis that this rank holds of each weight of one layer with a short vocabulary."""
    small = transformers_config({name: value for name, value in config.items() if name != "layer_types"})
    small.update({"num_hidden_layers": 1, "vocab_size": PROBE_VOCABULARY, "pad_token_id": 0})
    model = empty_model(small, torch.float32)
    lengths = {}
    for module_name, module in model.named_modules():
        for name, empty in module.named_parameters(recurse=False):
            lengths[f"{module_name}.{name}"] = length = empty.shape[axis] if axis < empty.dim() else 0
            numbers = torch.arange(float(length or 1))
            if empty.dim() == 2:
                numbers = numbers[:, None] if axis == 0 else numbers[None, :]
            elif axis == 1:
                numbers = torch.zeros(empty.shape)
            setattr(module, name, torch.nn.Parameter(numbers.expand(empty.shape), requires_grad=False))
    found: dict[str, Segments | None] = {}
    for name, parameter in shard(model, torch.float32).named_parameters():
        if axis >= parameter.dim() or name not in lengths:
            found[name] = None
            continue
        if parameter.numel() == 0:  # a narrow layer can leave a rank without a slice
            found[name] = None if parameter.shape[axis] else []
            continue
        line = parameter if parameter.dim() == 1 else parameter[:, 0] if axis == 0 else parameter[0]
        found[name] = segments(line.round().long().tolist(), lengths[name])
    return found


def segments(numbers: list[int], length: int) -> Segments | None:
    """The runs of successive numbers; None where they are all of 0 to `length`.

    >>> segments([4, 5, 8, 9], 12)
    [(4, 6), (8, 10)]
    """
    runs: Segments = []
    for number in numbers:
        if runs and runs[-1][1] == number:
            runs[-1] = (runs[-1][0], number + 1)
        else:
            runs.append((number, number + 1))
    return None if runs == [(0, length)] else runs


def fill_shard(parameter: torch.Tensor, source: WeightReader, name: str, cut: Cut, whole: torch.Size) -> None:
    """Copies a weight's slices into the parameter, a few rows at a time."""
    if parameter.numel() == 0:
        return
    row_bytes = max(1, whole.numel() // whole[0] * parameter.element_size())
    place = 0
    with torch.no_grad():
        for start, stop in chunks(cut.rows or [(0, whole[0])], max(1, CHUNK_BYTES // row_bytes)):
            piece = source.read(name, start, stop, cut.columns)
            parameter[place : place + stop - start].copy_(piece)
            place += stop - start


def chunks(runs: Segments, most: int) -> Iterator[tuple[int, int]]:
    """The runs, cut into pieces of at most `most` numbers."""
    for start, stop in runs:
        for first in range(start, stop, most):
            yield first, min(first + most, stop)


class CheckpointWeights:
    """The weights in a checkpoint's safetensors files."""

    def __init__(self, files: dict[str, tuple[Any, str]]) -> None:
        self._files = files

    @classmethod
    def of(cls, source: Source, model: Any) -> "CheckpointWeights | None":
        """The checkpoint's weights for that model; None where one is missing or has another shape."""
        stored: dict[str, tuple[Any, tuple[int, ...]]] = {}
        for path in weight_files(source.directory):
            with safe_open(path, "pt") as file:
                for key in file.keys():  # noqa: SIM118  # it is no dictionary
                    stored[key] = path, tuple(file.get_slice(key).get_shape())
        prefix = f"{model.base_model_prefix}."
        names: dict[int, list[str]] = {}
        for name, parameter in model.named_parameters(remove_duplicate=False):
            names.setdefault(id(parameter), []).append(name)
        files = {}
        for name, parameter in model.named_parameters(remove_duplicate=False):
            # Tied weights are stored once, and some checkpoints hold only the body.
            known = names[id(parameter)]
            keys = [key for one in known for key in (one, one.removeprefix(prefix)) if key in stored]
            if not keys or stored[keys[0]][1] != tuple(parameter.shape):
                return None
            files[name] = stored[keys[0]][0], keys[0]
        return cls(files)

    def read(self, name: str, start: int, stop: int, columns: Segments | None) -> torch.Tensor:
        path, key = self._files[name]
        # The file is opened for each read, because the pages read through one mapping count as memory in use.
        with safe_open(path, "pt") as file:
            part = file.get_slice(key)
            if columns is None:
                rows: torch.Tensor = part[start:stop]
                return rows
            return torch.cat([part[start:stop, first:last] for first, last in columns], dim=1)


class DummyWeights:
    """Any part of the random weights of `build_dummy`."""

    def __init__(self, model: Any, *, device: str, seed: int) -> None:
        self._filler = Filler(device, seed, getattr(model.config, "initializer_range", None) or SPREAD)
        self._made: dict[str, tuple[str, torch.Tensor, int]] = {}
        turns: dict[int, int] = {}
        for module_name, module in model.named_modules():
            for name, empty in module.named_parameters(recurse=False):
                turn = turns.setdefault(id(empty), len(turns) + 1)
                # A copy, because sharding cuts the parameter itself.
                self._made[f"{module_name}.{name}"] = name, torch.empty_like(empty), turn * TURN % BLOCK
        self._last: tuple[str, torch.Tensor] | None = None

    def read(self, name: str, start: int, stop: int, columns: Segments | None) -> torch.Tensor:
        kind, empty, turned = self._made[name]
        if self._last is None or self._last[0] != name:
            self._last = name, self._filler.values(kind, empty, turned)
        values = self._last[1]
        width = empty.numel() // empty.shape[0]
        if columns is None:
            places = torch.arange(start * width, stop * width, device=values.device)
            return values[places % BLOCK].view(stop - start, *empty.shape[1:])
        chosen = torch.cat([torch.arange(first, last, device=values.device) for first, last in columns])
        rows = torch.arange(start, stop, device=values.device)[:, None] * width
        return values[(rows + chosen) % BLOCK]
