"""What a rank's time in collectives is: the collectives themselves, and waiting for the other ranks."""

import msgspec

from xpubench.measure.ledger.measured import Measured, MeasuredToken


def without_waiting(own: Measured, ranks: list[Measured]) -> Measured:
    """One rank's measurement, in which `waiting` is what its collectives took beyond those of the rank that
    spent the least time in them: that one came last, and the others waited for it. The smallest CPU share of
    all ranks counts."""
    shares = [one.cpu_share for one in ranks if one.cpu_share is not None]
    return msgspec.structs.replace(
        own,
        first=_divided(own.first, [one.first for one in ranks]),
        next=_divided(own.next, [one.next for one in ranks]),
        cpu_share=min(shares, default=None),
    )


def _divided(own: MeasuredToken | None, ranks: list[MeasuredToken | None]) -> MeasuredToken | None:
    if own is None:
        return None
    mine = own.parts.get("collectives", 0.0)
    least = min(one.parts.get("collectives", 0.0) for one in ranks if one is not None)
    if mine <= least:
        return own
    parts = own.parts | {"collectives": least, "waiting": mine - least}
    return msgspec.structs.replace(own, parts=parts)
