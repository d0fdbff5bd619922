"""Who is told how a run goes on."""

from typing import Protocol


class Progress(Protocol):
    """Who is told how a run goes on."""

    def say(self, text: str) -> None:
        """One line about what happens now."""

    def begin(self, title: str, total: int) -> None:
        """At most `total` steps follow."""

    def step(self, text: str, count: int = 1) -> None:
        """`count` steps are done."""
