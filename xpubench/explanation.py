"""The types of where a token's time goes, as a record holds them. Times are in nanoseconds a token unless a
field's name has another unit; None stands for what a stack does not show."""

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
    """One part of a token's time. `weights` is the time in products with weights, `kv_cache` what attention
    needs for the bytes of the KV cache at the device's bandwidth, `attention` the rest of attention;
    `other_kernels` are known operators beside these, `unknown_kernels` those that no category lists.
    `launches` is the host's time in a driver's launch calls while the device waits, `stack` what lies inside
    a stack's own call and outside of its operators, `host` Python, dispatch and the generation loop,
    `waiting` a rank's wait for the others. `bytes` is what the part must read."""

    name: PartName
    ns: float
    bytes: int | None = None

    @property
    def gb_per_s(self) -> float | None:
        """The bandwidth in GB/s at which the part read its bytes."""
        return self.bytes / self.ns if self.bytes and self.ns > 0 else None


class OperatorTime(msgspec.Struct, frozen=True, kw_only=True):
    """An operator or kernel by its name: its own time and its calls in one token."""

    name: str
    part: PartName
    ns: float
    calls: float


class Ledger(msgspec.Struct, frozen=True, kw_only=True):
    """Where the time of the first token or of a next token goes. `wall_ns` is its latency in generations
    that were not profiled, `profiled_ns` that of the profiled one, in which `events` were recorded a token at
    a cost of `event_ns` each, which is not in the parts. `cpu_share` is the process's CPU time over the
    wall's in each of its threads that compute. Where the parts cannot be relied on, `refused` says why, and
    they are what was seen nevertheless."""

    token: Literal["first", "next"]
    wall_ns: float
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
        """How far the parts' sum is above the wall's time, as a share of that."""
        return self.sum_ns / self.wall_ns - 1


class TokenVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """What bounds a token, with the share of its time that says so, one line that a person reads, and what to
    try, each with the condition under which it is given."""

    cause: Cause
    share: float | None
    message: str
    advice: list[str] = []


class DepthPoint(msgspec.Struct, frozen=True, kw_only=True):
    """The next token latency behind a context of `depth` tokens: the samples of each generation, whose n-th
    token, from 1, attends to n more positions, and their median in ms."""

    depth: int
    next_token_ns: list[list[int]]
    next_token_ms: float


class DepthCurve(msgspec.Struct, frozen=True, kw_only=True):
    """How the next token latency grows with the context: its slope by position and decoder block in ns with
    its 95% interval (Theil-Sen over the generations' medians), and `bytes_ns`, what the bytes that all
    sequences have in a position and block take at the device's bandwidth. `message` says whether attention
    pays bytes or latency, and `method` how the context was made."""

    points: list[DepthPoint]
    slope_ns: float | None = None
    slope_ci95: tuple[float, float] | None = None
    bytes_ns: float | None = None
    method: str
    message: str


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """A figure of a device card, and its lowest and highest value among its samples or assumptions."""

    low: float
    middle: float
    high: float


class DeviceCard(msgspec.Struct, frozen=True, kw_only=True):
    """What a stack on a device needs of a token beside the bytes at the bandwidth's ceiling, measured on
    models of negligible weights (`created` says when) or assumed. `product_share` is the share of the ceiling
    at which products of one row read their weights. `block_ns` is the time of a decoder block without weights
    and context: Python, dispatch, launches and small kernels. `step_ns` is that of a step without blocks, and
    `attention_ns` what a position in a block takes with heads of few bytes; `attention_share` is the share of
    the ceiling at which attention reads large ones. Where the device is `asynchronous`, the host runs ahead
    of it. `samples_ns` are the next token latencies of each of the models' generations, and
    `product_gb_per_s` the rates of the products."""

    source: Literal["measured", "datasheet"]
    asynchronous: bool
    product_share: Spread
    block_ns: Spread
    step_ns: Spread
    attention_ns: Spread
    attention_share: Spread
    created: str | None = None
    dtype: str | None = None
    device_kind: str | None = None
    device_name: str | None = None
    device_memory_bytes: int | None = None
    threads: int | None = None
    stack: str | None = None
    ceiling_gb_per_s: float | None = None
    samples_ns: dict[str, list[list[int]]] = {}
    product_gb_per_s: list[float] = []


class Expectation(msgspec.Struct, frozen=True, kw_only=True):
    """The next token latency that bytes, ceiling and device card let one expect, with its interval and its
    parts, in ms (`xpubench.expectation`). `card` says where the card's figures come from, `ratio` is the
    measured latency over the expected one, None in a plan, and `device_card` what was expected from."""

    next_token_ms: float
    interval_ms: tuple[float, float]
    card: Literal["measured", "datasheet"]
    ratio: float | None = None
    message: str | None = None
    weights_ms: float | None = None
    attention_ms: float | None = None
    host_ms: float | None = None
    device_card: DeviceCard | None = None


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """What `--explain` and `--depths` found. The ledgers are of generations after the timed ones."""

    method: str | None = None
    first: Ledger | None = None
    next: Ledger | None = None
    verdict: TokenVerdict | None = None
    depth: DepthCurve | None = None
    generations: int = 0
    notes: list[str] = []
