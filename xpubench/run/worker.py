"""`python -m xpubench.run.worker`: carries out one order, a line of JSON on standard input.

It reports on standard output as JSON lines (see `xpubench.process.reports`), and on standard error for
people. With `--turns` it waits for another line before each generation. With `--rank` it is one of several
that a launcher started: rank 0 reads the order and the others follow.
"""

import os
import sys
from contextlib import suppress

import msgspec

from xpubench.distributed.launch import Launch, launch_of, silence
from xpubench.errors import RunFailure, UserError
from xpubench.process.reports import Downloading, Said, Send, Waiting, Written, serve
from xpubench.progress import log_line
from xpubench.run.order import Order, perform

RANK_FLAG = "--rank"
TURNS_FLAG = "--turns"
STEPS_LOGGED = 20


class WorkerProgress:
    """Progress as reports to the parent, and as lines of the log, which counts the steps too."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._done = self._total = 0

    def say(self, text: str) -> None:
        log_line(text)
        self._send(Said(text))

    def begin(self, title: str, total: int) -> None:
        self._done, self._total = 0, total
        self.say(title)

    def step(self, text: str, count: int = 1) -> None:
        before, self._done = self._done, self._done + count
        if STEPS_LOGGED * self._done // self._total > STEPS_LOGGED * before // self._total:
            log_line(f"  {self._done}/{self._total} {text}")

    def downloading(self, under_way: bool) -> None:
        self._send(Downloading(under_way))


class TurnsProgress(WorkerProgress):
    """Before each generation, the worker waits for its turn."""

    def begin(self, title: str, total: int) -> None:
        super().begin(title, total)
        self._wait()

    def step(self, text: str, count: int = 1) -> None:
        super().step(text, count)
        self._wait()

    def _wait(self) -> None:
        self._send(Waiting())
        if not sys.stdin.buffer.readline():
            raise RunFailure("interrupted", "nobody gives this worker its turns any more")


def work(order: Order, send: Send, progress: WorkerProgress | None = None) -> None:
    """Runs the order in this process and reports each record, and a group of tasks when all its tasks have
    theirs."""
    written: dict[str, str] = {}
    for record in perform(order, progress or WorkerProgress(send)):
        written[record.id] = record.status
        if record.failure is not None:
            log_line(f"{record.status}: {record.failure.message}")
        send(Written(record.id, record.status))
    if "interrupted" in written.values():
        return
    for spec in order.specs:
        if spec.id not in written:
            send(Written(spec.id, "ok"))


def main(arguments: list[str]) -> int:
    """The worker alone, one that takes turns with another, or with `--rank` one of several; returns the exit
    code."""
    if arguments == [TURNS_FLAG]:
        return serve(lambda line, send: work(_decode(line), send, TurnsProgress(send)))
    if arguments != [RANK_FLAG]:
        return serve(lambda line, send: work(_decode(line), send))
    launch = launch_of(os.environ)
    if launch is None or launch.rank == 0:
        return serve(lambda line, send: _lead(launch, _decode(line), send))
    silence()
    from xpubench.run.ranks import take_part

    # Rank 0 has the same error and reports it; an exit code of this rank would have the launcher kill rank 0.
    with suppress(UserError):
        take_part(launch, None, lambda order: None)
    return 0


def _lead(launch: Launch | None, order: Order, send: Send) -> None:
    from xpubench.run.ranks import take_part

    take_part(launch, order, lambda shared: work(shared, send))


def _decode(line: bytes) -> Order:
    return msgspec.json.decode(line, type=Order)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
