"""The types of a record's explanation: where the time of a token goes. Times are in nanoseconds a token
unless the name of a field has another unit; None stands for what a stack does not show."""

from typing import Literal, get_args

import msgspec

PartName = Literal[
    "weights",
    "kv_cache",
    "attention",
    "other_kernels",
    "unknown_kernels",
    "launches",
    "stack",
    "host",
    "synchronization",
    "collectives",
    "waiting",
    "idle",
]
# The parts in the order in which they are shown.
PART_NAMES: tuple[PartName, ...] = get_args(PartName)
Cause = Literal[
    "bandwidth", "kernels", "compute", "host", "launches", "attention", "communication", "clock", "unclear"
]


class LedgerPart(msgspec.Struct, frozen=True, kw_only=True):
    """One part of a token's time. `weights` is the time of matrix products with weights. `kv_cache` is the
    time that reading the KV cache takes at the device's bandwidth, and `attention` the rest of attention.
    `other_kernels` is the time of all other known operators, and `unknown_kernels` that of operators in no
    category. `launches` is the host's time in the driver's launch calls while the device waits, `host` that
    in Python, dispatch and the generation loop, and `synchronization` that in calls that wait for the device
    while it does nothing. `stack` is the time inside a stack's own call and outside of its operators.
    `collectives` are the collectives while nothing else runs, and `waiting` is a rank's wait for the other
    ranks in them. `idle` is the time in which the device does nothing although its next kernel was launched.
    `bytes` is what the part must read."""

    name: PartName
    ns: float
    bytes: int | None = None

    @property
    def gb_per_s(self) -> float | None:
        """The bandwidth in GB/s (10^9 bytes) at which the part read its bytes."""
        return self.bytes / self.ns if self.bytes and self.ns > 0 else None


class OperatorTime(msgspec.Struct, frozen=True, kw_only=True):
    """An operator or kernel by its name: its own time and its calls in one token."""

    name: str
    part: PartName
    ns: float
    calls: float


class Ledger(msgspec.Struct, frozen=True, kw_only=True):
    """Where the time of the first token or of a next token goes. `timed_ns` is the token's latency in the
    timed generations, `wall_ns` that of the tokens that were not profiled among or beside those that were,
    and `profiled_ns` that of the profiled ones. In each of these, `events` were recorded, and each took
    `event_ns`, which is not in the parts. Where a stack's own metrics tell the parts, without a profiler,
    `wall_ns` is `timed_ns`; so it is in earlier records, which lack `timed_ns`. `cpu_share` is the share
    of the time in which the threads that compute had a processor when they wanted one. Where the parts cannot
    be relied on, `refused` says why, and the parts still show what was measured."""

    token: Literal["first", "next"]
    wall_ns: float
    timed_ns: float | None = None
    parts: list[LedgerPart]
    operators: list[OperatorTime] = []
    profiled_ns: float | None = None
    events: float | None = None
    event_ns: float | None = None
    cpu_share: float | None = None
    refused: str | None = None

    @property
    def sum_ns(self) -> float:
        """The sum of the parts."""
        return sum(part.ns for part in self.parts)

    @property
    def difference(self) -> float:
        """How far the sum of the parts is above `wall_ns`, as a share of it."""
        return self.sum_ns / self.wall_ns - 1

    @property
    def drift(self) -> float | None:
        """How far `wall_ns` is above the latency in the timed generations, as a share of it."""
        return self.wall_ns / self.timed_ns - 1 if self.timed_ns else None


class TokenVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """What bounds a token: the cause, the share of the token's time that belongs to it, one line of text, and
    advice, each piece with the condition under which it applies."""

    cause: Cause
    share: float | None
    message: str
    advice: list[str] = []


class DepthPoint(msgspec.Struct, frozen=True, kw_only=True):
    """The next token latency after a context of `depth` tokens: the samples of each generation in ns, and
    their median in ms. The n-th token of a generation, counted from 1, attends to n positions more than
    `depth`."""

    depth: int
    next_token_ns: list[list[int]]
    next_token_ms: float


class DepthCurve(msgspec.Struct, frozen=True, kw_only=True):
    """How the next token latency grows with the context. `slope_ns` is the growth in ns for each position and
    decoder block (Theil-Sen over the generations' medians), with its 95% interval. `bytes_ns` is the time
    that reading one position of one block, of all sequences, takes at the device's bandwidth. `message` says
    whether attention is bound by these bytes or by latency, and `method` how the context was made."""

    points: list[DepthPoint]
    slope_ns: float | None = None
    slope_ci95: tuple[float, float] | None = None
    bytes_ns: float | None = None
    method: str
    message: str


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """A figure of a device card, and the lowest and highest value among its samples or assumptions."""

    low: float
    middle: float
    high: float


class DeviceCard(msgspec.Struct, frozen=True, kw_only=True):
    """The time that a stack on a device needs for a token in addition to reading bytes at the bandwidth
    ceiling. It was measured on models with negligible weights (`created` says when), or is assumed.
    `product_share` is the share of the ceiling at which products of one row read their weights. `block_ns` is
    the time of a decoder block without weights and context: Python, dispatch, launches and small kernels.
    `step_ns` is the time of a step without any block. `attention_ns` is the time of attention for each
    position and block where heads have few bytes, and `attention_share` the share of the ceiling at which
    attention reads heads with many bytes. `sum_ns` is the time in which the ranks sum what one token
    has, on the one that takes longest; 0 without ranks. Where the device is `asynchronous`, the host runs
    ahead of it. `dtype`, the device, `threads`, `stack`, `options` (those of the stack in words, empty for
    its defaults), `versions` and `variables` say for which runs it was measured, and `ceiling_gb_per_s`
    beside which one. `samples_ns` are the next token latencies in the generations of each model, and
    `product_gb_per_s` the rates at which the products read."""

    source: Literal["measured", "datasheet"]
    asynchronous: bool
    product_share: Spread
    block_ns: Spread
    step_ns: Spread
    attention_ns: Spread
    attention_share: Spread
    sum_ns: Spread = Spread(low=0.0, middle=0.0, high=0.0)
    created: str | None = None
    dtype: str | None = None
    device_kind: str | None = None
    device_name: str | None = None
    device_memory_bytes: int | None = None
    driver: str | None = None
    threads: int | None = None
    stack: str | None = None
    options: str = ""
    versions: dict[str, str] = {}
    variables: dict[str, str] = {}
    ceiling_gb_per_s: float | None = None
    samples_ns: dict[str, list[list[int]]] = {}
    product_gb_per_s: list[float] = []


class Expectation(msgspec.Struct, frozen=True, kw_only=True):
    """The next token latency that is expected from the bytes, the bandwidth ceiling and a device card, with
    its interval and its parts, in ms (`xpubench.expectation`). `card` says where the figures of the
    `device_card` come from. `ratio` is the measured latency divided by the expected one, None in a plan."""

    next_token_ms: float
    interval_ms: tuple[float, float]
    card: Literal["measured", "datasheet"]
    ratio: float | None = None
    message: str | None = None
    weights_ms: float | None = None
    attention_ms: float | None = None
    host_ms: float | None = None
    sums_ms: float | None = None
    device_card: DeviceCard | None = None


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """What `--explain` and `--depths` found. The ledgers come from generations after the timed ones."""

    method: str | None = None
    first: Ledger | None = None
    next: Ledger | None = None
    verdict: TokenVerdict | None = None
    depth: DepthCurve | None = None
    generations: int = 0
    notes: list[str] = []
