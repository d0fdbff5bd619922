"""The most bandwidth that a device has shown, kept over processes with its samples and dates.

What one process reaches is at most the device's bandwidth, since other work can only slow it; on shared
machines the figures of two processes differ by half and more. The highest of all is the best ceiling known.
"""

import contextlib
import hashlib
import json
import os

import msgspec

from xpubench.environment import DeviceFacts
from xpubench.files import cache_directory, write_aside
from xpubench.record import CeilingSample

# Samples of another version were measured in another way and do not count.
VERSION = 1
# A file with more samples is cut to its highest and the latest of them.
MOST, LATEST = 1000, 200


def highest_shown(
    device: DeviceFacts, threads: int | None, buffer_bytes: int, sample: CeilingSample
) -> CeilingSample:
    """Keeps the sample, and returns the highest of those of this device, its driver and memory, this number
    of threads (of a CPU) and this size of buffers. A cache directory that cannot be used keeps nothing."""
    what = [
        VERSION,
        device.kind,
        device.name,
        device.driver,
        device.total_memory_bytes,
        threads,
        buffer_bytes,
    ]
    key = hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]
    samples = [sample]
    with contextlib.suppress(OSError, RuntimeError):
        path = cache_directory() / "ceilings" / f"{key}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        # One write of a short line is whole, even where two processes append.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(descriptor, msgspec.json.encode(sample) + b"\n")
        finally:
            os.close(descriptor)
        samples += _samples(path.read_bytes())
        if len(samples) > MOST:
            kept = [_highest(samples), *samples[-LATEST:]]
            write_aside(path, b"".join(msgspec.json.encode(one) + b"\n" for one in kept))
    return _highest(samples)


def _highest(samples: list[CeilingSample]) -> CeilingSample:
    return max(samples, key=lambda one: one.gb_per_s)


def _samples(text: bytes) -> list[CeilingSample]:
    """The samples of a file, without lines that are none."""
    found = []
    for line in text.splitlines():
        with contextlib.suppress(msgspec.DecodeError):
            found.append(msgspec.json.decode(line, type=CeilingSample))
    return found
