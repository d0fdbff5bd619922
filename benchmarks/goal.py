"""A figure and the limit that it must keep to."""

from collections.abc import Iterable
from typing import NamedTuple


class Goal(NamedTuple):
    """`figure` must be at most `limit`; `detail` holds the raw sides of a ratio. `low` and
    `high` are the ends of what the figure may be: its 95% interval, or what it can become with the
    measurements that are still wanted. A goal is missed where `low` lies above the limit too, reached where
    `high` does not, and else unclear. Without them the figure alone decides."""

    name: str
    figure: float
    limit: float
    unit: str
    detail: str
    low: float | None = None
    high: float | None = None

    @property
    def verdict(self) -> str:
        if self.figure <= self.limit:
            return "unclear" if self.high is not None and self.high > self.limit else "ok"
        return "unclear" if self.low is not None and self.low <= self.limit else "MISSED"

    def __str__(self) -> str:
        figure, limit = f"{self.figure:.4g}{self.unit}", f"{self.limit:g}{self.unit}"
        return f"{self.verdict:7} {self.name}: {figure}, at most {limit} ({self.detail})"


def show(goals: Iterable[Goal]) -> int:
    """Prints each as it comes; the exit code, which is 1 when one is missed."""
    missed = 0
    for goal in goals:
        print(goal, flush=True)
        missed += goal.verdict == "MISSED"
    return 1 if missed else 0
