"""What stamping every token costs, and how many pairs of generations are made to know it."""

import re
from math import exp, log
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import CommandLine
from xpubench.measure.perturbation import FIRST_PAIRS, TIGHT, known, pairs_needed, ratio_interval, ratios
from xpubench.record import Iteration, SyncPolicy

COUNT = 12


def script(noise: float, **fields: Any) -> dict[str, Any]:
    """Generations whose stamped times have that noise, and bare ones that have none."""
    latencies = np.random.default_rng(1).lognormal(log(1e6), noise, 40)
    stamped = [{"first_token_ns": int(one), "next_token_ns": [int(one)]} for one in latencies]
    return {
        "every_token": stamped,
        "end_to_end": [{"first_token_ns": 1_000_000, "next_token_ns": [1_000_000]}],
    } | fields


def run(scripted: CommandLine, noise: float, **fields: Any) -> dict[str, Any]:
    shape = ("--num-iter", COUNT, "--num-warmup", 0, "--max-new-tokens", 4)
    done = scripted(script(noise, **fields), *shape)
    record: dict[str, Any]
    (record,) = done.records
    return record


def policies(record: dict[str, Any]) -> list[str]:
    return [one["sync_policy"] for one in record["samples"]["iterations"]]


@pytest.mark.parametrize(("noise", "made"), [(0.0, 4), (0.01, 4), (0.2, COUNT)])
def test_pairs_are_made_as_often_as_their_interval_needs(
    scripted: CommandLine, noise: float, made: int
) -> None:
    record = run(scripted, noise)
    found, summary = policies(record), record["summary"]
    assert (found.count("every_token"), found.count("end_to_end")) == (COUNT, made)
    assert summary["perturbation_pairs"] == made
    low, high = summary["perturbation_ci95"]
    assert low <= summary["perturbation"] * 1.05
    assert (log(high / low) / 2 <= TIGHT) is (noise < 0.1)
    # All of the stamped generations are in their figures.
    assert summary["next_token_ms"]["n"] == COUNT * 3


def test_pairs_that_a_run_would_warn_of_are_not_left_out(scripted: CommandLine) -> None:
    """All of the first ratios may be those of a burst of other work."""
    slow = [{"first_token_ns": 1_200_000, "next_token_ns": [1_200_000]}] * 3
    fast = [{"first_token_ns": 1_000_000, "next_token_ns": [1_000_000]}] * (COUNT - 3)
    record = run(scripted, 0.0, every_token=[*slow, *fast])
    # With the seventh pair the median is within the limit, and the last one follows.
    assert record["summary"]["perturbation_pairs"] == 8
    assert record["summary"]["perturbation"] == pytest.approx(1.0)
    slowed = run(scripted, 0.0, every_token=slow)
    assert slowed["summary"]["perturbation_pairs"] == COUNT
    assert any(line.startswith("perturbation 1.200") for line in slowed["warnings"])


def test_the_ratios_are_those_of_the_same_prompt(scripted: CommandLine) -> None:
    """The last bare generation belongs to the last stamped one."""
    record = run(scripted, 0.01)
    stamped = [row["first_token_ns"] * 4 for row in script(0.01)["every_token"][:COUNT]]
    expected = [one / 4_000_000 for one in (*stamped[:3], stamped[-1])]
    assert record["summary"]["perturbation"] == pytest.approx(float(np.median(expected)), rel=1e-5)


def test_a_generation_without_a_pair_is_compared_with_an_earlier_one(scripted: CommandLine) -> None:
    """Other tokens, as probable, of one of the generations that have no bare one beside them."""
    # After the untimed generation come three pairs, and then those without.
    odd = {"wrong_tokens": [{"token": 7, "first": 9, "last": 9}], "regret": 0.0}
    well, told = run(scripted, 0.0), run(scripted, 0.0, **odd)
    assert well["checks"]["tokens"]["different"] == 0
    assert told["checks"]["tokens"]["different"] == 1
    assert well["checks"]["tokens"]["compared"] == told["checks"]["tokens"]["compared"] >= COUNT + 4 - 3


def test_the_terminal_shows_the_interval_and_the_pairs(
    scripted: CommandLine, xpubench: CommandLine, tmp_path: Path
) -> None:
    run(scripted, 0.01)
    fake = ("--runtime", "fake", "--fake-script", tmp_path / "script.json", "--device", "cpu", "--greedy")
    shape = ("--input-tokens", 8, "--num-iter", COUNT, "--results-dir", tmp_path / "shown")
    shown = " ".join(xpubench("generate", "-m", "smollm2-135m", *fake, *shape).out.split())
    assert re.search(r"perturbation [\d.]+ [\d.]+ to [\d.]+ .* 4 pairs\)", shown)


@pytest.mark.parametrize("truth", [1.0, 1.03, 1.05, 1.1])
def test_the_interval_holds_whatever_number_of_pairs_it_chose(truth: float) -> None:
    """Of 2,000 runs of up to 40 pairs, at most 5% and what chance adds miss the truth; with the interval of
    all pairs' own deviation, in which a lucky start ends too early, it would be more."""
    source = np.random.default_rng(5)
    missed = 0
    runs = 2000
    for _ in range(runs):
        drawn = np.exp(source.normal(log(truth), 0.03, 40)).tolist()
        made = next((pairs for pairs in range(FIRST_PAIRS, 40) if known(drawn[:pairs])), 39) + 1
        found = ratio_interval(drawn[:made])
        assert found is not None
        missed += not found[0] <= truth <= found[1]
    assert missed / runs <= 0.06


def test_fewer_pairs_than_tell_a_deviation_have_no_interval() -> None:
    assert ratio_interval([1.0, 1.1]) is None
    assert pairs_needed([1.0, 1.1]) is None
    assert pairs_needed([1.0, 1.0, 1.0]) == FIRST_PAIRS
    low, high = ratio_interval([1.0, 1.0, 1.0, exp(0.1)]) or (0, 0)
    assert low == high == pytest.approx(exp(0.025))


def test_a_time_of_nothing_gives_no_ratio() -> None:
    def of(policy: SyncPolicy, time: int) -> Iteration:
        return Iteration(sync_policy=policy, first_token_ns=None, next_token_ns=None, end_to_end_ns=time)

    assert ratios([of("every_token", 0), of("end_to_end", 5)]) == []
