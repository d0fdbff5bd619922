"""Fingerprints, which tell one checkpoint from another without reading all of its weights."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from xpubench.record import WeightsFingerprint
from xpubench.runtimes.options import NEURAL_COMPRESSOR_METHOD
from xpubench.spec import Subject
from xpubench.weights import lora
from xpubench.weights.int4.recipes import calibrated_description, quantization_fields, read_description
from xpubench.weights.source import pickle_files, source_of, weight_files

# Each file of weights is read in this many evenly spread samples of this many bytes.
SAMPLES, SAMPLE_BYTES = 64, 4096
# Larger files that are not weights, such as a copy of them in another format, are sampled too.
WHOLE_BYTES = 64 << 20


class Fingerprint(msgspec.Struct, frozen=True, kw_only=True):
    """A checkpoint or a LoRA adapter, as hexadecimal SHA-256 digests and times. Copies of one checkpoint have
    the same `config` and `weights`. These two miss a change of the weights between the samples that keeps the
    size of each file, such as one tensor edited in place; tuning a model changes all of it.
    `weights_modified_ns` changes with every edit and every copy."""

    config: str  # of the fields of config.json or adapter_config.json, in any order
    weights: str  # of the size and the samples of each file that weights are loaded from
    others: str  # of the names and the content of the other files: tokenizer, generation config, code
    weights_modified_ns: tuple[int, ...]  # of each file of weights, since 1970


def fingerprint(directory: Path) -> Fingerprint:
    """The fingerprint of the checkpoint or LoRA adapter in a directory, without its subdirectories. Raises
    RunFailure `bad_model` where the index of the weights is broken, OSError and ValueError where the config
    cannot be read."""
    config, weights = _files(directory)
    read = {*weights, config}
    others = sorted(path for path in directory.iterdir() if path.is_file() and path not in read)
    known = of_files(json.loads(config.read_text()), weights)
    return Fingerprint(
        config=known.config,
        weights=known.weights,
        others=_digest(part for path in others for part in (path.name.encode(), _content(path))),
        weights_modified_ns=tuple(path.stat().st_mtime_ns for path in weights),
    )


def of_subject(subject: Subject) -> WeightsFingerprint | None:
    """As `of_checkpoint`, of what a subject runs; None for dummy weights. Raises as `source_of` does too."""
    if subject.weights != "pretrained":
        return None
    return of_checkpoint(source_of(subject).directory, subject.lora)


def of_checkpoint(directory: Path, adapter: str | None = None) -> WeightsFingerprint | None:
    """The fingerprint of the checkpoint in a directory with a LoRA adapter on it. A quantized model that this
    tool saved has that of the model it was made of, with a digest of its own files; None where it does not
    say of which one. Raises as `fingerprint` does."""
    if quantization_fields(directory).get("quant_method") == NEURAL_COMPRESSOR_METHOD:
        return None
    found: WeightsFingerprint | None = of_directory(directory)
    if (kept := calibrated_description(directory) or read_description(directory)) is not None:
        source, own = kept.checkpoint, _digest_of(directory)
        found = None if source is None else msgspec.structs.replace(source, quantized_files=own)
    return found and with_adapter(found, adapter)


def with_adapter(base: WeightsFingerprint, adapter: str | None) -> WeightsFingerprint:
    """The fingerprint of a model with the LoRA adapter in a directory, if any, on it."""
    if adapter is None:
        return base
    return msgspec.structs.replace(base, adapter=_digest_of(Path(adapter)))


def _digest_of(directory: Path) -> str:
    """Both parts of `of_directory` in one."""
    found = of_directory(directory)
    return _digest([found.config.encode(), found.weights.encode()])


def of_directory(directory: Path) -> WeightsFingerprint:
    """The part of `fingerprint` that differs between models. Raises as `fingerprint` does."""
    config, weights = _files(directory)
    return of_files(json.loads(config.read_text()), weights)


def of_files(config: dict[str, Any], weights: list[Path]) -> WeightsFingerprint:
    """The fingerprint of a model with these fields of the config and these files of weights."""
    return WeightsFingerprint(
        config=config_digest(config), weights=_digest(_sampled(path) for path in weights)
    )


def _files(directory: Path) -> tuple[Path, list[Path]]:
    """The config of a checkpoint or an adapter, and its files of weights."""
    config = directory / "config.json"
    if config.exists():
        return config, weight_files(directory) or pickle_files(directory)
    return directory / lora.CONFIG_FILE, [directory / lora.WEIGHTS_FILE]


def config_digest(config: dict[str, Any]) -> str:
    """The digest of a config's fields, in any order."""
    return _digest([json.dumps(config, sort_keys=True).encode()])


def _content(path: Path) -> bytes:
    return path.read_bytes() if path.stat().st_size <= WHOLE_BYTES else _sampled(path)


def _sampled(path: Path) -> bytes:
    size = path.stat().st_size
    samples = [size.to_bytes(8, "little")]
    with path.open("rb") as file:
        for place in range(0, size, max(size // SAMPLES, SAMPLE_BYTES)):
            file.seek(place)
            samples.append(file.read(SAMPLE_BYTES))
    return b"".join(samples)


def _digest(parts: Iterable[bytes]) -> str:
    known = hashlib.sha256()
    for part in parts:
        # Each part is digested alone, so that no two lists of parts give the same bytes.
        known.update(hashlib.sha256(part).digest())
    return known.hexdigest()
