"""The verdict on a token, and its advice, from what a scripted runtime measures."""

from pathlib import Path
from typing import Any

import pytest

from tests.conftest import CommandLine
from tests.records import ledger, subject
from xpubench.explanation import Cause
from xpubench.measure.ledger.advice import advice_on
from xpubench.measure.ledger.facts import RunFacts
from xpubench.runtimes.options import AppliedQuantization
from xpubench.runtimes.pytorch.options import OneDnnBfloat16, PyTorchDescription, PyTorchOptions
from xpubench.spec import Cache, Protocol, Quantization, RunSpec, Subject, Workload

MS = 1e6


def explanation(
    scripted: CommandLine, parts: dict[str, float], *flags: str, calls: dict[str, float] | None = None
) -> dict[str, Any]:
    """The explanation of a next token of 1 ms whose parts, in ms, are these. A step reads 600 MB of weights,
    and the ceiling is 1000 GB/s."""
    operators = [
        {"name": f"the {name}", "part": name, "ns": ns * MS, "calls": (calls or {}).get(name, 1.0)}
        for name, ns in parts.items()
    ]
    token = {"parts": {name: ns * MS for name, ns in parts.items()}, "operators": operators}
    script = {
        "explained": {"method": "as scripted", "next": token},
        "step_weight_bytes": 600_000_000,
        "every_token": [{"next_token_ns": [int(MS)]}],
    }
    (record,) = scripted(script, "--explain", *flags).records
    found: dict[str, Any] = record["explanation"]
    return found


@pytest.mark.parametrize(
    ("parts", "cause", "said"),
    [
        # 600 MB in 0.75 ms are 800 GB/s of 1000.
        ({"weights": 0.75, "host": 0.25}, "bandwidth", "80%"),
        ({"weights": 0.95, "host": 0.05}, "kernels", "63%"),
        ({"weights": 0.4, "host": 0.6}, "host", "60%"),
        ({"weights": 0.6, "host": 0.4}, "host", "40%"),
        ({"weights": 0.5, "launches": 0.3, "idle": 0.2}, "launches", "50%"),
        ({"weights": 0.6, "attention": 0.4}, "attention", "40%"),
        ({"weights": 0.5, "other_kernels": 0.4, "host": 0.1}, "kernels", "the other_kernels (40%)"),
        ({"weights": 0.5, "unknown_kernels": 0.5}, "kernels", "the unknown_kernels (50%)"),
        ({"weights": 0.5, "collectives": 0.1, "waiting": 0.4}, "communication", "40% of it waiting"),
        ({"weights": 0.5, "collectives": 0.4, "host": 0.1}, "communication", "40%"),
        ({"weights": 0.3, "synchronization": 0.2, "host": 0.5}, "host", "70%"),
        # No part reaches its limit: the nearest counts.
        ({"weights": 0.55, "host": 0.2, "other_kernels": 0.25}, "bandwidth", "55%"),
    ],
)
def test_the_part_farthest_beyond_its_limit_is_the_cause(
    scripted: CommandLine, parts: dict[str, float], cause: str, said: str
) -> None:
    verdict = explanation(scripted, parts)["verdict"]
    assert verdict["cause"] == cause, verdict
    assert said in verdict["message"]


def of_a_long_context(scripted: CommandLine, parts: dict[str, float]) -> dict[str, Any]:
    """The verdict on a token of 1 ms whose parts, in ms, are these: at 1000 GB/s, 0.59 ms of its attention
    are the bytes of 64 sequences' caches, and it reads 100 MB of weights."""
    script = {
        "explained": {
            "method": "as scripted",
            "next": {"parts": {name: ns * MS for name, ns in parts.items()}},
        },
        "step_weight_bytes": 100_000_000,
        "every_token": [{"next_token_ns": [int(MS)]}],
    }
    flags = ("--batch-size", 64, "--input-tokens", 200, "--dtype", "float32")
    (record,) = scripted(script, "--explain", *flags).records
    found: dict[str, Any] = record["explanation"]["verdict"]
    return found


def test_a_large_cache_is_judged_and_told_beside_the_weights(scripted: CommandLine) -> None:
    # Products at 500 GB/s and a cache at 1000.
    verdict = of_a_long_context(scripted, {"weights": 0.2, "attention": 0.6, "host": 0.2})
    assert verdict["cause"] == "bandwidth"
    assert (
        "79% of the token is in products with weights and in reading the KV cache (20% and 59%)"
        in (verdict["message"])
    )
    assert verdict["advice"] == []
    # A cache that is read faster than the ceiling makes up for no slow product.
    verdict = of_a_long_context(scripted, {"weights": 0.6, "attention": 0.2, "host": 0.2})
    assert verdict["cause"] == "kernels"
    assert "which read 375.0 GB/s, 38% of the device's 1000.0" in verdict["message"]


def test_a_ledger_with_a_cache_and_without_products_has_a_verdict(scripted: CommandLine) -> None:
    verdict = of_a_long_context(scripted, {"attention": 0.7, "unknown_kernels": 0.3})
    assert verdict["cause"] == "bandwidth"
    assert "(0% and 59%)" in verdict["message"]


def test_the_device_idle_behind_its_queue_is_told_apart_from_the_drivers_calls(scripted: CommandLine) -> None:
    parts = {"weights": 0.5, "launches": 0.1, "idle": 0.4}
    message = explanation(scripted, parts, calls={"launches": 8.0})["verdict"]["message"]
    assert "10% in 8 calls of the driver" in message
    assert "40% while the device is idle" in message
    message = explanation(scripted, {"weights": 0.5, "launches": 0.5})["verdict"]["message"]
    assert "idle" not in message


def test_a_stack_that_shows_no_operators_gets_no_cause_and_no_advice(scripted: CommandLine) -> None:
    verdict = explanation(scripted, {"stack": 0.98, "host": 0.02})["verdict"]
    assert verdict["cause"] == "unclear"
    assert verdict["share"] == pytest.approx(0.98)
    assert "98% of the token lies inside the stack's own call" in verdict["message"]
    assert "Python" not in verdict["message"]
    assert verdict["advice"] == []


def test_what_lies_outside_of_a_stack_without_operators_can_bound_it(scripted: CommandLine) -> None:
    verdict = explanation(scripted, {"stack": 0.3, "host": 0.7})["verdict"]
    assert verdict["cause"] == "host"
    assert "70% of the token lies outside" in verdict["message"]
    assert verdict["advice"] == []


def test_the_stacks_own_call_is_not_said_to_be_python(scripted: CommandLine) -> None:
    verdict = explanation(scripted, {"weights": 0.4, "stack": 0.5, "host": 0.1})["verdict"]
    assert verdict["cause"] == "host"
    assert "50% in the stack's own call outside of its operators" in verdict["message"]
    assert "10% in Python" in verdict["message"]


def test_waits_for_the_device_are_counted(scripted: CommandLine) -> None:
    parts = {"weights": 0.3, "synchronization": 0.1, "host": 0.6}
    verdict = explanation(scripted, parts, calls={"synchronization": 32.0})["verdict"]
    assert "waits for the device 32 times" in verdict["message"]


def test_a_step_of_many_sequences_can_be_bound_by_computing(scripted: CommandLine) -> None:
    token = {"parts": {"weights": 0.9 * MS, "host": 0.1 * MS}}
    script = {
        "explained": {"method": "as scripted", "next": token},
        "step_weight_bytes": 600_000_000,
        "device": {"bandwidth_gb_per_s": 2000.0, "peak_tflop_per_s": 10.0},
        "every_token": [{"next_token_ns": [int(MS)]}],
    }
    # SmolLM2 has 134.5 million weights in a step: 8.6 GFLOP of 32 sequences, in 0.9 ms 9.6 TFLOP/s.
    (record,) = scripted(script, "--explain", "--batch-size", "32").records
    assert record["explanation"]["verdict"]["cause"] == "compute"


def test_a_mixture_computes_with_the_experts_of_each_token(scripted: CommandLine) -> None:
    sizes = {"hidden_size": 1024, "intermediate_size": 4096, "vocab_size": 300, "num_hidden_layers": 4}
    heads = {"num_attention_heads": 16, "num_key_value_heads": 16, "max_position_embeddings": 128}
    experts = {"num_local_experts": 16, "num_experts_per_tok": 1}
    config: dict[str, Any] = {"model_type": "mixtral", **sizes, **heads, **experts}
    token = {"parts": {"weights": 0.9 * MS, "host": 0.1 * MS}}
    script = {
        "config": config,
        "explained": {"method": "as scripted", "next": token},
        "step_weight_bytes": 1_800_000_000,
        "device": {"bandwidth_gb_per_s": 2000.0, "peak_tflop_per_s": 4.0},
        "every_token": [{"next_token_ns": [int(MS)]}],
    }
    # 8 of 67 million parameters with their experts are 1.1 GFLOP, 27% of the peak; with all experts 358%.
    (record,) = scripted(script, "--explain", "--batch-size", 8).records
    assert record["explanation"]["verdict"]["cause"] == "kernels"


def test_attention_does_not_count_among_the_products_of_a_prompt(scripted: CommandLine) -> None:
    token = {"parts": {"weights": 8 * MS, "host": 2 * MS}}
    script = {
        "explained": {"method": "as scripted", "first": token},
        "step_weight_bytes": 1_000_000,
        "device": {"peak_tflop_per_s": 1000.0},
        "every_token": [{"first_token_ns": int(10 * MS)}],
    }
    # SmolLM2's products with 8,000 tokens are 1.7 TFLOP, and its attention 2.2 TFLOP.
    flags = ("--explain", "--input-tokens", 8000, "--max-new-tokens", 1)
    (record,) = scripted(script, *flags).records
    verdict = record["explanation"]["verdict"]
    assert verdict["cause"] == "kernels"
    assert "the products at 21% of the measured matrix-product peak" in verdict["message"]


def test_a_refused_ledger_has_no_advice_but_on_the_processor(scripted: CommandLine) -> None:
    verdict = explanation(scripted, {"weights": 0.5, "host": 0.6})["verdict"]
    assert verdict["cause"] == "unclear"
    assert verdict["share"] is None
    assert verdict["advice"] == []


def test_a_token_that_waits_for_a_processor_is_bound_by_the_clock(scripted: CommandLine) -> None:
    token = {"parts": {"weights": MS}}
    script = {
        "explained": {"method": "as scripted", "next": token, "cpu_share": 0.6},
        "every_token": [{"next_token_ns": [int(MS)]}],
    }
    (record,) = scripted(script, "--explain").records
    verdict = record["explanation"]["verdict"]
    assert verdict["cause"] == "clock"
    assert verdict["share"] == pytest.approx(0.4)
    assert len(verdict["advice"]) == 1


def test_advice_names_what_is_not_done_yet() -> None:
    def advised(
        cause: str,
        *,
        batch: int = 1,
        cache: Any = "dynamic",
        onednn: OneDnnBfloat16 | None = "vectors",
        **more: Any,
    ) -> str:
        given = {name: more.pop(name) for name in ("dtype", "quantization") if name in more}
        settings: dict[str, Any] = {"model": "m", "device": "cpu", "dtype": "bfloat16"} | given
        options = PyTorchOptions(**more)
        subject = Subject(**settings, options=options)
        workload = Workload(input_tokens=8, new_tokens=4, batch_size=batch, cache=cache)
        description = PyTorchDescription(onednn_bfloat16=onednn)
        return " ".join(options.advice(cause, subject, workload, description))

    assert "--torch-compile --use-static-cache" in advised("host")
    assert "--use-static-cache" not in advised("host", cache="static")
    assert advised("host", torch_compile="inductor") == ""
    assert "--no-onednn-decode" in advised("kernels")
    for done in (
        {"onednn_decode": False},
        {"dtype": "float32"},
        {"batch": 4},
        {"quantization": Quantization()},
        # oneDNN has no bfloat16 on this CPU, has AMX, or is not known.
        {"onednn": "none"},
        {"onednn": "amx"},
        {"onednn": None},
    ):
        assert advised("kernels", **done) == ""
    assert advised("bandwidth") == ""


def test_ranks_without_a_processor_are_advised_to_sum_through_memory() -> None:
    from xpubench.distributed.options import DeepSpeedOptions
    from xpubench.spec import Subject, Workload

    workload = Workload(input_tokens=8, new_tokens=4)
    for shared_memory in (False, True):
        options = DeepSpeedOptions(shared_memory=shared_memory)
        subject = Subject(model="m", device="cpu", dtype="bfloat16", options=options, tp_size=2)
        lines = options.advice("clock", subject, workload, None)
        assert ["--shm" in line for line in lines] == [True] * (not shared_memory)
        assert options.advice("host", subject, workload, None) == []


def test_other_runtimes_are_named_only_where_they_can_run(scripted: CommandLine) -> None:
    advice = explanation(scripted, {"weights": 0.3, "host": 0.7})["verdict"]["advice"]
    assert any("--runtime openvino" in line for line in advice)
    advice = explanation(scripted, {"weights": 0.3, "host": 0.7}, "--device", "cuda")["verdict"]["advice"]
    assert not any("--runtime" in line for line in advice)


INT4_CHECKPOINT = PyTorchDescription(
    onednn_bfloat16="vectors",
    quantization=AppliedQuantization(weight_dtype="int4", library={"method": "gptq"}),
)


def advice(cause: Cause, cache: Cache = "dynamic", loaded: Any = None, **of: Any) -> str:
    """The advice on a run on a CPU in bfloat16, but for the subject's fields in `of`."""
    spec = RunSpec(
        subject=subject(**{"device": "cpu", "dtype": "bfloat16"} | of),
        workload=Workload(input_tokens=8, new_tokens=4, cache=cache),
        protocol=Protocol(),
    )
    return " ".join(advice_on(cause, ledger("next", {"weights": 1.0}), RunFacts(spec=spec, runtime=loaded)))


def test_what_is_quantized_or_cannot_be_is_not_advised_to_be_quantized() -> None:
    assert "--woq" in advice("bandwidth", loaded=PyTorchDescription())
    assert advice("bandwidth", loaded=INT4_CHECKPOINT) == ""
    assert "--no-onednn-decode" not in advice("kernels", loaded=INT4_CHECKPOINT)
    assert advice("bandwidth", lora="/adapter") == ""


def test_an_ir_runs_as_it_is_whatever_the_dtype(tmp_path: Path) -> None:
    of: dict[str, Any] = {"device": "xpu", "dtype": "float32", "runtime": "openvino-base"}
    assert "--dtype bfloat16" in advice("bandwidth", **of)
    (tmp_path / "openvino_model.bin").write_bytes(b"weights")
    assert advice("bandwidth", model=str(tmp_path), **of) == ""


def test_another_runtime_is_advised_only_where_it_takes_the_run() -> None:
    another = "--runtime openvino"
    # Compiled for a static cache, a step is one graph already, of the same kernels.
    helps: dict[Cause, bool] = {"host": False, "kernels": True}
    for cause, beside_one_graph in helps.items():
        assert another in advice(cause)
        assert another not in advice(cause, weights="dummy")
        assert another in advice(cause, torch_compile="inductor")
        assert (another in advice(cause, "static", torch_compile="inductor")) == beside_one_graph
    assert "--weight-format int4 instead of --woq" in advice("kernels", quantization=Quantization())


def test_fewer_bytes_are_advised_once(scripted: CommandLine) -> None:
    bound = {"weights": 0.75, "host": 0.25}

    def advised(*flags: str) -> list[str]:
        found: list[str] = explanation(scripted, bound, "--dtype", *flags)["verdict"]["advice"]
        return found

    assert any("--woq" in line for line in advised("bfloat16"))
    assert advised("bfloat16", "--woq") == []
    assert advised("float32") == []
