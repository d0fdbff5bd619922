"""From a measured token to its ledger: what share of attention the KV cache takes, and whether the parts can
be relied on."""

from typing import Literal

import msgspec

from xpubench.explanation import PART_NAMES, Ledger, LedgerPart, PartName
from xpubench.measure.ledger.facts import RunFacts
from xpubench.measure.ledger.measured import MeasuredToken

# A ledger is refused where the sum of its parts differs from the token's time without the profiler by a
# larger share than this, or where the threads had a processor for a smaller share of the time in which they
# wanted one.
MOST_DIFFERENCE = 0.05
LEAST_CPU_SHARE = 0.97
# It is refused too where the tokens that were explained took so much more or less time than the timed ones.
MOST_DRIFT = 0.1


def ledger_of(
    token: Literal["first", "next"], measured: MeasuredToken, facts: RunFacts, cpu_share: float | None
) -> Ledger | None:
    """The ledger of the token; None where the timed generations have no such token."""
    timed_ns = facts.first_ns if token == "first" else facts.next_ns
    if timed_ns is None:
        return None
    # The prompt's pass computes the keys and values that it attends to.
    kv_bytes = facts.kv_bytes if token == "next" else 0
    ledger = Ledger(
        token=token,
        wall_ns=measured.unprofiled_ns or timed_ns,
        timed_ns=timed_ns,
        parts=_parts(measured.parts, facts.weight_bytes, kv_bytes, facts.ceiling_gb_per_s),
        operators=sorted(measured.operators, key=lambda one: -one.ns),
        profiled_ns=measured.profiled_ns,
        events=measured.events,
        event_ns=measured.event_ns,
        cpu_share=cpu_share,
    )
    return msgspec.structs.replace(ledger, refused=_refusal(ledger))


def _parts(
    found: dict[PartName, float], weight_bytes: int | None, kv_bytes: int | None, ceiling: float | None
) -> list[LedgerPart]:
    times, bytes_read = dict(found), {"weights": weight_bytes, "kv_cache": kv_bytes}
    if kv_bytes and ceiling and times.get("attention"):
        times["kv_cache"] = min(kv_bytes / ceiling, times["attention"])
        times["attention"] -= times["kv_cache"]
    return [
        LedgerPart(name=name, ns=times[name], bytes=bytes_read.get(name) or None)
        for name in PART_NAMES
        if times.get(name)
    ]


def _refusal(ledger: Ledger) -> str | None:
    """Why the parts cannot be relied on, None where they can."""
    if ledger.cpu_share is not None and ledger.cpu_share < LEAST_CPU_SHARE:
        return (
            f"the threads had a processor for {ledger.cpu_share:.1%} of the time in which they wanted one, "
            f"and a ledger needs {LEAST_CPU_SHARE:.0%}: other work, a quota or more threads than cores take "
            "the rest"
        )
    if abs(ledger.difference) > MOST_DIFFERENCE:
        side = "above" if ledger.difference > 0 else "below"
        whose = "in the timed generations" if ledger.wall_ns == ledger.timed_ns else "without the profiler"
        return f"the parts' sum is {abs(ledger.difference):.1%} {side} the token's time {whose}"
    if ledger.drift is not None and abs(ledger.drift) > MOST_DRIFT:
        more = "more" if ledger.drift > 0 else "less"
        return (
            f"the token took {ledger.wall_ns / 1e6:.2f} ms while it was explained, {abs(ledger.drift):.1%} "
            f"{more} than in the timed generations, so that the machine has changed since"
        )
    return None
