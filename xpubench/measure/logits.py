"""Samples of the logits of a decoding loop of our own, taken while it is timed."""

import numpy as np
from numpy.typing import NDArray

from xpubench.measure.times import LogitsFacts

SAMPLED_LOGITS = 8


class LogitsSamples:
    """The chosen logit of each sequence at each step, beside a few spread over the vocabulary: looking at all
    of them would take longer than choosing one. A NaN or a positive infinity is the chosen one itself."""

    def __init__(self, vocabulary_size: int) -> None:
        self._places = np.linspace(0, vocabulary_size - 1, SAMPLED_LOGITS).astype(np.int64)
        self._seen: list[NDArray[np.float32]] = []

    def see(self, logits: NDArray[np.float32], chosen: NDArray[np.int64]) -> None:
        """Takes the samples of a step's logits, of shape (batch, vocabulary)."""
        self._seen.append(
            np.column_stack([np.take_along_axis(logits, chosen[:, None], 1), logits[:, self._places]])
        )

    def facts(self) -> LogitsFacts:
        """What the samples of all steps say."""
        seen = np.stack(self._seen)
        return LogitsFacts(
            finite=bool(np.isfinite(seen[..., 0]).all()), constant=bool((seen == seen[..., :1]).all(-1).any())
        )
