"""The order of a run's generations: a warm-up, then pairs under both sync policies."""

from collections.abc import Callable, Iterator

from xpubench.record import Iteration, SyncPolicy

STEADY = 0.03

Once = Callable[[SyncPolicy, int], Iteration]


def warm_up(once: Once, most: int, first_index: int, before_ns: int) -> Iterator[Iteration]:
    """Generates until two successive end-to-end latencies agree within 3%, at most `most` times, from the
    prompts of `first_index` on. `before_ns` is that of the generation before them."""
    for index in range(most):
        iteration = once("every_token", first_index + index)
        yield iteration
        if steady(before_ns, iteration.end_to_end_ns):
            return
        before_ns = iteration.end_to_end_ns


def steady(one_ns: int, other_ns: int) -> bool:
    """Whether two latencies agree within 3% of the smaller."""
    low, high = sorted((one_ns, other_ns))
    return high - low <= STEADY * low


def iteration_pairs(
    once: Once,
    count: int,
    enough: Callable[[], bool] = lambda: False,
    known: Callable[[], bool] = lambda: False,
) -> Iterator[Iteration]:
    """`count` pairs of generations of one prompt, one under each policy. Their order alternates, so that
    drift affects both policies alike. The last pair has the first one's prompt, so that whatever has become
    stale in between shows in its tokens. Once `enough`, asked after each pair, one more pair is the last.

    Once `known`, asked after each pair, the pairs before the last lack the bare generation. Their prompts
    are again those of earlier pairs, in turn and without the first one's, so that their tokens too have
    others to be compared with, and so that no prompt follows itself.
    """
    closing, whole, alone = False, 0, False
    order: tuple[SyncPolicy, SyncPolicy] = ("every_token", "end_to_end")
    for pair in range(count):
        last = closing or pair == count - 1
        alone = not last and (alone or (whole > 1 and known()))
        if alone:
            yield once("every_token", 1 + (pair - whole) % (whole - 1))
        else:
            for sync_policy in order if pair % 2 == 0 else reversed(order):
                yield once(sync_policy, 0 if last else pair)
            whole += 1
        if last:
            return
        closing = enough()
