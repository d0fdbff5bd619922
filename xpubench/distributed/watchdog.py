"""A small process beside rank 0 that outlives it: it writes the records of the runs when a rank dies.

MPI's launchers kill every rank when one dies, rank 0 too, before that one could write anything. So each rank
holds a connection to the watchdog, and one that closes without a goodbye belongs to a rank that was killed.
"""

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from xpubench.failures import death_of, write_as_failed
from xpubench.measure.host import out_of_memory_kills
from xpubench.process import signals
from xpubench.record import Failure, decode
from xpubench.results import ResultsDirectory

ALONE_S = 60.0
ANSWER_S = 10.0
LOOPBACK = ("127.0.0.1", "localhost")


class WatchdogConnection:
    """A rank's connection to the watchdog."""

    def __init__(self, address: str, port: int, place: dict[str, Any]) -> None:
        self._socket = socket.create_connection((address, port), timeout=ANSWER_S)
        self.say({"place": place})

    def say(self, message: dict[str, Any]) -> None:
        """Sends one message; a watchdog that is gone is no reason to stop."""
        with contextlib.suppress(OSError):
            self._socket.sendall(json.dumps(message).encode() + b"\n")

    def report(self, failure: dict[str, Any]) -> None:
        """Has a failure recorded, and returns when it is."""
        self.say({"failure": failure})
        with contextlib.suppress(OSError):
            self._socket.recv(1)

    def close(self) -> None:
        """Says goodbye."""
        self.say({"bye": True})
        self._socket.close()


def start_watchdog(address: str, size: int, drafts: list[bytes], results: str) -> int:
    """Starts the watchdog of `size` ranks, which reach it at that address, and returns the port at which it
    listens. `drafts` are the encoded records of the runs, should a rank die."""
    process = subprocess.Popen(
        [sys.executable, "-m", "xpubench.distributed.watchdog"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    order = {
        "address": address,
        "size": size,
        "drafts": [draft.decode() for draft in drafts],
        "results": str(Path(results).resolve()),
        "parent": os.getpid(),
    }
    process.stdin.write(json.dumps(order).encode() + b"\n")
    process.stdin.flush()
    port = int(process.stdout.readline())
    process.stdout.close()
    return port


class Watchdog:
    """Listens to the ranks until all have left, or until one fails."""

    def __init__(self, order: dict[str, Any]) -> None:
        self._order = order
        self._kills = out_of_memory_kills()
        self._results = ResultsDirectory(Path(order["results"]))
        self._drafts = [decode(text) for text in order["drafts"]]
        self._before = {draft.id: self._results.stamp_of(draft.id) for draft in self._drafts}
        address = order["address"]
        self._listener = socket.create_server((address if address in LOOPBACK else "", 0))
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._places: dict[socket.socket, dict[str, Any]] = {}
        self._unread: dict[socket.socket, bytes] = {}
        self._left = 0
        self._deadline: tuple[float, float] | None = None

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def run(self) -> None:
        """Returns when all ranks have left or one has failed."""
        alone_until = time.monotonic() + ALONE_S
        while self._left < self._order["size"]:
            # In the order in which they came: the first connection to close is of the first rank to die.
            for key, _ in self._selector.select(1.0):
                if key.fileobj is self._listener:
                    self._accept()
                elif self._hear(key.fileobj):  # type: ignore[arg-type]
                    return
            if self._deadline is not None and time.monotonic() > self._deadline[0]:
                self._record(_timeout(self._deadline[1]))
                os.kill(self._order["parent"], signal.SIGKILL)
                return
            if not self._unread and time.monotonic() > alone_until:
                return

    def _accept(self) -> None:
        line, _ = self._listener.accept()
        self._unread[line] = b""
        self._selector.register(line, selectors.EVENT_READ)

    def _hear(self, line: socket.socket) -> bool:
        """Whether what a rank said, or its silence, is the end of all."""
        try:
            data = line.recv(1 << 20)
        except OSError:
            data = b""
        if not data and line not in self._places:  # no rank, such as a scan of ports
            self._drop(line)
            return False
        if not data:
            self._record(death_of(_who(self._places[line]), self._kills))
            return True
        *messages, self._unread[line] = (self._unread[line] + data).split(b"\n")
        for line_of_json in messages:
            message = json.loads(line_of_json)
            if "place" in message:
                self._places[line] = message["place"]
            elif "within_s" in message:
                seconds = message["within_s"]
                self._deadline = None if seconds is None else (time.monotonic() + seconds, seconds)
            elif "failure" in message:
                failure = msgspec.convert(message["failure"], Failure)
                text = f"{_who(self._places.get(line))}: {failure.message}"
                self._record(msgspec.structs.replace(failure, message=text))
                with contextlib.suppress(OSError):
                    line.sendall(b".")
                return True
            elif "bye" in message:
                self._drop(line)
                self._left += 1
                return False
        return False

    def _drop(self, line: socket.socket) -> None:
        self._selector.unregister(line)
        line.close()

    def _record(self, failure: Failure) -> None:
        """Writes each draft as that failure, but for those whose run has its record by now."""
        for draft in self._drafts:
            if self._results.stamp_of(draft.id) == self._before[draft.id]:
                write_as_failed(self._results, draft, failure)
        # One write, or a launcher that prefixes lines splits it.
        with contextlib.suppress(OSError):
            os.write(2, f"error: {failure.failure_class}: {failure.message}\n".encode())


def _who(place: dict[str, Any] | None) -> str:
    return "a rank" if place is None else f"rank {place['rank']} on {place['host']} (process {place['pid']})"


def _timeout(seconds: float) -> Failure:
    return Failure(
        failure_class="timeout", message=f"the ranks did not finish their step within {seconds:g} s"
    )


def main() -> None:
    watchdog = Watchdog(json.loads(sys.stdin.readline()))
    print(watchdog.port, flush=True)
    # The launcher waits for the end of its ranks' output, and so for whoever holds it.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    signals.ignore()
    watchdog.run()


if __name__ == "__main__":
    main()
