"""The order of a run's generations: a warm-up, then pairs under both sync policies."""

from collections.abc import Callable, Iterator

from xpubench.record import Iteration, SyncPolicy

STEADY = 0.03

Once = Callable[[SyncPolicy, int], Iteration]


def warm_up(once: Once, most: int, first_index: int, before_ns: int) -> Iterator[Iteration]:
    """Generates until two successive end-to-end latencies agree within 3%, at most `most` times, with the
    prompts from `first_index` on. `before_ns` is the end-to-end latency of the generation before the first
    one."""
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
    drift affects both policies alike. The last pair has the prompt of the first one, so that state that
    became stale in between shows in its tokens. Once `enough`, which is asked after each pair, is true, one
    more pair is made and is the last.

    Once `known`, which is asked after each pair from the third on, is true, the pairs before the last one
    have no generation under `end_to_end`. They repeat the prompts of earlier pairs in turn, but not the
    first one's, so that their tokens too can be compared with earlier ones, and so that no prompt follows
    itself.
    """
    closing, whole, alone = False, 0, False
    order: tuple[SyncPolicy, SyncPolicy] = ("every_token", "end_to_end")
    for pair in range(count):
        last = closing or pair == count - 1
        alone = not last and (alone or (whole > 2 and known()))
        if alone:
            yield once("every_token", 1 + (pair - whole) % (whole - 1))
        else:
            for sync_policy in order if pair % 2 == 0 else reversed(order):
                yield once(sync_policy, 0 if last else pair)
            whole += 1
        if last:
            return
        closing = enough()
