"""One worker under supervision: its records as they appear, and the record of whatever ends it."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic

import msgspec

from xpubench.distributed.launch import INSTALL
from xpubench.environment import Environment
from xpubench.errors import UserError, shortened
from xpubench.failures import death_of, failed_record, log_tail, write_as_failed
from xpubench.measure.host import out_of_memory_kills
from xpubench.process.child import Child
from xpubench.process.reports import Done, Downloading, End, Failed, Refused, Report, Said, Unwritten, Written
from xpubench.record import Failure, Record, read_record
from xpubench.results import LOGS, ResultsDirectory
from xpubench.run.order import Order, Spec, write_interrupted

WORKER = ("-u", "-m", "xpubench.run.worker")
# A worker of another interpreter imports this package too, so that both have one form of orders and records.
PACKAGES = str(Path(__file__).parents[2])


def records_of(results: ResultsDirectory, spec: Spec) -> list[Record]:
    """A run's record, or the records of a group's tasks; empty where one is missing or cannot be read."""
    ids = [spec.id] if results.record_path(spec.id).exists() else results.tasks_of(spec.id)
    try:
        return [read_record(results.record_path(one)) for one in ids]
    except UserError:
        return []


def find_mpirun(python: str | None = None) -> str:
    """The mpirun of the interpreter's environment (by default of this one), or the one on PATH; UserError
    where there is none."""
    places = os.pathsep.join([str(Path(python or sys.executable).parent), os.environ.get("PATH", "")])
    found = shutil.which("mpirun", path=places)
    if found is None:
        where = f" beside {shortened(python)} or on PATH" if python else ""
        raise UserError(f"a suite over ranks needs mpirun{where}; {INSTALL}")
    return found


class Attempt:
    """One worker process, from its start to the records of its runs and of the failure that ended it.

    Afterwards `pending` holds the specs that have no record yet: another worker can run those.
    """

    def __init__(self, order: Order, say: Callable[[str], None]) -> None:
        self.pending = list(order.specs)
        self._order = order
        self._say = say
        self._results = ResultsDirectory(Path(order.results))
        self._log = self._results.path / LOGS / f"{order.specs[0].id}.log"
        # Earlier attempts have written to the same log.
        self._log_start = self._log.stat().st_size if self._log.exists() else 0
        self._before = {spec.id: self._results.stamp_of(spec.id) for spec in order.specs}
        self._end: End | None = None
        self._last_s = 0.0
        self._download_s: float | None = None
        self._last_status = ""
        self._timed_out = False

    def run(self, timeout_s: float) -> Iterator[list[Record]]:
        """Yields each run's records when they are written. A worker that has no new one within `timeout_s`
        seconds, downloads not counted, is ended. An exception ends the worker. Where it is an interruption,
        the run at work then has a record of it unless it has an earlier one. UserError where the worker
        cannot write to the results directory."""
        self._log.parent.mkdir(exist_ok=True)
        kills = out_of_memory_kills()
        self._last_s = monotonic()
        try:
            # Starting the child may be interrupted too. The child has ended when its block is left.
            with (
                self._log.open("ab") as log,
                Child(
                    _command(self._order),
                    msgspec.json.encode(self._order),
                    log,
                    variables=_variables(self._order),
                ) as child,
            ):
                for report in child.reports():
                    yield from self._heard(report)
                    if not self._timed_out and self._worked_s() > timeout_s:
                        self._timed_out = True
                        child.end()
                exit_code = child.exit_code
        except (KeyboardInterrupt, GeneratorExit):
            if self.pending:
                write_interrupted(self._results, self.pending[0])
            raise
        failure = self._failure(timeout_s, exit_code, kills)
        # A run whose record was not reported is the one that the worker was at, or its ranks' watchdog wrote
        # the record. Nothing is known against the runs after it.
        unreported = list(self._taken([spec for spec in self.pending if self._is_new(spec)]))
        for records in unreported:
            yield [self._as_cut_short(record, failure) for record in records]
        if isinstance(self._end, Unwritten):
            raise UserError(self._end.message)
        if failure is not None and self.pending and not unreported:
            yield from self._write(failure)

    def _heard(self, report: Report | None) -> Iterator[list[Record]]:
        if isinstance(report, Said):
            self._say(report.text)
        elif isinstance(report, Written):
            self._last_s = monotonic()
            self._last_status = report.status
            yield from self._taken([spec for spec in self.pending if spec.id == report.id])
        elif isinstance(report, Downloading):
            self._note_download(report.under_way)
        elif isinstance(report, End):
            self._end = report

    def _note_download(self, under_way: bool) -> None:
        """Moves the start of the time limit by what a download took, once it has ended."""
        if not under_way and self._download_s is not None:
            self._last_s += monotonic() - self._download_s
        self._download_s = monotonic() if under_way else None

    def _worked_s(self) -> float:
        """The seconds since the worker's last record, without those of downloads."""
        return (self._download_s or monotonic()) - self._last_s

    def _as_cut_short(self, record: Record, failure: Failure | None) -> Record:
        """The record of a run at whose profile, explanation or depths a failure may have ended the worker,
        with a warning that tells so; any other record as it is."""
        order = self._order
        more = order.profile_name is not None or order.explain or order.depths
        if failure is None or record.status != "ok" or not more:
            return record
        warning = (
            f"the run ended after its measurement, and what was to follow may be missing: {failure.message}"
        )
        record = msgspec.structs.replace(record, warnings=[*record.warnings, warning])
        self._results.write(record)
        return record

    def _taken(self, specs: list[Spec]) -> Iterator[list[Record]]:
        for spec in specs:
            records = records_of(self._results, spec)
            # A run that the timeout interrupted has a record of the timeout instead.
            if not records or (self._timed_out and records[-1].status == "interrupted"):
                continue
            self.pending.remove(spec)
            yield records

    def _failure(self, timeout_s: float, exit_code: int | None, kills: int) -> Failure | None:
        """Why the worker ended with runs left; None where another worker can continue with them, or where
        none can write."""
        if self._timed_out:
            message = f"no run was finished within {timeout_s:g} s; the worker was ended"
            return Failure(failure_class="timeout", message=message)
        # An interruption from outside ended only the run whose record says so.
        if self._last_status == "interrupted" or isinstance(self._end, Unwritten):
            return None
        if isinstance(self._end, Refused):
            return Failure(failure_class="unsupported", message=self._end.message)
        if isinstance(self._end, Failed):
            return self._end.failure
        if isinstance(self._end, Done):
            message = "the worker said that it was done, but this run has no record"
            return Failure(failure_class="crash", message=message)
        return death_of("the worker", kills, exit_code)

    def _write(self, failure: Failure) -> Iterator[list[Record]]:
        """Writes the record of the run at work, or of all runs where the worker refused the order."""
        failed = self.pending if isinstance(self._end, Refused) else self.pending[:1]
        self.pending = self.pending[len(failed) :]
        if not failure.log_tail:
            failure = msgspec.structs.replace(failure, log_tail=self._log_tail())
        for spec in failed:
            left = records_of(self._results, spec) if self._is_new(spec) else []
            record = left[-1] if left else failed_record(spec, Environment(), failure)
            yield [write_as_failed(self._results, record, failure)]

    def _log_tail(self) -> str:
        """The last lines that this attempt's worker has written."""
        with self._log.open("rb") as log:
            log.seek(self._log_start)
            return log_tail(log.read().decode(errors="replace"))

    def _is_new(self, spec: Spec) -> bool:
        return self._results.stamp_of(spec.id) not in (None, self._before[spec.id])


def _command(order: Order) -> list[str]:
    worker = [order.python or sys.executable, *WORKER]
    if order.ranks is None:
        return worker
    return [find_mpirun(order.python), "-np", str(order.ranks), *worker, "--rank"]


def _variables(order: Order) -> dict[str, str]:
    if order.python is None:
        return order.variables
    found = order.variables.get("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
    return order.variables | {"PYTHONPATH": os.pathsep.join(filter(None, [PACKAGES, found]))}
