"""The receiver of a run's progress, lines about progress on standard error, and what a terminal can show."""

import re
import sys
from typing import Protocol

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Progress(Protocol):
    """The receiver of a run's progress."""

    def say(self, text: str) -> None:
        """Shows one line about what the run does now."""

    def begin(self, title: str, total: int) -> None:
        """Announces that at most `total` steps follow."""

    def step(self, text: str, count: int = 1) -> None:
        """Notes that `count` steps are done."""

    def downloading(self, under_way: bool) -> None:
        """Notes that a download begins or has ended. Its time counts towards no timeout."""


def printable(text: str) -> str:
    """A text without the control characters that would steer a terminal, each of which shows as its code."""
    return CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def log_line(text: str) -> None:
    """Prints a line to standard error at once, even where that is a file."""
    print(printable(text), file=sys.stderr, flush=True)
