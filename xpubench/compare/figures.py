"""The figures of a latency run that are compared, each as one value a process."""

from collections.abc import Callable
from itertools import chain
from math import inf
from typing import Literal

import msgspec

from xpubench.compare.judgement import COST, LATENCY, RATE, Words
from xpubench.record import Record

FigureName = Literal[
    "first_token",
    "next_token",
    "next_token_p90",
    "next_token_p99",
    "end_to_end",
    "tokens_per_s",
    "peak_device",
    "peak_host",
    "load",
]
# A percentile of fewer samples would be one of the largest alone.
P90_SAMPLES, P99_SAMPLES = 10, 100


class Figure(msgspec.Struct, frozen=True):
    """One figure that is compared: its title, which of the limits applies to it, the words for its changes,
    and the function that reads its value from a record (None where the record has none). Where it is
    `of_iterations`, the value comes from the record's iterations alone."""

    title: str
    limit: Literal["latency", "memory"]
    words: Words
    value: Callable[[Record], float | None]
    of_iterations: bool = False


def next_token_rows(record: Record) -> list[list[int]]:
    """The next token latencies of each iteration that has them, in ns."""
    return [one.next_token_ns for one in record.samples.iterations if one.next_token_ns]


def unusable(record: Record) -> str | None:
    """Why a latency record that went well has nothing to compare; None where it has."""
    if record.latency is None:
        return "has no figures"
    if record.checks.logits_finite is False:
        return "has logits that are not finite, by its own checks"
    firsts, following, whole = _first(record), _next(record), _whole(record)
    if not firsts or not whole:
        return "has no samples"
    if min(chain(firsts, following, whole)) <= 0:
        return "has samples of 0 ns or less"
    return None


def _first(record: Record) -> list[int]:
    return [one.first_token_ns for one in record.samples.iterations if one.first_token_ns is not None]


def _next(record: Record) -> list[int]:
    return list(chain.from_iterable(next_token_rows(record)))


def _whole(record: Record) -> list[int]:
    return [one.end_to_end_ns for one in record.samples.iterations if one.sync_policy == "end_to_end"]


def _percentile(
    samples: Callable[[Record], list[int]], percent: float, least: int
) -> Callable[[Record], float | None]:
    def value(record: Record) -> float | None:
        # NumPy's import would double the time of `xpubench report --help`.
        import numpy as np

        found = samples(record)
        return float(np.percentile(found, percent)) if len(found) >= least else None

    return value


def _of_summary(name: str) -> Callable[[Record], float | None]:
    """A field of the summary, where it is known and can stand in a ratio."""

    def value(record: Record) -> float | None:
        found = getattr(record.summary, name, None)
        return float(found) if found is not None and 0 < found < inf else None

    return value


FIGURES: dict[FigureName, Figure] = {
    "first_token": Figure("first token", "latency", LATENCY, _percentile(_first, 50, 1), True),
    "next_token": Figure("next token", "latency", LATENCY, _percentile(_next, 50, 1), True),
    "next_token_p90": Figure(
        "next token, p90", "latency", LATENCY, _percentile(_next, 90, P90_SAMPLES), True
    ),
    "next_token_p99": Figure(
        "next token, p99", "latency", LATENCY, _percentile(_next, 99, P99_SAMPLES), True
    ),
    "end_to_end": Figure("end to end", "latency", LATENCY, _percentile(_whole, 50, 1), True),
    "tokens_per_s": Figure("tokens/s", "latency", RATE, _of_summary("tokens_per_s")),
    "peak_device": Figure("peak device memory", "memory", COST, _of_summary("peak_device_bytes")),
    "peak_host": Figure("peak host memory", "memory", COST, _of_summary("peak_host_bytes")),
    "load": Figure("load", "latency", LATENCY, _of_summary("load_s")),
}
