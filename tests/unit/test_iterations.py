"""The order of the generations and the figures made of them."""

from typing import get_args

import msgspec
import pytest

from xpubench.measure.iterations import iteration_pairs, warm_up
from xpubench.measure.summary import SummaryInputs, median_iteration, summarize_run
from xpubench.measure.times import TokenTimes
from xpubench.record import Drafting, Iteration, Samples, SyncPolicy

MS = 1_000_000
INPUTS = SummaryInputs(
    batch_size=2,
    input_tokens=8,
    new_tokens=3,
    load_s=1.0,
    step_bytes=10**9,
    bandwidth_measured_gb_per_s=100.0,
    bandwidth_datasheet_gb_per_s=200.0,
    peak_device_bytes=None,
    peak_host_bytes=1,
)


def iteration(policy: SyncPolicy, end_ms: float) -> Iteration:
    stamped = policy == "every_token"
    return Iteration(
        sync_policy=policy,
        first_token_ns=int(end_ms * MS) - 40 * MS if stamped else None,
        next_token_ns=[20 * MS, 20 * MS] if stamped else None,
        end_to_end_ns=int(end_ms * MS),
    )


@pytest.mark.parametrize(
    ("times", "most", "used"),
    [([200, 100, 101, 100], 4, 3), ([200, 100, 50, 25], 3, 3), ([100], 1, 1), ([], 0, 0), ([399, 1], 2, 1)],
)
def test_warm_up_ends_when_two_successive_iterations_agree(times: list[float], most: int, used: int) -> None:
    done = list(warm_up(lambda policy, index: iteration(policy, times[index - 7]), most, 7, 400 * MS))
    assert len(done) == used


def test_pairs_run_one_prompt_under_both_policies_in_turn() -> None:
    asked: list[tuple[SyncPolicy, int]] = []

    def once(policy: SyncPolicy, index: int) -> Iteration:
        asked.append((policy, index))
        return iteration(policy, 100)

    assert len(list(iteration_pairs(once, 3))) == 6
    assert asked == [
        ("every_token", 0),
        ("end_to_end", 0),
        ("end_to_end", 1),
        ("every_token", 1),
        ("every_token", 0),
        ("end_to_end", 0),
    ]


@pytest.mark.parametrize(
    ("enough_after", "count", "prompts"),
    [(2, 9, [0, 1, 0]), (1, 9, [0, 0]), (3, 4, [0, 1, 2, 0]), (4, 4, [0, 1, 2, 0]), (9, 3, [0, 1, 0])],
)
def test_a_run_that_ends_early_ends_with_the_first_prompt(
    enough_after: int, count: int, prompts: list[int]
) -> None:
    done: list[tuple[SyncPolicy, int]] = []

    def once(policy: SyncPolicy, index: int) -> Iteration:
        done.append((policy, index))
        return iteration(policy, 100)

    assert len(list(iteration_pairs(once, count, lambda: len(done) >= 2 * enough_after))) == 2 * len(prompts)
    assert [index for policy, index in done if policy == "every_token"] == prompts
    assert [index for policy, index in done if policy == "end_to_end"] == prompts


def test_once_the_perturbation_is_known_only_the_last_prompt_has_a_pair() -> None:
    asked: list[tuple[SyncPolicy, int]] = []

    def once(policy: SyncPolicy, index: int) -> Iteration:
        asked.append((policy, index))
        return iteration(policy, 100)

    list(iteration_pairs(once, 8, known=lambda: len(asked) >= 6))
    assert [index for policy, index in asked if policy == "end_to_end"] == [0, 1, 2, 0]
    # Each prompt of a generation without its pair was generated from before, but not just before.
    assert [index for policy, index in asked if policy == "every_token"] == [0, 1, 2, 1, 2, 1, 2, 0]


def test_a_later_load_goes_through_its_prompts_too() -> None:
    """The perturbation is known from the loads before."""
    asked: list[tuple[SyncPolicy, int]] = []

    def once(policy: SyncPolicy, index: int) -> Iteration:
        asked.append((policy, index))
        return iteration(policy, 100)

    list(iteration_pairs(once, 9, known=lambda: True))
    stamped = [index for policy, index in asked if policy == "every_token"]
    assert stamped == [0, 1, 2, 1, 2, 1, 2, 1, 0]
    assert [index for policy, index in asked if policy == "end_to_end"] == [0, 1, 2, 0]


def test_the_summary_takes_each_figure_from_its_policy() -> None:
    samples = Samples(
        iterations=[
            *(iteration("every_token", 110), iteration("end_to_end", 100)),
            *(iteration("end_to_end", 100), iteration("every_token", 120)),
        ]
    )
    summary, warnings = summarize_run(samples, INPUTS)
    assert summary.next_token_ms is not None
    assert summary.next_token_ms.median == 20
    assert summary.next_token_ms.n == 4
    assert summary.first_token_ms.median == 75
    assert summary.end_to_end_ms.median == 100
    assert summary.tokens_per_s == pytest.approx(60)
    assert summary.perturbation == pytest.approx(1.15)
    assert summary.mbu_measured == pytest.approx(0.5)
    assert summary.mbu_datasheet == pytest.approx(0.25)
    assert any("perturbation" in line for line in warnings)


@pytest.mark.parametrize(("loads", "known"), [(3, False), (6, True)])
def test_drafted_steps_are_resampled_by_their_loads(loads: int, known: bool) -> None:
    """As the tokens are where each step gives one. Each load is slower than the one before."""

    def interval(tokens_per_step: int) -> tuple[float, float] | None:
        drafting = Drafting(step_tokens=[1] + 4 * [tokens_per_step]) if tokens_per_step > 1 else None
        iterations = [
            msgspec.structs.replace(
                iteration(policy, 100),
                next_token_ns=4 * tokens_per_step * [load * MS // tokens_per_step],
                load=load,
                drafting=drafting,
            )
            for load in range(1, 1 + loads)
            for _ in range(2)
            for policy in get_args(SyncPolicy)
        ]
        facts = msgspec.structs.replace(INPUTS, bandwidth_lowest_gb_per_s=100.0, step_bytes=10**7)
        return summarize_run(Samples(iterations=iterations), facts)[0].mbu_measured_interval

    assert (interval(1) is not None) is known
    assert interval(2) == interval(1)


def test_an_mbu_above_one_is_called_a_bug() -> None:
    samples = Samples(iterations=[iteration("every_token", 100), iteration("end_to_end", 100)])
    facts = msgspec.structs.replace(INPUTS, bandwidth_measured_gb_per_s=10.0)
    _, warnings = summarize_run(samples, facts)
    assert [line for line in warnings if "bug" in line and "measured bandwidth" in line]


def test_a_run_of_one_token_has_no_next_token() -> None:
    one = Iteration(sync_policy="every_token", first_token_ns=MS, next_token_ns=[], end_to_end_ns=MS)
    samples = Samples(iterations=[one, iteration("end_to_end", 1)])
    summary, _ = summarize_run(samples, INPUTS)
    assert summary.next_token_ms is None
    assert summary.mbu_measured is None


def test_a_warm_up_that_did_not_settle_is_told() -> None:
    measured = [iteration("every_token", 100), iteration("end_to_end", 100)]
    settled = Samples(
        iterations=measured, warmup=[iteration("every_token", 100), iteration("every_token", 101)]
    )
    wild = Samples(iterations=measured, warmup=[iteration("every_token", 100), iteration("every_token", 120)])
    assert not [line for line in summarize_run(settled, INPUTS)[1] if "warm-up" in line]
    assert [line for line in summarize_run(wild, INPUTS)[1] if "warm-up" in line]


def test_the_median_iteration_is_the_one_in_the_middle() -> None:
    stamped = [
        Iteration(sync_policy="every_token", first_token_ns=1, next_token_ns=[time], end_to_end_ns=time)
        for time in (30, 10, 20)
    ]
    found = median_iteration(Samples(iterations=stamped))
    assert found is not None
    assert found.next_token_ns == [20]


def test_intervals_of_stamps() -> None:
    times = TokenTimes(sync_policy="every_token", start_ns=100, token_ns=[150, 170, 200], end_ns=210)
    one = times.iteration()
    assert (one.first_token_ns, one.next_token_ns, one.end_to_end_ns) == (50, [20, 30], 110)
    bare = TokenTimes(sync_policy="end_to_end", start_ns=100, token_ns=[], end_ns=210).iteration()
    assert (bare.first_token_ns, bare.next_token_ns, bare.end_to_end_ns) == (None, None, 110)
