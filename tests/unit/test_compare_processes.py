"""How the rounds of two sides, and earlier runs, become an interval of their ratio."""

import csv
import io
import json
from math import log
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import numpy as np
import pytest
from scipy.stats import t as student_t
from scipy.stats import ttest_1samp, ttest_ind

from tests import records
from tests.comparing import BASE, DRIFT, only_run, slowed
from tests.conftest import CommandLine
from xpubench.compare.intervals import rounds_to_decide, welch
from xpubench.record import encode


def test_the_interval_is_students_over_the_logarithms(in_turns: CommandLine, tmp_path: Path) -> None:
    """Held against scipy's own tests, on the medians that the records' summaries have."""
    judged = only_run(in_turns(1.02, "--json", count=5))["primary"]
    a, b = ([_medians(tmp_path / side, number) for number in range(1, 6)] for side in "ab")
    logs = np.log(np.array(b) / np.array(a))
    expected = ttest_1samp(logs, 0)
    low, high = np.exp(expected.confidence_interval(0.95))
    assert (judged["low"], judged["high"]) == (pytest.approx(low), pytest.approx(high))
    assert judged["p_value"] == pytest.approx(expected.pvalue)


def _medians(side: Path, number: int) -> float:
    (path,) = (side / f"round-{number}").glob("*.json")
    return float(json.loads(path.read_text())["summary"]["next_token_ms"]["median"])


def test_rounds_that_were_run_apart_are_not_paired(xpubench: CommandLine, tmp_path: Path) -> None:
    """The same figures: in pairs 10% slower in every round, apart far inside the drift of the rounds."""
    for number, drift in enumerate(DRIFT, 1):
        records.round_of(tmp_path / "a", number, slow=drift)
        records.round_of(tmp_path / "b", number + 3, slow=drift * 1.1)
        records.round_of(tmp_path / "c", number, slow=drift * 1.1, second=True)
    apart = xpubench("compare", tmp_path / "a", tmp_path / "b", "--json")
    paired = xpubench("compare", tmp_path / "a", tmp_path / "c", "--json")
    assert (apart.code, paired.code) == (3, 1)
    judged = only_run(apart)["primary"]
    assert judged["method"] == "Welch's t"
    a, b = (
        [_medians(tmp_path / side, at) for at in at_rounds]
        for side, at_rounds in (("a", (1, 2, 3)), ("b", (4, 5, 6)))
    )
    expected = ttest_ind(np.log(b), np.log(a), equal_var=False)
    assert judged["p_value"] == pytest.approx(expected.pvalue)
    assert judged["high"] == pytest.approx(np.exp(expected.confidence_interval(0.95).high))


@pytest.mark.parametrize(("day", "method"), [(20, "paired t"), (22, "Welch's t")])
def test_rounds_whose_runs_are_days_apart_are_not_paired(
    xpubench: CommandLine, tmp_path: Path, day: int, method: str
) -> None:
    for number in (1, 2, 3):
        records.round_of(tmp_path / "a", number)
        new = records.round_of(tmp_path / "b", number, second=True)
    late = msgspec.structs.replace(new, created=f"2026-11-{day}T23:00:00Z")
    records.write(tmp_path / "b" / "round-3", late)
    done = xpubench("compare", tmp_path / "a", tmp_path / "b", "--json")
    assert only_run(done)["primary"]["method"] == method


def test_one_process_a_side_has_no_verdict(compare: CommandLine) -> None:
    done = compare(BASE, slowed(1.5))
    assert done.code == 3
    assert "inconclusive: next token, ratio 1.5" in done.out
    assert "0 of the 10 degrees of freedom" in done.out
    assert compare(BASE, slowed(1.5), "--inconclusive-ok").code == 0
    judged = only_run(compare(BASE, slowed(1.5), "--json"))["primary"]
    # `same` needs three rounds, and how many decide depends on noise that nobody knows.
    assert (judged["low"], judged["to_decide"]) == (None, None)
    assert "at least 3 rounds" in judged["reason"]


def test_a_single_iteration_has_no_verdict(compare: CommandLine) -> None:
    one, other = (records.latency_record(records.subject(), iterations=1, next_ms=ms) for ms in (20, 40))
    assert compare(one, other).code == 3


@pytest.mark.parametrize(
    ("repeats", "spread", "factor", "code"),
    [(11, 0.01, 1.1, 1), (11, 0.01, 1.0, 0), (10, 0.01, 1.1, 3), (11, 0.2, 1.1, 3)],
)
def test_earlier_runs_tell_the_noise_between_processes(
    xpubench: CommandLine, tmp_path: Path, repeats: int, spread: float, factor: float, code: int
) -> None:
    for number in range(1, repeats + 1):
        records.round_of(tmp_path / "earlier", number, slow=1 + spread * (number % 3 - 1))
    records.round_of(tmp_path / "a", 20)
    records.round_of(tmp_path / "b", 20, slow=factor, second=True)
    done = xpubench("compare", tmp_path / "a", tmp_path / "b", "--history", tmp_path / "earlier", "--json")
    assert done.code == code
    if code != 3:
        assert only_run(done)["primary"]["method"] == "t with the noise of earlier runs"


@pytest.mark.parametrize(
    ("repeats", "words"),
    [
        ((11, 0), "give the new run 0 of the 10 degrees of freedom"),
        ((4, 11), "give the base 3 of the 10 degrees of freedom"),
        ((0, 3), "give the base 0 and the new run 2 of the 10 degrees of freedom"),
    ],
)
def test_the_noise_of_one_stack_is_not_that_of_another(
    xpubench: CommandLine, tmp_path: Path, repeats: tuple[int, int], words: str
) -> None:
    """A quiet stack with a history, and another whose processes may differ by any amount."""
    ours, theirs = records.subject(), records.subject(runtime="ipex")
    for of, count in zip((ours, theirs), repeats, strict=True):
        for number in range(1, count + 1):
            records.round_of(tmp_path / "earlier", number, of=of)
    records.round_of(tmp_path / "a", 20, of=ours)
    records.round_of(tmp_path / "b", 20, of=theirs, slow=0.9, second=True)
    done = xpubench("compare", tmp_path / "a", tmp_path / "b", "--history", tmp_path / "earlier", "--json")
    run = only_run(done)
    assert (done.code, run["verdict"], words in run["reason"]) == (3, "inconclusive", True)


def test_the_noises_of_two_stacks_are_combined_as_welch_does(xpubench: CommandLine, tmp_path: Path) -> None:
    ours, theirs = records.subject(), records.subject(runtime="ipex")
    for number in range(1, 14):
        records.round_of(tmp_path / "earlier", number, of=ours, slow=1 + 0.002 * (number % 3))
        records.round_of(tmp_path / "earlier", number, of=theirs, slow=1 + 0.03 * (number % 4), second=True)
    records.round_of(tmp_path / "a", 20, of=ours)
    records.round_of(tmp_path / "b", 20, of=theirs, slow=1.3, second=True)
    done = xpubench("compare", tmp_path / "a", tmp_path / "b", "--history", tmp_path / "earlier", "--json")
    judged = only_run(done)["primary"]
    variances = []
    for of in (ours, theirs):
        paths = (tmp_path / "earlier").glob(f"round-*/{records.latency_record(of).id}.json")
        medians = [json.loads(path.read_text())["summary"]["next_token_ms"]["median"] for path in paths]
        variances.append(np.log(medians).var(ddof=1))
    freedom = sum(variances) ** 2 / sum(one**2 / 12 for one in variances)
    high = np.log(judged["change"]) + student_t.ppf(0.975, freedom) * sum(variances) ** 0.5
    assert (done.code, judged["method"]) == (1, "t with the noise of earlier runs")
    assert judged["high"] == pytest.approx(np.exp(high))


def test_an_earlier_run_counts_once(xpubench: CommandLine, tmp_path: Path) -> None:
    """Ten repeats in two directories are ten, whatever names the directories have."""
    for number in range(1, 11):
        for directory in ("earlier", "copy"):
            records.round_of(tmp_path / directory, number)
    records.round_of(tmp_path / "a", 20)
    records.round_of(tmp_path / "b", 20, second=True)
    earlier = ("--history", tmp_path / "earlier", tmp_path / "copy", tmp_path / "earlier")
    done = xpubench("compare", tmp_path / "a", tmp_path / "b", *earlier)
    assert (done.code, "give the run 9 of the 10 degrees of freedom" in done.out) == (3, True)


def test_explained_runs_repeat_those_that_are_not_explained(xpubench: CommandLine, tmp_path: Path) -> None:
    explained = msgspec.structs.replace(
        records.ENVIRONMENT,
        variables=records.ENVIRONMENT.variables | {"TORCHINDUCTOR_CPP_ENABLE_KERNEL_PROFILE": "1"},
    )
    # Five and six that do not repeat each other would have nine degrees of freedom.
    for number in range(1, 12):
        environment = explained if number < 6 else records.ENVIRONMENT
        records.round_of(tmp_path / "earlier", number, environment=environment)
    records.round_of(tmp_path / "a", 20)
    records.round_of(tmp_path / "b", 20, second=True, environment=explained)
    done = xpubench("compare", tmp_path / "a", tmp_path / "b", "--history", tmp_path / "earlier")
    assert done.code == 0
    # The kernels of the new run were instrumented, which is told.
    assert "TORCHINDUCTOR_CPP_ENABLE_KERNEL_PROFILE absent → 1" in done.out


@pytest.mark.parametrize("form", ["directories", "files"])
def test_a_copy_is_no_round(xpubench: CommandLine, tmp_path: Path, form: str) -> None:
    """One process a side, 8% apart, whose records lie in three places each."""
    sides = [tmp_path / name for name in "ab"]
    for side, record in zip(sides, (BASE, slowed(1.08)), strict=True):
        if form == "files":
            side.write_bytes(encode(record) * 3)
        else:
            for directory in (side, side / "round-1", side / "round-2"):
                records.write(directory, record)
    done = xpubench("compare", *sides, "--json")
    assert (done.code, only_run(done)["verdict"]) == (3, "inconclusive")
    left_out = json.loads(done.out)["left_out"]
    assert [line.partition(": ")[2].split(" in ")[0] for line in left_out] == 4 * [
        "a copy of a process's record"
    ]


def test_earlier_runs_of_another_machine_tell_nothing(xpubench: CommandLine, tmp_path: Path) -> None:
    host = records.ENVIRONMENT.host
    assert host is not None
    elsewhere = msgspec.structs.replace(
        records.ENVIRONMENT, host=msgspec.structs.replace(host, cpu="another")
    )
    for number in range(1, 15):
        records.round_of(tmp_path / "earlier", number, environment=elsewhere)
    records.round_of(tmp_path / "a", 20)
    records.round_of(tmp_path / "b", 20, slow=2.0, second=True)
    assert xpubench("compare", tmp_path / "a", tmp_path / "b", "--history", tmp_path / "earlier").code == 3


def test_two_rounds_are_never_the_same(in_turns: CommandLine) -> None:
    done = in_turns(1.0, "--latency-limit", 100, "--json", count=2)
    run = only_run(done)
    assert (done.code, run["verdict"], run["primary"]["to_decide"]) == (3, "inconclusive", 3)


def test_what_is_inconclusive_says_what_would_decide(xpubench: CommandLine, tmp_path: Path) -> None:
    """Noise of about 5% between three processes a side: no verdict, and the rounds that would give one do."""
    noise = (1.04, 0.95, 1.01)
    for number in range(1, 4):
        records.round_of(tmp_path / "a", number)
        records.round_of(tmp_path / "b", number, slow=noise[number - 1], second=True)
    done = xpubench("compare", tmp_path / "a", tmp_path / "b", "--json")
    judged = only_run(done)["primary"]
    assert done.code == 3
    rounds = judged["to_decide"]
    assert 4 < rounds < 100
    told = f"would show {judged['detectable']:.1%}; decides at {rounds} rounds"
    done = xpubench("compare", tmp_path / "a", tmp_path / "b", "--format", "junit")
    assert told in (ElementTree.fromstring(done.out).findtext("testcase/system-out") or "").splitlines()
    [row] = csv.DictReader(
        io.StringIO(xpubench("report", "--diff", tmp_path / "a", tmp_path / "b", "--format", "csv").out)
    )
    assert (row["would_show"], row["decides_at"]) == (f"{judged['detectable']:.1%}", f"{rounds} rounds")
    for number in range(4, rounds + 2 - rounds % 3):
        records.round_of(tmp_path / "a", number)
        records.round_of(tmp_path / "b", number, slow=noise[(number - 1) % 3], second=True)
    assert xpubench("compare", tmp_path / "a", tmp_path / "b").code == 0


def spread_evenly(count: int, deviation: float) -> list[float]:
    """So many values around 0 with that sample standard deviation."""
    values = np.linspace(-1, 1, count)
    return list(values / values.std(ddof=1) * deviation)


@pytest.mark.parametrize("counts", [(2, 20), (3, 20), (20, 3), (3, 3)])
@pytest.mark.parametrize("noises", [(0.05, 0.05), (0.01, 0.1), (0.1, 0.01)])
def test_as_many_rounds_of_both_decide_whatever_the_numbers_of_rounds_are(
    counts: tuple[int, int], noises: tuple[float, float]
) -> None:
    limit = log(1.05)
    rounds = rounds_to_decide(welch(*map(spread_evenly, counts, noises)), limit)
    assert rounds is not None

    def half_width(count: int) -> float:
        return welch(*(spread_evenly(count, noise) for noise in noises)).high

    # Student's quantile is that of one side's degrees of freedom, which asks for a few rounds more.
    assert half_width(rounds) <= limit < half_width(rounds - 3)
