"""Bounds that hold however often one looks at them: on the mean of differences, and on the items of a finite
set."""

from math import inf
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from xpubench.measure.bootstrap import Floats

# The probability that a bound ever misses the true value is at most this.
ALPHA = 0.05
# The bets, as shares of the largest bet that cannot lose the whole capital. Which of them is best depends on
# the share of items that differ and on the loss.
BETS = (0.07, 0.14, 0.28, 0.56)
# The capital that refuses a hypothesis. At most one of the two is true, so that each may be refused at 5%.
DECIDES = 1 / ALPHA

Sided = Literal["within", "beyond"]


def always_valid_halves(differences: Floats) -> Floats:
    """[series, n]: half the width of the 95% interval around the mean of the first n differences of each
    series, infinite for the first four. With any probability of stopping at each n, the interval holds the
    mean at all n at once with probability 0.95, for independent normal differences of unknown variance.

    It is the t mixture of Lai (1976), "On confidence sequences", with a mixing variance of 1 in units of the
    differences' own. `differences` is [series, n].
    """
    n = np.arange(1, differences.shape[1] + 1)
    means = np.cumsum(differences, axis=1) / n
    squares = np.cumsum((differences - differences[:, :1]) ** 2, axis=1)
    squares -= n * (means - differences[:, :1]) ** 2
    deviations = np.sqrt(np.maximum(squares, 0) / np.maximum(n - 1, 1))
    with np.errstate(invalid="ignore"):
        return np.where(np.isinf(widths(n)), inf, deviations * widths(n))


def widths(n: NDArray[np.int_]) -> Floats:
    """Half the width of the always-valid interval after n differences, in their standard deviations."""
    mixed = 1.0 + n
    root = (mixed / ALPHA**2) ** (1 / n)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.sqrt((n - 1) / n * (root - 1) / (1 - root / mixed))
    return np.where(root < mixed, found, inf)


def item_capitals(differences: Floats, total: int, limit: float, side: Sided) -> Floats:
    """[order, t]: the capital after bets on each item in turn against the hypothesis that the mean difference
    of all `total` items is at most -`limit` (`within`), or at least -`limit` (`beyond`). Where the hypothesis
    is true, the capital ever reaches 1 / a with a probability of at most a, whatever the items are; so a
    capital of `DECIDES` refuses it at 5%.

    `differences` is [order, t], of new less base, each -1, 0 or 1, in an order drawn by chance. The bets are
    those without replacement of Waudby-Smith and Ramdas (2020), mixed over `BETS`.
    """
    values = (differences + 1) / 2
    before = np.cumsum(values, axis=1) - values
    left = total - np.arange(values.shape[1])
    # The mean that the remaining items would have if the mean of all were exactly at the limit.
    mean = (total * (1 - limit) / 2 - before) / left
    if side == "beyond":
        values, mean = 1 - values, 1 - mean
    capitals: Floats = np.zeros_like(values)
    # The largest bet that leaves no loss where the value is 0.
    most = np.divide(1, mean, out=np.zeros_like(mean), where=mean > 0)
    for share in BETS:
        capitals += np.cumprod(1 + share * most * (values - mean), axis=1) / len(BETS)
    # Where the remaining items cannot have that mean any more, the question is decided at once.
    return np.where(np.logical_or.accumulate(mean < 0, axis=1), inf, capitals)
