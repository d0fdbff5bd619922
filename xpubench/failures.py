"""What went wrong, as one of the failure classes, and the record of it."""

import errno
import signal
import traceback

import msgspec

from xpubench.environment import Environment
from xpubench.errors import RunFailure, first_line
from xpubench.measure.oom import out_of_memory_kills
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
    # -997 (The plugin has emitted a backend specific error) and -999 (Unknown PI error) are what SYCL says on
    # xpu when an allocation failed below it.
    "native api returns: -997",
    "native api returns: -999",
)


def classify(error: BaseException, device: str) -> Failure:
    """The failure class of an error, one line for people, and the end of an unexpected one's traceback,
    which is then dropped: its frames hold the tensors that did not fit."""
    if isinstance(error, RunFailure):
        return Failure(failure_class=error.failure_class, message=error.message)
    if isinstance(error, KeyboardInterrupt):
        return Failure(failure_class="interrupted", message="interrupted by the user")
    tail = log_tail("".join(traceback.format_exception(error)))
    error.__traceback__ = None
    if is_out_of_memory(error):
        message = f"out of memory on {device}: {first_line(error)}"
        return Failure(failure_class="oom", message=message, log_tail=tail)
    return Failure(
        failure_class="crash", message=f"{type(error).__name__}: {first_line(error)}", log_tail=tail
    )


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
    """The record of a run that failed, with the samples that it had taken."""
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
    """The failure of a process that ended without telling how: `oom` where the kernel has killed for memory
    since it had killed `kills_before` processes, else `crash`. `exit_code` is as subprocess has it, None
    where it is not known."""
    killed = exit_code is None or exit_code == -signal.SIGKILL
    if killed and out_of_memory_kills() > kills_before:
        return Failure(failure_class="oom", message=f"{who} was killed by the kernel, as memory ran out")
    if exit_code is None:
        return Failure(failure_class="crash", message=f"{who} ended without a word, as a killed process does")
    if exit_code < 0:
        name = signal.Signals(-exit_code).name
        return Failure(failure_class="crash", message=f"{who} was killed by {name}")
    return Failure(
        failure_class="crash", message=f"{who} ended with exit code {exit_code} before this run had a record"
    )


def write_as_failed(results: ResultsDirectory, record: Record, failure: Failure) -> Record:
    """Writes a record, with what it holds so far, as that of a run which failed so."""
    failed = msgspec.structs.replace(record, status=failure.failure_class, failure=failure)
    results.write(failed)
    return failed


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
