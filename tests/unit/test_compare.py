"""Latency runs held against each other: verdicts, exit codes and figures."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from tests import records
from tests.comparing import only_run
from tests.conftest import CommandLine
from xpubench.record import Record, Samples


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
