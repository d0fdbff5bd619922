"""The highest bandwidth and the highest rate of matrix products that any process has measured on a device,
kept in files with the samples and their dates.

A process reaches at most what the device can do, because other work can only slow it down. On shared
machines, the figures of two processes differ by half and more. The highest of all samples is therefore the
best ceiling known.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from xpubench.environment import DeviceFacts
from xpubench.files import cache_directory, write_aside
from xpubench.record import CeilingSample, PeakSample

# Samples of another version were measured in another way and do not count.
VERSION = 1
# A file with more samples is cut to its highest and the latest of them.
MOST, LATEST = 1000, 200


class Whose(msgspec.Struct, frozen=True):
    """A line of a file of samples that says what the file's name is the digest of."""

    of: list[Any]


Sample = TypeVar("Sample", CeilingSample, PeakSample)


def highest_shown(
    device: DeviceFacts, threads: int | None, buffer_bytes: int, sample: CeilingSample
) -> CeilingSample:
    """Keeps the sample, and returns the highest sample of the same device, driver and memory, the same number
    of threads (on a CPU) and the same size of buffers. Where the cache directory cannot be used, nothing is
    kept."""
    return _highest_kept(
        "ceilings", [*_known(device, threads), buffer_bytes], sample, lambda one: one.gb_per_s
    )


def highest_peak(device: DeviceFacts, threads: int | None, dtype: str, sample: PeakSample) -> PeakSample:
    """The same as `highest_shown` for the rate of matrix products in a dtype."""
    return _highest_kept("peaks", [*_known(device, threads), dtype], sample, lambda one: one.tflop_per_s)


def kept_ceiling(kind: str, name: str, threads: int | None) -> CeilingSample | None:
    """The highest bandwidth that any process has shown on the device of that kind and name, with that number
    of threads (None: with any) and the largest buffers, whatever the driver and the memory; None where none
    is kept."""
    found: dict[int, list[CeilingSample]] = {}
    with contextlib.suppress(OSError, RuntimeError):
        for path in (cache_directory() / "ceilings").glob("*.jsonl"):
            text = path.read_bytes()
            of = _whose(text)
            if of is not None and of[:3] == [VERSION, kind, name] and threads in (None, of[5]):
                found.setdefault(of[6], []).extend(_samples(text, CeilingSample))
    return max(found[max(found)], key=lambda one: one.gb_per_s, default=None) if found else None


def _known(device: DeviceFacts, threads: int | None) -> list[object]:
    return [VERSION, device.kind, device.name, device.driver, device.total_memory_bytes, threads]


def _highest_kept(
    directory: str, what: list[object], sample: Sample, value: Callable[[Sample], float]
) -> Sample:
    key = hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]
    samples: list[Sample] = [sample]
    with contextlib.suppress(OSError, RuntimeError):
        path = cache_directory() / directory / f"{key}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        _append(path, sample)
        text = path.read_bytes()
        if _whose(text) is None:
            _append(path, Whose(of=what))
        samples += _samples(text, type(sample))
        if len(samples) > MOST:
            kept = [Whose(of=what), max(samples, key=value), *samples[-LATEST:]]
            write_aside(path, b"".join(msgspec.json.encode(one) + b"\n" for one in kept))
    return max(samples, key=value)


def _append(path: Path, line: msgspec.Struct) -> None:
    # A short line is written in one piece, even where two processes append to the file.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(descriptor, msgspec.json.encode(line) + b"\n")
    finally:
        os.close(descriptor)


def _whose(text: bytes) -> list[Any] | None:
    """What the samples of a file belong to; None in a file of earlier versions, which does not tell it."""
    lines = (line for line in text.splitlines() if line.startswith(b'{"of":'))
    for line in lines:
        with contextlib.suppress(msgspec.DecodeError):
            return msgspec.json.decode(line, type=Whose).of
    return None


def _samples(text: bytes, kind: type[Sample]) -> list[Sample]:
    """The samples in the text of a file. Lines that are not samples are left out."""
    found = []
    for line in text.splitlines():
        with contextlib.suppress(msgspec.DecodeError):
            found.append(msgspec.json.decode(line, type=kind))
    return found
