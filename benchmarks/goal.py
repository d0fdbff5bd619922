"""A figure and the limit that it must keep to."""

from collections.abc import Iterable
from typing import NamedTuple


class Goal(NamedTuple):
    """`figure` must be at most `limit`; `detail` holds the raw sides of a ratio. `low` is the lower end of
    the figure's 95% interval: a goal is missed where it lies above the limit too, and else unclear."""

    name: str
    figure: float
    limit: float
    unit: str
    detail: str
    low: float | None = None

    @property
    def verdict(self) -> str:
        if self.figure <= self.limit:
            return "ok"
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
