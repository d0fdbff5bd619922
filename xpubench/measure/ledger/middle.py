"""The middle half of some values, on which a few disturbed ones have no influence."""

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def middle_half(values: Sequence[T], size: Callable[[T], float]) -> list[T]:
    """The values without the smallest and the largest quarter, so that a disturbed token does not count. All
    values where there are fewer than four."""
    ordered, cut = sorted(values, key=size), len(values) // 4
    return ordered[cut : len(ordered) - cut]


def middle_mean(values: Sequence[float]) -> float:
    """The mean of the middle half of some values (interquartile mean)."""
    middle = middle_half(values, float)
    return sum(middle) / len(middle)
