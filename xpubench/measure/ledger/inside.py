"""The parts of a token where a stack shows only how long its own computation took."""

from collections.abc import Sequence

import msgspec

from xpubench.explanation import OperatorTime
from xpubench.measure.ledger.measured import Measured, MeasuredToken
from xpubench.measure.ledger.middle import middle_mean
from xpubench.measure.times import TokenTimes

NOTE = "the stack does not show its operators: all of its computation is one part"


class InsideTimes(msgspec.Struct, frozen=True, kw_only=True):
    """The stamps of a generation and, for each token in order, the nanoseconds that the stack's computation
    took. `sampling_ns` are the nanoseconds of choosing each token, where the stack reports them."""

    times: TokenTimes
    inside_ns: Sequence[float]
    sampling_ns: Sequence[float] | None = None


def explain_inside(method: str, generations: Sequence[InsideTimes], cpu_share: float | None) -> Measured:
    """The first and the next token of these generations. `stack` is the time inside the stack's computation,
    and `host` the time outside of it."""
    tokens = [list(zip(_walls(one), one.inside_ns, _sampling(one), strict=True)) for one in generations]
    following = [token for one in tokens for token in one[1:]]
    return Measured(
        method=method,
        first=_token([one[0] for one in tokens]),
        next=_token(following) if following else None,
        cpu_share=cpu_share,
        generations=len(generations),
        notes=[NOTE],
    )


def _walls(one: InsideTimes) -> list[float]:
    told = one.times.iteration()
    assert told.first_token_ns is not None
    return [float(told.first_token_ns), *(told.next_token_ns or [])]


def _sampling(one: InsideTimes) -> Sequence[float]:
    return one.sampling_ns or [0.0] * len(one.inside_ns)


def _token(tokens: Sequence[tuple[float, float, float]]) -> MeasuredToken:
    whole, inside, sampling = (middle_mean([token[side] for token in tokens]) for side in range(3))
    rest = max(whole - inside, 0.0)
    operators = (
        [OperatorTime(name="sampling", part="host", ns=min(sampling, rest), calls=1)] if sampling else []
    )
    return MeasuredToken(parts={"stack": inside, "host": rest}, operators=operators)
