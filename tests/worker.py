"""A stand-in for the worker of a suite, which writes records without running anything.

    python tests/worker.py BEHAVIOUR DIRECTORY ID...

BEHAVIOUR is `ok`; `group`, whose tasks have the records; or what happens at the first id: `hang` until told
to end, which it writes down as a worker does; `stop`, as when somebody else interrupts it; `kill` itself.
"""

import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from time import sleep

import msgspec

from tests.records import failed, latency_record, subject
from xpubench.results import ResultsDirectory


def main(behaviour: str, directory: str, *ids: str) -> int:
    results = ResultsDirectory(Path(directory))
    for index, one in enumerate(ids):
        record = latency_record(subject(), iterations=2, new_tokens=2, id=one)
        if index == 0 and behaviour == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if index == 0 and behaviour in ("hang", "stop"):
            try:
                if behaviour == "hang":
                    signal.signal(signal.SIGTERM, signal.default_int_handler)
                    sleep(60)
                raise KeyboardInterrupt
            except KeyboardInterrupt:
                results.write(failed(record, "interrupted", "interrupted by the user"))
                return 1
        if behaviour == "group":
            tasks = [f"{one}-{name}" for name in ("first", "second")]
            for task in tasks:
                results.write(msgspec.structs.replace(record, id=task))
            results.write_tasks(one, tasks)
        else:
            results.write(record)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
