"""What a child process of this package reports to its parent: JSON lines on its standard output.

The child reads one order, a line of JSON, from its standard input. While it works it reports what it does and
what it has written, and its last line says how it ended.
"""

import os
import sys
from collections.abc import Callable
from typing import Literal

import msgspec

from xpubench.errors import FailureClass, RunFailure, UserError
from xpubench.failures import classify
from xpubench.process.output import dropping_stderr, own_stdout, quiet
from xpubench.process.signals import as_interruptions
from xpubench.record import Failure
from xpubench.results import WriteError


class Said(msgspec.Struct, frozen=True, tag="said", tag_field="report"):
    """What the child is doing, in words for people."""

    text: str


class Downloading(msgspec.Struct, frozen=True, tag="downloading", tag_field="report"):
    """The beginning or the end of a download, whose time counts in no limit."""

    under_way: bool


class Written(msgspec.Struct, frozen=True, tag="written", tag_field="report"):
    """The id and the status of a record that now lies in the results directory."""

    id: str
    status: Literal["ok"] | FailureClass


class Waiting(msgspec.Struct, frozen=True, tag="waiting", tag_field="report"):
    """The child waits for a line on its standard input, which gives it its turn."""


class Done(msgspec.Struct, frozen=True, tag="done", tag_field="report"):
    """The end: the order is carried out. Failed runs have their records."""


class Refused(msgspec.Struct, frozen=True, tag="refused", tag_field="report"):
    """The end: the order cannot be carried out as it was given, which the user must change."""

    message: str


class Unwritten(msgspec.Struct, frozen=True, tag="unwritten", tag_field="report"):
    """The end: a file cannot be written to the results directory, which says nothing about the runs."""

    message: str


class Failed(msgspec.Struct, frozen=True, tag="failed", tag_field="report"):
    """The end: a failure that became no record. An unexpected error has the class `crash`, and the end of its
    traceback as the log tail."""

    failure: Failure


End = Done | Refused | Unwritten | Failed
Report = Said | Downloading | Written | Waiting | End
Send = Callable[[Report], None]

_decoder = msgspec.json.Decoder(Report)


def decode_report(line: bytes) -> Report | None:
    """The report in a line of a child's output; None for other lines, such as a launcher's."""
    try:
        report: Report = _decoder.decode(line)
    except msgspec.DecodeError:
        return None
    return report


def serve(work: Callable[[bytes, Send], None]) -> int:
    """Does a child's work: `work` is called with the order and with the way to report. What libraries print
    on standard output goes to standard error. Returns the exit code, 0 once the end is reported."""
    with as_interruptions(), dropping_stderr():
        quiet()
        with own_stdout() as out:

            def send(report: Report) -> None:
                # One write, so that neither a signal nor a launcher splits the line.
                os.write(out.fileno(), msgspec.json.encode(report) + b"\n")

            send(_end(lambda: work(sys.stdin.buffer.readline(), send)))
    return 0


def _end(work: Callable[[], None]) -> End:
    try:
        work()
    except WriteError as error:
        return Unwritten(str(error))
    except UserError as error:
        return Refused(str(error))
    except (RunFailure, KeyboardInterrupt) as error:
        return Failed(classify(error, "the host"))
    except Exception as error:
        sys.excepthook(type(error), error, error.__traceback__)  # for the log
        return Failed(classify(error, "the host"))
    return Done()
