"""Beam search for a model that reorders its cache by a given index of rows."""

import numpy as np
import torch
from numpy.typing import NDArray

from xpubench.runtimes.base import TokenIds


class BeamSearch:
    """The beams of `batch` prompts. Each prompt has `beams` successive rows of the model's batch.

    No token ends a sequence, so that all sequences are equally long. The answer to a prompt is therefore the
    sequence whose tokens have the largest sum of log-probabilities, whatever the length penalty is.
    """

    def __init__(self, batch: int, beams: int) -> None:
        # All beams of a prompt are equal before the first token, so that only one of them may be continued.
        self._sums = torch.full((batch, beams), -torch.inf)
        self._sums[:, 0] = 0
        self._first_rows = torch.arange(batch)[:, None] * beams
        self._tokens: list[TokenIds] = []
        self._parents: list[NDArray[np.int64]] = []

    def choose(self, logits: NDArray[np.float32]) -> tuple[NDArray[np.int64], TokenIds]:
        """Continues the most probable sequences by one token each. `logits` has the shape (batch * beams,
        vocabulary). Returns for each new row the row that it continues and its token, both int64 of shape
        (batch * beams,)."""
        batch, beams = self._sums.shape
        vocabulary = logits.shape[1]
        sums = torch.from_numpy(logits).float().log_softmax(-1) + self._sums.reshape(-1, 1)
        self._sums, places = sums.view(batch, beams * vocabulary).topk(beams)
        parents = (places // vocabulary + self._first_rows).flatten().numpy()
        tokens = (places % vocabulary).flatten().numpy()
        self._parents.append(parents)
        self._tokens.append(tokens)
        return parents, tokens

    def best(self) -> TokenIds:
        """The most probable sequence of each prompt, int64 of shape (batch, steps)."""
        rows = self._first_rows.flatten().numpy()
        backwards = []
        for parents, tokens in zip(reversed(self._parents), reversed(self._tokens), strict=True):
            backwards.append(tokens[rows])
            rows = parents[rows]
        return np.stack(backwards[::-1], axis=1)
