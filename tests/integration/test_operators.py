"""Operators against float64: each planted fault is caught by `doctor --operators` and fails a run."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

from tests.conftest import CommandLine, Outcome
from xpubench.record import MatrixPeak

Call = Callable[..., Any]
Arguments = tuple[Any, ...]
Named = dict[str, Any]


class Planted(TorchFunctionMode):  # type: ignore[misc]  # torch is not typed here
    """While it lasts, `fault` makes the calls of the torch functions of a name, but for those in float64."""

    def __init__(self, name: str, fault: Callable[[Call, Arguments, Named], Any]) -> None:
        super().__init__()
        self.name = name
        self.fault = fault

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = kwargs or {}
        if getattr(func, "__name__", "") != self.name or args[0].dtype is torch.float64:
            return func(*args, **named)
        return self.fault(func, args, named)


def zero_in_float16(call: Call, args: Arguments, named: Named) -> Any:
    """https://github.com/intel/torch-xpu-ops/issues/5220"""
    result = call(*args, **named)
    return torch.zeros_like(result) if result.dtype is torch.float16 else result


def wrong_int4_of_one_row(call: Call, args: Arguments, named: Named) -> Any:
    """https://github.com/intel/torch-xpu-ops/issues/4765"""
    result = call(*args, **named)
    packed = type(args[1]) not in (torch.Tensor, torch.nn.Parameter)
    return result.flip(-1) if packed and args[0].shape[0] == 1 else result


def garbage_of_eight_sequences(call: Call, args: Arguments, named: Named) -> Any:
    result = call(*args, **named)
    return torch.randn_like(result) if args[0].shape[0] == 8 else result


def no_causal_mask(call: Call, args: Arguments, named: Named) -> Any:
    return call(*args, **{**named, "is_causal": False})


def one_value_of_the_last_row(call: Call, args: Arguments, named: Named) -> Any:
    result = call(*args, **named)
    result.view(-1)[-1] += 1
    return result


def zero_from_the_third_row_up(call: Call, args: Arguments, named: Named) -> Any:
    result = call(*args, **named)
    result[2:] = 0
    return result


def nan_in_rows_that_are_few(call: Call, args: Arguments, named: Named) -> Any:
    """Of 1,024 rows 64 are compared, so that these may be none of them."""
    result = call(*args, **named)
    if len(result) == 1024:
        result[500:502, 0] = torch.nan
    return result


def one_index_twice(call: Call, args: Arguments, named: Named) -> Any:
    result = call(*args, **named)
    result.indices[:, 1] = result.indices[:, 0]
    return result


def the_row_before(call: Call, args: Arguments, named: Named) -> Any:
    return call((args[0] - 1).clamp(min=0), *args[1:], **named)


def five_percent_more(call: Call, args: Arguments, named: Named) -> Any:
    return call(*args, **named) * 1.05


def second_half_negated(call: Call, args: Arguments, named: Named) -> Any:
    first, second = call(*args, **named)
    return first, -second


ALL_ROWS = {1, 2, 8, 1024}
# The product with an INT4 weight is a call of `linear` too.
PRODUCTS = {"linear", "INT4 product"}
ATTENTION = {"attention", "attention, math", "attention, flash"}
SDPA = "scaled_dot_product_attention"
# The function, what is wrong with it, the dtype; the operators that are wrong then, and at how many rows.
FAULTS = [
    ("linear", zero_in_float16, "float16", PRODUCTS, ALL_ROWS),
    ("linear", one_value_of_the_last_row, "bfloat16", PRODUCTS, ALL_ROWS),
    ("linear", zero_from_the_third_row_up, "bfloat16", PRODUCTS, {8, 1024}),
    ("linear", nan_in_rows_that_are_few, "bfloat16", PRODUCTS, {1024}),
    ("linear", wrong_int4_of_one_row, "bfloat16", {"INT4 product"}, {1}),
    (SDPA, garbage_of_eight_sequences, "float16", ATTENTION, {8}),
    (SDPA, no_causal_mask, "bfloat16", ATTENTION, {1024}),
    ("topk", one_index_twice, "bfloat16", {"top-k"}, ALL_ROWS),
    ("embedding", the_row_before, "bfloat16", {"embedding"}, ALL_ROWS),
    ("softmax", five_percent_more, "bfloat16", {"softmax"}, ALL_ROWS),
    ("layer_norm", five_percent_more, "bfloat16", {"layer norm"}, ALL_ROWS),
    ("rsqrt", five_percent_more, "bfloat16", {"RMS norm"}, ALL_ROWS),
    ("chunk", second_half_negated, "bfloat16", {"rotary embedding"}, ALL_ROWS),
]


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A cache directory of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "xpubench"


def doctor(xpubench: CommandLine, model: Path, *flags: str) -> Outcome:
    return xpubench("doctor", "--operators", "--device", "cpu", "-m", model, *flags)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_operators_of_this_cpu_are_right(xpubench: CommandLine, tiny_llama: Path, dtype: str) -> None:
    done = doctor(xpubench, tiny_llama, "--dtype", dtype, "--json")
    assert done.code == 0, done.out
    (found,) = done.records
    ran = [one for one in found["operators"] if one["state"] not in ("refused", "left out")]
    assert {one["state"] for one in ran} == {"right"}
    for one in ran:
        # A limit far above what is seen would let faults pass; one just above would give alarms.
        assert one["error"] <= one["limit"] / 1.5
        assert len(one["times_ns"]) > 0
        assert one["gb_per_s"] > 0
    names = {one["operator"].partition(",")[0] for one in ran}
    assert names == {
        *("linear", "INT4 product", "attention", "RMS norm", "layer norm", "rotary embedding"),
        *("softmax", "top-k", "embedding"),
    }
    assert {one["rows"] for one in ran} == {1, 2, 8, 1024}
    assert {"attention, math", "attention, flash"} <= {one["operator"] for one in ran}
    assert found["bandwidth"]["ceiling_gb_per_s"] > 0
    # The shapes of this model are far from the large products' rate.
    linear = max(one["tflop_per_s"] for one in ran if one["operator"] == "linear")
    assert found["matrix_peak"]["highest"]["tflop_per_s"] > linear / 5


@pytest.mark.parametrize("known", [True, False])
def test_the_ceilings_stand_below_the_table(
    xpubench: CommandLine, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    peak = MatrixPeak(tflop_per_s=0.75, dtype="float32", size=256) if known else None
    monkeypatch.setattr("xpubench.measure.device.TorchDevice.matrix_peak", lambda *_: peak)
    (line,) = (
        line
        for line in doctor(xpubench, tiny_llama, "--dtype", "float32").out.splitlines()
        if "Ceilings" in line
    )
    assert ("0.750 TFLOP/s by products of large matrices" in line) is known
    assert ("no TFLOP/s known" in line) is not known


@pytest.mark.parametrize(
    ("function", "fault", "dtype", "operators", "rows"),
    FAULTS,
    ids=lambda part: getattr(part, "__name__", ""),
)
def test_a_planted_fault_is_named(
    xpubench: CommandLine,
    tiny_llama: Path,
    function: str,
    fault: Callable[..., Any],
    dtype: str,
    operators: set[str],
    rows: set[int],
) -> None:
    with Planted(function, fault):
        done = doctor(xpubench, tiny_llama, "--dtype", dtype, "--json")
    assert done.code == 1, done.err
    wrong = [one for one in done.records[0]["operators"] if one["state"] == "wrong"]
    assert {one["operator"] for one in wrong} == operators
    assert {one["rows"] for one in wrong} == rows


def test_the_table_names_what_is_wrong(xpubench: CommandLine, tiny_llama: Path) -> None:
    with Planted("linear", zero_in_float16):
        done = doctor(xpubench, tiny_llama, "--dtype", "float16")
    assert done.code == 1
    assert "wrong: linear at 1 row, 64 to 64: error " in done.out
    assert "Traceback" not in done.err


def test_a_wrong_operator_fails_a_run_before_the_load(
    generate: CommandLine, tiny_llama: Path, own_cache: Path
) -> None:
    with Planted("linear", zero_in_float16):
        done = generate(tiny_llama, "--dtype", "float16", "--json")
    assert done.code == 1
    (record,) = done.records
    assert record["status"] == "numerics"
    assert "linear at 1 row" in record["failure"]["message"]
    assert {one["operator"] for one in record["checks"]["operators"]["others"]} >= {"linear"}
    assert record["summary"] is None
    assert "loading" not in done.err
    # A comparison that failed is not kept: on a mended stack the next run goes through.
    assert not list(own_cache.glob("operators/*.json"))
    again = generate(tiny_llama, "--dtype", "float16", "--json")
    assert again.code == 0, again.err


def test_a_wrong_int4_product_fails_int4_runs_alone(generate: CommandLine, tiny_llama: Path) -> None:
    with Planted("linear", wrong_int4_of_one_row):
        done = generate(tiny_llama, "--dtype", "bfloat16", "--woq", "--json")
        high = generate(tiny_llama, "--dtype", "bfloat16", "--json")
    assert (done.code, done.records[0]["status"]) == (1, "numerics")
    assert "INT4 product at 1 row" in done.records[0]["failure"]["message"]
    assert high.code == 0, high.err


def test_an_operator_that_raises_fails_the_doctor_and_warns_in_a_run(
    xpubench: CommandLine, generate: CommandLine, tiny_llama: Path, own_cache: Path
) -> None:
    """A Llama has no layer norm."""

    def lost(*_: object) -> None:
        raise RuntimeError("device lost")

    with Planted("layer_norm", lost):
        done = doctor(xpubench, tiny_llama, "--dtype", "float32")
        run = generate(tiny_llama, "--json")
    assert done.code == 1
    assert "failed: layer norm at 1 row, 64: RuntimeError: device lost" in done.out
    assert run.code == 0, run.err
    warnings = [
        line for line in run.records[0]["warnings"] if line.startswith("operator not compared: layer norm")
    ]
    assert len(warnings) == 4
    assert not list(own_cache.glob("operators/*.json"))


def test_an_int4_product_that_would_take_seconds_is_left_out(xpubench: CommandLine, tiny_llama: Path) -> None:
    """The INT4 kernel of a CPU in float32 is a plain loop: a prompt of a large model takes minutes."""

    def slow(call: Call, args: Arguments, named: Named) -> Any:
        packed = type(args[1]) not in (torch.Tensor, torch.nn.Parameter)
        time.sleep(0.002 * args[0].shape[0] if packed else 0)
        return call(*args, **named)

    with Planted("linear", slow):
        done = doctor(xpubench, tiny_llama, "--dtype", "bfloat16", "--json")
        shown = doctor(xpubench, tiny_llama, "--dtype", "bfloat16")
    assert done.code == 0, done.err
    left_out = [one for one in done.records[0]["operators"] if one["state"] == "left out"]
    assert {(one["operator"], one["rows"]) for one in left_out} == {("INT4 product", 1024)}
    assert all(one["error"] is None and one["times_ns"] == [] for one in left_out)
    assert "left out: INT4 product at 1024 rows, 64 to 64: it would take about 2." in shown.out


def test_the_comparison_is_made_once(generate: CommandLine, tiny_llama: Path, own_cache: Path) -> None:
    first = generate(tiny_llama, "--json")
    (record,) = first.records
    assert record["checks"]["operators"]["right"] > 40
    assert "comparing the operators" in first.err
    second = generate(tiny_llama, "--json", "--seed", 1)
    assert "comparing the operators" not in second.err
    assert second.records[0]["checks"]["operators"] == record["checks"]["operators"]
    other_dtype = generate(tiny_llama, "--json", "--dtype", "bfloat16")
    assert "comparing the operators" in other_dtype.err
    assert len(list(own_cache.glob("operators/*.json"))) == 2


@pytest.mark.parametrize("content", [b"", b'{"created": 1}', b"\xff\xfe"])
def test_a_broken_cache_breaks_no_run(
    generate: CommandLine, tiny_llama: Path, own_cache: Path, content: bytes
) -> None:
    generate(tiny_llama)
    (path,) = own_cache.glob("operators/*.json")
    path.write_bytes(content)
    done = generate(tiny_llama, "--json")
    assert done.code == 0, done.err
    assert json.loads(path.read_bytes())["right"] > 40


def test_a_cache_that_cannot_be_written_breaks_no_run(
    generate: CommandLine, tiny_llama: Path, own_cache: Path
) -> None:
    own_cache.parent.mkdir(parents=True)
    own_cache.write_text("a file where the directory would be")
    done = generate(tiny_llama, "--json")
    assert done.code == 0, done.err
    assert done.records[0]["checks"]["operators"]["right"] > 40


def test_flags_of_the_operators_alone(xpubench: CommandLine) -> None:
    done = xpubench("doctor", "--dtype", "float16")
    assert done.code == 2
    assert "--operators" in done.error_line
    done = xpubench("doctor", "--operators", "-m", "no-such-model")
    assert done.code == 2
    assert "no-such-model" in done.error_line
