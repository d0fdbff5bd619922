"""Prompts: random token ids of an exact length for latency, and four short texts for the checks."""

import numpy as np
from numpy.typing import NDArray

CHECK_TEXTS = (
    "The harbour was quiet in the morning, and the fishermen who had slept on their boats began to",
    "To boil an egg well, put it into boiling water, wait for seven minutes, then take it out and",
    "A prime number is a whole number above one that cannot be divided without a remainder by any",
    "def mean(values):\n    total = 0\n    for value in values:\n        total += value\n    return total",
)
CHECK_TOKENS = 16
CHECK_NEW_TOKENS = 32


def random_prompt(
    vocab_size: int, special_ids: frozenset[int], *, batch_size: int, length: int, seed: int, index: int
) -> NDArray[np.int64]:
    """Token ids of shape (batch_size, length) without special ones, the same for the same seed and index."""
    usable = np.setdiff1d(np.arange(vocab_size), np.fromiter(special_ids, dtype=np.int64))
    generator = np.random.default_rng([seed, index])
    return generator.choice(usable, size=(batch_size, length)).astype(np.int64)
