"""The process that writes the records when a rank dies."""

import os
import signal
import threading
import time
from pathlib import Path

import msgspec
import psutil
import pytest

from xpubench.distributed.watchdog import WatchdogConnection, start_watchdog
from xpubench.environment import Environment
from xpubench.failures import failed_record
from xpubench.record import Failure, encode, read_record
from xpubench.results import ResultsDirectory
from xpubench.runtimes.pytorch.options import PyTorchOptions
from xpubench.spec import Protocol, RunSpec, Subject, Workload


@pytest.mark.parametrize("died", [False, True])
def test_a_launchers_signal_after_a_death_is_no_interruption(tmp_path: Path, died: bool) -> None:
    """A rank that is signalled asks the watchdog, which hears of the death and of the question at once."""
    subject = Subject(model="tiny", device="cpu", dtype="float32", options=PyTorchOptions())
    spec = RunSpec(subject=subject, workload=Workload(input_tokens=8, new_tokens=4), protocol=Protocol())
    next_spec = msgspec.structs.replace(spec, workload=Workload(input_tokens=9, new_tokens=4))
    drafts = [
        failed_record(one, Environment(), Failure(failure_class="crash", message=""))
        for one in (spec, next_spec)
    ]
    results = ResultsDirectory(tmp_path)
    for draft in drafts:
        results.write(msgspec.structs.replace(draft, status="ok", failure=None))
    before = set(psutil.Process().children())
    port = start_watchdog("127.0.0.1", 2, [encode(draft) for draft in drafts], str(tmp_path))
    (watchdog,) = set(psutil.Process().children()) - before
    ranks = [
        WatchdogConnection("127.0.0.1", port, {"rank": rank, "host": "here", "pid": os.getpid() + rank})
        for rank in range(2)
    ]
    while sum(one.status == psutil.CONN_ESTABLISHED for one in watchdog.net_connections()) < len(ranks):
        time.sleep(0.01)
    ranks[0].say({"at_work": spec.id})
    assert ranks[0].is_watching()
    watchdog.send_signal(signal.SIGSTOP)
    if died:
        ranks[1]._socket.close()
    threading.Timer(0.2, watchdog.send_signal, [signal.SIGCONT]).start()
    assert ranks[0].is_watching() is not died
    if not died:
        # What the run has measured by now.
        interrupted = Failure(failure_class="interrupted", message="by the user")
        results.write(msgspec.structs.replace(drafts[0], failure=interrupted, warnings=["measured"]))
        ranks[0].report(msgspec.to_builtins(interrupted))
    watchdog.wait(10)
    record = read_record(results.record_path(spec.id))
    assert record.failure is not None
    assert record.status == ("crash" if died else "interrupted")
    assert record.failure.message.startswith(f"rank {int(died)} on here")
    # What rank 0 wrote itself stays.
    assert record.warnings == ([] if died else ["measured"])
    # The run that had not started keeps its earlier record.
    assert read_record(results.record_path(next_spec.id)).status == "ok"
