"""What a stack measured of one token, in the terms that all stacks share. Times are in nanoseconds a
token."""

import msgspec

from xpubench.explanation import OperatorTime, PartName

# A runtime makes at most this many generations of the workload to explain where the time goes.
MOST_GENERATIONS = 3


class MeasuredToken(msgspec.Struct, frozen=True, kw_only=True):
    """The first token of a generation, or the mean of its next tokens.

    `parts` divide the whole time of the token, without what the measurement added. Attention is one part,
    `attention`, which includes reading the KV cache; the ledger divides it later. `operators` are the
    operators of which the parts consist. `profiled_ns` is the token's time while it was measured, in which
    `events` were recorded at a cost of `event_ns` each; None where nothing was recorded. `unprofiled_ns` is
    the mean time of the same token where it was not measured, among or beside those that were; None where
    there was none.
    """

    parts: dict[PartName, float]
    operators: list[OperatorTime] = []
    profiled_ns: float | None = None
    events: float | None = None
    event_ns: float | None = None
    unprofiled_ns: float | None = None


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What a runtime found out about its tokens. `method` describes how in words. `cpu_share` is the share of
    the time in which the threads that compute had a processor when they wanted one; None where the system
    does not report it. `generations` is the number of generations of the workload that were made, and `notes`
    are sentences about what the measurement does not show."""

    method: str
    first: MeasuredToken | None = None
    next: MeasuredToken | None = None
    cpu_share: float | None = None
    generations: int = 0
    notes: list[str] = []
