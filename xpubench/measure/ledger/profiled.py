"""From the accounts of profiled generations to the measured first and next token."""

from collections.abc import Sequence

from xpubench.explanation import OperatorTime, PartName
from xpubench.measure.ledger.accounts import Account, Owner
from xpubench.measure.ledger.measured import MeasuredToken
from xpubench.measure.ledger.middle import middle_half


def measured_tokens(
    generations: Sequence[Sequence[Account | None]], event_ns: float
) -> tuple[MeasuredToken | None, MeasuredToken | None]:
    """The mean of the first tokens and that of the next ones, without the cost of the recorded events. Each
    generation has an account for each of its tokens, None for a token that was not recorded. A mean is None
    where there is no such token."""
    firsts = [one[0] for one in generations if one and one[0] is not None]
    later = [account for one in generations for account in one[1:] if account is not None]
    later = middle_half(later, lambda one: sum(one.times.values()))
    return _mean(firsts, event_ns), _mean(later, event_ns)


def _mean(windows: list[Account], event_ns: float) -> MeasuredToken | None:
    if not windows:
        return None
    times: dict[Owner, float] = {}
    operators, parts = [], dict[PartName, float]()
    events = sum(sum(one.events.values()) for one in windows) / len(windows)
    for owner in dict.fromkeys(owner for one in windows for owner in (*one.times, *one.calls)):
        cost = event_ns * sum(one.events.get(owner, 0.0) for one in windows) / len(windows)
        time = sum(one.times.get(owner, 0.0) for one in windows) / len(windows)
        times[owner] = max(time - cost, 0.0)
        calls = sum(one.calls.get(owner, 0.0) for one in windows) / len(windows)
        operators.append(OperatorTime(name=owner.name, part=owner.part, ns=times[owner], calls=calls))
        parts[owner.part] = parts.get(owner.part, 0.0) + times[owner]
    return MeasuredToken(
        parts=parts,
        operators=operators,
        profiled_ns=sum(sum(one.times.values()) for one in windows) / len(windows),
        events=events,
        event_ns=event_ns,
    )
