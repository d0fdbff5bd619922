"""Ledgers of real small models, whose parts torch's profiler measures."""

import time
from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaConfig, LlamaForCausalLM

from tests.conftest import CommandLine
from xpubench.runtimes.pytorch.explain import MarkingClock

KERNELS = ("weights", "kv_cache", "attention", "other_kernels")


def next_ledger(record: dict[str, Any]) -> dict[str, Any]:
    assert record["status"] == "ok", record["failure"]
    assert record["explanation"] is not None, record["warnings"]
    found: dict[str, Any] = record["explanation"]["next"]
    return found


def parts_of(ledger: dict[str, Any]) -> dict[str, float]:
    return {part["name"]: part["ns"] for part in ledger["parts"]}


@pytest.mark.parametrize(
    "flags",
    [(), ("--use-static-cache",), ("--num-beams", "3"), ("--batch-size", "2"), ("--dtype", "bfloat16")],
    ids=["greedy", "static", "beams", "batch", "bfloat16"],
)
def test_every_operator_of_a_model_is_known(
    generate: CommandLine, tiny_llama: Path, flags: tuple[str, ...]
) -> None:
    (record,) = generate(tiny_llama, "--explain", *flags, "--json").records
    explanation, ledger = record["explanation"], next_ledger(record)
    parts = parts_of(ledger)
    assert all(parts[name] > 0 for name in (*KERNELS, "host"))
    unknown = [one["name"] for one in ledger["operators"] if one["part"] == "unknown_kernels"]
    assert unknown == []
    # Seven linear layers in each of two blocks, and the head.
    assert sum(one["calls"] for one in ledger["operators"] if one["part"] == "weights") == 2 * 7 + 1
    assert sum(parts.values()) == pytest.approx(
        ledger["profiled_ns"] - ledger["events"] * ledger["event_ns"], rel=0.05
    )
    assert explanation["generations"] == 3
    assert parts_of(explanation["first"])["weights"] > 0
    assert len(record["samples"]["iterations"]) == 2


def test_a_machine_that_slows_down_while_it_is_explained_slows_both_kinds_of_tokens(
    generate: CommandLine, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = MarkingClock.stamp

    def late(self: MarkingClock) -> None:
        time.sleep(0.03 if len(self.stamps_ns) > 6 else 0.0)
        real(self)

    monkeypatch.setattr(MarkingClock, "stamp", late)
    (record,) = generate(tiny_llama, "--explain", "--max-new-tokens", 13, "--json").records
    ledger = next_ledger(record)
    assert ledger["wall_ns"] > 1.1 * ledger["timed_ns"]
    assert sum(parts_of(ledger).values()) == pytest.approx(ledger["wall_ns"], rel=0.25)


def test_a_wrong_cost_of_the_profiler_is_seen(
    generate: CommandLine, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xpubench.runtimes.pytorch.event_cost.event_cost_ns", lambda _: 0.0)
    (record,) = generate(tiny_llama, "--explain", "--max-new-tokens", 13, "--json").records
    refused = next_ledger(record)["refused"]
    assert "above the token's time without the profiler" in refused or "had a processor" in refused


def test_one_token_has_a_first_ledger_alone(generate: CommandLine, tiny_llama: Path) -> None:
    (record,) = generate(tiny_llama, "--explain", "--max-new-tokens", 1, "--json").records
    assert record["explanation"]["next"] is None
    assert record["explanation"]["first"]["parts"]


def test_long_generations_are_profiled_in_part(generate: CommandLine, tiny_llama: Path) -> None:
    (record,) = generate(tiny_llama, "--explain", "--max-new-tokens", 40, "--json").records
    assert next_ledger(record)["parts"]
    assert record["explanation"]["notes"] == ["the next token's parts are those of the first 32 of 39 steps"]


def test_a_compiled_model_is_explained(
    generate: CommandLine,
    tiny_llama: Path,
    backends: dict[str, int],
) -> None:
    flags = ("--torch-compile", "--backend", "counting", "--use-static-cache")
    (record,) = generate(tiny_llama, "--explain", *flags, "--json").records
    assert parts_of(next_ledger(record))["weights"] > 0


@pytest.fixture(scope="module")
def clean() -> dict[str, Any]:
    """The ledger without a fault, which the first test that asks for it fills in."""
    return {}


def least_of(generate: CommandLine, model: Path, *flags: str) -> dict[str, Any]:
    """The shorter of two ledgers: of a process that had to wait for a processor, every part is longer."""
    more = ("--runtime", "faulty", "--explain", "--max-new-tokens", 12, "--json", *flags)
    ledgers = [next_ledger(generate(model, *more).records[0]) for _ in range(2)]
    return min(ledgers, key=lambda one: sum(parts_of(one).values()))


@pytest.mark.parametrize(
    ("fault", "grows"),
    [
        ("busy-python", "host"),
        ("sleep", "host"),
        ("debug-dispatch", "host"),
        ("quadratic-attention", "attention"),
        ("small-kernels", "other_kernels"),
    ],
)
def test_a_planted_slow_down_lies_in_its_part(
    generate: CommandLine, tiny_llama: Path, clean: dict[str, Any], fault: str, grows: str
) -> None:
    clean.update(clean or least_of(generate, tiny_llama))
    before, after = parts_of(clean), parts_of(least_of(generate, tiny_llama, "--fault", fault))
    # How much of what was added lies in the part that the slow-down is planted in.
    added = sum(after.values()) - sum(before.values())
    assert after[grows] - before[grows] > 0.5 * added > 0


def test_weights_that_are_read_again_lie_in_the_products(generate: CommandLine, tmp_path: Path) -> None:
    # Layers so large that their weights take longer than the dispatch.
    sizes = {"hidden_size": 512, "intermediate_size": 1024, "num_hidden_layers": 2, "num_attention_heads": 8}
    LlamaForCausalLM(LlamaConfig(vocab_size=256, **sizes)).save_pretrained(tmp_path / "large")
    clean = least_of(generate, tmp_path / "large")
    slow = least_of(generate, tmp_path / "large", "--fault", "second-read")
    # Three more reads, which find the weights in a cache.
    assert parts_of(slow)["weights"] > 1.3 * parts_of(clean)["weights"]
    calls = sum(one["calls"] for one in slow["operators"] if one["part"] == "weights")
    assert calls == 4 * (2 * 7 + 1)
