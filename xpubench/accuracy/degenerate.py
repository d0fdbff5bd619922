"""Whether a trained model's answers to text prompts are text or endless repetition."""

import numpy as np

from xpubench.errors import RunFailure
from xpubench.runtimes.base import TokenIds

LONGEST_PERIOD = 4
# A loop has to last this long to count.
LEAST_TOKENS = 16
# The run may loop on this many more prompts than the reference does, because a near tie may begin a loop.
TOLERATED = 1


def looping(tokens: TokenIds) -> int:
    """How many of the sequences, of shape (prompts, new tokens), end in a loop of at most 4 tokens."""
    return sum(map(loops, tokens))


def loops(sequence: TokenIds) -> bool:
    """Whether a sequence of new tokens ends in a loop of at most 4 tokens."""
    end = sequence[-LEAST_TOKENS:]
    if len(end) < LEAST_TOKENS:
        return False
    return any(np.array_equal(end[period:], end[:-period]) for period in range(1, LONGEST_PERIOD + 1))


def loop_doubts(answers: TokenIds, reference: TokenIds | None) -> list[str]:
    """The warning about answers to text prompts that loop, of shape (prompts, new tokens); RunFailure
    `numerics` where more than one more of them do than of the reference's, so that a single one never is."""
    found, prompts = looping(answers), len(answers)
    if reference is not None and found > looping(reference) + TOLERATED:
        theirs = looping(reference)
        raise RunFailure(
            "numerics",
            f"degenerate output: {found} of {prompts} check prompts end in a loop, {theirs} in the reference",
        )
    if not found:
        return []
    loop = f"end in a loop of at most {LONGEST_PERIOD} tokens"
    return [f"{found} of {prompts} check prompts {loop}; are the weights right?"]
