"""One run's outcome as versioned JSON."""

import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import msgspec

from xpubench.errors import FailureClass, UserError
from xpubench.spec import AccuracySpec, RunSpec

SCHEMA_VERSION = 1
SPACE = re.compile(r"\s*")

SyncPolicy = Literal["every_token", "end_to_end"]


class Iteration(msgspec.Struct, frozen=True, kw_only=True):
    """One `generate` call, in nanoseconds. The tokens' times are None where only the ends were stamped.

    Over ranks, a time is the latest rank's, and `ranks_ns` holds each rank's own stamps since the common
    start: of its tokens, where they were stamped, and of its end.
    """

    sync_policy: SyncPolicy
    first_token_ns: int | None
    next_token_ns: list[int] | None
    end_to_end_ns: int
    tokenize_ns: int | None = None
    detokenize_ns: int | None = None
    ranks_ns: list[list[int]] | None = None


class Samples(msgspec.Struct, frozen=True, kw_only=True):
    """Raw samples: the measured iterations, and the warm-up, which counts in no figure."""

    iterations: list[Iteration] = []
    warmup: list[Iteration] = []


class Statistic(msgspec.Struct, frozen=True, kw_only=True):
    """A summary of `n` samples in milliseconds; `ci95` is of the median. p99 only from 100 samples up."""

    median: float
    ci95: tuple[float, float] | None
    mean: float
    stdev: float | None
    p50: float
    p90: float
    p99: float | None
    n: int


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of a run that went well. `perturbation`, the MBUs and `imbalance` are ratios; the last is,
    over ranks, the slowest rank's end-to-end latency over the mean of all."""

    first_token_ms: Statistic
    next_token_ms: Statistic | None
    end_to_end_ms: Statistic
    tokens_per_s: float
    perturbation: float
    mbu_measured: float | None
    mbu_datasheet: float | None
    bandwidth_measured_gb_per_s: float | None
    bandwidth_datasheet_gb_per_s: float | None
    step_bytes: int | None
    peak_device_bytes: int | None
    peak_host_bytes: int | None
    load_s: float
    input_tokens: int
    imbalance: float | None = None


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Why a run has no summary."""

    failure_class: FailureClass = msgspec.field(name="class")
    message: str
    log_tail: str = ""


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """One item of a task: the log-likelihood of its right answer (natural logarithm; None where the task has
    none) and whether the model chose it."""

    id: int
    loglikelihood: float | None
    correct: bool | None


class Accuracy(msgspec.Struct, frozen=True, kw_only=True):
    """What a task gave: `acc` and its standard error, the perplexity of the right answers and its standard
    error (of tasks that score one text an item), all of lm-eval's metrics in `metrics` (None where one is no
    number), and what they rest on. `partial` is a run of some items."""

    task: str
    task_version: str
    acc: float | None
    acc_stderr: float | None
    perplexity: float | None
    perplexity_stderr: float | None
    n: int
    partial: bool
    metrics: dict[str, float | None]
    items: list[Item]
    items_per_s: float
    truncated: int
    batch_tokens: int | None
    batch_size: int | None
    padding_side: str
    scores_rows_alone: bool
    lm_eval_version: str
    reference: dict[str, Any] | None = None


class Divergence(msgspec.Struct, frozen=True, kw_only=True):
    """How far the tokens are from a reference's (see `xpubench.accuracy.divergence`). `mean_kl` is None of a
    stack that hides its logits."""

    reference: str
    top1_agreement: float
    mean_kl: float | None
    first_divergence: list[int | None]
    positions: int


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One run: what was asked, where it ran, what came out, and what to doubt."""

    schema_version: int = SCHEMA_VERSION
    id: str
    created: str
    spec: RunSpec | AccuracySpec
    environment: dict[str, Any]
    status: Literal["ok"] | FailureClass
    failure: Failure | None = None
    samples: Samples = Samples()
    summary: Summary | None = None
    runtime: dict[str, Any] = {}
    bandwidth: dict[str, Any] | None = None
    plan: dict[str, Any] | None = None
    checks: dict[str, Any] = {}
    output: dict[str, Any] | None = None
    accuracy: Accuracy | None = None
    divergence: Divergence | None = None
    warnings: list[str] = []


def now() -> str:
    """The time in UTC as the record spells it."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def encode(record: Record) -> bytes:
    """The record as one line of JSON."""
    return msgspec.json.encode(record)


def _version_1(data: dict[str, Any]) -> Record:
    # The first records were of latency alone and did not say so.
    if isinstance(data.get("spec"), dict):
        data["spec"].setdefault("kind", "latency")
    return msgspec.convert(data, Record)


# One reader for each past schema version; a new version adds a line and keeps the others.
READERS: dict[int, Callable[[dict[str, Any]], Record]] = {1: _version_1}


def decode(text: bytes | str) -> Record:
    """The record in a JSON text of any schema version so far; UserError when it is none."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"not JSON: {error}") from error
    return _record_of(data)


def decode_all(text: bytes) -> Iterator[Record]:
    """The records of a text that holds one after the other, one a line or not; UserError names the line of
    the first that is none."""
    decoder, place, whole = json.JSONDecoder(), 0, ""
    try:
        whole = text.decode().rstrip()
        while place < len(whole):
            data, end = decoder.raw_decode(whole, place)
            yield _record_of(data)
            space = SPACE.match(whole, end)
            place = space.end() if space else end
    except (ValueError, RecursionError) as error:
        why = str(error) if isinstance(error, UserError) else f"not JSON: {error}"
        raise UserError(
            f"{why} (from line {1 + whole.count(chr(10), 0, place)})" if place else why
        ) from error


def _record_of(data: Any) -> Record:
    version = data.get("schema_version") if isinstance(data, dict) else None
    if not isinstance(version, int) or version not in READERS:
        raise UserError(f"not a record of this tool (schema_version {version!r}; known: {sorted(READERS)})")
    try:
        return READERS[version](data)
    except msgspec.ValidationError as error:
        raise UserError(f"not a whole record: {error}") from error


def read_record(path: Path) -> Record:
    """The record in the file `path`; UserError when it cannot be read or is none."""
    try:
        return decode(_content(path))
    except UserError as error:
        raise UserError(f"{path} is {error}") from error


def read_records(path: Path) -> list[Record]:
    """The records in the file `path`, such as a baseline; UserError when it cannot be read or holds another
    thing."""
    try:
        return list(decode_all(_content(path)))
    except UserError as error:
        raise UserError(f"{path} is {error}") from error


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"no record that can be read: {error.strerror}") from error
