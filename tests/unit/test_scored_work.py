"""The operations that scoring needs, and the share of the device's matrix products that a run reached."""

from typing import Any

import pytest

from tests.conftest import CommandLine
from xpubench.accuracy.work import ScoredWork
from xpubench.catalog import config_of
from xpubench.catalog.architecture import Architecture, architecture_of


@pytest.fixture
def architecture() -> Architecture:
    found = architecture_of(config_of("smollm2-135m"))
    assert found is not None
    return found


def test_a_sequence_with_one_scored_row_needs_what_a_prompt_does(architecture: Architecture) -> None:
    work = ScoredWork()
    work.add([7, 5], rows=2, positions=14)
    wanted = sum(architecture.prefill_flop(sequences=1, tokens=length) for length in (7, 5))
    assert work.flop(architecture) == wanted
    assert work.tokens == 12
    assert work.padding == pytest.approx(2 / 14)


def test_each_further_row_needs_the_head_once_more(architecture: Architecture) -> None:
    one, three = ScoredWork(), ScoredWork()
    one.add([9], rows=1, positions=9)
    three.add([9], rows=3, positions=9)
    head = 2 * architecture.hidden_size * architecture.vocab_size
    assert three.flop(architecture) - one.flop(architecture) == 2 * head


def test_nothing_was_scored(architecture: Architecture) -> None:
    work = ScoredWork()
    assert (work.tokens, work.padding, work.flop(architecture)) == (0, None, 0)


@pytest.mark.parametrize("peak", [None, 2.0])
def test_a_record_tells_the_share_of_the_peak(
    scripted: CommandLine, architecture: Architecture, peak: float | None
) -> None:
    pytest.importorskip("lm_eval")
    script: dict[str, Any] = {"device": {"peak_tflop_per_s": peak}}
    done = scripted(script, "--accuracy-only", "--acc-tasks", "lambada_smoke", "--acc-iter", 5)
    assert done.code == 0, done.err
    (record,) = done.records
    found = record["accuracy"]
    seconds = found["n"] / found["items_per_s"]
    assert found["tokens_per_s"] > 0
    assert 0 <= found["padding"] < 0.5
    assert found["peak_tflop_per_s"] == peak
    if peak is None:
        assert found["share_of_peak"] is None
        return
    tokens = found["tokens_per_s"] * seconds
    flop = found["share_of_peak"] * seconds * peak * 1e12
    # Every token passes the body, and few rows the head.
    body = 2 * architecture.num_layers * architecture.layer_parameters
    assert body * tokens < flop < 2 * body * tokens
    assert record["peak"]["tflop_per_s"] == peak
