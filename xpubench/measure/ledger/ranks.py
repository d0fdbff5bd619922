"""A rank's time in collectives divides into the collectives themselves and the wait for the other ranks."""

import msgspec

from xpubench.measure.ledger.measured import Measured, MeasuredToken


def without_waiting(own: Measured, ranks: list[Measured]) -> Measured:
    """One rank's measurement with the part `waiting`: the time that the rank spent in collectives beyond that
    of the rank that spent the least time in them, because that rank came last and the others waited for it.
    The CPU share is the smallest of all ranks."""
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
