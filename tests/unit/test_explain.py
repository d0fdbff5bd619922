"""`--explain` on the fake runtime, whose measurements a script tells."""

import os
from typing import Any

import pytest

from tests.conftest import CommandLine
from tests.records import subject
from xpubench.environment import EXPLAINING_VARIABLES
from xpubench.run.order import Order, set_variables
from xpubench.spec import Protocol, RunSpec, Workload

# The fake runtime's next token takes 1 ms and its first one 2 ms; the bandwidth is 1000 GB/s.
NEXT: dict[str, Any] = {
    "parts": {"weights": 600_000.0, "attention": 100_000.0, "host": 300_000.0},
    "operators": [
        {"name": "mm", "part": "weights", "ns": 600_000.0, "calls": 4.0},
        {"name": "softmax", "part": "attention", "ns": 100_000.0, "calls": 2.0},
    ],
    "profiled_ns": 1_200_000.0,
    "events": 500.0,
    "event_ns": 400.0,
}
FIRST = {"parts": {"weights": 1_500_000.0, "host": 500_000.0}}


def measured(**changes: Any) -> dict[str, Any]:
    """A script whose runtime measures these tokens, with the changes."""
    return {"explained": {"method": "as scripted", "first": FIRST, "next": NEXT, "generations": 3} | changes}


def test_a_run_is_explained_only_when_it_is_asked_for(scripted: CommandLine) -> None:
    assert scripted(measured()).records[0]["explanation"] is None
    found = scripted(measured(), "--explain").records[0]["explanation"]
    assert found["method"] == "as scripted"
    assert found["generations"] == 3


def test_the_ledger_divides_attention_by_the_bytes_of_the_cache(scripted: CommandLine) -> None:
    record = scripted(measured(), "--explain").records[0]
    ledger = record["explanation"]["next"]
    parts = {part["name"]: part for part in ledger["parts"]}
    kv_bytes = record["summary"]["step_bytes"] - record["runtime"]["step_weight_bytes"]
    assert parts["kv_cache"]["bytes"] == kv_bytes
    assert parts["kv_cache"]["ns"] == pytest.approx(kv_bytes / 1000.0)
    assert parts["kv_cache"]["ns"] + parts["attention"]["ns"] == pytest.approx(100_000.0)
    assert sum(part["ns"] for part in ledger["parts"]) == pytest.approx(1_000_000.0)
    assert parts["weights"]["bytes"] == record["runtime"]["step_weight_bytes"]
    assert ledger["wall_ns"] == 1_000_000.0
    assert ledger["refused"] is None
    assert [one["name"] for one in ledger["operators"]] == ["mm", "softmax"]


def test_the_first_token_reads_no_cache(scripted: CommandLine) -> None:
    first = FIRST | {"parts": {"weights": 1_500_000.0, "attention": 500_000.0}}
    ledger = scripted(measured(first=first), "--explain").records[0]["explanation"]["first"]
    assert [part["name"] for part in ledger["parts"]] == ["weights", "attention"]
    assert ledger["wall_ns"] == 2_000_000.0


@pytest.mark.parametrize(
    ("weights_ns", "refused"),
    [(600_000.0, False), (645_000.0, False), (555_000.0, False), (655_000.0, True), (545_000.0, True)],
)
def test_parts_that_miss_the_wall_by_more_than_5_percent_are_refused(
    scripted: CommandLine, weights_ns: float, refused: bool
) -> None:
    parts = NEXT["parts"] | {"weights": weights_ns}
    record = scripted(measured(next=NEXT | {"parts": parts}), "--explain").records[0]
    ledger, verdict = record["explanation"]["next"], record["explanation"]["verdict"]
    assert (ledger["refused"] is not None) == refused
    assert (verdict["cause"] == "unclear") == refused
    if refused:
        assert "5.5%" in ledger["refused"]
        assert ledger["parts"]


def test_parts_are_compared_with_the_tokens_beside_them_that_were_not_profiled(scripted: CommandLine) -> None:
    # The machine has become 8% slower since the timed generations: the parts still hold.
    parts = {name: 1.08 * ns for name, ns in NEXT["parts"].items()}
    changed = NEXT | {"parts": parts, "unprofiled_ns": 1_080_000.0}
    ledger = scripted(measured(next=changed), "--explain").records[0]["explanation"]["next"]
    assert (ledger["wall_ns"], ledger["timed_ns"]) == (1_080_000.0, 1_000_000.0)
    assert ledger["refused"] is None
    ledger = scripted(measured(next=NEXT | {"unprofiled_ns": 1_080_000.0}), "--explain").records[0]
    assert ledger["explanation"]["next"]["refused"].endswith(
        "7.4% below the token's time without the profiler"
    )


@pytest.mark.parametrize(("slower", "said"), [(1.12, "12.0% more"), (0.88, "12.0% less")])
def test_a_machine_that_has_changed_since_the_timed_generations_has_no_ledger(
    scripted: CommandLine, slower: float, said: str
) -> None:
    parts = {name: slower * ns for name, ns in NEXT["parts"].items()}
    changed = NEXT | {"parts": parts, "unprofiled_ns": slower * 1e6}
    explanation = scripted(measured(next=changed), "--explain").records[0]["explanation"]
    assert said in explanation["next"]["refused"]
    assert explanation["verdict"]["cause"] == "unclear"


def test_a_ledger_of_threads_that_waited_for_a_processor_is_refused(scripted: CommandLine) -> None:
    explanation = scripted(measured(cpu_share=0.9664), "--explain").records[0]["explanation"]
    # "97%, and a ledger needs 97%" would say nothing.
    assert "96.6%" in explanation["next"]["refused"]
    assert explanation["verdict"]["cause"] == "clock"
    explanation = scripted(measured(cpu_share=0.98), "--explain").records[0]["explanation"]
    assert explanation["next"]["refused"] is None


def test_the_expectation_names_the_cause_of_a_ledger_that_is_not_refused(scripted: CommandLine) -> None:
    def message(**changes: Any) -> str:
        record = scripted(measured(**changes), "--explain").records[0]
        found: str = record["expectation"]["message"]
        return found

    assert message().endswith(", kernel-bound by its ledger")
    assert "largest part" not in message()
    # A refused ledger, and a stack that shows no operators, have no cause.
    assert "ledger" not in message(cpu_share=0.5)
    assert "ledger" not in message(next={"parts": {"stack": 980_000.0, "host": 20_000.0}})
    # The expectation is of a next token.
    assert "ledger" not in message(next=None)
    assert "ledger" not in scripted({}).records[0]["expectation"]["message"]


def test_the_depths_say_what_an_attention_bound_token_pays_for(scripted: CommandLine) -> None:
    parts = {"weights": 500_000.0, "attention": 500_000.0}
    found = scripted(measured(next={"parts": parts}), "--explain", "--depths", "8", "16").records[0]
    verdict, depth = found["explanation"]["verdict"], found["explanation"]["depth"]
    assert verdict["cause"] == "attention"
    assert verdict["message"].endswith(f"; over the depths {depth['message']}")
    found = scripted(measured(), "--explain", "--depths", "8", "16").records[0]
    assert "depths" not in found["explanation"]["verdict"]["message"]


def test_a_runtime_that_shows_nothing_gets_a_note(scripted: CommandLine) -> None:
    (record,) = scripted({}, "--explain").records
    assert record["status"] == "ok"
    assert record["explanation"]["notes"] == ["fake does not show where its tokens' time goes"]
    assert record["explanation"]["next"] is None


def test_an_explanation_that_fails_is_a_warning(scripted: CommandLine) -> None:
    script = measured() | {"faults": [{"stage": "explain", "error": "RuntimeError", "message": "no"}]}
    done = scripted(script, "--explain")
    (record,) = done.records
    assert done.code == 0
    assert record["status"] == "ok"
    assert record["explanation"] is None
    assert "not explained: RuntimeError: no" in record["warnings"]


@pytest.mark.parametrize(
    "flags", [("--depths", "-1"), ("--depths", "4", "--accuracy-only"), ("--explain", "--accuracy-only")]
)
def test_flags_that_cannot_be_done_are_user_errors(scripted: CommandLine, flags: tuple[str, ...]) -> None:
    done = scripted({}, *flags)
    assert done.code == 2
    assert flags[0] in done.error_line


def variables_of(monkeypatch: pytest.MonkeyPatch, *, explain: bool, **options: Any) -> dict[str, str]:
    """What an order sets in the environment."""
    monkeypatch.setattr(os, "environ", {})
    spec = RunSpec(
        subject=subject(**options), workload=Workload(input_tokens=8, new_tokens=2), protocol=Protocol()
    )
    set_variables(Order(specs=[spec], results="", explain=explain))
    return dict(os.environ)


@pytest.mark.parametrize("runtime", ["pytorch", "ipex"])
def test_only_a_compiled_run_is_instrumented(monkeypatch: pytest.MonkeyPatch, runtime: str) -> None:
    """What an eager run measures is the same whether it is explained or not."""
    assert variables_of(monkeypatch, runtime=runtime, explain=True) == {}
    compiled = {"runtime": runtime, "torch_compile": "inductor"}
    assert variables_of(monkeypatch, explain=False, **compiled) == {}
    # Runs with these are repeats of those without.
    assert variables_of(monkeypatch, explain=True, **compiled).keys() == EXPLAINING_VARIABLES
