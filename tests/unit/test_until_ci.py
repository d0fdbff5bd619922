"""`--until-ci`: a run ends when its next token latency is known within so much."""

from collections.abc import Callable
from math import exp
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import t

from tests.conftest import CommandLine, Outcome
from xpubench.errors import UserError
from xpubench.measure.sequential import always_valid_halves
from xpubench.measure.until_ci import tight_after
from xpubench.spec import Protocol, RunSpec, Subject, Workload


def noisy(share: float, count: int = 40, seed: int = 1) -> dict[str, Any]:
    """A script whose generations have next token latencies of about 1 ms, with that noise."""
    latencies = np.random.default_rng(seed).lognormal(np.log(1e6), share, count)
    rows = [{"first_token_ns": 5_000_000, "next_token_ns": [int(latency)]} for latency in latencies]
    return {"every_token": rows, "end_to_end": [{"first_token_ns": 5_000_000, "next_token_ns": [1_000_000]}]}


@pytest.fixture
def until(scripted: CommandLine) -> Callable[..., Outcome]:
    """`until(percent, script, *flags)`: a run that ends when its latency is known within so much."""

    def run(percent: object, script: dict[str, Any], *flags: object) -> Outcome:
        shape = ("--num-iter", 40, "--num-warmup", 0, "--max-new-tokens", 4)
        return scripted(script, *shape, "--until-ci", percent, *flags)

    return run


def test_a_run_ends_as_soon_as_its_interval_is_tight(until: Callable[..., Outcome]) -> None:
    script = noisy(0.01)
    done = until(2, script)
    assert done.code == 0, done.err
    (record,) = done.records
    found, rows = record["summary"]["until_ci"], record["samples"]["iterations"]
    values = np.log([row["next_token_ns"][0] for row in script["every_token"]])
    halves = np.expm1(always_valid_halves(values[None])[0])
    expected = int((halves <= 0.02).argmax()) + 1
    assert 5 < expected < 39
    assert (found["reached"], found["pairs"], found["wanted"]) == (True, expected, 0.02)
    # A closing pair follows, and is in all other figures.
    assert [row["sync_policy"] for row in rows].count("every_token") == expected + 1
    assert record["checks"]["tokens"]["compared"] > 0
    assert found["half_width"] == pytest.approx(halves[expected - 1])
    mean = exp(values[:expected].mean()) / 1e6
    assert found["mean_ms"] == pytest.approx(mean)
    assert found["ci95_ms"] == pytest.approx(
        [mean / (1 + found["half_width"]), mean * (1 + found["half_width"])]
    )
    assert record["spec"]["protocol"]["until_ci"] == 0.02
    assert not [line for line in record["warnings"] if "--until-ci" in line]


def test_num_iter_is_the_most(until: Callable[..., Outcome]) -> None:
    (record,) = until(0.1, noisy(0.05), "--num-iter", 12).records
    found = record["summary"]["until_ci"]
    assert (found["reached"], found["pairs"]) == (False, 12)
    rows = record["samples"]["iterations"]
    assert [row["sync_policy"] for row in rows].count("every_token") == 12
    assert found["half_width"] > 0.001
    (line,) = [line for line in record["warnings"] if "--until-ci" in line]
    assert line.startswith("next token: 12 pairs did not bring the interval of --until-ci within 0.10%")
    assert line.endswith("raise --num-iter")


def test_a_noisier_run_takes_more_pairs(until: Callable[..., Outcome]) -> None:
    taken = [until(4, noisy(noise)).records[0]["summary"]["until_ci"]["pairs"] for noise in (0.002, 0.02)]
    assert taken[0] == 5 < taken[1]


def test_the_last_pair_has_the_first_prompt(until: Callable[..., Outcome]) -> None:
    """Other tokens of both generations of the closing pair are seen beside those of the first pair, although
    they are as probable and alike."""
    (well,) = until(2, noisy(0.01)).records
    assert well["checks"]["tokens"]["different"] == 0
    last = len(well["samples"]["iterations"])
    stale = {"wrong_tokens": [{"token": 7, "first": last - 1, "last": last}], "regret": 0.0}
    (record,) = until(2, noisy(0.01) | stale).records
    assert record["checks"]["tokens"]["different"] == 2


def test_without_the_flag_the_record_has_no_interval(scripted: CommandLine) -> None:
    (record,) = scripted(noisy(0.0), "--num-iter", 12).records
    assert record["summary"]["until_ci"] is None
    rows = record["samples"]["iterations"]
    assert [row["sync_policy"] for row in rows].count("every_token") == 11


@pytest.mark.parametrize(("percent", "words"), [(2, "which ended"), (0.1, "which did not end")])
def test_the_terminal_tells_whether_it_ended_the_run(
    until: Callable[..., Outcome], xpubench: CommandLine, tmp_path: Path, percent: float, words: str
) -> None:
    (record,) = until(percent, noisy(0.01)).records
    found = record["summary"]["until_ci"]
    fake = ("--runtime", "fake", "--fake-script", tmp_path / "script.json", "--device", "cpu", "--greedy")
    shape = ("--input-tokens", 8, "--max-new-tokens", 4, "--num-iter", 40, "--num-warmup", 0)
    results = ("--results-dir", tmp_path / "results")
    shown = xpubench("generate", "-m", "smollm2-135m", *fake, *shape, *results, "--until-ci", percent).out
    shown = " ".join(shown.split())
    assert f"within {found['half_width']:.2%} after {found['pairs']} pairs, {words} the run" in shown


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--until-ci", 0), "--until-ci must be above 0"),
        (("--until-ci", "nan"), "--until-ci must be above 0"),
        (("--until-ci", 100), "below 100 percent"),
        (("--until-ci", "x"), "must be a number of percent"),
        (("--until-ci", 1, "--num-iter", 6, "--num-warmup", 2), "--num-iter must be at least 7"),
        (("--until-ci", 1, "--max-new-tokens", 1), "--max-new-tokens must be at least 2"),
        (("--until-ci", 1, "--accuracy-only"), "--until-ci is for latency runs"),
    ],
)
def test_what_cannot_be_reached_is_one_line(
    scripted: CommandLine, flags: tuple[object, ...], message: str, tmp_path: Path
) -> None:
    done = scripted({}, "--num-iter", 40, *flags)
    assert (done.code, done.out) == (2, "")
    assert message in done.err.splitlines()[-1]
    assert not list(tmp_path.glob("results/*.json"))


def test_a_live_comparison_refuses_it(xpubench: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "script.json").write_text("{}")
    fake = f"-m smollm2-135m --runtime fake --fake-script {tmp_path / 'script.json'} --device cpu --greedy"
    done = xpubench("compare", "--live", f"{fake} --until-ci 2", "--b-env", "A=1")
    assert done.code == 2
    assert "--until-ci would part" in done.err


def test_the_id_of_a_run_without_it_is_that_of_earlier_versions() -> None:
    def of(**fields: Any) -> str:
        return RunSpec(
            subject=Subject(model="m", device="cpu", dtype="float32"),
            workload=Workload(input_tokens=8, new_tokens=4),
            protocol=Protocol(**fields),
        ).id

    assert of() == "0b030521827213f6"
    assert len({of(), of(until_ci=0.01), of(until_ci=0.02)}) == 3


def test_the_protocol_is_checked_wherever_it_comes_from() -> None:
    with pytest.raises(UserError, match="at least 8"):
        Protocol(num_iter=7, num_warmup=3, until_ci=0.01)


def test_the_interval_that_ends_a_run_holds() -> None:
    """Of 400 runs of 60 pairs that end as soon as they are known within 2%, at most 5% and what chance adds
    miss the truth; Student's interval at each look, which ends too early, misses three times as often."""
    values = np.random.default_rng(3).normal(0, 0.03, (400, 60))
    counts = np.arange(2, 61)
    missed = naive = 0
    for row in values:
        ended = tight_after(row.tolist(), 0.02) or 60
        missed += abs(row[:ended].mean()) > always_valid_halves(row[None, :ended])[0, -1]
        deviations = np.array([row[:n].std(ddof=1) for n in counts])
        halves = t.ppf(0.975, counts - 1) * deviations / np.sqrt(counts)
        at = int((halves <= 0.02).argmax())
        naive += abs(row[: counts[at]].mean()) > halves[at]
    assert missed / len(values) <= 0.065
    assert naive / len(values) > 0.065
    assert naive > 2 * missed
