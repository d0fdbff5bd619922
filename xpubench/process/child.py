"""A program of this package as a child process: it takes an order, reports, and leaves no process behind."""

import contextlib
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Self

import psutil

from xpubench.errors import RunFailure, UserError
from xpubench.failures import death_of, log_tail
from xpubench.measure.host import out_of_memory_kills
from xpubench.process.reports import End, Failed, Refused, Report, Said, Unwritten, decode_report

POLL_S = 0.2
# The seconds between asking a process to end and killing it.
GRACE_S = 10.0
BOUND_TO_PARENT = (sys.executable, "-m", "xpubench.process.bound_to_parent")


class Child:
    """A running child and all that it starts. The kernel kills it when this process ends in any way, and
    leaving it as a context manager ends it."""

    def __init__(
        self,
        command: Sequence[str],
        order: bytes,
        log: IO[bytes],
        *,
        turns: bool = False,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        """Starts `command`, whose standard input is the order and whose standard error is the log. With
        `turns`, its standard input stays open for `give_turn`. Its environment is this process's with the
        `variables`."""
        self._log = log
        with tempfile.TemporaryFile() as standard_input:
            standard_input.write(order + b"\n")
            standard_input.seek(0)
            self._process = subprocess.Popen(
                [*BOUND_TO_PARENT, str(os.getpid()), *command],
                stdin=subprocess.PIPE if turns else standard_input,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                env=os.environ | (variables or {}),
            )
        if turns:
            self._write(order)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.end()
        assert self._process.stdout is not None
        self._process.stdout.close()
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()

    @property
    def exit_code(self) -> int | None:
        """The exit code, or the negative number of the signal that ended the child; None while it runs."""
        return self._process.poll()

    def reports(self) -> Iterator[Report | None]:
        """Yields each report when it arrives until the process has ended, and None whenever `POLL_S` seconds
        pass without one. Other lines of its standard output go to the log."""
        assert self._process.stdout is not None
        source, unread = self._process.stdout.fileno(), b""
        while True:
            # The end is looked at before the output, so that nothing written before the end is missed.
            ended = self.exit_code is not None
            ready, _, _ = select.select([source], [], [], 0 if ended else POLL_S)
            data = os.read(source, 1 << 16) if ready else b""
            *lines, unread = (unread + data).split(b"\n")
            for line in lines:
                report = decode_report(line)
                if report is None:
                    self._log.write(line + b"\n")
                    self._log.flush()
                else:
                    yield report
            if ready and not data and not ended:  # it closed its output and is about to end
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(POLL_S)
            if ended and not data:
                return
            yield None

    def give_turn(self) -> None:
        """Lets a child that waits go on; a child that has ended hears nothing."""
        self._write(b"")

    def _write(self, line: bytes) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(line + b"\n")
            self._process.stdin.flush()

    def end(self) -> None:
        """Asks the process to end, and after `GRACE_S` seconds kills it and all that it started."""
        started = self._descendants()
        if self.exit_code is None:
            self._signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(GRACE_S)
            started += self._descendants()
        self._signal(signal.SIGKILL)
        for one in started:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _descendants(self) -> list[psutil.Process]:
        """Also the processes that left the process group, as a launcher's ranks do."""
        try:
            return list(psutil.Process(self._process.pid).children(recursive=True))
        except psutil.NoSuchProcess:
            return []


def run_child(command: Sequence[str], order: bytes, say: Callable[[str], None], who: str) -> None:
    """Has a child carry out an order, and tells what it says. Raises what the child reported: UserError or
    RunFailure, and the latter too where it died; `who` is the child's name in that message."""
    end: End | None = None
    kills = out_of_memory_kills()
    with tempfile.TemporaryFile() as log, Child(command, order, log) as child:
        for report in child.reports():
            if isinstance(report, Said):
                say(report.text)
            elif isinstance(report, End):
                end = report
        if end is None:
            failure = death_of(who, kills, child.exit_code)
            log.seek(0)
            lines = log_tail(log.read().decode(errors="replace")).splitlines()
            raise RunFailure(failure.failure_class, ": ".join([failure.message, *lines[-1:]]))
    if isinstance(end, Refused | Unwritten):
        raise UserError(end.message)
    if isinstance(end, Failed):
        prefix = f"{who}: " if end.failure.failure_class == "crash" else ""
        raise RunFailure(end.failure.failure_class, prefix + end.failure.message)
