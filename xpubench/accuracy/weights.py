"""Whether the weights on the device stay what they were."""

from xpubench.errors import RunFailure
from xpubench.runtimes.base import Generator


class WeightSums:
    """The sums over the bits of a subject's weights, which are the same at all times and after all loads.
    `first` is the one that `keep_first` took, None where the stack hides its weights."""

    def __init__(self) -> None:
        self.first: int | None = None
        self._taken = False

    def keep_first(self, generator: Generator) -> None:
        """Takes the first sum, if there is none yet. A model of code from the hub must have run before:
        Baichuan2's output head normalizes its weights in its first pass."""
        if not self._taken:
            self.first, self._taken = generator.checksum(), True

    def check(self, generator: Generator) -> None:
        """RunFailure `numerics` where the weights on the device are not those of the first sum."""
        if generator.checksum() != self.first:
            raise RunFailure("numerics", "the weights on the device have changed since the first check")
