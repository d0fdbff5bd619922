"""What the checks of a run cost."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter_ns


class CheckTime:
    """The time that checks have taken, in nanoseconds."""

    def __init__(self, taken_ns: int = 0) -> None:
        self.taken_ns = taken_ns

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Counts the time within it."""
        start_ns = perf_counter_ns()
        try:
            yield
        finally:
            self.taken_ns += perf_counter_ns() - start_ns

    def hand_over(self) -> int:
        """The time so far, which counts here no longer."""
        taken_ns, self.taken_ns = self.taken_ns, 0
        return taken_ns
