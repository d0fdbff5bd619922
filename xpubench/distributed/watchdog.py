"""A small process that outlives rank 0 and writes the record of the run at work when a rank is killed.

MPI's launchers kill every rank when one dies, rank 0 included, before it can write anything. Each rank
therefore holds a connection to the watchdog; a connection that closes without a sign-off belongs to a rank
that was killed.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec

from xpubench.failures import death_of, write_as_failed
from xpubench.measure.host import out_of_memory_kills
from xpubench.process import signals
from xpubench.record import Failure, decode, read_record
from xpubench.results import ResultsDirectory

# The watchdog ends when no rank has come within this time.
ALONE_S = 60.0
ANSWER_S = 10.0
# A message holds at most a failure with the end of its traceback.
MOST_BYTES = 1 << 24
LOOPBACK = ("127.0.0.1", "localhost")


class WatchdogConnection:
    """A rank's connection to the watchdog."""

    def __init__(self, address: str, port: int, place: dict[str, Any]) -> None:
        self._socket = socket.create_connection((address, port), timeout=ANSWER_S)
        self.say({"place": place})

    def say(self, message: dict[str, Any]) -> None:
        """Sends one message; nothing fails where the watchdog is gone."""
        with contextlib.suppress(OSError):
            self._socket.sendall(json.dumps(message).encode() + b"\n")

    def report(self, failure: dict[str, Any]) -> None:
        """Has a failure recorded, and returns when it is."""
        self.say({"failure": failure})
        with contextlib.suppress(OSError):
            self._socket.recv(1)

    def is_watching(self) -> bool:
        """Whether the watchdog still watches: it ends when it has recorded a failure."""
        self.say({"signalled": True})
        try:
            return self._socket.recv(1) == b"."
        except TimeoutError:
            return True
        except OSError:
            return False

    def close(self) -> None:
        """Signs off."""
        self.say({"bye": True})
        self._socket.close()


def start_watchdog(address: str, size: int, drafts: list[bytes], results: str) -> int:
    """Starts the watchdog of `size` ranks, which reach it at that address, and returns its port. `drafts` are
    the encoded records of the runs; if a rank dies, it adds the failure to that of the run at work."""
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
        self._drafts = {draft.id: draft for draft in map(decode, order["drafts"])}
        self._before = {name: self._results.stamp_of(name) for name in self._drafts}
        self._at_work: str | None = None
        self._known = self._left = 0
        self._deadline: asyncio.TimerHandle | None = None
        self._over = asyncio.Event()

    async def run(self) -> None:
        """Prints its port, and returns when all ranks have left, one has failed, or none has come."""
        address = self._order["address"]
        listener = socket.create_server((address if address in LOOPBACK else "", 0))
        server = await asyncio.start_server(self._listen, sock=listener, limit=MOST_BYTES)
        print(listener.getsockname()[1], flush=True)
        # The launcher waits until no process holds its ranks' output any more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        asyncio.get_running_loop().call_later(ALONE_S, self._end_if_alone)
        await self._over.wait()
        server.close()

    def _end_if_alone(self) -> None:
        if not self._known:
            self._over.set()

    async def _listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Listens to one connection, which need not be a rank's: it may be a scan of ports."""
        place: dict[str, Any] | None = None
        # At the end of the watch the tasks of the other connections are cancelled.
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            async for line in reader:
                message = json.loads(line)
                if "place" in message:
                    place = message["place"]
                    self._known += 1
                elif "at_work" in message:
                    self._at_work = message["at_work"]
                elif "within_s" in message:
                    self._set_deadline(message["within_s"])
                elif "signalled" in message:
                    if not self._over.is_set():
                        writer.write(b".")
                elif "failure" in message:
                    failure = msgspec.convert(message["failure"], Failure)
                    text = f"{_who(place)}: {failure.message}"
                    self._record(msgspec.structs.replace(failure, message=text))
                    writer.write(b".")
                    await writer.drain()
                    return
                elif "bye" in message:
                    self._left += 1
                    if self._left == self._order["size"]:
                        self._over.set()
                    return
        if place is not None:
            self._record(death_of(_who(place), self._kills))

    def _set_deadline(self, seconds: float | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        if seconds is not None:
            self._deadline = asyncio.get_running_loop().call_later(seconds, self._time_out, seconds)

    def _time_out(self, seconds: float) -> None:
        message = f"the ranks did not finish their step within {seconds:g} s"
        self._record(Failure(failure_class="timeout", message=message))
        os.kill(self._order["parent"], signal.SIGKILL)

    def _record(self, failure: Failure) -> None:
        """Ends the watch and records the failure of the run at work: in the record that the run has by now,
        unless that tells of no failure, else in its draft. An interruption leaves the record of an earlier
        attempt. Later failures follow from the first one and are not recorded."""
        if self._over.is_set():
            return
        self._over.set()
        draft = self._drafts.get(self._at_work or "")
        if draft is not None:
            has_new = self._results.stamp_of(draft.id) != self._before[draft.id]
            record = read_record(self._results.record_path(draft.id)) if has_new else draft
            stays = failure.failure_class == "interrupted" and not has_new and self._before[draft.id]
            if record.failure is not None and not stays:
                write_as_failed(self._results, record, failure)
        # One write, because a launcher that prefixes lines could split several.
        with contextlib.suppress(OSError):
            os.write(2, f"error: {failure.failure_class}: {failure.message}\n".encode())


def _who(place: dict[str, Any] | None) -> str:
    return "a rank" if place is None else f"rank {place['rank']} on {place['host']} (process {place['pid']})"


async def _main() -> None:
    await Watchdog(json.loads(sys.stdin.readline())).run()


if __name__ == "__main__":
    signals.ignore()
    asyncio.run(_main())
