"""Latency runs held against each other: verdicts, exit codes, and the forms for people and machines."""

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from math import log
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import msgspec
import numpy as np
import pytest
from scipy.stats import false_discovery_control, ttest_1samp, ttest_ind
from scipy.stats import t as student_t

from tests import records
from tests.conftest import ROOT, CommandLine
from xpubench.compare.intervals import rounds_to_decide, welch
from xpubench.environment import Environment
from xpubench.record import Output, Record, Samples, WeightsFingerprint, encode
from xpubench.report.comparison import COLUMNS
from xpubench.results import ResultsDirectory
from xpubench.spec import Quantization, RunSpec

BASE = records.latency_record(records.subject())
# How much the rounds of a test drift, both sides alike.
DRIFT = (1.0, 1.3, 0.9)


def slowed(factor: float, seed: int = 1, **fields: Any) -> Record:
    return records.latency_record(
        records.subject(**fields), next_ms=20.0 * factor, first_ms=200.0 * factor, seed=seed
    )


@pytest.fixture
def compare(xpubench: CommandLine, tmp_path: Path) -> CommandLine:
    """`compare(base, new, *flags)` of two records."""

    def run(base: Record, new: Record, *flags: object) -> Any:
        for name, record in (("base.json", base), ("new.json", new)):
            (tmp_path / name).write_bytes(encode(record))
        return xpubench("compare", tmp_path / "base.json", tmp_path / "new.json", *flags)

    return run


@pytest.fixture
def in_turns(xpubench: CommandLine, tmp_path: Path) -> CommandLine:
    """`in_turns(factor, *flags, count=3, **fields)`: a run and one that is so much slower, in rounds in which
    they took turns; the fields are those of the slower one's records."""

    def run(factor: float, *flags: object, count: int = 3, **fields: Any) -> Any:
        for number, drift in zip(range(1, count + 1), (*DRIFT, *DRIFT), strict=False):
            records.round_of(tmp_path / "a", number, slow=drift)
            records.round_of(tmp_path / "b", number, slow=drift * factor, second=True, **fields)
        return xpubench("compare", tmp_path / "a", tmp_path / "b", *flags)

    return run


def only_run(done: Any) -> dict[str, Any]:
    """The one run of `--json`."""
    (run,) = json.loads(done.out)["runs"]
    return dict(run)


@pytest.mark.parametrize(
    ("factor", "flags", "verdict", "code"),
    [
        (1.0, [], "same", 0),
        (1.1, [], "slower", 1),
        (0.9, [], "faster", 0),
        (1.03, [], "same", 0),
        (1.1, ["--latency-limit", 15], "same", 0),
        (1.03, ["--latency-limit", 1], "slower", 1),
    ],
)
def test_the_verdict_is_the_exit_code(
    in_turns: CommandLine, factor: float, flags: list[object], verdict: str, code: int
) -> None:
    done = in_turns(factor, *flags)
    assert done.code == code
    assert f"{verdict}: next token, ratio " in done.out
    run = only_run(in_turns(factor, *flags, "--json"))
    assert run["verdict"] == verdict
    judged = run["figures"]["next_token"]
    assert judged["low"] < factor < judged["high"]
    assert judged["method"] == "paired t"
    assert run["primary"] == judged


def test_both_orders_give_mirrored_verdicts(
    xpubench: CommandLine, in_turns: CommandLine, tmp_path: Path
) -> None:
    there = only_run(in_turns(1.1, "--json"))["primary"]
    back = only_run(xpubench("compare", tmp_path / "b", tmp_path / "a", "--json"))["primary"]
    assert (there["verdict"], back["verdict"]) == ("slower", "faster")
    assert back["low"] == pytest.approx(1 / there["high"])


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


def stretched(record: Record, every: int, factor: int) -> Record:
    """The record with every so manyth token so much slower."""
    rows = [
        msgspec.structs.replace(
            one,
            next_token_ns=one.next_token_ns
            and [ns * factor if place % every == 0 else ns for place, ns in enumerate(one.next_token_ns)],
        )
        for one in record.samples.iterations
    ]
    return msgspec.structs.replace(record, samples=Samples(iterations=rows))


def longer(record: Record) -> Record:
    """The record with end-to-end latencies three times as long."""
    rows = [
        msgspec.structs.replace(one, end_to_end_ns=3 * one.end_to_end_ns) for one in record.samples.iterations
    ]
    return msgspec.structs.replace(record, samples=Samples(iterations=rows))


def larger(record: Record) -> Record:
    """The record with a peak of memory larger by a fifth."""
    assert record.summary is not None
    summary = msgspec.structs.replace(record.summary, peak_device_bytes=18_000_000_000)
    return msgspec.structs.replace(record, summary=summary)


@pytest.mark.parametrize(
    ("changed", "words", "primary"),
    [
        (lambda one: stretched(one, 4, 20), "next token, p90 slower, ratio", "next_token_p90"),
        (longer, "end to end slower, ratio", "end_to_end"),
        (larger, "peak device memory worse, ratio 1.200", "peak_device"),
    ],
)
def test_a_figure_beyond_its_limit_is_named_and_may_be_the_primary_one(
    in_turns: CommandLine, changed: Callable[[Record], Record], words: str, primary: str
) -> None:
    done = in_turns(1.0, changed=changed)
    assert (done.code, words in done.out.partition("beyond their limits: ")[2]) == (0, True)
    assert in_turns(1.0, "--primary", primary, changed=changed).code == 1
    assert in_turns(1.0).out.count("beyond their limits") == 0


def test_a_run_of_one_token_is_judged_by_the_first(
    in_turns: CommandLine, xpubench: CommandLine, tmp_path: Path
) -> None:
    for number in (1, 2, 3):
        records.round_of(tmp_path / "a", number, new_tokens=1)
        records.round_of(tmp_path / "b", number, new_tokens=1, slow=1.2, second=True)
    done = xpubench("compare", tmp_path / "a", tmp_path / "b")
    assert (done.code, "slower: first token, ratio 1." in done.out) == (1, True)


def test_int4_beside_float16(compare: CommandLine) -> None:
    done = compare(BASE, slowed(0.5, quantization=Quantization()))
    assert "quantization: none and RTN int4_fullrange groups of 64" in done.out


def with_tokens(tokens: list[int]) -> Record:
    return msgspec.structs.replace(BASE, output=Output(first_token_ids=tokens))


def test_other_tokens_are_named(compare: CommandLine) -> None:
    done = compare(with_tokens([1, 2, 3, 4]), with_tokens([1, 2, 9, 4]))
    assert "other tokens for the same prompt, from token 3 of 4" in done.out
    assert "other tokens" not in compare(with_tokens([1, 2]), with_tokens([1, 2])).out


def test_a_prompt_of_text_is_the_same_with_another_seed(compare: CommandLine) -> None:
    def run(tokens: list[int], seed: int, prompt: str | None) -> Record:
        made = with_tokens(tokens)
        assert isinstance(made.spec, RunSpec)
        workload = made.spec.workload
        if prompt is not None:
            workload = msgspec.structs.replace(workload, prompt=prompt, input_tokens=None)
        protocol = msgspec.structs.replace(made.spec.protocol, seed=seed)
        spec = msgspec.structs.replace(made.spec, workload=workload, protocol=protocol)
        return msgspec.structs.replace(made, spec=spec)

    assert "other tokens" in compare(run([1, 2], 0, "text"), run([1, 3], 1, "text")).out
    assert "other tokens" not in compare(run([1, 2], 0, None), run([1, 3], 1, None)).out


def test_another_machine_and_warnings_are_named(compare: CommandLine) -> None:
    host = records.ENVIRONMENT.host
    assert host is not None
    environment = msgspec.structs.replace(
        records.ENVIRONMENT,
        host=msgspec.structs.replace(host, cpu="another CPU", load_average_1min=9.0),
        versions={"torch": "1.0"},
    )
    new = msgspec.structs.replace(BASE, environment=environment, warnings=["noise 80%"])
    done = compare(BASE, new)
    assert f"host.cpu {host.cpu} → another CPU" in done.out
    assert "versions.torch 2.13.0+xpu → 1.0" in done.out
    assert "warning, new: noise 80%" in done.out
    assert "load_average" not in done.out


def with_checkpoint(config: str | None, weights: str = "") -> Record:
    fingerprint = None if config is None else WeightsFingerprint(config=config * 64, weights=weights * 64)
    return msgspec.structs.replace(BASE, fingerprint=fingerprint)


def test_another_checkpoint_is_named_before_the_other_facts(compare: CommandLine) -> None:
    new = msgspec.structs.replace(with_checkpoint("a", "c"), environment=Environment(python="9"))
    done = compare(with_checkpoint("a", "b"), new)
    changed = f"other environment: weights of llama-2-7b-hf {12 * 'b'} → {12 * 'c'}; device."
    assert changed in done.out
    done = compare(with_checkpoint("a", "b"), with_checkpoint("d", "b"))
    assert f"other environment: config of llama-2-7b-hf {12 * 'a'} → {12 * 'd'}" in done.out
    assert "weights of" not in done.out


@pytest.mark.parametrize(("one", "other"), [("a", "a"), (None, "a"), ("a", None)])
def test_a_checkpoint_that_is_the_same_or_unknown_is_not_named(
    compare: CommandLine, one: str | None, other: str | None
) -> None:
    assert "other environment" not in compare(with_checkpoint(one), with_checkpoint(other)).out


def test_warnings_that_differ_in_numbers_alone_are_told_once(in_turns: CommandLine) -> None:
    source = iter(range(10, 90))
    noisy = {
        "changed": lambda one: msgspec.structs.replace(one, warnings=[f"noise {next(source)}%", "other"])
    }
    run = only_run(in_turns(1.0, "--json", **noisy))
    assert [one for one in run["warnings"] if one.startswith("new")] == [
        "new: noise 10% (and 2 like it)",
        "new: other (and 2 like it)",
    ]


def changed_workload(**fields: Any) -> Record:
    assert isinstance(BASE.spec, RunSpec)
    workload = msgspec.structs.replace(BASE.spec.workload, **fields)
    return msgspec.structs.replace(BASE, spec=msgspec.structs.replace(BASE.spec, workload=workload))


def with_times(ns: int | None) -> Record:
    """The record with all times so long, or without any."""
    rows = [
        msgspec.structs.replace(one, first_token_ns=one.first_token_ns and ns, end_to_end_ns=ns or 0)
        for one in BASE.samples.iterations
    ]
    return msgspec.structs.replace(BASE, samples=Samples(iterations=[] if ns is None else rows))


@pytest.mark.parametrize(
    ("new", "words"),
    [
        (changed_workload(batch_size=2), "another batch_size: 1 and 2"),
        (changed_workload(num_beams=4), "another num_beams: 1 and 4"),
        (records.latency_record(records.subject("gpt2")), "another model: Llama-2-7b-hf and gpt2"),
        (records.latency_record(records.subject(weights="dummy")), "other weights: pretrained and dummy"),
        (records.accuracy_record(records.subject()), "one is a latency, the other an accuracy"),
        (with_times(None), "the new run has no samples"),
        (with_times(0), "the new run has samples of 0 ns or less"),
        (with_times(-5), "the new run has samples of 0 ns or less"),
        (
            msgspec.structs.replace(BASE, checks=msgspec.structs.replace(BASE.checks, logits_finite=False)),
            "the new run has logits that are not finite",
        ),
    ],
)
def test_what_cannot_be_compared_says_which_field(compare: CommandLine, new: Record, words: str) -> None:
    done = compare(BASE, new)
    assert (done.code, words in done.out) == (2, True)


FAILED = records.failed(BASE, "oom", "no memory")


@pytest.mark.parametrize(
    ("base", "new", "verdict", "code"),
    [
        (BASE, FAILED, "newly failing: oom: no memory", 1),
        (FAILED, BASE, "no longer failing: oom before", 0),
        (FAILED, FAILED, "failing in both: oom before, oom now", 2),
    ],
)
def test_runs_that_failed(compare: CommandLine, base: Record, new: Record, verdict: str, code: int) -> None:
    done = compare(base, new)
    assert (done.code, verdict in done.out) == (code, True)


def test_a_run_that_fails_in_both_does_not_count(
    in_turns: CommandLine, xpubench: CommandLine, tmp_path: Path
) -> None:
    in_turns(1.0)
    broken = records.failed(records.latency_record(records.subject("gpt2")), "crash", "it broke")
    for side in "ab":
        records.write(tmp_path / side, broken)
    done = xpubench("compare", tmp_path / "a", tmp_path / "b")
    assert (done.code, "failing in both" in done.out) == (0, True)


def test_directories_are_matched_by_the_run(
    xpubench: CommandLine, in_turns: CommandLine, tmp_path: Path
) -> None:
    in_turns(1.2)
    records.write(tmp_path / "b", records.latency_record(records.subject("facebook/opt-6.7b")))
    (tmp_path / "b" / "foreign.json").write_text("{}")
    done = xpubench("compare", tmp_path / "a", tmp_path / "b", "--json")
    found = json.loads(done.out)
    assert done.code == 1
    assert [run["verdict"] for run in found["runs"]] == ["slower"]
    assert "opt-6.7b" in found["only_new"][0]
    assert "foreign.json" in found["left_out"][0]


@pytest.mark.parametrize("allowed", ["gpt2", "gp*", "ID"])
def test_a_run_that_the_new_set_lacks_fails_unless_it_may(
    xpubench: CommandLine, in_turns: CommandLine, tmp_path: Path, allowed: str
) -> None:
    in_turns(1.0)
    lacking = records.latency_record(records.subject("gpt2"))
    records.write(tmp_path / "a", lacking)
    sides = tmp_path / "a", tmp_path / "b"
    done = xpubench("compare", *sides)
    assert (done.code, "missing" in done.out) == (1, True)
    found = ElementTree.fromstring(xpubench("compare", *sides, "--format", "junit").out)
    assert [found.get(name) for name in ("tests", "failures", "skipped")] == ["2", "1", "0"]
    flags = ("--allow-missing", lacking.id if allowed == "ID" else allowed)
    done = xpubench("compare", *sides, *flags)
    assert (done.code, "only in the base: gpt2" in done.out) == (0, True)
    found = ElementTree.fromstring(xpubench("compare", *sides, *flags, "--format", "junit").out)
    assert [found.get(name) for name in ("tests", "failures", "skipped")] == ["2", "0", "1"]


def test_a_baseline_kept_in_one_file(xpubench: CommandLine, tmp_path: Path) -> None:
    other = records.latency_record(records.subject("gpt2"))
    (tmp_path / "baseline.jsonl").write_bytes(encode(BASE) + b"\n" + encode(other) + b"\n")
    records.write(tmp_path / "new", slowed(1.0))
    sides = tmp_path / "baseline.jsonl", tmp_path / "new"
    done = xpubench("compare", *sides, "--allow-missing", "gpt2", "--inconclusive-ok")
    assert done.code == 0
    assert "only in the base: gpt2" in done.out
    (tmp_path / "baseline.jsonl").write_bytes(encode(BASE) + b"\nnonsense\n")
    done = xpubench("compare", *sides)
    assert (done.code, "line 2" in done.error_line) == (2, True)


def test_an_empty_set_is_not_comparable(xpubench: CommandLine, tmp_path: Path) -> None:
    records.write(tmp_path / "a", BASE)
    (tmp_path / "empty").mkdir()
    done = xpubench("compare", tmp_path / "a", tmp_path / "empty")
    assert (done.code, "no records" in done.error_line) == (2, True)


def test_of_many_runs_chance_is_told(xpubench: CommandLine, tmp_path: Path) -> None:
    """Ten runs, the first of them 20% slower."""
    for run in range(10):
        of = records.subject(f"model-{run}")
        for number in (1, 2, 3):
            records.round_of(tmp_path / "a", number, of=of)
            slow = (1.2 if run == 0 else 1.0) * (1 + 0.01 * ((run * number) % 3 - 1))
            records.round_of(tmp_path / "b", number, of=of, slow=slow, second=True)
    done = xpubench("compare", tmp_path / "a", tmp_path / "b", "--json")
    found = json.loads(done.out)
    assert (found["judged"], found["false_by_chance"]) == (10, 0.5)
    expected = false_discovery_control([run["primary"]["p_value"] for run in found["runs"]])
    assert [run["adjusted_p"] for run in found["runs"]] == pytest.approx(expected.tolist())
    out = xpubench("compare", tmp_path / "a", tmp_path / "b").out
    assert "of 10 runs changed, where chance gives about 0.5" in out
    assert "left after adjustment: model-0" in out


HOSTILE = '<script>alert("|")</script>\x07\x1b[31m\ufffe'


def test_junit_and_markdown_hold_hostile_names(
    in_turns: CommandLine, xpubench: CommandLine, tmp_path: Path
) -> None:
    of = records.subject(HOSTILE)
    for number in (1, 2, 3):
        records.round_of(tmp_path / "a", number, of=of)
        records.round_of(tmp_path / "b", number, of=of, slow=1.5, second=True)
    sides = tmp_path / "a", tmp_path / "b"
    suite = ElementTree.fromstring(xpubench("compare", *sides, "--format", "junit").out)
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("1", "1", "0")
    (failure,) = suite.iter("failure")
    assert failure.get("type") == "slower"
    row = xpubench("compare", *sides, "--format", "md").out.splitlines()[2]
    assert "<script>" not in row
    assert row.replace("\\|", "").count("|") == len(COLUMNS) + 1
    table = xpubench("compare", *sides).out
    assert "\x1b" not in table
    # The column is narrow, so that the name goes on in the next row.
    assert "\\x1b[31" in table


def test_junit_says_what_differs_and_what_either_side_warns_of(xpubench: CommandLine, tmp_path: Path) -> None:
    versions = dict.fromkeys(("torch", "transformers", "numpy", "one", "two", "three"), "1.0")
    elsewhere = msgspec.structs.replace(records.ENVIRONMENT, versions=versions)
    base = msgspec.structs.replace(BASE, warnings=["noise of the base"])
    new = msgspec.structs.replace(
        slowed(1.5, runtime="ipex"), environment=elsewhere, warnings=["noise of the new"]
    )
    sides = records.write(tmp_path, base, "base"), records.write(tmp_path, new, "new")
    suite = ElementTree.fromstring(xpubench("compare", *sides, "--format", "junit").out)
    told = suite.findtext("testcase/system-out") or ""
    assert "next token, ratio 1.5" in told.splitlines()[0]
    for words in ("runtime: pytorch and ipex", "base: noise of the base", "new: noise of the new"):
        assert words in told
    # All of the facts, of which a terminal has the first four.
    assert all(f"versions.{name} " in told for name in versions)
    assert "more" not in told


@pytest.mark.parametrize("form", ["table", "md", "json", "junit"])
def test_a_record_with_half_a_letter_is_refused(xpubench: CommandLine, tmp_path: Path, form: str) -> None:
    path = records.write_changed(
        tmp_path, BASE, "half", lambda data: data["spec"]["subject"].update(model="\ud800")
    )
    done = xpubench("compare", path, path, "--format", form)
    assert (done.code, "written again" in done.error_line) == (2, True)


@pytest.mark.parametrize("value", ["-1", "nan", "much"])
def test_a_limit_that_is_none(compare: CommandLine, value: str) -> None:
    done = compare(BASE, BASE, "--latency-limit", value)
    assert (done.code, "--latency-limit: must be a number of at least 0" in done.error_line) == (2, True)


def test_two_runs_of_one_suite_by_the_name_of_their_files(xpubench: CommandLine, tmp_path: Path) -> None:
    """`DIR/ID.json` stands for all rounds of that run."""
    for number, drift in enumerate(DRIFT, 1):
        one = records.round_of(tmp_path, number, slow=drift)
        of = records.subject(runtime="ipex")
        other = records.round_of(tmp_path, number, slow=drift * 1.1, of=of, second=True)
    done = xpubench("compare", tmp_path / f"{one.id}.json", tmp_path / f"{other.id}.json", "--json")
    run = only_run(done)
    assert (done.code, run["verdict"]) == (1, "slower")
    assert 1.08 < run["primary"]["low"] <= run["primary"]["high"] < 1.12


def test_a_round_that_failed_is_not_left_out(xpubench: CommandLine, tmp_path: Path) -> None:
    for number in (1, 2, 3, 4):
        records.round_of(tmp_path / "a", number)
        records.round_of(tmp_path / "b", number, second=True)
    failed = encode(records.failed(BASE, "oom", "full"))
    (tmp_path / "b" / "round-1" / f"{BASE.id}.json").write_bytes(failed)
    done = xpubench("compare", tmp_path / "a", tmp_path / "b")
    assert (done.code, "newly failing: oom in 1 of 4 rounds: full" in done.out) == (1, True)
    # A round of the base that failed says nothing about the new run.
    done = xpubench("compare", tmp_path / "b", tmp_path / "a")
    assert (done.code, "base: 1 of 4 rounds failed and are left out" in done.out) == (0, True)


def test_a_baseline_out_of_git(tmp_path: Path) -> None:
    """As docs/report.md has it: records one after the other in a file, read back from a tag by a pipe."""
    records.write(tmp_path / "results", BASE)
    results = ResultsDirectory(tmp_path / "new")
    results.write(slowed(1.2))
    results.write(records.latency_record(records.subject("gpt2")))
    script = """
    git init -q . && cat results/*.json > baseline.json && git add baseline.json
    git -c user.name=t -c user.email=t@example.org commit -qm baseline && git tag v1 && rm baseline.json
    "$0" -m xpubench compare <(git show v1:baseline.json) <(cat new/*.json) --json
    """
    done = subprocess.run(
        ["bash", "-ec", script, sys.executable],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 3, done.stderr
    found = json.loads(done.stdout)
    assert [run["verdict"] for run in found["runs"]] == ["inconclusive"]
    assert "gpt2" in found["only_new"][0]
