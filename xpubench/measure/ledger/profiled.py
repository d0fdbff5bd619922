"""From the accounts of a profiled generation to the measured first and next token."""

from xpubench.explanation import OperatorTime, PartName
from xpubench.measure.ledger.accounts import Account, Owner, accounts
from xpubench.measure.ledger.measured import MeasuredToken
from xpubench.measure.ledger.middle import middle_half
from xpubench.measure.ledger.trace import read_trace


def measured_tokens(trace: bytes, event_ns: float) -> tuple[MeasuredToken, MeasuredToken | None]:
    """The first token and the mean of the next ones of a generation, from its Chrome trace as JSON, without
    the cost of the recorded events. The next token is None where there is one token alone. RunFailure
    `unsupported` where the trace lacks the marks of the steps."""
    found = accounts(read_trace(trace))
    later = middle_half(found[1:], lambda one: sum(one.times.values()))
    return _mean(found[:1], event_ns), _mean(later, event_ns) if later else None


def _mean(windows: list[Account], event_ns: float) -> MeasuredToken:
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
