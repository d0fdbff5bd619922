"""The next token latency that a model's shapes, a bandwidth and a device card let one expect."""

import msgspec

from xpubench.catalog.architecture import Architecture
from xpubench.explanation import Cause, DeviceCard, Expectation, Spread
from xpubench.spec import Workload

# The interval reaches so much beyond the card's own spread, for what the model leaves out.
MODEL_ERROR = 1.15


class StepWork(msgspec.Struct, frozen=True, kw_only=True):
    """What a decoding step does: the bytes of weights that it reads, those of a position in a block over all
    sequences, the number of blocks, the mean number of positions, the operations of its products, and the
    number of sums over ranks."""

    weight_bytes: int
    position_bytes: float
    blocks: int
    positions: float
    flop: int
    sums: int = 0


def step_work(
    architecture: Architecture,
    workload: Workload,
    input_tokens: int,
    weight_bytes: int,
    kv_value_bytes: float,
    ranks: int = 1,
) -> StepWork:
    """The work of the mean step of a workload. `weight_bytes` are those that a step of one sequence reads, of
    an architecture that is one rank's part. AutoTP sums over the ranks after the attention and after the MLP
    of each block, and after the output head."""
    sequences = workload.batch_size * workload.num_beams
    block_values = 2 * architecture.num_kv_heads * architecture.head_dim
    return StepWork(
        weight_bytes=int(weight_bytes * architecture.step_share(sequences)),
        position_bytes=sequences * block_values * kv_value_bytes,
        blocks=architecture.num_layers,
        positions=input_tokens + max(workload.new_tokens - 2, 0) / 2,
        flop=architecture.product_flop(sequences=sequences, tokens=1),
        sums=2 * architecture.num_layers + 1 if ranks > 1 else 0,
    )


def assumed_card(*, asynchronous: bool) -> DeviceCard:
    """The card of a device and a stack that nobody measured. Its ends are assumptions: products at 35 to 95%
    of the bandwidth, 5 us a block for a compiled graph to 600 us for eager Python on a slow host, up to 25 ns
    a position and block for attention, as on an Arc Pro B70 (llama.cpp, issues 26581 and 28721), and 5 to
    200 us a sum over the ranks of devices, or to 1 ms over those of a CPU with busy cores."""
    return DeviceCard(
        source="datasheet",
        asynchronous=asynchronous,
        product_share=Spread(low=0.35, middle=0.7, high=0.95),
        block_ns=Spread(low=5e3, middle=1e5, high=6e5),
        step_ns=Spread(low=5e4, middle=5e5, high=3e6),
        attention_ns=Spread(low=0.0, middle=3.0, high=25.0),
        attention_share=Spread(low=0.1, middle=0.5, high=0.9),
        sum_ns=Spread(low=5e3, middle=5e4, high=2e5 if asynchronous else 1e6),
    )


def expected(
    work: StepWork,
    card: DeviceCard,
    *,
    ceiling_gb_per_s: float,
    lowest_gb_per_s: float | None = None,
    peak_tflop_per_s: float | None = None,
) -> Expectation:
    """The expectation of a next token latency:

    weights = max(bytes / (product_share x ceiling), operations / peak)
    attention = blocks x positions x max(attention_ns, bytes of a position / (attention_share x ceiling))
    host = blocks x block_ns + step_ns
    sums = sums over ranks x sum_ns

    Their sum where the host waits for each operator, as on a CPU; the larger of weights + attention + sums
    and host on an asynchronous device. It assumes that blocks cost alike whatever their architecture, that
    products of several rows cost no more than those of one until they reach the peak, and that attention
    grows in proportion to the context. The interval takes the card's fast ends with the ceiling and its slow
    ends with the lowest bandwidth that was seen, its upper end on an asynchronous device the sum, and 15%
    beyond both.
    """
    slow_gb_per_s = lowest_gb_per_s or ceiling_gb_per_s

    def parts(ceiling: float, rate: str, cost: str) -> tuple[float, float, float, float]:
        reads, attends = getattr(card.product_share, rate), getattr(card.attention_share, rate)
        # GB/s are bytes a nanosecond, and TFLOP/s 1,000 operations a nanosecond.
        weights = work.weight_bytes / (reads * ceiling)
        if peak_tflop_per_s:
            weights = max(weights, work.flop / (peak_tflop_per_s * 1e3))
        position = max(getattr(card.attention_ns, cost), work.position_bytes / (attends * ceiling))
        host = work.blocks * getattr(card.block_ns, cost) + getattr(card.step_ns, cost)
        attention = work.blocks * work.positions * position
        return weights, attention, host, work.sums * getattr(card.sum_ns, cost)

    def whole(weights: float, attention: float, host: float, sums: float) -> float:
        device = weights + attention + sums
        return max(device, host) if card.asynchronous else device + host

    middle = parts(ceiling_gb_per_s, "middle", "middle")
    fast = whole(*parts(ceiling_gb_per_s, "high", "low")) / MODEL_ERROR
    slow = sum(parts(slow_gb_per_s, "low", "high")) * MODEL_ERROR
    found = Expectation(
        next_token_ms=whole(*middle) / 1e6,
        interval_ms=(fast / 1e6, slow / 1e6),
        card=card.source,
        weights_ms=middle[0] / 1e6,
        attention_ms=middle[1] / 1e6,
        host_ms=middle[2] / 1e6,
        sums_ms=middle[3] / 1e6 if work.sums else None,
        device_card=card,
    )
    return msgspec.structs.replace(found, message=_largest(found))


def beside_measured(found: Expectation, next_token_ms: float) -> Expectation:
    """The expectation beside a measured latency: its ratio, and whether that lies within the interval, or by
    how much beyond which end."""
    low, high = found.interval_ms
    ratio = next_token_ms / found.next_token_ms
    told = f"expected {found.next_token_ms:.2f} ms ({low:.2f} to {high:.2f})"
    if found.card == "datasheet":
        told += " by an assumed card, as nobody measured this stack here"
    if low <= next_token_ms <= high:
        verdict = "as expected"
    elif next_token_ms > high:
        verdict = f"{_share(next_token_ms / high - 1)} beyond what this machine can do"
    else:
        verdict = f"{_share(1 - next_token_ms / low)} below the least that was expected"
    message = f"{verdict}: {next_token_ms:.2f} ms, {told}, {found.message}"
    return msgspec.structs.replace(found, ratio=ratio, message=message)


def _share(value: float) -> str:
    return f"{value:.0%}" if value >= 0.01 else "less than 1%"


def with_cause(found: Expectation, cause: Cause) -> Expectation:
    """The expectation beside a measured latency, with what bounds the token by its ledger in the place of
    the largest part of the expected latency."""
    word = {"kernels": "kernel", "launches": "launch"}.get(cause, cause)
    told = (found.message or "").removesuffix(_largest(found))
    return msgspec.structs.replace(found, message=f"{told}{word}-bound by its ledger")


def _largest(found: Expectation) -> str:
    """The largest part of the expected latency, in words: weights, attention, host or sums over ranks."""
    share = 0.0 if found.device_card is None else found.device_card.product_share.middle
    parts = (
        (found.weights_ms or 0.0, f"products with weights at {share:.0%} of the bandwidth"),
        (found.attention_ms or 0.0, "attention"),
        (found.host_ms or 0.0, "the host's work"),
        (found.sums_ms or 0.0, "the sums over ranks"),
    )
    return f"the largest part of it {max(parts)[1]}"
