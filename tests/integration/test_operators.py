"""Operators against float64: each planted fault is caught by `doctor --operators` and fails a run."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

from tests.conftest import CommandLine, Outcome

Fault = Callable[[Any, tuple[Any, ...], Callable[[], torch.Tensor]], torch.Tensor]


class Planted(TorchFunctionMode):  # type: ignore[misc]  # torch is not typed here
    """While it lasts, the torch functions of a name give what the fault makes of their results."""

    def __init__(self, name: str, fault: Callable[[torch.Tensor, tuple[Any, ...]], torch.Tensor]) -> None:
        super().__init__()
        self.name = name
        self.fault = fault

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        return self.fault(result, args) if getattr(func, "__name__", "") == self.name else result


def zero_in_float16(result: torch.Tensor, args: tuple[Any, ...]) -> torch.Tensor:
    """https://github.com/intel/torch-xpu-ops/issues/5220"""
    return torch.zeros_like(result) if result.dtype is torch.float16 else result


def wrong_int4_of_one_row(result: torch.Tensor, args: tuple[Any, ...]) -> torch.Tensor:
    """https://github.com/intel/torch-xpu-ops/issues/4765"""
    packed = type(args[1]) not in (torch.Tensor, torch.nn.Parameter)
    return result.flip(-1) if packed and args[0].shape[0] == 1 else result


def garbage_of_eight_sequences(result: torch.Tensor, args: tuple[Any, ...]) -> torch.Tensor:
    return torch.randn_like(result) if args[0].shape[0] == 8 else result


def one_value_of_the_last_row(result: torch.Tensor, args: tuple[Any, ...]) -> torch.Tensor:
    result.view(-1)[-1] += 1
    return result


def nan_in_a_row_that_is_not_compared(result: torch.Tensor, args: tuple[Any, ...]) -> torch.Tensor:
    """It lies in one of any 65 successive rows, of which fewer are compared."""
    if len(result) == 1024:
        result[100:165, 0] = torch.nan
    return result


def one_index_twice(result: Any, args: tuple[Any, ...]) -> Any:
    result.indices[:, 1] = result.indices[:, 0]
    return result


ALL_ROWS = {1, 2, 8, 1024}
# The product with an INT4 weight is a call of `linear` too.
PRODUCTS = {"linear", "INT4 product"}
FAULTS = {
    "linear-float16": ("linear", zero_in_float16, "float16", PRODUCTS, ALL_ROWS),
    "linear-last": ("linear", one_value_of_the_last_row, "bfloat16", PRODUCTS, ALL_ROWS),
    "linear-nan": ("linear", nan_in_a_row_that_is_not_compared, "bfloat16", PRODUCTS, {1024}),
    "int4": ("linear", wrong_int4_of_one_row, "bfloat16", {"INT4 product"}, {1}),
    "attention": (
        "scaled_dot_product_attention",
        garbage_of_eight_sequences,
        "float16",
        {"attention", "attention, math", "attention, flash"},
        {8},
    ),
    "top-k": ("topk", one_index_twice, "bfloat16", {"top-k"}, ALL_ROWS),
}


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
    ran = [one for one in found["operators"] if one["state"] != "refused"]
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


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_named(xpubench: CommandLine, tiny_llama: Path, fault: str) -> None:
    function, effect, dtype, operators, rows = FAULTS[fault]
    with Planted(function, effect):
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


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"created": 1}', b"\xff\xfe"])
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
