"""The signals that end a process: each is a KeyboardInterrupt, and the exit code tells which one came."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from time import monotonic
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Longer than any exit: a supervisor waits for its worker's, and kills it in the end.
EXIT_S = 60.0


class _Received:
    """The first signal that came, and when the last one that counted came, by the monotonic clock."""

    number: int | None = None
    at_s = 0.0


_received = _Received()


@contextlib.contextmanager
def as_interruptions() -> Iterator[None]:
    """While it lasts, SIGINT, SIGTERM and SIGHUP raise KeyboardInterrupt in the main thread.

    Further signals change nothing, because the first one's exit is under way. After `EXIT_S` seconds a signal
    interrupts again, in case that a library swallowed the first one. A signal that the parent process has set
    to be ignored, as nohup does, stays ignored. Once a signal came, all are ignored for the rest of the
    process, because Python takes its own handlers away before it has ended.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _received.number = None
    before = {number: signal.getsignal(number) for number in ENDING}
    taken = [number for number in ENDING if before[number] is not signal.SIG_IGN]
    for number in taken:
        signal.signal(number, _interrupt)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, before[number] if _received.number is None else signal.SIG_IGN)


def exit_code() -> int:
    """128 and the number of the signal that ended this process, by default SIGINT's."""
    return 128 + (_received.number or signal.SIGINT)


def ignore() -> None:
    """Has this process ignore these signals: another one ends it."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)


def _interrupt(number: int, frame: FrameType | None) -> None:
    now_s = monotonic()
    if _received.number is not None and now_s - _received.at_s < EXIT_S:
        return
    _received.number = _received.number or number
    _received.at_s = now_s
    raise KeyboardInterrupt
