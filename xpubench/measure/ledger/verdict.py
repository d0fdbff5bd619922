"""What bounds a token, by rules over its ledger."""

from xpubench.explanation import Cause, Ledger, PartName, TokenVerdict
from xpubench.measure.ledger.facts import RunFacts

# Shares of the token's time from which on a part is its bound.
WEIGHTS, HOST, ATTENTION, COMMUNICATION = 0.60, 0.35, 0.25, 0.25
# Of the bandwidth ceiling, what the weights' own rate is at least for the bandwidth to bound it.
FAST = 0.80


def verdict_of(ledger: Ledger, facts: RunFacts) -> TokenVerdict:
    """The verdict on a ledger."""
    if ledger.refused is not None:
        return TokenVerdict(cause="unclear", share=None, message=f"no verdict: {ledger.refused}")
    shares = {part.name: part.ns / ledger.sum_ns for part in ledger.parts}
    cause, share = _cause(ledger, shares, facts.ceiling_gb_per_s)
    return TokenVerdict(cause=cause, share=share, message=f"{cause}-bound: {share:.0%} of the token")


def _cause(ledger: Ledger, shares: dict[PartName, float], ceiling: float | None) -> tuple[Cause, float]:
    weights = next((part for part in ledger.parts if part.name == "weights"), None)
    communication = shares.get("collectives", 0) + shares.get("waiting", 0)
    host = shares.get("host", 0) + shares.get("synchronization", 0) + shares.get("idle", 0)
    candidates: list[tuple[Cause, float, float]] = [
        ("communication", communication, COMMUNICATION),
        ("attention", shares.get("attention", 0), ATTENTION),
        ("host", host, HOST),
        ("launches", shares.get("launches", 0), HOST),
    ]
    reached = [(share / limit, cause, share) for cause, share, limit in candidates if share >= limit]
    if reached:
        _, cause, share = max(reached)
        return cause, share
    fast = weights is not None and ceiling and (weights.gb_per_s or 0) >= FAST * ceiling
    share = shares.get("weights", 0)
    return ("bandwidth" if fast else "kernels", share)
