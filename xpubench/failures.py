"""What went wrong, as one of the failure classes, and the record of it."""

import errno
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from xpubench.errors import RunFailure
from xpubench.plan import Plan
from xpubench.record import Failure, Record, Samples, now
from xpubench.results import ResultsDirectory
from xpubench.spec import AccuracySpec, RunSpec

# The end of a log or a traceback that a record keeps, and that a page shows.
LOG_TAIL_LINES = 20
LOG_TAIL_CHARACTERS = 6000
# Of torch's allocators, safetensors' mmap, and Level Zero, SYCL and OpenCL below them. OUT_OF_RESOURCES is
# what Intel's driver says when an allocation that it granted lazily turns out not to fit:
# https://github.com/intel/torch-xpu-ops/issues/1324
OUT_OF_MEMORY_WORDS = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "bad_alloc",
    "out_of_device_memory",
    "out_of_host_memory",
    "out_of_resources",
)


def classify(error: BaseException, device: str) -> Failure:
    """The failure class of an error, one line for people, and the end of an unexpected one's traceback,
    which is then dropped: its frames hold the tensors that did not fit."""
    if isinstance(error, RunFailure):
        return Failure(failure_class=error.failure_class, message=error.message)
    if isinstance(error, KeyboardInterrupt):
        return Failure(failure_class="interrupted", message="interrupted by the user")
    lines = str(error).strip().splitlines()
    first_line = lines[0] if lines else type(error).__name__
    tail = log_tail("".join(traceback.format_exception(error)))
    error.__traceback__ = None
    if is_out_of_memory(error):
        message = f"out of memory on {device}: {first_line}"
        return Failure(failure_class="oom", message=message, log_tail=tail)
    return Failure(failure_class="crash", message=f"{type(error).__name__}: {first_line}", log_tail=tail)


def log_tail(text: str) -> str:
    """The last lines of a log or a traceback."""
    return "\n".join(text.splitlines()[-LOG_TAIL_LINES:])[-LOG_TAIL_CHARACTERS:]


def failed_record(
    spec: RunSpec | AccuracySpec,
    environment: dict[str, Any],
    failure: Failure,
    plan: Plan | None,
    samples: Samples | None = None,
) -> Record:
    """The record of a run that failed, with the samples that it had taken."""
    return Record(
        id=spec.id,
        created=now(),
        spec=spec,
        environment=environment,
        status=failure.failure_class,
        failure=failure,
        samples=samples or Samples(),
        plan=msgspec.to_builtins(plan),
    )


def write_failures(
    results: ResultsDirectory,
    specs: Sequence[RunSpec] | Sequence[AccuracySpec],
    environment: dict[str, Any],
    error: BaseException,
    plans: Mapping[str, Plan | None],
) -> Iterator[Record]:
    """Writes and yields the record of each spec of those that one error ended; `plans` is by their ids."""
    failure = classify(error, specs[0].subject.device)
    for spec in specs:
        record = failed_record(spec, environment, failure, plans.get(spec.id))
        results.write(record)
        yield record


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on the device or on the host."""
    if isinstance(error, MemoryError) or _is_torchs(error):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(
        words in str(error).lower() for words in OUT_OF_MEMORY_WORDS
    )


def _is_torchs(error: BaseException) -> bool:
    """Whether an error is torch's OutOfMemoryError, told by its name so that torch need not be imported."""
    return any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__)
