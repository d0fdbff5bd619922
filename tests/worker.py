"""A stand-in for the worker of a suite, which writes records without running anything.

    python tests/worker.py BEHAVIOUR < ORDER

BEHAVIOUR is `ok`; `group`, whose tasks have the records; `nothing`, which says that it is done and has
written no record; `late`, which is killed between a record and its report; `watched`, which is killed when
the ranks' watchdog has written that the run failed; `full`, whose disk has no space after the first record;
or, at the first run: `refuse` the order, or `crash`.
"""

import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import msgspec

from tests.records import latency_record, subject
from xpubench.errors import UserError
from xpubench.failures import write_as_failed
from xpubench.process.reports import Send, Written, serve
from xpubench.record import Failure, Record
from xpubench.results import ResultsDirectory, WriteError
from xpubench.run.order import Order


def work(behaviour: str, order: Order, send: Send) -> None:
    results = ResultsDirectory(Path(order.results))

    def write(record: Record, id: str) -> None:
        record = msgspec.structs.replace(record, id=id)
        if behaviour == "watched":
            write_as_failed(
                results, record, Failure(failure_class="oom", message="rank 1 on here: no memory")
            )
        else:
            results.write(record)
        if behaviour in ("late", "watched"):
            os.kill(os.getpid(), signal.SIGKILL)
        send(Written(id, record.status))

    if behaviour == "nothing":
        return
    for index, spec in enumerate(order.specs):
        record = latency_record(subject(), iterations=2, new_tokens=2, id=spec.id)
        if index == 0 and behaviour == "refuse":
            raise UserError("there is no such thing")
        if index == 1 and behaviour == "full":
            raise WriteError("cannot write the second record")
        if index == 0 and behaviour == "crash":
            raise ZeroDivisionError("by zero")
        if behaviour == "group":
            tasks = [f"{spec.id}-{name}" for name in ("first", "second")]
            for task in tasks:
                write(record, task)
            results.write_tasks(spec.id, tasks)
            send(Written(spec.id, "ok"))
        else:
            write(record, spec.id)


if __name__ == "__main__":
    sys.exit(serve(lambda line, send: work(sys.argv[1], msgspec.json.decode(line, type=Order), send)))
