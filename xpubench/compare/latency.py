"""Latencies and peaks of memory of two runs: their ratios, and whether these are changes."""

from collections.abc import Sequence
from typing import Literal

import msgspec

from xpubench.measure.statistics import median_ratio
from xpubench.record import Record

# Runs of the same thing differ by about this much from one process to the next, which no interval shows.
MARGIN = 0.01

LatencyChange = Literal["faster", "slower", "same", "no interval"]


class Ratio(msgspec.Struct, frozen=True, kw_only=True):
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
        if self.low is None or self.high is None:
            return f"{self.ratio:.3f}"
        return f"{self.ratio:.3f} ({self.low:.3f} to {self.high:.3f})"

    def verdict(self, margin: float = MARGIN) -> LatencyChange:
        """Whether the whole interval is more than the margin away from 1, and on which side."""
        if self.low is None or self.high is None:
            return "no interval"
        if self.high < 1 - margin:
            return "faster"
        return "slower" if self.low > 1 + margin else "same"


def ratio_of(base: Sequence[Record], new: Sequence[Record], what: Literal["first", "next"]) -> Ratio | None:
    """The ratio of two runs' latencies, new / base, from their raw samples; None where one has none.

    A run that was repeated is given by its rounds, which are resampled as wholes, and in pairs where both
    sides have as many.
    """
    sides = [_rounds(records, what) for records in (base, new)]
    if not all(sides):
        return None
    ratio, low, high = median_ratio(*sides, paired=len(base) == len(new) > 1)
    return Ratio(ratio=ratio, low=low, high=high)


def ratio_over_rounds(base: Sequence[Record], new: Sequence[Record]) -> Ratio:
    """The ratio of next token latencies, new / base, of two runtimes that took turns, round by round: of the
    medians over all tokens, with the interval over the rounds."""
    sides = [
        [[one for row in next_token_rows(record) for one in row] for record in side] for side in (base, new)
    ]
    ratio, low, high = median_ratio(*sides, paired=True)
    return Ratio(ratio=ratio, low=low, high=high)


def next_token_rows(record: Record) -> list[list[int]]:
    """The next token latencies of each iteration that has them, in ns."""
    return [one.next_token_ns for one in record.samples.iterations if one.next_token_ns]


def _rounds(records: Sequence[Record], what: Literal["first", "next"]) -> list[list[int]]:
    if len(records) == 1:
        return _rows(records[0], what)
    rounds = [_rows(record, what) for record in records]
    return [[sample for row in rows for sample in row] for rows in rounds if rows]


def _rows(record: Record, what: Literal["first", "next"]) -> list[list[int]]:
    stamped = [one for one in record.samples.iterations if one.sync_policy == "every_token"]
    if record.status != "ok":
        return []
    if what == "first":
        return [[one.first_token_ns] for one in stamped if one.first_token_ns and one.first_token_ns > 0]
    return [one.next_token_ns for one in stamped if one.next_token_ns and min(one.next_token_ns) > 0]


def memory_ratio(base: Record, new: Record) -> float | None:
    """New / base of the peaks: device memory where both know it, else the host's."""
    one, other = base.summary, new.summary
    if one is None or other is None:
        return None
    for before, after in (
        (one.peak_device_bytes, other.peak_device_bytes),
        (one.peak_host_bytes, other.peak_host_bytes),
    ):
        if before and after:
            return after / before
    return None
