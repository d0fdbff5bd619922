"""What becomes of a run whose timed tokens or logits are wrong, with the fake runtime's faults."""

import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import CommandLine, Outcome
from xpubench.accuracy import degenerate
from xpubench.accuracy.divergence import Trace, load
from xpubench.accuracy.limits import LIMITS, judged, limits_for
from xpubench.errors import RunFailure
from xpubench.measure.rounding import logit_difference, logit_limit
from xpubench.record import Divergence


def test_a_clean_run_says_what_was_compared(scripted: CommandLine) -> None:
    (record,) = scripted({}, "--num-iter", 6).records
    checks = record["checks"]["tokens"]
    # A pair for each of 5 measured iterations, of which the first and the last have the untimed generation's
    # prompt. Then the check prompts before and after.
    assert (checks["compared"], checks["different"]) == (2 + 3 + 2 + 1, 0)
    assert checks["scored"] >= 2
    assert checks["regret"] == 0 < checks["regret_limit"]
    assert checks["logits_seen"] is True


@pytest.mark.parametrize(
    "fault",
    [
        {"token": 7, "first": 3, "last": 3},
        {"token": 7, "first": 1},
        {"token": 7, "step": 3, "first": 4},
        {"token": 7},
    ],
    ids=["one generation", "timed ones alone", "from the fourth on", "always"],
)
def test_wrong_tokens_are_no_figure(scripted: CommandLine, fault: dict[str, Any]) -> None:
    done = scripted({"wrong_tokens": [fault]}, "--num-iter", 6)
    assert done.code == 1
    (record,) = done.records
    assert (record["status"], record["summary"]) == ("numerics", None)
    assert "wrong tokens" in record["failure"]["message"]
    assert record["samples"]["iterations"]


def test_wrong_tokens_of_one_prompt_in_the_middle(scripted: CommandLine) -> None:
    # Ratios that scatter, so that every pair is made, and none of their prompts comes again but the first.
    slow = {"next_token_ns": [1_500_000]}
    script = {"every_token": [{}, slow], "wrong_tokens": [{"token": 7, "first": 6, "last": 7}]}
    (record,) = scripted(script, "--num-iter", 8).records
    policies = [one["sync_policy"] for one in record["samples"]["iterations"]]
    assert policies.count("end_to_end") == policies.count("every_token") == 7
    assert record["status"] == "numerics"
    assert "wrong tokens" in record["failure"]["message"]


def test_each_row_is_looked_at(scripted: CommandLine) -> None:
    (record,) = scripted({}, "--batch-size", 9, "--num-iter", 6).records
    checks = record["checks"]["tokens"]
    # Nine rows of each prompt, the last pair's being the first one's, and four check prompts.
    assert 9 <= checks["scored"] <= checks["sequences"] == 9 * 4 + 4


def test_the_terminal_says_how_many_sequences_were_scored(
    scripted: CommandLine, xpubench: CommandLine, tmp_path: Path
) -> None:
    (record,) = scripted({}).records
    checks = record["checks"]["tokens"]
    flags = ("--runtime", "fake", "--fake-script", tmp_path / "script.json", "--device", "cpu", "--greedy")
    shape = ("--input-tokens", 8, "--max-new-tokens", 4, "--num-iter", 2, "--num-warmup", 1)
    done = xpubench("generate", "-m", "smollm2-135m", *flags, *shape, "--results-dir", tmp_path / "other")
    assert f"{checks['scored']} of {checks['sequences']} sequences right" in " ".join(done.out.split())


def test_one_token_for_ever_is_told(scripted: CommandLine) -> None:
    script = {"tokens": [100], "tokenizer": False}
    (record,) = scripted(script, "--max-new-tokens", 8).records
    assert any("one token for ever" in warning for warning in record["warnings"])
    (dummy,) = scripted(script, "--max-new-tokens", 8, "--dummy-weights").records
    assert not any("one token for ever" in warning for warning in dummy["warnings"])


HIDDEN = {"scores": False, "logits_finite": None}
LOOP = "timed sequences end in a loop"


@pytest.mark.parametrize("hidden", [{}, HIDDEN], ids=["logits seen", "logits hidden"])
@pytest.mark.parametrize(
    ("tokens", "flags", "warned"),
    [
        ([100, 101], ("--prompt", "some text"), True),
        # After random ids, right weights loop too.
        ([100, 101], ("--input-tokens", 8), False),
        (list(range(100, 116)), ("--prompt", "some text"), False),
        # One token for ever has a warning of its own.
        ([100], ("--prompt", "some text"), False),
    ],
)
def test_timed_tokens_that_loop_are_told(
    scripted: CommandLine, hidden: dict[str, Any], tokens: list[int], flags: tuple[object, ...], warned: bool
) -> None:
    script = {"tokens": tokens, **hidden, "every_token": [{}, {"next_token_ns": [1_500_000]}]}
    done = scripted(script, "--max-new-tokens", 16, "--num-iter", 8, *flags)
    assert done.code == 0, done.err
    assert any(LOOP in warning for warning in done.records[0]["warnings"]) is warned


def test_loops_that_a_reference_of_a_stack_that_hides_its_logits_lacks(
    scripted: CommandLine, tmp_path: Path
) -> None:
    (record,) = scripted({"tokens": list(range(100, 132))}).records
    path = tmp_path / "results" / f"{record['id']}.json"
    again = ["--reference", path, "--min-agreement", 0, "--results-dir", tmp_path / "again"]
    (looping,) = scripted({"tokens": [100, 101], **HIDDEN}, *again).records
    assert looping["status"] == "numerics"
    assert "4 of 4 check prompts end in a loop, 0 in the reference" in looping["failure"]["message"]


def test_a_fault_in_the_middle_of_a_long_run_that_is_gone_at_its_end(
    scripted: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each prompt of the middle is generated twice, both times wrongly, and there is no time to score it."""
    monkeypatch.setattr("xpubench.accuracy.timed.CHECKS_SHARE", 0)
    monkeypatch.setattr("xpubench.accuracy.timed.SCORING_S", 0)
    scattered = [{}, {"next_token_ns": [1_500_000]}]
    fault = {"token": 7, "first": 8, "last": 13, "untimed": True}
    script = {"every_token": scattered, "wrong_tokens": [fault]}
    (short,) = scripted(script, "--num-iter", 12).records
    assert len(short["samples"]["iterations"]) == 22
    # Nothing else in such a run sees the fault.
    assert (short["status"], short["checks"]["tokens"]["different"]) == ("ok", 0)
    monkeypatch.setattr("xpubench.run.generations.VERIFY_EVERY_S", 0)
    monkeypatch.setattr("xpubench.run.generations.VERIFY_SHARE", float("inf"))
    (long,) = scripted(script, "--num-iter", 12).records
    assert (long["status"], long["summary"]) == ("numerics", None)
    assert "wrong tokens" in long["failure"]["message"]
    (clean,) = scripted({"every_token": scattered}, "--num-iter", 12).records
    assert clean["status"] == "ok"
    assert clean["checks"]["tokens"]["compared"] > short["checks"]["tokens"]["compared"] + 20


WAIT_S = 0.5


def waits(*stages: str) -> dict[str, Any]:
    """A script in which each first call of the stages takes half a second."""
    return {"faults": [{"stage": stage, "call": 1, "hang_s": WAIT_S} for stage in stages]}


def checks_s(done: Outcome) -> list[float]:
    assert done.code == 0, done.err
    return [record["checks"]["tokens"]["checks_s"] for record in done.records]


def test_the_time_of_the_checks_has_the_first_sum_of_weights_in_the_first_run(scripted: CommandLine) -> None:
    first, second = checks_s(scripted(waits("checksum"), "--input-tokens", 8, 9))
    assert first >= WAIT_S
    # The second run's own sum is another call.
    assert second < first


def test_the_time_of_the_checks_has_the_untimed_generation_that_warms_nothing_up(
    scripted: CommandLine,
) -> None:
    (alone,) = checks_s(scripted(waits("verify"), "--num-warmup", 0))
    assert alone >= WAIT_S
    done = scripted(waits("verify"), "--num-warmup", 1)
    (warmed,) = checks_s(done)
    untimed, _ = done.records[0]["samples"]["warmup"]
    assert untimed["end_to_end_ns"] / 1e9 >= WAIT_S
    assert warmed < alone


def test_the_time_of_the_checks_has_the_reference(
    scripted: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (record,) = scripted({}).records
    answers = load(tmp_path / "results" / f"{record['id']}.check.npz")

    def slow(*_: object) -> Trace:
        time.sleep(WAIT_S)
        return answers

    monkeypatch.setattr("xpubench.run.latency.cpu_reference", slow)
    assert checks_s(scripted({}, "--reference", "cpu-float32"))[0] >= WAIT_S


def test_the_record_and_the_terminal_say_whether_the_weights_were_watched(
    scripted: CommandLine, xpubench: CommandLine, tmp_path: Path
) -> None:
    flags = ("--runtime", "fake", "--fake-script", tmp_path / "script.json", "--device", "cpu", "--greedy")
    shape = ("--input-tokens", 8, "--max-new-tokens", 4, "--num-iter", 2, "--num-warmup", 1)
    run = ("generate", "-m", "smollm2-135m", *flags, *shape, "--results-dir", tmp_path / "other")
    for shown in (True, False):
        (record,) = scripted({"shows_weights": shown}).records
        assert record["checks"]["tokens"]["weights_watched"] is shown
        assert ("weights not watched" in " ".join(xpubench(*run).out.split())) is not shown


def test_a_near_tie_is_forgiven_and_told(scripted: CommandLine) -> None:
    (record,) = scripted({"wrong_tokens": [{"token": 7, "first": 3, "last": 3}], "regret": 1e-6}).records
    assert record["status"] == "ok"
    assert record["checks"]["tokens"]["different"] == 1
    assert any("near tie" in warning for warning in record["warnings"])


def test_other_tokens_of_a_stack_that_hides_its_logits(scripted: CommandLine) -> None:
    script = {"wrong_tokens": [{"token": 7, "first": 3, "last": 3}], "scores": False, "logits_finite": None}
    (record,) = scripted(script).records
    assert record["status"] == "numerics"
    assert "hides the logits" in record["failure"]["message"]
    (clean,) = scripted({"scores": False, "logits_finite": None}).records
    assert clean["status"] == "ok"
    assert clean["checks"]["tokens"]["logits_seen"] is False
    assert clean["checks"]["tokens"]["regret"] is None


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ({"logits_finite": False}, "NaN or infinite"),
        ({"logits_constant": True}, "all logits of a step were the same"),
        ({"weights_change": True}, "the weights on the device have changed"),
    ],
)
def test_what_the_logits_and_the_weights_show(
    scripted: CommandLine, script: dict[str, Any], words: str
) -> None:
    (record,) = scripted(script).records
    assert record["status"] == "numerics"
    assert words in record["failure"]["message"]


def test_a_reference_of_other_weights_is_refused(scripted: CommandLine, tmp_path: Any) -> None:
    one = {"fingerprint": {"config": "a", "weights": "b"}}
    (record,) = scripted(one).records
    path = tmp_path / "results" / f"{record['id']}.json"
    other = {"fingerprint": {"config": "a", "weights": "c"}}
    again = ["--reference", path, "--results-dir", tmp_path / "again"]
    refused = scripted(other, *again)
    assert refused.code == 2
    assert "other weights of that name" in refused.error_line
    (same,) = scripted(one, *again).records
    assert same["divergence"]["verdict"] == "ok"
    assert same["fingerprint"] == one["fingerprint"]


def test_a_reference_decides(scripted: CommandLine, tmp_path: Any) -> None:
    (record,) = scripted({}).records
    path = tmp_path / "results" / f"{record['id']}.json"
    again = ["--reference", path, "--results-dir", tmp_path / "again"]
    other = scripted({"tokens": [120, 121, 122, 123]}, *again)
    assert other.code == 1
    (failed,) = other.records
    assert (failed["status"], failed["divergence"]["verdict"]) == ("numerics", "failure")
    assert "below 80%" in failed["failure"]["message"]
    loose = scripted({"tokens": [120, 121, 122, 123]}, *again, "--max-kl", 100, "--min-agreement", 0)
    assert loose.code == 0
    assert any("agree with" in warning for warning in loose.records[0]["warnings"])


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--max-kl", 1], "give that too"),
        (["--min-agreement", 0.5], "give that too"),
        (["--reference", "cpu-float32", "--min-agreement", 2], "from 0 to 1"),
        (["--reference", "cpu-float32", "--max-kl", -1], "at least 0"),
        (["--reference", "cpu-float32", "--max-kl", "nan"], "at least 0"),
    ],
)
def test_limits_that_make_no_sense(scripted: CommandLine, flags: list[object], words: str) -> None:
    done = scripted({}, *flags)
    assert done.code == 2
    assert words in done.error_line


def found(agreement: float, kl: float | None) -> Divergence:
    return Divergence(
        reference="r", top1_agreement=agreement, mean_kl=kl, first_divergence=[None], positions=128
    )


@pytest.mark.parametrize(
    ("agreement", "kl", "verdict"),
    [
        (0.99, 0.001, "ok"),
        (0.99, 0.02, "warning"),
        (0.9, 0.001, "warning"),
        # Near ties change tokens, not probabilities.
        (0.5, 0.001, "warning"),
        (0.5, 0.02, "failure"),
        (0.99, 0.2, "failure"),
        (0.5, None, "failure"),
        (0.99, None, "ok"),
    ],
)
def test_the_limits_of_bfloat16(agreement: float, kl: float | None, verdict: str) -> None:
    limits = limits_for("bfloat16", "float32", max_kl=None, min_agreement=None)
    assert judged(found(agreement, kl), limits).verdict == verdict


def test_limits_grow_with_the_precision() -> None:
    rows = list(LIMITS.values())
    for fine, coarse in pairwise(rows):
        assert fine.kl_warning < coarse.kl_warning < coarse.kl_failure
        assert fine.agreement_failure >= coarse.agreement_failure


def test_loops() -> None:
    text, one, two = list(range(32)), [9] * 32, [3, 4] * 16
    assert degenerate.loop_doubts(np.array([text, text]), None) == []
    assert "1 of 2 check prompts" in degenerate.loop_doubts(np.array([text, one]), None)[0]
    with pytest.raises(RunFailure, match="degenerate"):
        degenerate.loop_doubts(np.array([one, two]), np.array([text, text]))
    assert len(degenerate.loop_doubts(np.array([one, two]), np.array([two, two]))) == 1
    # A near tie may begin the loop of a single prompt.
    assert len(degenerate.loop_doubts(np.array([one]), np.array([text]))) == 1


def test_rounding() -> None:
    logits = np.random.default_rng(0).normal(size=(2, 5, 100))
    assert logit_difference(logits + 3, logits) == pytest.approx(0)
    half = logits.astype(np.float16).astype(np.float64)
    assert 0 < logit_difference(half, logits) < logit_limit("float16", 2)
    assert logit_difference(np.roll(logits, 1, -1), logits) > 1 > logit_limit("bfloat16", 80)
    assert np.isnan(logit_difference(np.full_like(logits, np.nan), logits))
