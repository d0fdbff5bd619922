"""The signals that end a process: each is a KeyboardInterrupt, and the exit code tells which one came."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from time import monotonic
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# This is longer than any exit, which includes a supervisor's wait for its worker.
EXIT_S = 60.0


class _Received:
    """The first signal that came, the time of the last one that interrupted, by the monotonic clock, and what
    is called before it interrupts."""

    number: int | None = None
    at_s = 0.0
    first: Callable[[], None] | None = None


_received = _Received()


@contextlib.contextmanager
def as_interruptions() -> Iterator[None]:
    """While it lasts, SIGINT, SIGTERM and SIGHUP raise KeyboardInterrupt in the main thread.

    Further signals change nothing, because the exit is under way. After `EXIT_S` seconds a signal interrupts
    again, in case a library swallowed the first one. A signal that the parent process ignores, as under
    nohup, stays ignored. After a signal, all are ignored when the block is left, because Python removes its
    own handlers before the process has ended.
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


@contextlib.contextmanager
def calling_first(work: Callable[[], None]) -> Iterator[None]:
    """While it lasts, `work` is called before a signal interrupts."""
    _received.first = work
    try:
        yield
    finally:
        _received.first = None


def exit_code() -> int:
    """The exit code 128 plus the number of the signal that ended this process, by default SIGINT."""
    return 128 + (_received.number or signal.SIGINT)


def ignore() -> None:
    """Has this process ignore these signals, because another process ends it."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)


def _interrupt(number: int, frame: FrameType | None) -> None:
    now_s = monotonic()
    if _received.number is not None and now_s - _received.at_s < EXIT_S:
        return
    _received.number = _received.number or number
    _received.at_s = now_s
    if _received.first is not None:
        _received.first()
    raise KeyboardInterrupt
