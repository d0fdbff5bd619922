"""Where the time of OpenVINO's tokens goes: the nodes of the plugin, and GenAI's own metrics."""

import re
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("openvino_genai")

from tests.conftest import CommandLine  # after the check that there is something to test
from xpubench.runtimes.openvino import ledger as ledger_module
from xpubench.runtimes.openvino.ledger import Counted, Counters
from xpubench.runtimes.openvino.nodes import part_of_node

NODES = ("openvino", "openvino-base")


def explanation(
    generate: CommandLine, ir: Path, runtime: str, *flags: object, new_tokens: int = 12
) -> dict[str, Any]:
    """The explanation of a run."""
    done = generate(
        *(
            ir,
            "--runtime",
            runtime,
            "--explain",
            "--max-new-tokens",
            new_tokens,
            "--num-iter",
            4,
            "--json",
            *flags,
        )
    )
    assert done.code == 0, done.err
    record = done.records[0]
    assert record["explanation"] is not None, record["warnings"]
    return dict(record["explanation"])


def times(ledger: dict[str, Any]) -> dict[str, float]:
    """The nanoseconds of each part."""
    return {part["name"]: part["ns"] for part in ledger["parts"]}


@pytest.mark.parametrize("runtime", NODES)
def test_nodes_are_parts_of_both_tokens(generate: CommandLine, llama_ir: Path, runtime: str) -> None:
    found = explanation(generate, llama_ir, runtime)
    for token in ("first", "next"):
        ledger = found[token]
        parts = times(ledger)
        assert {"weights", "attention", "other_kernels", "stack", "host"} <= parts.keys() | {"kv_cache"}
        # What inference and loop take is what the token took while it was counted.
        cost = ledger["events"] * ledger["event_ns"]
        assert sum(parts.values()) + cost == pytest.approx(ledger["profiled_ns"], rel=0.02)
        operators = {one["name"]: one for one in ledger["operators"]}
        # Two layers of seven products, some of which the plugin fuses, and the output head.
        assert operators["FullyConnected"]["part"] == "weights"
        assert 5 <= operators["FullyConnected"]["calls"] <= 15
        assert sum(one["ns"] for one in ledger["operators"]) == pytest.approx(
            sum(ns for name, ns in parts.items() if name not in ("stack", "host")), rel=1e-6
        )
    assert found["generations"] == 3


def test_a_run_of_one_token_has_the_first_ledger_alone(generate: CommandLine, llama_ir: Path) -> None:
    found = explanation(generate, llama_ir, "openvino-base", new_tokens=1)
    assert found["next"] is None
    assert times(found["first"])["weights"] > 0


@pytest.mark.parametrize("runtime", NODES)
def test_the_run_goes_on_with_its_own_compilation(
    generate: CommandLine, llama_ir: Path, runtime: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the explanation, tokens come from the request that was timed, not from the one that counts."""
    counted = []
    real = ledger_module.WatchedRequest.begin

    def begin(self: Any) -> None:
        counted.append(self)
        real(self)

    monkeypatch.setattr(ledger_module.WatchedRequest, "begin", begin)
    done = generate(llama_ir, "--runtime", runtime, "--explain", "--batch-size", 1, 2, "--json")
    assert done.code == 0, done.err
    first, second = done.records
    assert first["explanation"]["next"] is not None
    assert second["explanation"]["next"] is not None
    watched = {id(one): one for one in counted}.values()
    assert len(watched) == 2
    # The warm-up's two tokens and the workload's four.
    assert {one.inferences for one in watched} == {6}


def test_a_sleep_outside_of_inference_is_the_hosts(
    generate: CommandLine, llama_ir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from xpubench.runtimes.openvino.base_runtime import BaseRuntime

    real = BaseRuntime._feed

    def slow(self: Any, *arguments: Any) -> Any:
        time.sleep(0.02)
        return real(self, *arguments)

    monkeypatch.setattr(BaseRuntime, "_feed", slow)
    found = explanation(generate, llama_ir, "openvino-base")
    for token in ("first", "next"):
        assert times(found[token])["host"] > 20e6
    assert times(found["next"])["host"] == max(times(found["next"]).values())


def test_a_sleep_inside_of_inference_is_the_stacks(
    generate: CommandLine, llama_ir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = ledger_module.WatchedRequest.wait

    class SlowRequest:
        """A request whose inferences take 20 ms more than its nodes."""

        def __init__(self, request: Any) -> None:
            self._request = request

        def wait(self) -> None:
            time.sleep(0.02)
            self._request.wait()

        def __getattr__(self, name: str) -> Any:
            return getattr(self._request, name)

    def slow(self: Any) -> None:
        if not isinstance(self._request, SlowRequest):
            self._request = SlowRequest(self._request)
        real(self)

    monkeypatch.setattr(ledger_module.WatchedRequest, "wait", slow)
    found = explanation(generate, llama_ir, "openvino-base")
    assert times(found["next"])["stack"] > 20e6
    # The timed generations did not sleep: the parts do not hold, and the ledger says so.
    assert (
        "above the token's time" in found["next"]["refused"] or "had a processor" in found["next"]["refused"]
    )


def test_genai_tells_its_steps_and_its_sampling(generate: CommandLine, llama_ir: Path) -> None:
    found = explanation(generate, llama_ir, "openvino-genai", new_tokens=8)
    for token in ("first", "next"):
        assert times(found[token]).keys() <= {"stack", "host"}
        assert times(found[token])["stack"] > 0
    (sampling,) = found["next"]["operators"]
    assert (sampling["name"], sampling["part"]) == ("sampling", "host")
    assert 0 < sampling["ns"] <= times(found["next"])["host"]
    assert re.search("does not show its operators", " ".join(found["notes"]))


def test_drafted_tokens_are_not_explained(generate: CommandLine, llama_ir: Path) -> None:
    found = explanation(generate, llama_ir, "openvino-genai", "--prompt-lookup")
    assert found["next"] is None
    assert found["notes"] == ["openvino-genai does not show where its tokens' time goes"]


def test_counters_are_averages_over_all_inferences() -> None:
    def counters(inferences: int, **averages_us: float) -> Counters:
        nodes = [Counted(kind, kind, us * 1e3, ran=us > 0) for kind, us in averages_us.items()]
        return Counters(inferences, nodes)

    # Three inferences of 100 us, and two of 10 us.
    before, after = counters(3, FullyConnected=100, RMS=0), counters(5, FullyConnected=64, RMS=0)
    token = ledger_module._token([40_000, 40_000], [30_000, 30_000], before, after, event_ns=100.0)
    assert token.parts["weights"] == pytest.approx(10_000 + ledger_module.CUT_OFF_NS)
    assert token.parts["stack"] == pytest.approx(30_000 - 10_500 - 100)
    assert token.parts["host"] == 10_000
    assert [one.calls for one in token.operators] == [1]


@pytest.mark.parametrize(
    ("node_type", "name", "part"),
    [
        ("FullyConnected", "__module.lm_head/aten::linear/MatMul", "weights"),
        ("fully_connected", "x", "weights"),
        ("ScaledDotProductAttentionWithKVCache", "x", "attention"),
        ("PagedAttentionExtension", "x", "attention"),
        ("MatMul", "__module.layers.0.attn/MatMul", "attention"),
        ("MatMul", "__module.model.rotary_emb/aten::matmul/MatMul", "other_kernels"),
        ("RMS", "x", "other_kernels"),
        ("RoPE", "x", "other_kernels"),
        ("GatherCompressed", "x", "other_kernels"),
        ("ReduceMean", "x", "other_kernels"),
        ("NewFusedThing", "x", "unknown_kernels"),
        ("Addition", "x", "unknown_kernels"),
    ],
)
def test_the_part_of_a_node(node_type: str, name: str, part: str) -> None:
    assert part_of_node(node_type, name) == part
