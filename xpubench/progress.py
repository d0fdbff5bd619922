"""The receiver of a run's progress, and lines about progress on standard error."""

import sys
from typing import Protocol


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


def log_line(text: str) -> None:
    """Prints a line to standard error at once, even where that is a file."""
    print(text, file=sys.stderr, flush=True)
