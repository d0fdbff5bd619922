"""The raw stamps of one `generate` call, what its logits showed, and the time of any one call."""

from collections.abc import Callable
from itertools import pairwise
from time import perf_counter_ns
from typing import TypeVar

import msgspec

from xpubench.errors import RunFailure
from xpubench.record import Iteration, SyncPolicy

STILL = "the machine's clock went back or stood still between two stamps: nothing can be timed by it"
NOT_FINITE = "NaN or infinite logits while generating"
T = TypeVar("T")


class LogitsFacts(msgspec.Struct, frozen=True):
    """What the logits of one `generate` call showed: whether all of them were finite, and whether those of
    some sequence at some step were all the same."""

    finite: bool
    constant: bool


class TokenTimes(msgspec.Struct, frozen=True, kw_only=True):
    """`time.perf_counter_ns` stamps: at the call, at each new token, at the return. `token_ns` is empty under
    the policy `end_to_end`. `ranks` holds each rank's own times where these are the latest of several."""

    sync_policy: SyncPolicy
    start_ns: int
    token_ns: list[int]
    end_ns: int
    ranks: list["TokenTimes"] | None = None

    def iteration(self, tokenize_ns: int | None = None, detokenize_ns: int | None = None) -> Iteration:
        """The iteration with the intervals between the stamps; tokens of one step may share a stamp.
        RunFailure `unsupported` where the clock went back or stood still."""
        stamps = self.token_ns
        # A stack's own clock may place the last token just after the return.
        went_back = any(late < early for early, late in pairwise((self.start_ns, *stamps)))
        if went_back or self.end_ns <= self.start_ns:
            raise RunFailure("unsupported", STILL)
        return Iteration(
            sync_policy=self.sync_policy,
            first_token_ns=stamps[0] - self.start_ns if stamps else None,
            next_token_ns=[late - early for early, late in pairwise(stamps)] if stamps else None,
            end_to_end_ns=self.end_ns - self.start_ns,
            tokenize_ns=tokenize_ns,
            detokenize_ns=detokenize_ns,
            ranks_ns=None if self.ranks is None else [one.since_start_ns for one in self.ranks],
        )

    @property
    def since_start_ns(self) -> list[int]:
        """The stamps after the start, as nanoseconds since it."""
        return [stamp - self.start_ns for stamp in (*self.token_ns, self.end_ns)]


def timed_call(work: Callable[[], T], synchronize: Callable[[], None]) -> tuple[T, int]:
    """The result of `work`, and its time in ns, from an idle device to an idle device. RunFailure
    `unsupported` where the clock went back or stood still."""
    synchronize()
    start_ns = perf_counter_ns()
    result = work()
    synchronize()
    if (time_ns := perf_counter_ns() - start_ns) <= 0:
        raise RunFailure("unsupported", STILL)
    return result, time_ns


def latest(ranks: list[TokenTimes]) -> TokenTimes:
    """The times of a generation by ranks that started together: each stamp is that of the last rank, counted
    from the start."""
    *token_ns, end_ns = (max(stamps) for stamps in zip(*(one.since_start_ns for one in ranks), strict=True))
    return TokenTimes(
        sync_policy=ranks[0].sync_policy, start_ns=0, token_ns=token_ns, end_ns=end_ns, ranks=ranks
    )
