"""What bounds a token, by rules over its ledger.

The limits come from runs of one small model on a CPU and from planted slow-downs; on an accelerator nobody
has tried them.
"""

from typing import NamedTuple

from xpubench.explanation import Cause, Ledger, LedgerPart, PartName, TokenVerdict
from xpubench.measure.ledger.advice import advice_on
from xpubench.measure.ledger.facts import RunFacts
from xpubench.measure.ledger.ledger import LEAST_CPU_SHARE
from xpubench.measure.ledger.operators import KERNELS

# Products with weights that reach this share of a roof of the roofline model are bound by it: by the
# bandwidth or by the matrix units.
NEAR_THE_ROOF = 0.7
# From this share of the token's time on, the KV cache is told apart from the products.
NOTABLE = 0.05


class Group(NamedTuple):
    """The parts that a cause stands for, and the share of the token's time from which they bound it."""

    cause: Cause
    parts: tuple[PartName, ...]
    limit: float


# The limits of attention and communication are lower, because a token without them would be bound by
# something else.
GROUPS = (
    Group("communication", ("collectives", "waiting"), 0.25),
    Group("attention", ("attention",), 0.25),
    Group("launches", ("launches", "idle"), 0.35),
    Group("host", ("host", "synchronization", "stack"), 0.35),
    Group("kernels", ("other_kernels", "unknown_kernels"), 0.35),
    Group("bandwidth", ("weights", "kv_cache"), 0.60),
)
# Of a stack that shows none of its operators, only what lies outside of its own call is known. Its call has
# the limit of the products with weights, which it holds.
HIDDEN_GROUPS = (
    Group("host", ("host", "synchronization"), 0.35),
    Group("unclear", ("stack",), 0.60),
)


def verdict_of(ledger: Ledger, facts: RunFacts) -> TokenVerdict:
    """The verdict on a ledger. The group with the largest ratio of its share to its limit decides, even where
    every share is below its limit. A stack that shows none of its operators gets no advice."""
    if ledger.refused is not None:
        return _refused(ledger, facts)
    shares = {part.name: part.ns / ledger.sum_ns for part in ledger.parts}
    hidden = "stack" in shares and not any(name in shares for name in KERNELS)
    sums = {
        group: sum(shares.get(name, 0.0) for name in group.parts)
        for group in (HIDDEN_GROUPS if hidden else GROUPS)
    }
    nearest = max(sums, key=lambda group: sums[group] / group.limit)
    cause, share = nearest.cause, sums[nearest]
    if hidden:
        return TokenVerdict(cause=cause, share=share, message=_hidden(cause, share))
    if cause == "bandwidth":
        cause, message = _roof(ledger, facts, share)
    else:
        message = _message(cause, share, ledger)
    return TokenVerdict(cause=cause, share=share, message=message, advice=advice_on(cause, ledger, facts))


def _refused(ledger: Ledger, facts: RunFacts) -> TokenVerdict:
    share = ledger.cpu_share
    cause: Cause = "clock" if share is not None and share < LEAST_CPU_SHARE else "unclear"
    return TokenVerdict(
        cause=cause,
        share=None if share is None or cause != "clock" else 1 - share,
        message=f"no verdict: {ledger.refused}",
        advice=advice_on(cause, ledger, facts),
    )


def _hidden(cause: Cause, share: float) -> str:
    if cause == "host":
        return f"host-bound: {share:.0%} of the token lies outside of the stack's own computation"
    inside = f"{share:.0%} of the token lies inside the stack's own call"
    return f"not known: {inside}, and the stack does not show what its time goes to"


def _roof(ledger: Ledger, facts: RunFacts, share: float) -> tuple[Cause, str]:
    """Whether the products with weights and the reading of the KV cache are near the roof of the bandwidth,
    or the products near that of the matrix units (Williams et al. 2009), or whether their kernels are slower
    than both. Products that take less time than the KV cache cannot bind the token by computing."""
    weights, cache = (_part(ledger, name) for name in ("weights", "kv_cache"))
    flop = facts.next_product_flop if ledger.token == "next" else facts.first_product_flop
    ceiling, peak = facts.ceiling_gb_per_s, facts.peak_tflop_per_s
    # The part of the cache is the time that its bytes take at the ceiling, or less.
    at_ceiling_ns = (weights.bytes or 0) / ceiling + cache.ns if ceiling else 0.0
    reading = at_ceiling_ns / (weights.ns + cache.ns) or None
    computing = flop / weights.ns / peak / 1e3 if flop and peak and weights.ns > cache.ns else None
    most = f"{share:.0%} of the token is in products with weights"
    if cache.ns >= NOTABLE * ledger.sum_ns:
        parts = f"{weights.ns / ledger.sum_ns:.0%} and {cache.ns / ledger.sum_ns:.0%}"
        most = f"{share:.0%} of the token is in products with weights and in reading the KV cache ({parts})"
    if computing is not None and computing > (reading or 0):
        done = f"the products at {computing:.0%} of the measured matrix-product peak"
        if computing >= NEAR_THE_ROOF:
            return "compute", f"compute-bound: {most}, {done}"
        return "kernels", f"kernel-bound: {most}, {done}"
    if reading is None or ceiling is None:
        return "bandwidth", f"bandwidth-bound, as far as is known: {most}, and bytes or ceiling are not known"
    rate = f"{reading * ceiling:.1f} GB/s, {reading:.0%} of the device's {ceiling:.1f}"
    if reading >= NEAR_THE_ROOF:
        return "bandwidth", f"bandwidth-bound: {most}, which read {rate}"
    return "kernels", f"kernel-bound: {most}, which read {rate}"


def _part(ledger: Ledger, name: PartName) -> LedgerPart:
    return next((one for one in ledger.parts if one.name == name), LedgerPart(name=name, ns=0.0))


def _message(cause: Cause, share: float, ledger: Ledger) -> str:
    calls = {name: _calls(ledger, name) for name in ("launches", "synchronization", "collectives")}
    times = {part.name: part.ns / ledger.sum_ns for part in ledger.parts}
    if cause == "communication":
        waiting = f", {times.get('waiting', 0):.0%} of it waiting for other ranks"
        return f"communication-bound: {share:.0%} of the token is in collectives{waiting}"
    if cause == "attention":
        return f"attention-bound: {share:.0%} of the token is attention beyond the bytes of its cache"
    if cause == "launches":
        driver, idle = times.get("launches", 0), times.get("idle", 0)
        behind = f", and {idle:.0%} while the device is idle behind its queue" if idle else ""
        called = f"{driver:.0%} in {calls['launches']:.0f} calls of the driver"
        return f"launch-bound: {share:.0%} of the token goes to launching, {called}{behind}"
    if cause == "host":
        syncs = calls["synchronization"]
        waits = f", which waits for the device {syncs:.0f} times" if syncs > 2 else ""
        python, stack = "Python, dispatch and the generation loop", times.get("stack", 0)
        if stack:
            own = f"{stack:.0%} in the stack's own call outside of its operators"
            return f"host-bound: {share:.0%} of the token, {own} and {share - stack:.0%} in {python}{waits}"
        return f"host-bound: {share:.0%} of the token is {python}{waits}"
    top = max(
        (one for one in ledger.operators if one.part in ("other_kernels", "unknown_kernels")),
        key=lambda one: one.ns,
        default=None,
    )
    named = "" if top is None else f", most of it {top.name} ({top.ns / ledger.sum_ns:.0%})"
    return f"kernel-bound: {share:.0%} of the token is in kernels beside weights and attention{named}"


def _calls(ledger: Ledger, part: str) -> float:
    return sum(one.calls for one in ledger.operators if one.part == part)
