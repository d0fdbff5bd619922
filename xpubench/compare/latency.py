"""Latencies and peaks of memory of two runs: their ratios, and whether these are changes."""

from collections.abc import Sequence
from itertools import chain
from typing import Literal

import msgspec

from xpubench.record import Record

# Repeated processes of one run differ by about this much, which no interval within a process shows.
MARGIN = 0.01

LatencyChange = Literal["faster", "slower", "same", "no interval"]


class Ratio(msgspec.Struct, frozen=True):
    """B / A with the ends of its 95% interval, None where a side has one iteration alone."""

    ratio: float
    low: float | None
    high: float | None

    @property
    def ends(self) -> tuple[float, float] | None:
        """Both ends of the interval."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    @property
    def text(self) -> str:
        """The ratio with its interval."""
        return f"{self.ratio:.3f}" + (f" ({self.low:.3f} to {self.high:.3f})" if self.ends else "")

    def verdict(self, margin: float = MARGIN) -> LatencyChange:
        """Whether the whole interval is more than the margin away from 1, and on which side."""
        if self.low is None or self.high is None:
            return "no interval"
        if self.high < 1 - margin:
            return "faster"
        return "slower" if self.low > 1 + margin else "same"


def ratio_of(base: Sequence[Record], new: Sequence[Record], what: Literal["first", "next"]) -> Ratio | None:
    """The ratio of two runs' latencies, new / base, from their raw samples; None where one has none. The
    rounds of a repeated run are resampled as wholes, and in pairs where both sides have as many."""
    sides = [_rows(records, what) for records in (base, new)]
    return _ratio(*sides, paired=len(base) == len(new) > 1) if all(sides) else None


def ratio_over_rounds(base: Sequence[Record], new: Sequence[Record]) -> Ratio:
    """The ratio of next token latencies, new / base, of two runtimes that took turns, round by round: of the
    medians over all tokens, with the interval over the rounds."""
    sides = [[list(chain(*next_token_rows(record))) for record in side] for side in (base, new)]
    return _ratio(*sides, paired=True)


def _ratio(base: list[list[int]], new: list[list[int]], *, paired: bool) -> Ratio:
    # NumPy's import would double the time of `xpubench report --help`.
    from xpubench.measure.statistics import median_ratio

    return Ratio(*median_ratio(base, new, paired=paired))


def next_token_rows(record: Record) -> list[list[int]]:
    """The next token latencies of each iteration that has them, in ns."""
    return [one.next_token_ns for one in record.samples.iterations if one.next_token_ns]


def _rows(records: Sequence[Record], what: Literal["first", "next"]) -> list[list[int]]:
    """The rows that are resampled: the iterations of a single run, or all samples of each of its rounds."""
    rounds = []
    for record in (one for one in records if one.status == "ok"):
        rows = next_token_rows(record)
        if what == "first":
            rows = [[one.first_token_ns] for one in record.samples.iterations if one.first_token_ns]
        rounds.append([row for row in rows if min(row) > 0])
    return rounds[0] if len(records) == len(rounds) == 1 else [list(chain(*rows)) for rows in rounds if rows]


def memory_ratio(base: Record, new: Record) -> float | None:
    """New / base of the peaks: device memory where both know it, else the host's."""
    for name in ("peak_device_bytes", "peak_host_bytes"):
        before, after = (getattr(record.summary, name, None) for record in (base, new))
        if before and after:
            return float(after / before)
    return None
