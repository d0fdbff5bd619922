"""Whether the tokens of timed generations are the model's, looked at outside of every timed interval.

Generations of one prompt must give the same tokens, whenever and however they are timed. Some of the
sequences, and every one that differs or looks odd, are scored: a forward pass over the whole sequence, alone
and without a cache, says how far each token is from the most probable one. Only rounding may lie between the
two.
"""

from collections.abc import Hashable
from contextlib import AbstractContextManager
from time import perf_counter_ns

import msgspec
import numpy as np

from xpubench.accuracy.cost import CheckTime
from xpubench.accuracy.degenerate import LONGEST_PERIOD, loops
from xpubench.errors import RunFailure
from xpubench.measure.rounding import logit_limit
from xpubench.measure.times import NOT_FINITE, LogitsFacts
from xpubench.record import TokenChecks
from xpubench.runtimes.base import Generator, TokenIds

# The most sequences that are scored because of their looks. A model of random weights often repeats itself.
MOST_ODD = 4
# Sequences are scored without a reason as long as all checks take at most this share of the time so far, or
# the scoring alone at most so many seconds, which the check prompts of a slow machine do not use up.
CHECKS_SHARE = 0.04
SCORING_S = 1.0
# Sequences that agree in fewer tokens than this may do so by chance.
LEAST_ODD = 8
# What identifies the check prompts among the prompts of a run.
CHECK_PROMPTS = ("check prompts",)
# The logits of both of two tokens can be off by the limit.
TIE = 2.0


class Seen(msgspec.Struct, frozen=True):
    """A generation: its prompts, int64 of shape (batch, length), and its new tokens, (batch, new tokens)."""

    prompt_ids: TokenIds
    tokens: TokenIds
    num_beams: int


class TimedTokens:
    """The tokens of a run's generations. `generator` is the loaded model, which scores them, and `blocks` the
    number of its decoder blocks, from which the limit of what rounding explains follows. Checks before these
    took `earlier_ns`."""

    def __init__(self, generator: Generator, blocks: int, earlier_ns: int = 0) -> None:
        self.generator = generator
        self._first: dict[Hashable, Seen] = {}
        self._differing: list[tuple[Seen, Seen, int]] = []
        self._compared = self._different = 0
        self._logits_seen = True
        self._earlier_ns = earlier_ns
        self._checks, self._scoring = CheckTime(), CheckTime()
        self._began_ns = perf_counter_ns()
        self._limit = TIE * logit_limit(generator.rounding, blocks)

    def checking(self) -> AbstractContextManager[None]:
        """Counts the time within it as that of the checks."""
        return self._checks.counting()

    def look_at(self, logits: LogitsFacts | None) -> None:
        """Raises RunFailure `numerics` where the logits of a generation were not finite, or were all the
        same at some step."""
        if logits is None:
            self._logits_seen = False
        elif not logits.finite:
            raise RunFailure("numerics", NOT_FINITE)
        elif logits.constant:
            raise RunFailure("numerics", "all logits of a step were the same while generating")

    def add(self, prompt: Hashable, prompt_ids: TokenIds, num_beams: int, tokens: TokenIds) -> None:
        """Records a generation, whose prompts `prompt` identifies. It may be shorter than the first one of
        these prompts."""
        seen = Seen(prompt_ids, tokens, num_beams)
        first = self._first.setdefault(prompt, seen)
        if first is seen:
            return
        self._compared += 1
        rows = np.flatnonzero((first.tokens[:, : tokens.shape[1]] != tokens).any(axis=1))
        self._different += rows.size > 0
        self._differing += [(first, seen, int(row)) for row in rows]

    def settle(self, *, weights_watched: bool) -> TokenChecks:
        """Scores the sequences that have to be checked. `weights_watched` says whether the weights' sums were
        compared. RunFailure `numerics` for tokens that rounding does not explain."""
        differing = [(seen, row) for first, later, row in self._differing for seen in (first, later)]
        if self.generator.scorer is None:
            if differing:
                raise RunFailure(
                    "numerics",
                    f"{self._different} of {self._compared} generations gave other tokens than an earlier "
                    "one of the same prompt, and the stack hides the logits that could explain it",
                )
            return self._found(0, None, weights_watched)
        first, *sample = self._sample()
        chosen = _each_once([first, *differing, *self._odd()])
        regrets = [self._regret(seen, row) for seen, row in chosen]
        for seen, row in _each_once([*chosen, *sample])[len(chosen) :]:
            if not self._has_time():
                break
            regrets.append(self._regret(seen, row))
        return self._found(len(regrets), max(regrets), weights_watched)

    def warnings(self) -> list[str]:
        """Warnings about tokens that differed and that rounding explains."""
        if not self._different:
            return []
        return [
            f"{self._different} of {self._compared} generations parted from an earlier one of the same "
            "prompt at a near tie, which rounding explains"
        ]

    def degenerate(self, *, text: bool) -> list[str]:
        """Warnings about sequences that are one token for ever, which trained weights seldom give, and, after
        `text`, about loops of several tokens. After random ids, right weights loop too."""
        rows = [row for seen in self._first.values() for row in seen.tokens]
        same = sum(map(_is_one_token, rows))
        doubts = [f"{same} of {len(rows)} generated sequences are one token for ever"] if same else []
        if not text:
            return doubts
        timed = [row for key, seen in self._first.items() if key != CHECK_PROMPTS for row in seen.tokens]
        found = sum(loops(row) and not _is_one_token(row) for row in timed)
        if found:
            ends = f"end in a loop of at most {LONGEST_PERIOD} tokens"
            doubts.append(f"{found} of {len(timed)} timed sequences {ends}; are the weights right?")
        return doubts

    def _has_time(self) -> bool:
        """Whether the checks may take more time than they did."""
        share = self._checks.taken_ns / (perf_counter_ns() - self._began_ns)
        return share < CHECKS_SHARE or self._scoring.taken_ns < SCORING_S * 1e9

    def _sample(self) -> list[tuple[Seen, int]]:
        """A row of each prompt and each row of a batch: the first prompt's and those of the last two, then
        others in an order that has no period, as time may be short."""
        first, *others = self._first.values()
        source = np.random.default_rng(0)
        prompts = [first, *others[-2:], *(others[at] for at in source.permutation(len(others[:-2])))]
        rows = source.permutation(len(first.tokens))
        count = max(len(prompts), len(rows))
        chosen = [(prompts[at % len(prompts)], int(rows[at % len(rows)])) for at in range(count)]
        return [(first, 0), *((seen, row % len(seen.tokens)) for seen, row in chosen)]

    def _odd(self) -> list[tuple[Seen, int]]:
        """Sequences that repeat one token to their end, and sequences that another prompt gave too."""
        found, known = [], set()
        for seen in self._first.values():
            for row, tokens in enumerate(seen.tokens):
                if len(tokens) < LEAST_ODD:
                    continue
                if _is_one_token(tokens) or tokens.tobytes() in known:
                    found.append((seen, row))
                known.add(tokens.tobytes())
        return found[:MOST_ODD]

    def _regret(self, seen: Seen, row: int) -> float:
        """The largest regret of the sequence's tokens. RunFailure `numerics` where it is beyond the limit."""
        scorer = self.generator.scorer
        assert scorer is not None
        prompt_ids, tokens = seen.prompt_ids[row : row + 1], seen.tokens[row : row + 1]
        with self.checking(), self._scoring.counting():
            regrets = scorer.regrets(prompt_ids, tokens, seen.num_beams)
        worst = float(regrets.max())
        # A NaN is not within the limit either.
        if not worst <= self._limit:
            search = "most probable" if seen.num_beams == 1 else f"{seen.num_beams} most probable"
            raise RunFailure(
                "numerics",
                f"wrong tokens: {int((~(regrets <= self._limit)).sum())} of {regrets.size} timed tokens of "
                f"row {row} are not the {search} of a forward pass over the same tokens, by up to "
                f"{worst:.2f} standard deviations of the logits (rounding explains {self._limit:.2g})",
            )
        return worst

    def _found(self, scored: int, regret: float | None, weights_watched: bool) -> TokenChecks:
        return TokenChecks(
            compared=self._compared,
            different=self._different,
            sequences=sum(len(seen.tokens) for seen in self._first.values()),
            scored=scored,
            regret=regret,
            regret_limit=self._limit,
            logits_seen=self._logits_seen,
            weights_watched=weights_watched,
            checks_s=(self._earlier_ns + self._checks.taken_ns) / 1e9,
        )


def _is_one_token(tokens: TokenIds) -> bool:
    return len(tokens) >= LEAST_ODD and bool((tokens == tokens[0]).all())


def _each_once(rows: list[tuple[Seen, int]]) -> list[tuple[Seen, int]]:
    return list({(id(seen), row): (seen, row) for seen, row in rows}.values())
