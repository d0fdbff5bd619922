"""A stand-in for the worker of a suite, which writes records without running anything.

    python tests/worker.py BEHAVIOUR < ORDER

BEHAVIOUR is `ok`; `group`, whose tasks have the records; `print`, as launchers and libraries do; `nothing`,
which says that it is done and has written no record; `late`, which is killed between a record and its report;
or, at the first run: `hang` until it is told to end, which it then writes down; `deaf`, which does
not hear that; `stop`, as when somebody else interrupts it; `kill` itself; `refuse` the order; `crash`.
"""

import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from time import sleep

import msgspec

from tests.records import failed, latency_record, subject
from xpubench.errors import UserError
from xpubench.process.reports import Send, Written, serve
from xpubench.record import Record
from xpubench.results import ResultsDirectory
from xpubench.run.order import Order


def work(behaviour: str, order: Order, send: Send) -> None:
    results = ResultsDirectory(Path(order.results))

    def write(record: Record, id: str) -> None:
        results.write(msgspec.structs.replace(record, id=id))
        if behaviour == "late":
            os.kill(os.getpid(), signal.SIGKILL)
        send(Written(id, record.status))

    if behaviour == "print":
        print("a library's words")
    if behaviour == "nothing":
        return
    for index, spec in enumerate(order.specs):
        record = latency_record(subject(), iterations=2, new_tokens=2, id=spec.id)
        if index == 0 and behaviour == "refuse":
            raise UserError("there is no such thing")
        if index == 0 and behaviour == "crash":
            raise ZeroDivisionError("by zero")
        if index == 0 and behaviour == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if index == 0 and behaviour == "deaf":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            sleep(60)
        if index == 0 and behaviour in ("hang", "stop"):
            try:
                if behaviour == "stop":
                    raise KeyboardInterrupt
                sleep(60)
            except KeyboardInterrupt:
                write(failed(record, "interrupted", "interrupted by the user"), spec.id)
                return
        if behaviour == "group":
            tasks = [f"{spec.id}-{name}" for name in ("first", "second")]
            for task in tasks:
                write(record, task)
            results.write_tasks(spec.id, tasks)
            send(Written(spec.id, "ok"))
        else:
            write(record, spec.id)


if __name__ == "__main__":
    if sys.argv[1] == "print":
        print("a launcher's words", flush=True)
    sys.exit(serve(lambda line, send: work(sys.argv[1], msgspec.json.decode(line, type=Order), send)))
