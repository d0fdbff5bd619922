"""The receiver of a run's progress."""

from typing import Protocol


class Progress(Protocol):
    """The receiver of a run's progress."""

    def say(self, text: str) -> None:
        """Takes one line about what happens now."""

    def begin(self, title: str, total: int) -> None:
        """Announces at most `total` steps."""

    def step(self, text: str, count: int = 1) -> None:
        """Notes that `count` steps are done."""

    def downloading(self, under_way: bool) -> None:
        """Notes that a download begins, or that it has ended: its time counts in no limit."""
