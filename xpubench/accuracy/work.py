"""The work of scoring: the tokens that were read, and the operations that they need."""

from collections import Counter
from collections.abc import Iterable

from xpubench.catalog.architecture import Architecture


class ScoredWork:
    """What was scored so far: sequences by their length, `rows` positions whose logits were needed, and the
    `positions` of all batches, padding included."""

    def __init__(self) -> None:
        self.rows = self.positions = 0
        self._lengths: Counter[int] = Counter()

    def add(self, lengths: Iterable[int], rows: int, positions: int) -> None:
        """Counts a batch of sequences of these lengths."""
        self._lengths.update(lengths)
        self.rows += rows
        self.positions += positions

    @property
    def tokens(self) -> int:
        """The tokens without padding."""
        return sum(length * count for length, count in self._lengths.items())

    @property
    def padding(self) -> float | None:
        """The share of the positions that were padding; None where nothing was scored."""
        return 1 - self.tokens / self.positions if self.positions else None

    def flop(self, architecture: Architecture) -> int:
        """The floating point operations that these tokens need, as in a plan: those of the body for each
        token, of attention for each pair, and of the output head for the needed rows alone."""
        body = sum(
            architecture.prefill_flop(sequences=count, tokens=length)
            for length, count in self._lengths.items()
        )
        # A prompt has one row of logits.
        return body + 2 * architecture.head_parameters * (self.rows - self._lengths.total())
