"""Which parts of a token's time changed between two runs, by their ledgers."""

from collections.abc import Sequence
from statistics import fmean
from typing import Literal

import msgspec

from xpubench.compare.figures import FigureName
from xpubench.compare.judgement import Judgement
from xpubench.explanation import Ledger, PartName
from xpubench.record import Record

PART_TITLES: dict[PartName, str] = {
    "weights": "weights",
    "kv_cache": "KV cache",
    "attention": "attention",
    "other_kernels": "other kernels",
    "unknown_kernels": "unknown kernels",
    "launches": "launches",
    "stack": "inside the stack",
    "host": "host",
    "synchronization": "synchronization",
    "collectives": "collectives",
    "waiting": "waiting for other ranks",
    "idle": "idle",
}
UNEXPLAINED = "not in the ledgers"
# Of the base's time; smaller changes of a part are not named.
LEAST_CHANGE = 0.01
# The figures that are one token's latency.
TOKENS: dict[FigureName, Literal["first", "next"]] = {"first_token": "first", "next_token": "next"}


class PartChange(msgspec.Struct, frozen=True, kw_only=True):
    """The change of a part's time, new less base, as a share of the base's whole time. Without a name it is
    what the change of the latency has beyond those of all parts."""

    name: PartName | None
    share: float

    @property
    def text(self) -> str:
        """The part and its change in percent."""
        return f"{UNEXPLAINED if self.name is None else PART_TITLES[self.name]} {self.share:+.0%}"


class TimeChange(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of a token's time that changed by 1% of the base's time or more, the largest first. It
    explains a latency's change, and judges none."""

    token: Literal["first", "next"]
    parts: list[PartChange]
    message: str


def time_change(
    base: Sequence[Record], new: Sequence[Record], name: FigureName, judged: Judgement
) -> TimeChange | None:
    """The parts that changed, where the judged figure is a token's latency that is not the same; None where a
    side has no ledger of that token that was not refused. Of several rounds, parts are means."""
    token = TOKENS.get(name)
    if token is None or judged.change is None or judged.verdict == "same":
        return None
    before, after = _parts(base, token), _parts(new, token)
    if before is None or after is None:
        return None
    wall_ns, change = before.wall_ns, judged.change - 1
    changes = [
        PartChange(name=one, share=(after.parts.get(one, 0.0) - before.parts.get(one, 0.0)) / wall_ns)
        for one in PART_TITLES
    ]
    rest = PartChange(name=None, share=change - sum(one.share for one in changes))
    changes = [*sorted(changes, key=lambda one: -abs(one.share)), rest]
    named = [one for one in changes if abs(one.share) >= LEAST_CHANGE]
    if not named:
        return None
    words = f"{judged.verdict} by {abs(change):.0%}"
    if judged.verdict not in ("slower", "faster"):
        words = f"{change:+.0%}, {judged.verdict}"
    return TimeChange(token=token, parts=named, message=f"{words}: {', '.join(one.text for one in named)}")


class _MeanParts(msgspec.Struct, frozen=True):
    wall_ns: float
    parts: dict[PartName, float]


def _parts(rounds: Sequence[Record], token: Literal["first", "next"]) -> _MeanParts | None:
    """The mean of the parts over the rounds that have a ledger which was not refused."""
    ledgers = [ledger for record in rounds if (ledger := _ledger(record, token)) is not None]
    if not ledgers:
        return None
    times = [{part.name: part.ns for part in ledger.parts} for ledger in ledgers]
    names = {name for one in times for name in one}
    return _MeanParts(
        fmean(ledger.wall_ns for ledger in ledgers),
        {name: fmean(one.get(name, 0.0) for one in times) for name in names},
    )


def _ledger(record: Record, token: Literal["first", "next"]) -> Ledger | None:
    found = record.explanation
    ledger = None if found is None else found.first if token == "first" else found.next
    return ledger if ledger is not None and ledger.refused is None else None
