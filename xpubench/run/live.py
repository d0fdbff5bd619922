"""Blocks of two fresh workers that are both loaded and generate in turn."""

import random
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Self

import msgspec

from xpubench.environment import Environment
from xpubench.errors import UserError
from xpubench.failures import death_of, failed_record, write_as_failed
from xpubench.measure.host import out_of_memory_kills
from xpubench.process.child import Child
from xpubench.process.reports import Failed, Refused, Said, Unwritten, Waiting
from xpubench.record import Failure, Record, read_record
from xpubench.results import ResultsDirectory
from xpubench.run.order import Order
from xpubench.run.worker import TURNS_FLAG

# So many generations warm a worker up after the one that is looked at, neither more nor fewer, so that both
# sides' pairs stay together. Of two, the second would be left out where the first agrees with the one before.
WARMUP = 1
TIMEOUT_S = 3600.0


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """One of the two sides: its name in words, an order of one latency run, the interpreter of its workers,
    and variables of their environment."""

    name: str
    order: Order
    python: str
    variables: dict[str, str] = {}


class Resident:
    """A worker that waits for its turn before each generation."""

    def __init__(self, side: Side, results: ResultsDirectory, say: Callable[[str], None]) -> None:
        self.waiting = False
        self._side, self._results, self._say = side, results, say
        self._spec = side.order.specs[0]
        # An earlier worker's record would stand for this one's where it dies.
        results.record_path(self._spec.id).unlink(missing_ok=True)
        self._failure: Failure | None = None
        self._kills = out_of_memory_kills()
        order = msgspec.structs.replace(side.order, results=str(results.path))
        self._log = (results.path / f"{self._spec.id}.log").open("wb")
        command = [side.python, "-u", "-m", "xpubench.run.worker", TURNS_FLAG]
        self._child = Child(
            command, msgspec.json.encode(order), self._log, turns=True, variables=side.variables
        )
        self._reports = self._child.reports()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._child.__exit__(kind, error, where)
        self._log.close()

    def turn(self) -> None:
        """Lets it go on until it waits again or has ended."""
        self._child.give_turn()
        self.wait()

    def finish(self) -> None:
        """Gives it all the turns that it still wants."""
        while self.waiting:
            self.turn()

    def wait(self) -> None:
        """Waits until it waits for a turn or has ended; UserError where it cannot write its record."""
        self.waiting = False
        deadline = monotonic() + TIMEOUT_S
        for report in self._reports:
            if isinstance(report, Waiting):
                self.waiting = True
                return
            if isinstance(report, Said):
                self._say(f"{self._side.name}: {report.text}")
            elif isinstance(report, Failed):
                self._failure = report.failure
            elif isinstance(report, Refused):
                self._failure = Failure(failure_class="unsupported", message=report.message)
            elif isinstance(report, Unwritten):
                raise UserError(report.message)
            if monotonic() > deadline:
                message = f"no generation within {TIMEOUT_S:g} s; the worker was ended"
                self._failure = Failure(failure_class="timeout", message=message)
                self._child.end()

    def record(self) -> Record:
        """The record that it wrote, or one of the failure that ended it. A run that the timeout interrupted
        has a record of the timeout."""
        path, failure = self._results.record_path(self._spec.id), self._failure
        if path.exists():
            written = read_record(path)
            if written.status == "interrupted" and failure and failure.failure_class == "timeout":
                return write_as_failed(self._results, written, failure)
            return written
        failure = failure or death_of("the worker", self._kills, self._child.exit_code)
        record = failed_record(self._spec, Environment(), failure)
        self._results.write(record)
        return record


def run_block(
    sides: tuple[Side, Side],
    directories: tuple[Path, Path],
    draw: random.Random,
    say: Callable[[str], None],
    *,
    alone: bool = False,
) -> tuple[Record, Record]:
    """The records of one block, one for each side in their order, written to the directories. Both workers
    are loaded, one after the other, and warmed up; then they take turns, in an order that is drawn for each
    generation anew. Where one fails, the other ends its run. With `alone`, one worker has ended before the
    other starts, in an order that is drawn."""
    order = draw.sample((0, 1), 2)
    results = [ResultsDirectory(directory) for directory in directories]
    with ExitStack() as stack:
        residents: dict[int, Resident] = {}
        for at in order:
            one = stack.enter_context(Resident(sides[at], results[at], say))
            one.wait()
            for _ in range(WARMUP):
                one.turn()
            if alone:
                one.finish()
            residents[at] = one
        while all(one.waiting for one in residents.values()):
            for at in draw.sample(order, 2):
                residents[at].turn()
        for one in residents.values():
            one.finish()
        first, second = (residents[at].record() for at in (0, 1))
    return first, second
