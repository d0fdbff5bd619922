"""GGUF files: which one a model's name refers to, and what its header says."""

import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from xpubench.catalog import SMOLLM2
from xpubench.errors import UserError, first_line
from xpubench.files import expanded
from xpubench.record import WeightsFingerprint
from xpubench.runtimes.base import Origin
from xpubench.weights.embedded import smollm2_gguf

SHARD = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf")
HUB_ADDRESS = re.compile(r"https://huggingface\.co/([\w.-]+/[\w.-]+)/?")
# The reader raises these for a file that is not a complete GGUF, because it slices by the sizes that it reads
# from the file.
BROKEN = (ValueError, IndexError, KeyError, OSError, OverflowError, MemoryError)
# A step reads one row of these tables for each sequence. Without `output.weight`, the first table is the
# output head too.
TABLES = ("token_embd.weight", "position_embd.weight")
HEAD = "output.weight"
# By the fields `<architecture>.expert_*` of a header those of a transformers config.
MIXTURE = {
    "count": "num_local_experts",
    "used_count": "num_experts_per_tok",
    "feed_forward_length": "moe_intermediate_size",
    "shared_feed_forward_length": "shared_expert_intermediate_size",
}


class Gguf(msgspec.Struct, frozen=True, kw_only=True):
    """The header of a GGUF. `files` is a single file or the shards of a split one. `weights` is the type that
    most values have, without the embeddings and the output head, `matrix_types` are the types of all
    matrices, and `tensor_bytes` are the bytes of the tensors of each type. `step_weight_bytes` are those of
    all tensors that a step of many sequences reads, every expert of a mixture among them, and `mixture` are
    the fields of a transformers config that tell how many a token uses. `source` is the hub's repository that
    the header says it was made from."""

    files: tuple[Path, ...]
    architecture: str
    weights: str
    matrix_types: tuple[str, ...]
    tensor_bytes: dict[str, int]
    weight_bytes: int
    step_weight_bytes: int
    mixture: dict[str, Any] = {}
    source: str | None = None


def read_gguf(model: str) -> Gguf:
    """The header of the GGUF that `model` names. UserError where it names none, several or a broken one;
    RunFailure `bad_model` where the file of the embedded model is not the known one."""
    files = files_of(model)
    return _read(files, tuple(file.stat().st_mtime_ns for file in files))


def files_of(model: str) -> tuple[Path, ...]:
    """The files of the GGUF that `model` names: a file, the only GGUF in a directory, or the embedded model.
    Raises the same errors as `read_gguf`, except those for the content of a file."""
    if model.lower() == SMOLLM2:
        return (_embedded(),)
    path = expanded(model)
    if path.is_dir():
        return _only_one(path)
    if not path.is_file():
        raise UserError(
            f"no such GGUF: {model}; llama.cpp takes a .gguf file, a directory that holds one, or {SMOLLM2}"
        )
    return _shards(path)


def config_of_gguf(gguf: Gguf) -> dict[str, Any]:
    """The fields of a transformers config, made from the header; only `model_type` where transformers does
    not know the architecture."""
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    from xpubench.weights.quiet import quiet_transformers

    try:
        with quiet_transformers():
            config = load_gguf_checkpoint(str(gguf.files[0]))["config"]
    except (ValueError, KeyError):
        return {"model_type": gguf.architecture}
    # Values of NumPy's types become plain ones, and values that JSON cannot hold are left out.
    plain = {name: getattr(value, "item", lambda value=value: value)() for name, value in config.items()}
    kept = {name: value for name, value in plain.items() if isinstance(value, bool | int | float | str)}
    return kept | gguf.mixture


def origin_of(model: str) -> Origin | None:
    """The checkpoint that a GGUF was made from: the one beside it, or the repository that its header names;
    None where neither is known. RunFailure `bad_model` where the one beside it is incomplete."""
    if model.lower() == SMOLLM2:
        return Origin(model=SMOLLM2)
    gguf = read_gguf(model)
    if (directory := _checkpoint_beside(gguf)) is not None:
        return Origin(model=str(directory))
    return None if gguf.source is None else Origin(model=gguf.source)


def fingerprint_of(model: str) -> WeightsFingerprint | None:
    """The fingerprint of the checkpoint that a GGUF was made from, None where that is not here; of a GGUF
    whose checkpoint nobody knows its own. Raises as `origin_of` does."""
    from xpubench.weights.fingerprint import of_directory, of_files

    gguf = read_gguf(model)
    if (directory := _checkpoint_beside(gguf)) is not None:
        return of_directory(directory)
    return of_files(config_of_gguf(gguf), list(gguf.files)) if gguf.source is None else None


def _checkpoint_beside(gguf: Gguf) -> Path | None:
    """The directory of a GGUF where it holds a checkpoint too: a config alone is none."""
    from xpubench.weights.source import pickle_files, weight_files

    directory = gguf.files[0].parent
    has_config = (directory / "config.json").is_file()
    return directory if has_config and (weight_files(directory) or pickle_files(directory)) else None


@cache
def _embedded() -> Path:
    return smollm2_gguf()


def _only_one(directory: Path) -> tuple[Path, ...]:
    found = sorted(path for path in directory.glob("*.gguf") if path.is_file())
    firsts = [path for path in found if (match := SHARD.fullmatch(path.name)) is None or int(match[2]) == 1]
    if not firsts:
        raise UserError(
            f"{directory} holds no complete GGUF; give a .gguf file, or a directory that holds one"
        )
    if len(firsts) > 1:
        names = ", ".join(path.name for path in firsts)
        raise UserError(f"{directory} holds {len(firsts)} models; give one of the files: {names}")
    return _shards(firsts[0])


def _shards(path: Path) -> tuple[Path, ...]:
    """The file, or all shards of a split file; llama.cpp is given the first."""
    match = SHARD.fullmatch(path.name)
    if match is None:
        return (path,)
    count = int(match[3])
    every = [path.with_name(f"{match[1]}-{number:05}-of-{count:05}.gguf") for number in range(1, count + 1)]
    if missing := [one.name for one in every if not one.is_file()]:
        raise UserError(f"{path.parent} lacks {', '.join(missing)}, which {path.name} needs")
    return tuple(every)


@cache
def _read(files: tuple[Path, ...], modified_ns: tuple[int, ...]) -> Gguf:
    from gguf import GGUFReader

    values: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    by_name: dict[str, int] = {}
    matrix_types: set[str] = set()
    fields: dict[str, Any] = {}
    for file in files:
        try:
            reader = GGUFReader(file)
            single = {name: field for name, field in reader.fields.items() if len(field.data) == 1}
            fields |= {name: field.contents() for name, field in single.items()}
        except BROKEN as error:
            raise UserError(f"{file} is not a complete GGUF: {first_line(error)}") from error
        for tensor in reader.tensors:
            kind = tensor.tensor_type.name
            if tensor.name not in (*TABLES, HEAD):
                values[kind] += tensor.n_elements
            sizes[kind] += tensor.n_bytes
            by_name[tensor.name] = tensor.n_bytes
            if len(tensor.shape) > 1:
                matrix_types.add(kind)
    architecture = fields.get("general.architecture")
    if not values or not isinstance(architecture, str):
        raise UserError(f"{files[0]} holds no model: it names no architecture, or has no tensors")
    return Gguf(
        files=files,
        architecture=architecture,
        weights=values.most_common(1)[0][0],
        matrix_types=tuple(sorted(matrix_types)),
        tensor_bytes=dict(sizes),
        weight_bytes=sum(sizes.values()),
        step_weight_bytes=_step_bytes(by_name),
        mixture=_mixture(architecture, fields),
        source=_source(fields),
    )


def _source(fields: dict[str, Any]) -> str | None:
    """The hub's repository that a header names as its source, by its id or its address."""
    if (repository := fields.get("general.source.huggingface.repository")) is not None:
        return str(repository)
    address = HUB_ADDRESS.fullmatch(str(fields.get("general.source.repo_url")))
    return address[1] if address else None


def _mixture(architecture: str, fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of a transformers config that a mixture of experts has, empty of another model."""
    told = {name: fields.get(f"{architecture}.expert_{key}") for key, name in MIXTURE.items()}
    found = {name: int(value) for name, value in told.items() if value}
    # Mixtral's GGUFs are of Llama's architecture.
    return found | ({"model_type": "mixtral"} if found and architecture == "llama" else {})


def _step_bytes(by_name: dict[str, int]) -> int:
    """The bytes of all tensors but the tables of which a step reads rows. The first of them is the output
    head where there is no other."""
    tables = TABLES if HEAD in by_name else TABLES[1:]
    return sum(size for name, size in by_name.items() if name not in tables)
