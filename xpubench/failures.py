"""Errors as failure classes, and the records of runs that failed."""

import errno
import signal
import traceback

import msgspec

from xpubench.environment import Environment
from xpubench.errors import RunFailure, first_line
from xpubench.measure.host import out_of_memory_kills
from xpubench.plan import Plan
from xpubench.record import Failure, Record, Samples, now
from xpubench.results import ResultsDirectory
from xpubench.spec import AccuracySpec, RunSpec

# How much of the end of a log or a traceback a record keeps and a page shows.
LOG_TAIL_LINES = 20
LOG_TAIL_CHARACTERS = 6000
# What torch's allocators, safetensors' mmap, Level Zero, SYCL and OpenCL say. Intel's driver reports
# OUT_OF_RESOURCES when an allocation that it granted lazily turns out not to fit:
# https://github.com/intel/torch-xpu-ops/issues/1324
OUT_OF_MEMORY_WORDS = (
    *("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory", "bad_alloc"),
    *("out_of_device_memory", "out_of_host_memory", "out_of_resources"),
    # -997 (The plugin has emitted a backend specific error) and -999 (Unknown PI error) are what SYCL says on
    # xpu when an allocation failed below it.
    *("native api returns: -997", "native api returns: -999"),
)


def classify(error: BaseException, device: str) -> Failure:
    """The failure class of an error, its message in one line, and the end of an unexpected error's traceback.
    The error then loses its traceback, whose frames hold the tensors that did not fit."""
    if isinstance(error, RunFailure):
        return Failure(failure_class=error.failure_class, message=error.message)
    if isinstance(error, KeyboardInterrupt):
        return Failure(failure_class="interrupted", message="interrupted by the user")
    tail = log_tail("".join(traceback.format_exception(error)))
    error.__traceback__ = None
    if is_out_of_memory(error):
        message = f"out of memory on {device}: {first_line(error)}"
        return Failure(failure_class="oom", message=message, log_tail=tail)
    message = f"{type(error).__name__}: {first_line(error)}"
    return Failure(failure_class="crash", message=message, log_tail=tail)


def log_tail(text: str) -> str:
    """The last lines of a log or a traceback."""
    return "\n".join(text.splitlines()[-LOG_TAIL_LINES:])[-LOG_TAIL_CHARACTERS:]


def failed_record(
    spec: RunSpec | AccuracySpec,
    environment: Environment,
    failure: Failure,
    plan: Plan | None = None,
    samples: Samples | None = None,
) -> Record:
    """The record of a run that failed, with the samples that it had taken by then."""
    return Record(
        id=spec.id,
        created=now(),
        spec=spec,
        environment=environment,
        status=failure.failure_class,
        failure=failure,
        samples=samples or Samples(),
        plan=plan,
    )


def death_of(who: str, kills_before: int, exit_code: int | None = None) -> Failure:
    """The failure of a process that ended without a report: `oom` where the kernel has killed more than
    `kills_before` processes for memory, else `crash`. `exit_code` is negative for a signal, None where it is
    not known."""
    if exit_code in (None, -signal.SIGKILL) and out_of_memory_kills() > kills_before:
        return Failure(failure_class="oom", message=f"{who} was killed by the kernel, as memory ran out")
    if exit_code is None:
        how = "ended without a word, as a killed process does"
    elif exit_code < 0:
        how = f"was killed by {signal.Signals(-exit_code).name}"
    else:
        how = f"ended with exit code {exit_code} and without a report"
    return Failure(failure_class="crash", message=f"{who} {how}")


def write_as_failed(results: ResultsDirectory, record: Record, failure: Failure) -> Record:
    """Writes the record of a failed run, with everything that was measured before the failure."""
    failed = msgspec.structs.replace(record, status=failure.failure_class, failure=failure)
    results.write(failed)
    return failed


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on the device or on the host."""
    # torch's OutOfMemoryError is known by its name, so that torch need not be imported.
    if any(kind.__name__ in ("MemoryError", "OutOfMemoryError") for kind in type(error).__mro__):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in text for words in OUT_OF_MEMORY_WORDS)
