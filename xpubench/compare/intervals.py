"""95% intervals of the difference of two sides' logarithms, from one value a process."""

from bisect import bisect_left
from collections.abc import Sequence
from math import fsum, sqrt
from statistics import fmean
from typing import Literal

import msgspec

from xpubench.measure.sequential import ALPHA

# The share of repeats in which the smallest detectable change would be found.
POWER = 0.9
# That share of the normal distribution lies below this many standard errors.
Z_POWER = 1.2816
# The degrees of freedom from which the noise of earlier processes serves where a side is a single one.
MIN_HISTORY = 10
MOST_ROUNDS = 10_000

Method = Literal["paired t", "Welch's t", "t with the noise of earlier runs", "always-valid t"]


class Interval(msgspec.Struct, frozen=True, kw_only=True):
    """An estimate with the ends of its 95% interval, its standard error and the degrees of freedom of that
    error. For times, everything except the degrees of freedom is on the scale of the natural logarithm
    of the ratio. `rounds` is the number of values of the smaller side, and `deviation` the standard error of
    one value a side."""

    estimate: float
    low: float
    high: float
    error: float
    freedom: float
    rounds: int
    deviation: float
    method: Method

    @property
    def detectable(self) -> float:
        """The smallest change that would be found in nine of ten repeats."""
        return self.error * (_quantile(self.freedom, 1 - ALPHA / 2) + _quantile(self.freedom, POWER))

    @property
    def p_value(self) -> float:
        """The two-sided p-value of no change."""
        if self.error == 0:
            return 1.0 if self.estimate == 0 else 0.0
        from scipy.special import stdtr

        return float(2 * stdtr(self.freedom, -abs(self.estimate) / self.error))


class Noise(msgspec.Struct, frozen=True):
    """The noise between processes of the same run: the standard deviation of a figure's logarithm, and its
    degrees of freedom."""

    deviation: float
    freedom: int


def paired(base: Sequence[float], new: Sequence[float]) -> Interval:
    """Student's interval of the mean of new less base, round by round; at least two rounds."""
    differences = [after - before for before, after in zip(base, new, strict=True)]
    deviation, count = sqrt(_variance(differences)), len(differences)
    return _interval(fmean(differences), deviation / sqrt(count), count - 1, count, deviation, "paired t")


def welch(base: Sequence[float], new: Sequence[float]) -> Interval:
    """Welch's interval of the difference of the means, new less base, of rounds that were run apart, with the
    degrees of freedom of Welch and Satterthwaite; at least two rounds a side."""
    noises = [Noise(sqrt(_variance(side)), len(side) - 1) for side in (base, new)]
    return _of_two_noises(base, new, noises, "Welch's t")


def by_history(
    base: Sequence[float], new: Sequence[float], noise: Noise, of_new: Noise | None = None
) -> Interval:
    """The interval of the difference of the means where the noise between processes is known from other runs:
    one noise for both sides, or the base's and that of the new run, which are combined as Welch does."""
    method: Method = "t with the noise of earlier runs"
    if of_new is not None:
        return _of_two_noises(base, new, (noise, of_new), method)
    error, deviation = (noise.deviation * sqrt(of) for of in (1 / len(base) + 1 / len(new), 2))
    rounds = min(len(base), len(new))
    return _interval(fmean(new) - fmean(base), error, noise.freedom, rounds, deviation, method)


def pooled(groups: Sequence[Sequence[float]]) -> Noise | None:
    """The noise within groups of values of equal runs; None where no group has two values."""
    several = [group for group in groups if len(group) > 1]
    freedom = sum(len(group) - 1 for group in several)
    if not freedom:
        return None
    squares = fsum(_variance(group) * (len(group) - 1) for group in several)
    return Noise(sqrt(squares / freedom), freedom)


def rounds_to_decide(interval: Interval, limit: float) -> int | None:
    """The number of rounds of both sides from which an interval around the present estimate, with the present
    noise, would lie on one side of 0 or inside `limit`; None for more than `MOST_ROUNDS`."""
    margin = max(abs(interval.estimate), limit - abs(interval.estimate))

    def decides(rounds: int) -> bool:
        return _quantile(rounds - 1, 1 - ALPHA / 2) * interval.deviation / sqrt(rounds) < margin

    numbers = range(max(interval.rounds + 1, 3), MOST_ROUNDS + 1)
    place = bisect_left(numbers, True, key=decides)
    return numbers[place] if place < len(numbers) else None


def _of_two_noises(
    base: Sequence[float], new: Sequence[float], noises: Sequence[Noise], method: Method
) -> Interval:
    """The interval of the difference of the means, new less base, where each side has a noise of its own."""
    counts = (len(base), len(new))
    parts = [noise.deviation**2 / count for noise, count in zip(noises, counts, strict=True)]
    total = fsum(parts)
    freedom: float = min(noise.freedom for noise in noises)
    if total > 0:
        freedom = total**2 / fsum(part**2 / noise.freedom for part, noise in zip(parts, noises, strict=True))
    deviation = sqrt(fsum(noise.deviation**2 for noise in noises))
    return _interval(fmean(new) - fmean(base), sqrt(total), freedom, min(counts), deviation, method)


def _interval(
    estimate: float, error: float, freedom: float, rounds: int, deviation: float, method: Method
) -> Interval:
    half = error * _quantile(freedom, 1 - ALPHA / 2) if error else 0.0
    return Interval(
        estimate=estimate,
        low=estimate - half,
        high=estimate + half,
        error=error,
        freedom=freedom,
        rounds=rounds,
        deviation=deviation,
        method=method,
    )


def _variance(values: Sequence[float]) -> float:
    mean = fmean(values)
    return fsum((value - mean) ** 2 for value in values) / (len(values) - 1)


def _quantile(freedom: float, probability: float) -> float:
    # scipy.stats would take a second to import.
    from scipy.special import stdtrit

    return float(stdtrit(freedom, probability))
