"""A figure and the limit that it must keep to."""

from collections.abc import Iterable
from typing import NamedTuple


class Goal(NamedTuple):
    """`figure` must be at most `limit`; `detail` holds the raw sides of a ratio."""

    name: str
    figure: float
    limit: float
    unit: str
    detail: str

    @property
    def reached(self) -> bool:
        return self.figure <= self.limit

    def __str__(self) -> str:
        verdict = "ok" if self.reached else "MISSED"
        figure, limit = f"{self.figure:.4g}{self.unit}", f"{self.limit:g}{self.unit}"
        return f"{verdict:6} {self.name}: {figure}, at most {limit} ({self.detail})"


def show(goals: Iterable[Goal]) -> int:
    """Prints each as it comes; the exit code, which is 1 when one is missed."""
    missed = 0
    for goal in goals:
        print(goal, flush=True)
        missed += not goal.reached
    return 1 if missed else 0
