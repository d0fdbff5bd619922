"""Batches of sequences of similar length, within a budget of tokens that halves when memory runs out."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from xpubench.failures import is_out_of_memory


class Batch(NamedTuple):
    """A finished batch: its number of sequences, and the budget and batch size that were in force when it
    was formed."""

    sequences: int
    budget: int
    batch_size: int


def form_batch(lengths: Sequence[int], budget: int, batch_size: int) -> int:
    """The number of sequences in the next batch, which takes the longest ones first: `batch_size` of them
    or, where that is 0, as many as fit into `budget` tokens when each is padded to the length of the
    first; at least one."""
    if batch_size:
        return min(batch_size, len(lengths))
    return max(1, min(len(lengths), budget // lengths[0]))


def run_batches(
    lengths: Sequence[int], work: Callable[[list[int]], None], *, budget: int, batch_size: int
) -> Iterator[Batch]:
    """Calls `work` with the indices of each batch, longest sequences first, and yields each batch when it
    is finished. When memory runs out, budget and batch size are halved and the remaining sequences are
    tried again. When a single sequence does not fit, its error is raised."""
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    start = 0
    while start < len(order):
        rest = order[start:]
        count = form_batch([lengths[index] for index in rest], budget, batch_size)
        try:
            work(rest[:count])
        except Exception as error:
            if count == 1 or not is_out_of_memory(error):
                raise
            budget, batch_size = lengths[rest[0]] * count // 2, batch_size and count // 2
            continue
        start += count
        yield Batch(count, budget, batch_size)
