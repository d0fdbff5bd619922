"""The raw stamps of one `generate` call."""

from itertools import pairwise

import msgspec

from xpubench.record import Iteration, SyncPolicy


class TokenTimes(msgspec.Struct, frozen=True, kw_only=True):
    """`time.perf_counter_ns` stamps: at the call, at each new token, at the return.

    `token_ns` is empty under the policy `end_to_end`, which stamps nothing in between.
    """

    sync_policy: SyncPolicy
    start_ns: int
    token_ns: list[int]
    end_ns: int

    def iteration(self, tokenize_ns: int | None = None, detokenize_ns: int | None = None) -> Iteration:
        """The intervals between the stamps."""
        stamps = self.token_ns
        return Iteration(
            sync_policy=self.sync_policy,
            first_token_ns=stamps[0] - self.start_ns if stamps else None,
            next_token_ns=[late - early for early, late in pairwise(stamps)] if stamps else None,
            end_to_end_ns=self.end_ns - self.start_ns,
            tokenize_ns=tokenize_ns,
            detokenize_ns=detokenize_ns,
        )
