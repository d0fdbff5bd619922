"""A small process beside rank 0 that outlives it: it writes the records of a job whose rank died.

MPI's launchers kill every rank when one dies, rank 0 too, before that one could write anything. So each rank
holds a line to the sentinel, and a line that closes without a word is a rank that was killed.
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

from xpubench.measure.oom import out_of_memory_kills

ALONE_S = 60.0
ANSWER_S = 10.0
LOOPBACK = ("127.0.0.1", "localhost")


class Line:
    """A rank's line to the sentinel."""

    def __init__(self, address: str, port: int, place: dict[str, Any]) -> None:
        self._socket = socket.create_connection((address, port), timeout=ANSWER_S)
        self.say({"place": place})

    def say(self, message: dict[str, Any]) -> None:
        """One message; a sentinel that is gone is no reason to stop."""
        with contextlib.suppress(OSError):
            self._socket.sendall(json.dumps(message).encode() + b"\n")

    def report(self, failure: dict[str, Any]) -> None:
        """Has a failure recorded, and returns when it is."""
        self.say({"failure": failure})
        with contextlib.suppress(OSError):
            self._socket.recv(1)

    def close(self) -> None:
        """Says good-bye."""
        self.say({"bye": True})
        self._socket.close()


def start_sentinel(address: str, size: int, drafts: list[bytes], results: str) -> int:
    """Starts the sentinel of a job of `size` ranks, which reach it at that address; the port at which it
    listens."""
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


class Sentinel:
    """Listens to the ranks until all have left, or until one fails."""

    def __init__(self, order: dict[str, Any]) -> None:
        self._order = order
        self._began = time.time()
        self._killed_for_memory = out_of_memory_kills()
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
        """Returns when all ranks have left or the job has failed."""
        alone_until = time.monotonic() + ALONE_S
        while self._left < self._order["size"]:
            # In the order in which they came: the line that closed first is of the rank that died first.
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
        """Whether what a rank said, or its silence, is the end of the job."""
        try:
            data = line.recv(1 << 20)
        except OSError:
            data = b""
        if not data and line not in self._places:  # no rank, such as a scan of ports
            self._drop(line)
            return False
        if not data:
            self._record(self._death(self._places[line]))
            return True
        *messages, self._unread[line] = (self._unread[line] + data).split(b"\n")
        for text in messages:
            message = json.loads(text)
            if "place" in message:
                self._places[line] = message["place"]
            elif "within_s" in message:
                seconds = message["within_s"]
                self._deadline = None if seconds is None else (time.monotonic() + seconds, seconds)
            elif "failure" in message:
                self._record(_with_place(message["failure"], self._places.get(line)))
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

    def _death(self, place: dict[str, Any] | None) -> dict[str, Any]:
        if out_of_memory_kills() > self._killed_for_memory:
            failure = {"class": "oom", "message": "killed by the kernel, which was out of memory"}
        else:
            failure = {"class": "crash", "message": "ended without a word, as a process does that is killed"}
        return _with_place(failure, place)

    def _record(self, failure: dict[str, Any]) -> None:
        """Writes each draft as that failure, but for those whose record this job has written by itself."""
        from xpubench.record import decode, encode
        from xpubench.results import ResultsDirectory

        results = ResultsDirectory(Path(self._order["results"]))
        for text in self._order["drafts"]:
            draft = json.loads(text)
            path = results.record_path(draft["id"])
            if path.exists() and path.stat().st_mtime >= self._began:
                continue
            record = decode(
                json.dumps(draft | {"status": failure["class"], "failure": {"log_tail": ""} | failure})
            )
            results.write_file(path.name, encode(record))
        # One write, or a launcher that prefixes lines splits it.
        with contextlib.suppress(OSError):
            os.write(2, f"error: {failure['class']}: {failure['message']}\n".encode())


def _with_place(failure: dict[str, Any], place: dict[str, Any] | None) -> dict[str, Any]:
    who = "a rank" if place is None else f"rank {place['rank']} on {place['host']} (process {place['pid']})"
    separator = " " if failure["message"].startswith(("ended", "killed")) else ": "
    return failure | {"message": f"{who}{separator}{failure['message']}"}


def _timeout(seconds: float) -> dict[str, Any]:
    return {"class": "timeout", "message": f"the ranks did not finish their step within {seconds:g} s"}


def main() -> None:
    sentinel = Sentinel(json.loads(sys.stdin.readline()))
    print(sentinel.port, flush=True)
    # Now, as a suite looks for the records as soon as the launcher has ended.
    import xpubench.record  # noqa: F401

    # The launcher waits for the end of its ranks' output, and so for whoever holds it.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sentinel.run()


if __name__ == "__main__":
    main()
