"""The expected next token latency, from a card by hand, on the fake runtime and in `xpubench plan`."""

import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.conftest import CommandLine
from xpubench import catalog
from xpubench.catalog.architecture import Architecture
from xpubench.environment import DeviceFacts, Environment
from xpubench.expectation import (
    MODEL_ERROR,
    StepWork,
    assumed_card,
    beside_measured,
    expected,
    step_work,
    with_cause,
)
from xpubench.explanation import DeviceCard, Spread
from xpubench.measure.ceilings import highest_shown
from xpubench.measure.environment import PACKAGES, installed_versions, relevant_variables
from xpubench.measure.host import cpu_name
from xpubench.measure.kept_cards import all_kept_cards, card_key, keep_card, kept_card
from xpubench.record import CeilingSample
from xpubench.runtimes import registry
from xpubench.spec import Workload

LLAMA = Architecture.from_config(catalog.model("meta-llama/Llama-2-7b-hf").config())
WORK = StepWork(weight_bytes=10**9, position_bytes=4096, blocks=32, positions=1000, flop=10**9)


def exactly(value: float) -> Spread:
    return Spread(low=value, middle=value, high=value)


def card(**changes: Any) -> DeviceCard:
    """Products at half of the ceiling, 100 us a block, 1 ms a step, 5 ns a position and block."""
    figures: dict[str, Any] = {
        "source": "measured",
        "asynchronous": False,
        "product_share": exactly(0.5),
        "block_ns": exactly(1e5),
        "step_ns": exactly(1e6),
        "attention_ns": exactly(5.0),
        "attention_share": exactly(1.0),
    }
    return DeviceCard(**figures | changes)


def test_ranks_add_their_sums_to_the_device_s_time() -> None:
    workload = Workload(input_tokens=1024, new_tokens=32)
    alone, shared = (step_work(LLAMA.part(ranks), workload, 1024, 10**9, 2, ranks) for ranks in (1, 2))
    assert (alone.sums, shared.sums) == (0, 2 * 32 + 1)
    for asynchronous in (False, True):
        figures = card(asynchronous=asynchronous, sum_ns=Spread(low=1e5, middle=2e5, high=4e5))
        with_sums, without = (
            expected(work, figures, ceiling_gb_per_s=100)
            for work in (shared, msgspec.structs.replace(shared, sums=0))
        )
        assert with_sums.sums_ms == pytest.approx(65 * 0.2)
        assert without.sums_ms is None
        assert with_sums.next_token_ms - without.next_token_ms == pytest.approx(65 * 0.2)
        assert with_sums.interval_ms[1] - without.interval_ms[1] == pytest.approx(65 * 0.4 * MODEL_ERROR)
    slow = expected(shared, card(sum_ns=exactly(1e6)), ceiling_gb_per_s=100)
    assert slow.message == "the largest part of it the sums over ranks"


def test_a_synchronous_device_takes_the_sum() -> None:
    found = expected(WORK, card(), ceiling_gb_per_s=100)
    # 10^9 bytes at 50 GB/s; a position's 4,096 bytes at 100 GB/s take 41 ns, which is more than 5.
    parts = [20.0, 32 * 1000 * 40.96 / 1e6, 32 * 0.1 + 1]
    assert [found.weights_ms, found.attention_ms, found.host_ms] == pytest.approx(parts)
    assert found.next_token_ms == pytest.approx(sum(parts))
    assert found.interval_ms == pytest.approx((sum(parts) / MODEL_ERROR, sum(parts) * MODEL_ERROR))
    assert found.message == "the largest part of it products with weights at 50% of the bandwidth"


def test_an_asynchronous_device_takes_the_larger_of_device_and_host() -> None:
    found = expected(WORK, card(asynchronous=True), ceiling_gb_per_s=100)
    assert found.next_token_ms == pytest.approx(20 + 1.31072)
    slow_host = expected(WORK, card(asynchronous=True, block_ns=exactly(1e6)), ceiling_gb_per_s=100)
    assert slow_host.next_token_ms == pytest.approx(33)
    assert slow_host.message == "the largest part of it the host's work"
    assert slow_host.interval_ms[1] == pytest.approx((33 + 20 + 1.31072) * MODEL_ERROR)


def test_attention_takes_latency_where_its_bytes_are_few() -> None:
    found = expected(WORK, card(attention_ns=exactly(500.0)), ceiling_gb_per_s=1000)
    assert found.attention_ms == pytest.approx(32 * 1000 * 500 / 1e6)
    assert found.message == "the largest part of it attention"


def test_a_batch_that_computes_more_than_it_reads_takes_the_peak() -> None:
    work = msgspec.structs.replace(WORK, flop=10**12)
    assert expected(work, card(), ceiling_gb_per_s=100, peak_tflop_per_s=10).weights_ms == pytest.approx(100)
    assert expected(WORK, card(), ceiling_gb_per_s=100, peak_tflop_per_s=10).weights_ms == pytest.approx(20)


def test_the_interval_has_the_ends_of_card_and_bandwidth() -> None:
    wide = card(
        product_share=Spread(low=0.25, middle=0.5, high=1.0),
        block_ns=Spread(low=0, middle=1e5, high=2e5),
        step_ns=exactly(0),
        attention_ns=exactly(0),
    )
    work = msgspec.structs.replace(WORK, position_bytes=0)
    found = expected(work, wide, ceiling_gb_per_s=100, lowest_gb_per_s=50)
    assert found.interval_ms == pytest.approx((10 / MODEL_ERROR, (80 + 6.4) * MODEL_ERROR))
    assert found.next_token_ms == pytest.approx(20 + 3.2)


@pytest.mark.parametrize(
    ("measured_ms", "words"),
    [
        (25.0, "as expected: 25.00 ms, expected 25.51 ms (22.18 to 29.34), the largest part of it products"),
        (30.0, "2% beyond what this machine can do: 30.00 ms, expected 25.51 ms (22.18 to 29.34)"),
        (58.68, "100% beyond what this machine can do: 58.68 ms"),
        (29.35, "less than 1% beyond what this machine can do: 29.35 ms"),
        (20.0, "10% below the least that was expected: 20.00 ms, expected 25.51 ms (22.18 to 29.34)"),
    ],
)
def test_a_measured_latency_beside_it(measured_ms: float, words: str) -> None:
    found = beside_measured(expected(WORK, card(), ceiling_gb_per_s=100), measured_ms)
    assert found.message is not None
    assert found.message.startswith(words)
    assert found.ratio == pytest.approx(measured_ms / found.next_token_ms)


def test_the_cause_of_a_ledger_is_told_beside_the_expectation() -> None:
    found = with_cause(beside_measured(expected(WORK, card(), ceiling_gb_per_s=100), 30.0), "host")
    assert found.message is not None
    assert found.message.startswith("2% beyond what this machine can do: 30.00 ms, expected 25.51 ms")
    assert found.message.endswith("(22.18 to 29.34), host-bound by its ledger")


def test_the_work_of_a_step() -> None:
    workload = Workload(input_tokens=1024, new_tokens=128, batch_size=2)
    found = step_work(LLAMA, workload, 1024, 13_000_000_000, 2)
    assert (found.weight_bytes, found.blocks, found.positions) == (13_000_000_000, 32, 1087)
    assert found.position_bytes == 2 * 2 * 32 * 128 * 2
    assert found.flop == 2 * 2 * LLAMA.step_weight_parameters


def scripted_expectation(scripted: CommandLine, own: DeviceCard | None) -> dict[str, Any]:
    script = {"card": None if own is None else msgspec.to_builtins(own)}
    (record,) = scripted(script).records
    found: dict[str, Any] = record["expectation"]
    found["measured_ms"] = record["summary"]["next_token_ms"]["median"]
    return found


def test_a_record_has_the_expectation_by_the_stacks_card(scripted: CommandLine) -> None:
    # The script's 1 MB at 1,000 GB/s take 2 us, and its 30 blocks with a step the rest of 1 ms.
    own = card(block_ns=exactly(3e4), step_ns=exactly(8e4), attention_ns=exactly(0))
    found = scripted_expectation(scripted, own)
    assert found["card"] == "measured"
    assert found["message"].startswith("as expected: 1.00 ms")
    assert found["message"].endswith("the largest part of it the host's work")
    assert found["ratio"] == pytest.approx(found["measured_ms"] / found["next_token_ms"])
    assert found["device_card"]["block_ns"]["middle"] == 3e4
    slow = scripted_expectation(scripted, card(block_ns=exactly(1e4), step_ns=exactly(0)))
    assert "beyond what this machine can do" in slow["message"]


def test_a_stack_that_nobody_measured_has_an_assumed_card_with_a_wide_interval(scripted: CommandLine) -> None:
    found = scripted_expectation(scripted, None)
    assert found["card"] == "datasheet"
    assert "by an assumed card" in found["message"]
    low, high = found["interval_ms"]
    assert high > 10 * low


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "xpubench" / "cards"


def environment(**device: Any) -> Environment:
    facts = DeviceFacts(**{"kind": "xpu", "name": "Intel(R) Arc(TM) B580 Graphics", "driver": "1"} | device)
    return Environment(device=facts, versions={"torch": "2.13"})


def test_cards_are_kept_by_device_driver_stack_threads_and_dtype(cache: Path) -> None:
    key = card_key(environment(), "float16", None)
    keep_card(key, card())
    assert kept_card(key) == card()
    others = [
        card_key(environment(name="A770"), "float16", None),
        card_key(environment(driver="2"), "float16", None),
        card_key(msgspec.structs.replace(environment(), versions={"torch": "2.14"}), "float16", None),
        card_key(msgspec.structs.replace(environment(), variables={"A": "1"}), "float16", None),
        card_key(environment(), "bfloat16", None),
        card_key(environment(), "float16", 2),
    ]
    assert [kept_card(one) for one in others] == [None] * 6
    assert len({key, *others}) == 7
    instrumented = {"TORCHINDUCTOR_CPP_ENABLE_KERNEL_PROFILE": "1"}
    explained = msgspec.structs.replace(environment(), variables=instrumented)
    assert card_key(explained, "float16", None) == key


def test_a_broken_card_counts_as_none(cache: Path) -> None:
    keep_card("a", card())
    (cache / "b.json").write_text("{")
    assert kept_card("b") is None
    assert list(all_kept_cards()) == [card()]


def plan(xpubench: CommandLine, *flags: object) -> dict[str, Any]:
    done = xpubench("plan", "-m", "meta-llama/Llama-2-7b-hf", "--json", *flags)
    assert done.code == 0, done.err
    found: dict[str, Any] = json.loads(done.out)
    return found


def words_of_plan(xpubench: CommandLine, *flags: object) -> str:
    return " ".join(xpubench("plan", "-m", "meta-llama/Llama-2-7b-hf", *flags).out.split())


def measured_here(**changes: Any) -> DeviceCard:
    """A card of this interpreter's packages and this process's variables."""
    facts: dict[str, Any] = {
        "dtype": "float16",
        "stack": "torch 2.13",
        "versions": installed_versions((*PACKAGES, *registry.packages())),
        "variables": relevant_variables(dict(os.environ)),
        "created": "2026-01-01T00:00:00Z",
    }
    return card(**facts | changes)


@pytest.mark.usefixtures("cache")
def test_a_plan_on_a_device_that_nobody_measured(xpubench: CommandLine) -> None:
    found = plan(xpubench, "--device", "b580")["expectation"]
    assert found["card"] == "datasheet"
    assert found["interval_ms"][1] > 3 * found["interval_ms"][0]
    words = words_of_plan(xpubench, "--device", "b580")
    assert "by an assumed card, as nobody measured a stack on this device here" in words


def arc(**changes: Any) -> DeviceCard:
    facts = {"device_kind": "xpu", "device_name": "Intel(R) Arc(TM) B580 Graphics", "asynchronous": True}
    return measured_here(**facts | {"ceiling_gb_per_s": 400.0} | changes)


@pytest.mark.usefixtures("cache")
def test_a_plan_by_a_kept_card(xpubench: CommandLine) -> None:
    keep_card("b580", arc(driver="1.6"))
    found = plan(xpubench, "--device", "b580")
    assert found["expectation"]["card"] == "measured"
    assert found["expectation"]["weights_ms"] == pytest.approx(
        2 * (6_738_415_616 - 32000 * 4096) / (0.5 * 400e9) * 1e3
    )
    for flags in (["--dtype", "bfloat16"], ["--woq"], ["--tp-size", "2"]):
        assert plan(xpubench, "--device", "b580", *flags)["expectation"]["card"] == "datasheet"
    assert plan(xpubench, "--device", "a770")["expectation"]["card"] == "datasheet"
    words = words_of_plan(xpubench, "--device", "b580")
    assert "with torch 2.13, driver 1.6, no options" in words


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("changes", [{"options": "decode without oneDNN"}, {"versions": {"torch": "1.0"}}])
def test_a_newer_card_of_other_options_or_versions_changes_no_plan(
    xpubench: CommandLine, changes: dict[str, Any]
) -> None:
    other = arc(created="2026-02-01T00:00:00Z", product_share=exactly(1.0), **changes)
    keep_card("other", other)
    assert plan(xpubench, "--device", "b580")["expectation"]["card"] == "datasheet"
    keep_card("stock", arc())
    assert plan(xpubench, "--device", "b580")["expectation"]["device_card"]["product_share"]["middle"] == 0.5


@pytest.mark.usefixtures("cache")
def test_a_card_of_this_processs_variables_comes_first_and_others_are_named(xpubench: CommandLine) -> None:
    keep_card("huge", arc(variables={"THP_MEM_ALLOC_ENABLE": "1"}, created="2026-02-01T00:00:00Z"))
    assert "no options, THP_MEM_ALLOC_ENABLE=1." in words_of_plan(xpubench, "--device", "b580")
    keep_card("stock", arc())
    assert "THP_MEM_ALLOC_ENABLE" not in words_of_plan(xpubench, "--device", "b580")


@pytest.fixture
def of_cpu(cache: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    facts = {"dtype": "float32", "device_kind": "cpu", "device_name": cpu_name(), "threads": 2}
    return facts | {"ceiling_gb_per_s": 20.0}


def test_a_plan_without_a_device_is_that_of_this_cpu_where_it_was_measured(
    xpubench: CommandLine, of_cpu: dict[str, Any]
) -> None:
    keep_card("cpu", measured_here(**of_cpu))
    assert plan(xpubench, "--dtype", "float32")["expectation"]["card"] == "measured"
    assert "2 threads, no options." in words_of_plan(xpubench, "--dtype", "float32")
    # Of another dtype, the card tells the bandwidth alone.
    other = plan(xpubench, "--dtype", "float16")["expectation"]
    assert (other["card"], other["device_card"]["ceiling_gb_per_s"]) == ("datasheet", 20.0)
    keep_card("cpu", measured_here(**of_cpu | {"device_name": "another processor"}))
    assert plan(xpubench, "--dtype", "float32")["expectation"] is None


def test_a_plan_takes_the_card_of_its_number_of_threads(
    xpubench: CommandLine, of_cpu: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_card("two", measured_here(**of_cpu))
    variables = {**relevant_variables(dict(os.environ)), "OMP_NUM_THREADS": "1"}
    newer = {"threads": 1, "variables": variables, "created": "2026-02-01T00:00:00Z"}
    keep_card("one", measured_here(**of_cpu | newer))
    for threads in (1, 2):
        monkeypatch.setenv("OMP_NUM_THREADS", str(threads))
        assert plan(xpubench, "--dtype", "float32")["expectation"]["device_card"]["threads"] == threads
    # As many as torch chooses, which neither card is of.
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert plan(xpubench, "--dtype", "float32")["expectation"] is None


def test_a_cpu_that_nobody_measured_in_a_dtype_has_an_assumed_card_with_its_highest_bandwidth(
    xpubench: CommandLine, of_cpu: dict[str, Any]
) -> None:
    assert "not known, as no run has measured the bandwidth of this CPU" in words_of_plan(xpubench)
    facts = DeviceFacts(kind="cpu", name=cpu_name(), total_memory_bytes=2**34)
    for gb_per_s in (30.0, 40.0, 35.0):
        sample = CeilingSample(created="2026-01-01T00:00:00Z", gb_per_s=gb_per_s)
        highest_shown(facts, 2, 2**28, sample)
    # Another device, and another number of threads.
    highest_shown(msgspec.structs.replace(facts, name="another"), 2, 2**28, sample)
    highest_shown(facts, 1, 2**28, msgspec.structs.replace(sample, gb_per_s=90.0))
    for flags in ([], ["--dtype", "float32"], ["--woq"]):
        found = plan(xpubench, *flags)["expectation"]
        assert (found["card"], found["device_card"]["ceiling_gb_per_s"]) == ("datasheet", 40.0)
        assert found["interval_ms"][1] > 3 * found["interval_ms"][0]
    words = words_of_plan(xpubench)
    assert f"by an assumed card and the 40.0 GB/s that {cpu_name()} has shown" in words
    assert "the interval is wide" in words


def test_the_assumed_card_spans_eager_and_compiled_stacks() -> None:
    found = expected(WORK, assumed_card(asynchronous=True), ceiling_gb_per_s=100)
    assert found.interval_ms[0] < 1e9 / 100e9 * 1e3 * 1.1 < found.next_token_ms < found.interval_ms[1]
