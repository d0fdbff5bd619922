"""Samples of the logits in decoding loops of this project, taken while the loop is timed."""

import numpy as np
from numpy.typing import NDArray

from xpubench.measure.times import LogitsFacts

SAMPLED_LOGITS = 8


class LogitsSamples:
    """Keeps the chosen logit of each sequence at each step and a few others, spread over the vocabulary,
    because looking at all of them would take longer than choosing one. A NaN or a positive infinity is always
    seen, because it is the one that is chosen."""

    def __init__(self, vocabulary_size: int) -> None:
        self._places = np.linspace(0, vocabulary_size - 1, SAMPLED_LOGITS).astype(np.int64)
        self._seen: list[NDArray[np.float32]] = []

    def see(self, logits: NDArray[np.float32], chosen: NDArray[np.int64]) -> None:
        """Takes the samples of a step's logits, of shape (batch, vocabulary)."""
        self._seen.append(
            np.column_stack([np.take_along_axis(logits, chosen[:, None], 1), logits[:, self._places]])
        )

    def facts(self) -> LogitsFacts:
        """Whether the samples of all steps are finite and not all the same."""
        seen = np.stack(self._seen)
        return LogitsFacts(
            finite=bool(np.isfinite(seen[..., 0]).all()), constant=bool((seen == seen[..., :1]).all(-1).any())
        )
