"""The distances of two runs from their reference, held against each other."""

from xpubench.record import Record

# A smaller loss of agreement with the reference's tokens, in percentage points, is not mentioned.
AGREEMENT_POINTS = 1.0
# Nor is a mean KL divergence that grew by less than this factor, or by less than this many nats.
KL_FACTOR, KL_NATS = 2.0, 0.001


def farther(base: Record, new: Record) -> list[str]:
    """What of the new run's divergence lies farther from the reference than the base's by more than its
    limit: the agreement, the mean KL divergence. Empty where one has none or the references are others."""
    before, after = base.divergence, new.divergence
    if before is None or after is None or before.reference != after.reference:
        return []
    found = []
    lost = 100 * (before.top1_agreement - after.top1_agreement)
    if lost > AGREEMENT_POINTS:
        found.append(f"top-1 agreement with the reference {lost:.1f} points lower")
    if before.mean_kl is not None and after.mean_kl is not None:
        grown = after.mean_kl - before.mean_kl
        if grown > KL_NATS and after.mean_kl > KL_FACTOR * before.mean_kl:
            found.append(f"mean KL from the reference {before.mean_kl:.2g} → {after.mean_kl:.2g} nats")
    return found


def other_references(base: Record, new: Record) -> list[str]:
    """A remark where the two divergences are from other references, and so not comparable."""
    before, after = base.divergence, new.divergence
    if before is None or after is None or before.reference == after.reference:
        return []
    return [f"divergence not comparable: other references, {before.reference} and {after.reference}"]
