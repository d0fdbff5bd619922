"""From what a runtime measured to the explanation in a record."""

from xpubench.explanation import Explanation
from xpubench.measure.ledger.facts import RunFacts
from xpubench.measure.ledger.ledger import ledger_of
from xpubench.measure.ledger.measured import Measured
from xpubench.measure.ledger.verdict import verdict_of

WAITS_NOT_KNOWN = (
    "it is not known whether the threads had a processor when they wanted one: the kernel has no schedstat"
)


def explanation_of(measured: Measured, facts: RunFacts) -> Explanation:
    """The ledgers of the first and of a next token, and the verdict on the next one's, or on the first one's
    where only that is known."""
    share = measured.cpu_share
    first = ledger_of("first", measured.first, facts, share) if measured.first else None
    following = ledger_of("next", measured.next, facts, share) if measured.next else None
    judged = following or first
    return Explanation(
        method=measured.method,
        first=first,
        next=following,
        verdict=None if judged is None else verdict_of(judged, facts),
        generations=measured.generations,
        notes=measured.notes + [WAITS_NOT_KNOWN] * (share is None),
    )
