"""The device card of stock PyTorch, measured on this CPU with tiny models."""

import json
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from tests.conftest import CommandLine
from xpubench.explanation import DeviceCard
from xpubench.measure import products
from xpubench.measure.environment import relevant_variables
from xpubench.measure.kept_cards import chosen_variables
from xpubench.measure.ledger.processors import Waits
from xpubench.runtimes.pytorch import card as measuring


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Smaller measurements, always on a machine that counts as idle; the directory where cards are kept."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(measuring, "DEEP", 256)
    monkeypatch.setattr(measuring, "ROUNDS", 2)
    monkeypatch.setattr(measuring, "CPU_SHARE", 0.0)
    monkeypatch.setattr(products, "SIZES", {"cpu": (256,)})
    return tmp_path / "cache" / "xpubench" / "cards"


def expectation_of(generate: CommandLine, model: Path, *flags: object) -> dict[str, Any]:
    done = generate(model, "--json", *flags)
    assert done.code == 0, done.err
    found: dict[str, Any] = done.records[0]["expectation"]
    return found


def test_a_card_is_measured_once_and_kept(generate: CommandLine, tiny_llama: Path, small: Path) -> None:
    first = generate(tiny_llama, "--json")
    assert "measuring the device card of cpu, once for this stack" in first.err
    (path,) = small.iterdir()
    kept = msgspec.json.decode(path.read_bytes(), type=DeviceCard)
    expectation = first.records[0]["expectation"]
    assert expectation["card"] == "measured"
    assert msgspec.convert(expectation["device_card"], DeviceCard) == kept
    again = generate(tiny_llama, "--json", "--seed", 1)
    assert "measuring the device card" not in again.err
    assert again.records[0]["expectation"]["device_card"] == expectation["device_card"]


def test_what_a_card_holds(generate: CommandLine, tiny_llama: Path, small: Path) -> None:
    expectation_of(generate, tiny_llama)
    card = msgspec.json.decode(next(small.iterdir()).read_bytes(), type=DeviceCard)
    assert (card.dtype, card.device_kind, card.threads) == ("float32", "cpu", torch.get_num_threads())
    assert card.asynchronous is False
    assert card.options == ""
    assert card.versions["torch"] == version("torch")
    # Tests before this one may have set what explains compiled runs.
    assert card.variables == chosen_variables(relevant_variables(dict(os.environ)))
    assert len(card.samples_ns) == 5
    assert {len(rows) for rows in card.samples_ns.values()} == {2}
    assert len(card.product_gb_per_s) == products.ROUNDS
    for one in (card.product_share, card.block_ns, card.step_ns, card.attention_ns, card.attention_share):
        assert 0 <= one.low <= one.middle <= one.high
    # Python and dispatch of a block's operators take from some us to some ms anywhere.
    assert 1e3 < card.block_ns.high < 1e9


def test_a_plan_takes_the_card_of_stock_options_alone(
    generate: CommandLine, xpubench: CommandLine, tiny_llama: Path, small: Path
) -> None:
    def planned() -> Any:
        flags = ("-m", tiny_llama, "--dtype", "float32", "--input-tokens", 8, "--max-new-tokens", 4)
        return json.loads(xpubench("plan", *flags, "--json").out)["expectation"]

    expectation_of(generate, tiny_llama, "--no-onednn-decode")
    assert planned()["card"] == "datasheet"
    stock = expectation_of(generate, tiny_llama)
    expectation_of(generate, tiny_llama, "--no-onednn-decode", "--seed", 1)
    assert planned()["device_card"] == stock["device_card"]
    assert len(list(small.iterdir())) == 2


def test_a_busy_machines_card_is_not_kept(
    generate: CommandLine, tiny_llama: Path, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "CPU_SHARE", 1e9)
    assert expectation_of(generate, tiny_llama)["card"] == "measured"
    assert not small.exists()


def test_a_card_of_threads_that_waited_for_a_processor_is_not_kept(
    generate: CommandLine, tiny_llama: Path, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two threads on one core have all of its time, and each has half of what it wants. The limits here are
    # such that other work on the machine changes nothing.
    monkeypatch.setattr(measuring, "CPU_SHARE", 0.01)
    monkeypatch.setattr(Waits, "share", property(lambda _: 0.005))
    assert expectation_of(generate, tiny_llama)["card"] == "measured"
    assert not small.exists()


def test_a_measurement_that_fails_leaves_an_assumed_card(
    generate: CommandLine, tiny_llama: Path, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> list[float]:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(measuring, "product_rates", broken)
    done = generate(tiny_llama, "--json")
    assert done.code == 0
    assert "no device card: RuntimeError: no such kernel" in done.err
    assert done.records[0]["expectation"]["card"] == "datasheet"


def test_quantized_weights_have_an_assumed_card(generate: CommandLine, tiny_llama: Path, small: Path) -> None:
    found = expectation_of(generate, tiny_llama, "--woq", "--group_size", 32, "--dtype", "bfloat16")
    assert found["card"] == "datasheet"


def test_measuring_leaves_random_numbers_as_they_were(
    generate: CommandLine, tiny_llama: Path, small: Path
) -> None:
    """Dummy weights are drawn from torch's generator, whether a card is measured before them or not."""
    flags = ("--dummy-weights", "--seed", 3)
    tokens = [
        generate(tiny_llama, *flags, "--json").records[0]["output"]["first_token_ids"] for _ in range(2)
    ]
    assert tokens[0] == tokens[1]
