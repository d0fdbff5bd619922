"""Many runs: a grid of command lines, each in a worker process, resumed where records lie already."""

import ctypes
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from importlib.resources import files
from itertools import product
from pathlib import Path
from time import monotonic, sleep
from typing import Annotated, Any, Literal

import msgspec

from xpubench.catalog import find_model, models
from xpubench.environment import Environment
from xpubench.errors import FailureClass, UserError, unknown
from xpubench.failures import log_tail
from xpubench.measure.oom import out_of_memory_kills
from xpubench.record import Failure, Record, now, read_record
from xpubench.results import ResultsDirectory
from xpubench.spec import AccuracySpec, RunSpec

Spec = RunSpec | AccuracySpec
Ranks = Annotated[int, msgspec.Meta(ge=1)]
POLL_S = 0.2
# Between asking a worker to end and ending it.
GRACE_S = 10
PR_SET_PDEATHSIG = 1


class Grid(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Command lines of `xpubench generate`: each model with `flags` and one alternative of each list in
    `vary`. `models` are names, or `fp16`, `int4` or `embedded` for those of the catalog. With `ranks`, each
    runs on so many under mpirun."""

    models: list[str] | Literal["fp16", "int4", "embedded"]
    flags: str = ""
    vary: list[list[str]] = []
    ranks: Ranks | None = None


class Suite(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a suite's file holds."""

    title: str
    grid: list[Grid]


class CommandLine(msgspec.Struct, frozen=True, kw_only=True):
    """The flags of one worker, and the number of ranks that share its model, None for one process."""

    flags: list[str]
    ranks: int | None


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A worker: its command line, and the runs that it makes, which share a loaded model."""

    command: CommandLine
    specs: list[Spec]


def built_in() -> list[str]:
    """The names of the built-in suites."""
    return sorted(
        file.name.removesuffix(".toml") for file in _directory().iterdir() if file.name.endswith(".toml")
    )


def read_suite(name: str) -> Suite:
    """The suite in a file, or the built-in one of that name; UserError when none makes sense."""
    if name.endswith(".toml") or "/" in name:
        try:
            text = Path(name).read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"cannot read the suite {name}: {error}") from error
    elif name in built_in():
        text = (_directory() / f"{name}.toml").read_text()
    else:
        raise unknown("suite", name, built_in())
    try:
        return msgspec.convert(tomllib.loads(text), Suite)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise UserError(f"the suite {name} makes no sense: {error}") from error


def command_lines(
    suite: Suite, names: list[str] | None, more: list[str], *, ranks: int | None = None
) -> list[CommandLine]:
    """All command lines of a suite, with other models where `names` says so, `more` flags at the end, and
    where it runs over ranks as many as `ranks` says, else the catalog, else the suite. UserError where mpirun
    is needed and missing."""
    if any(grid.ranks for grid in suite.grid):
        _mpirun()
    elif ranks is not None:
        raise UserError("this suite runs each model in one process; leave out --ranks")
    return [
        CommandLine(
            flags=["-m", name, *words(" ".join([grid.flags, *variant])), *more],
            ranks=grid.ranks and (ranks or _published_ranks(name) or grid.ranks),
        )
        for grid in suite.grid
        for name in names or _models(grid)
        for variant in product(*grid.vary)
    ]


def _published_ranks(name: str) -> int | None:
    known = find_model(name)
    return None if known is None else known.ranks


def words(flags: str) -> list[str]:
    """Flags as a shell splits them."""
    try:
        return shlex.split(flags)
    except ValueError as error:
        raise UserError(f"flags that make no sense: {flags!r}: {error}") from error


def run_suite(
    jobs: Sequence[Job],
    results: ResultsDirectory,
    *,
    rerun: Literal["failed", "all"] | None,
    timeout_s: float,
) -> Iterator[list[Record]]:
    """Runs what has no record yet, and what `rerun` names again, and yields each run's record; of a group of
    tasks, those of its tasks.

    A worker that dies, or that has no new record within `timeout_s`, ends the run that it was at, which gets
    a record of its class; its other runs get a new worker. An interruption ends all.
    """
    for job in jobs:
        pending = [spec for spec in job.specs if wanted(results, spec, rerun)]
        while pending:
            attempt = _Attempt(job.command, pending, results)
            yield from attempt.run(timeout_s)
            yield from attempt.write_failures()
            pending = attempt.pending


def wanted(results: ResultsDirectory, spec: Spec, rerun: Literal["failed", "all"] | None) -> bool:
    """Whether a run is to be made: it has no readable record, was interrupted, or is to be made again."""
    statuses = {record.status for record in records_of(results, spec)}
    if not statuses or "interrupted" in statuses or rerun == "all":
        return True
    return rerun == "failed" and statuses != {"ok"}


def records_of(results: ResultsDirectory, spec: Spec) -> list[Record]:
    """A run's record, or those of the tasks of a group; none where one is missing or cannot be read."""
    ids = [spec.id] if results.record_path(spec.id).exists() else results.tasks_of(spec.id)
    try:
        return [read_record(results.record_path(one)) for one in ids]
    except UserError:
        return []


class _Attempt:
    """One worker process, from its start to the records of what it did and of what ended it."""

    def __init__(self, command: CommandLine, pending: list[Spec], results: ResultsDirectory) -> None:
        self.pending = pending
        self._command = command
        self._results = results
        self._log = results.path / "logs" / f"{pending[0].id}.log"
        self._before = {spec.id: self._stamp(spec) for spec in pending}
        self._failure: tuple[FailureClass, str] | None = None
        self._ends_all = False

    def run(self, timeout_s: float) -> Iterator[list[Record]]:
        """Yields the records as they appear. KeyboardInterrupt ends the worker, which keeps what it did."""
        self._log.parent.mkdir(exist_ok=True)
        with self._log.open("ab") as log:
            worker = subprocess.Popen(
                _worker_command(self._command, [spec.id for spec in self.pending], self._results.path),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        try:
            yield from self._watch(worker, timeout_s)
        except BaseException:
            _end(worker, signal.SIGINT)
            raise
        finally:
            _end(worker, signal.SIGKILL)

    def _watch(self, worker: "subprocess.Popen[bytes]", timeout_s: float) -> Iterator[list[Record]]:
        last_s, interrupted, kills = monotonic(), False, out_of_memory_kills()
        while True:
            code = worker.poll()
            for records in self._new_records():
                yield records
                last_s, interrupted = monotonic(), records[-1].status == "interrupted"
            if code is not None:
                # Whoever interrupted the worker ended the run that has the record of it, and no other.
                if not interrupted:
                    self._failure = self._failure or _failure_of(
                        code, self._log, out_of_memory_kills() > kills
                    )
                self._ends_all = code == WRONG_USE
                return
            if monotonic() - last_s > timeout_s:
                self._failure = ("timeout", f"no record within {timeout_s:g} s; the worker was ended")
                _end(worker, signal.SIGTERM)
            sleep(POLL_S)

    def write_failures(self) -> Iterator[list[Record]]:
        """Writes and yields the record of the run that ended the worker; of all where it never began."""
        if self._failure is None:
            return
        failed = self.pending if self._ends_all else self.pending[:1]
        self.pending = self.pending[len(failed) :]
        for spec in failed:
            record = self._failed(spec, *self._failure)
            self._results.write(record)
            yield [record]

    def _new_records(self) -> Iterator[list[Record]]:
        for spec in list(self.pending):
            if not self._is_new(spec):
                continue
            records = records_of(self._results, spec)
            if self._failure is not None and records[-1].status == "interrupted":
                continue  # by its timeout, which it is to be told as
            self.pending.remove(spec)
            yield records

    def _is_new(self, spec: Spec) -> bool:
        return self._stamp(spec) not in (None, self._before[spec.id])

    def _stamp(self, spec: Spec) -> tuple[int, int] | None:
        """Which file a record is, or the list of a group's tasks: a new one is renamed into its place."""
        for path in (self._results.record_path(spec.id), self._results.tasks_path(spec.id)):
            if path.exists():
                found = path.stat()
                return found.st_ino, found.st_mtime_ns
        return None

    def _failed(self, spec: Spec, failure_class: FailureClass, message: str) -> Record:
        failure = Failure(failure_class=failure_class, message=message, log_tail=tail_of(self._log))
        left = records_of(self._results, spec) if self._is_new(spec) else []
        record = (
            left[-1]
            if left
            else Record(id=spec.id, created=now(), spec=spec, environment=Environment(), status=failure_class)
        )
        return msgspec.structs.replace(record, status=failure_class, failure=failure)


WRONG_USE = 2


def _failure_of(code: int, log: Path, killed_for_memory: bool) -> tuple[FailureClass, str]:
    """Why a worker left runs without a record."""
    if code < 0:
        name = signal.Signals(-code).name
        if name == "SIGKILL" and killed_for_memory:
            return "oom", "the kernel killed the worker, as memory ran out"
        return "crash", f"the worker was killed by {name}"
    errors = [line for line in tail_of(log).splitlines() if line.startswith("error: ")]
    if code == WRONG_USE:
        return "unsupported", errors[-1].removeprefix("error: ") if errors else "the flags make no sense"
    return "crash", f"the worker ended with exit code {code} before this run had a record"


def tail_of(log: Path) -> str:
    """The last lines of a log."""
    try:
        return log_tail(log.read_text(errors="replace"))
    except OSError:
        return ""


def _worker_command(command: CommandLine, ids: list[str], results: Path) -> list[str]:
    module = [sys.executable, "-u", "-m"]
    if command.ranks is None:
        module += ["xpubench", "generate"]
    else:
        module = [_mpirun(), "-np", str(command.ranks), *module, "xpubench.cli.tensor_parallel"]
    return [*module, *command.flags, "--results-dir", str(results), "--only", *ids]


def _mpirun() -> str:
    """The mpirun of this environment, or the one on PATH."""
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    found = shutil.which("mpirun", path=places)
    if found is None:
        raise UserError("a suite over ranks needs mpirun; pip install '.[deepspeed]' brings one")
    return found


def _die_with_parent() -> None:
    """In the worker: a suite that is killed takes its worker along, or a resumed one would run beside it."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _end(worker: "subprocess.Popen[bytes]", first: signal.Signals) -> None:
    """Ends a worker and all that it started."""
    for number in (first, signal.SIGKILL):
        try:
            os.killpg(worker.pid, number)
            worker.wait(GRACE_S)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue


def _models(grid: Grid) -> list[str]:
    if isinstance(grid.models, list):
        return grid.models
    chosen: dict[str, Callable[[Any], bool]] = {
        "fp16": lambda one: one.fp16,
        "int4": lambda one: one.int4,
        "embedded": lambda one: one.status == "embedded",
    }
    return [one.id for one in models() if chosen[grid.models](one)]


def _directory() -> Any:
    return files("xpubench") / "suites"
