"""The verdict on one figure: what its interval and its limit say together."""

from math import exp, log
from typing import Literal

import msgspec

from xpubench.compare.intervals import Interval, Method, rounds_to_decide

# `same` needs at least this many rounds. With only two, the interval is wide or, by luck, far too narrow.
ROUNDS_FOR_SAME = 3
MOST_LOG = 700.0
LARGEST_PLAIN = 1e4

Verdict = Literal["faster", "slower", "better", "worse", "same", "inconclusive", "not comparable"]
# The words for a figure that grew and for one that shrank.
Words = tuple[Verdict, Verdict]
LATENCY: Words = ("slower", "faster")
RATE: Words = ("faster", "slower")
COST: Words = ("worse", "better")
QUALITY: Words = ("better", "worse")


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """One figure of two runs. `change` is new / base where the unit is `ratio`, and new less base where it is
    `points`, with the ends of its 95% interval, None where there is none. `limit` is the least change that
    counts (as a share of the base, or in points), `detectable` the smallest that these data would show in
    nine of ten repeats. `to_decide` is the number of rounds, or of items, from which an inconclusive figure
    would probably have a verdict; None where there is one, or where none is known. `method` names how the
    interval was found."""

    figure: str
    unit: Literal["ratio", "points"] = "ratio"
    verdict: Verdict
    reason: str
    change: float | None = None
    low: float | None = None
    high: float | None = None
    limit: float
    detectable: float | None = None
    to_decide: int | None = None
    p_value: float | None = None
    method: Method | Literal["McNemar's test"] | None = None

    @property
    def ends(self) -> tuple[float, float] | None:
        """Both ends of the interval."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    @property
    def text(self) -> str:
        """The change with its interval."""
        if self.change is None:
            return "unknown"
        ends = f" ({' to '.join(map(self._number, self.ends))})" if self.ends else ""
        return self._number(self.change) + ends

    def _number(self, value: float) -> str:
        if self.unit == "points":
            return f"{value:+.2f}"
        return f"{value:.3f}" if 1e-3 < value < LARGEST_PLAIN else f"{value:.3g}"

    @property
    def beyond_limit(self) -> bool:
        """Whether the change is larger than the limit, and not explained by the noise where that is known."""
        if self.change is None:
            return False
        size, none = (abs(log(self.change)), 1.0) if self.unit == "ratio" else (abs(self.change), 0.0)
        limit = log(1 + self.limit) if self.unit == "ratio" else self.limit
        return size > limit and (self.ends is None or not self.ends[0] <= none <= self.ends[1])

    def named(self, title: str) -> str:
        """The change of a figure of that title in words."""
        return f"{title} {self.verdict if self.ends else 'changed'}, ratio {self.text}"


def judge_ratio(figure: str, interval: Interval, limit: float, words: Words) -> Judgement:
    """The verdict on a ratio, from the interval of its logarithm. `same` where the whole interval is inside
    the limits, which are 1 + `limit` and its reciprocal; else a change where the whole interval is on one
    side of 1; else inconclusive."""
    inside = max(abs(interval.low), abs(interval.high)) <= log(1 + limit)
    to_decide = None
    verdict: Verdict
    if inside and interval.rounds < ROUNDS_FOR_SAME and interval.method != "t with the noise of earlier runs":
        verdict, reason, to_decide = "inconclusive", f"`same` needs {ROUNDS_FOR_SAME} rounds", ROUNDS_FOR_SAME
    elif inside:
        verdict, reason = "same", f"the whole interval is within {limit:.1%}"
    elif interval.low > 0:
        verdict, reason = words[0], "the whole interval is above 1"
    elif interval.high < 0:
        verdict, reason = words[1], "the whole interval is below 1"
    else:
        verdict, to_decide = "inconclusive", rounds_to_decide(interval, log(1 + limit))
        reason = f"the interval holds 1 and reaches beyond {limit:.1%}"
    return Judgement(
        figure=figure,
        verdict=verdict,
        reason=reason,
        change=_exp(interval.estimate),
        low=_exp(interval.low),
        high=_exp(interval.high),
        limit=limit,
        detectable=_exp(interval.detectable) - 1,
        to_decide=to_decide,
        p_value=interval.p_value,
        method=interval.method,
    )


def without_interval(figure: str, change: float, limit: float, reason: str) -> Judgement:
    """The judgement on a ratio whose noise is not known. It has no verdict, and nobody can tell how many
    rounds would give one."""
    return Judgement(
        figure=figure,
        verdict="inconclusive",
        reason=reason,
        change=change,
        limit=limit,
    )


def _exp(value: float) -> float:
    # Two rounds that differ give intervals of hundreds, whose exponential is no float.
    return exp(min(value, MOST_LOG))
