"""What the ledger makes of traces that are made by hand from the profiler's documented format."""

import json
from typing import Any

import pytest

from tests.traces import Kind, TraceBuilder, accelerator_trace
from xpubench.errors import RunFailure
from xpubench.measure.ledger.accounts import accounts
from xpubench.measure.ledger.measured import MeasuredToken
from xpubench.measure.ledger.operators import part_of_kernel, part_of_operator
from xpubench.measure.ledger.profiled import measured_tokens
from xpubench.measure.ledger.trace import read_trace


def next_token(trace: bytes, event_ns: float = 0.0) -> MeasuredToken:
    token = measured_tokens([accounts(read_trace(trace))], event_ns)[1]
    assert token is not None
    return token


def parts_us(token: MeasuredToken) -> dict[str, Any]:
    return {name: pytest.approx(ns / 1e3) for name, ns in token.parts.items() if ns}


@pytest.mark.parametrize("kind", ["xpu", "cuda"])
def test_traces_of_both_kinds_give_the_same_ledger(kind: Kind) -> None:
    token = next_token(accelerator_trace(kind))
    assert parts_us(token) == {
        # Alone for 200 us, and half of the 100 us that it shares with the other queue.
        "weights": 250,
        "attention": 100,
        "other_kernels": 150 + 50,
        "unknown_kernels": 20,
        "launches": 10,
        "host": 50 + 100,
        "synchronization": 100,
        # Between a launch's return and the first kernel, and between kernels that were launched before.
        "idle": 40 + 100 + 20 + 10,
    }
    assert token.profiled_ns == pytest.approx(1e6)
    assert sum(token.parts.values()) == pytest.approx(token.profiled_ns)


@pytest.mark.parametrize("kind", ["xpu", "cuda"])
def test_only_events_that_the_device_waits_for_cost_time(kind: Kind) -> None:
    # Of 17 events a step, linear, addmm and their launch begin before the device works, and the mark and the
    # synchronization after it.
    bare, less = next_token(accelerator_trace(kind)), next_token(accelerator_trace(kind), event_ns=1000.0)
    assert bare.events == less.events == 5
    assert sum(bare.parts.values()) - sum(less.parts.values()) == pytest.approx(5000)
    assert bare.parts["idle"] == less.parts["idle"]


@pytest.mark.parametrize("kind", ["xpu", "cuda"])
def test_a_collective_counts_only_where_nothing_else_runs(kind: Kind) -> None:
    trace = TraceBuilder(kind)
    trace.mark("begin", 0)
    trace.mark("step", 100)
    trace.call("launch", 110, 115, 1)
    trace.call("launch", 116, 119, 2)
    trace.kernel("gemm", 120, 150, 1)
    trace.kernel("all_reduce", 130, 190, 2, queue=1)
    trace.mark("step", 200)
    assert parts_us(next_token(trace.text())) == {
        "weights": 30,
        "collectives": 40,
        "launches": 5,
        "host": 20,
        "idle": 5,
    }


@pytest.mark.parametrize("kind", ["xpu", "cuda"])
def test_a_kernel_belongs_to_the_operator_that_launched_it(kind: Kind) -> None:
    trace = TraceBuilder(kind)
    trace.mark("begin", 0)
    trace.mark("step", 100)
    trace.operator("aten::scaled_dot_product_attention", 101, 140)
    trace.operator("aten::matmul", 102, 120)
    trace.call("launch", 103, 105, 1)
    trace.kernel("gemm", 110, 130, 1)
    trace.operator("aten::_softmax", 121, 139)
    trace.call("launch", 122, 124, 2)
    trace.kernel("elementwise", 130, 160, 2)
    trace.mark("step", 200)
    assert next_token(trace.text()).parts["attention"] == pytest.approx(50e3)


@pytest.mark.parametrize("kind", ["xpu", "cuda"])
def test_calls_that_take_no_time_of_the_token_are_counted(kind: Kind) -> None:
    # The host launched all kernels while the device still worked on the first one, and is idle between them.
    trace = TraceBuilder(kind)
    trace.mark("begin", 0)
    trace.mark("step", 100)
    for index in range(8):
        trace.call("launch", 102 + index, 102.5 + index, index)
    trace.kernel("gemm", 101, 130, 99)
    for index in range(8):
        trace.kernel("gemm", 140 + 20 * index, 150 + 20 * index, index)
    trace.mark("step", 300)
    token = next_token(trace.text())
    calls = {one.part: one.calls for one in token.operators}
    assert calls["launches"] == 8
    assert token.parts["idle"] == pytest.approx(80e3)


def cpu_trace(**changes: float) -> bytes:
    trace = TraceBuilder("cpu")
    trace.mark("begin", 0)
    for start in (1000.0, 2000.0):
        trace.mark("step", start)
        trace.operator("aten::linear", start + 10, start + 410)
        trace.operator("aten::mm", start + 20, start + 400)
        trace.operator("aten::resolve_conj", start + 30, start + 40)
        trace.operator("aten::scaled_dot_product_attention", start + 450, start + 560)
        trace.operator("aten::_scaled_dot_product_flash_attention_for_cpu", start + 460, start + 550)
        trace.operator("aten::add", start + 600, start + 650)
        trace.operator("aten::view", start + 660, start + 670)
        trace.operator("graph_0_cpp_fused_add_mean_mul_pow_rsqrt_3", start + 700, start + 740)
        trace.operator("acme::secret", start + 800, start + 830)
    trace.mark("step", 3000)
    return trace.text()


def test_on_a_cpu_the_operators_own_time_is_the_devices() -> None:
    token = next_token(cpu_trace())
    assert parts_us(token) == {
        "weights": 370,
        "attention": 90,
        "other_kernels": 50 + 40,
        "unknown_kernels": 30,
        # linear 20, resolve_conj 10, attention's dispatch 20, view 10, and 360 outside of operators.
        "host": 20 + 10 + 20 + 10 + 360,
    }
    unknown = [one.name for one in token.operators if one.part == "unknown_kernels"]
    assert unknown == ["acme::secret"]


def test_a_dispatch_through_python_is_the_hosts() -> None:
    trace = TraceBuilder("cpu")
    trace.mark("begin", 0)
    trace.mark("step", 100)
    trace.operator("aten::mm", 110, 190)
    trace.operator("aten::mm", 150, 180)
    trace.mark("step", 200)
    assert parts_us(next_token(trace.text())) == {"weights": 30, "host": 70}


@pytest.mark.parametrize("named", [True, False])
def test_a_compiled_graph_is_the_hosts_only_where_its_kernels_are_named(named: bool) -> None:
    trace = TraceBuilder("cpu")
    trace.mark("begin", 0)
    trace.mark("step", 100)
    trace.operator("## Call CompiledFxGraph abc ##", 110, 190)
    if named:
        trace.operator("graph_0_cpp_fused_add_mul_0", 120, 150)
    trace.operator("aten::mm", 150, 180)
    trace.mark("step", 200)
    found = parts_us(next_token(trace.text()))
    rest = {"other_kernels": 30, "host": 20 + 20} if named else {"unknown_kernels": 50, "host": 20}
    assert found == {"weights": 30} | rest


def test_events_lengthen_the_operator_that_they_lie_in() -> None:
    token = next_token(cpu_trace(), event_ns=2000.0)
    # resolve_conj lies in mm, and mm in linear.
    assert token.parts["weights"] == pytest.approx(368e3)
    assert token.events == 10


def operators_us(*names: str, device: Kind | None = None) -> dict[str, Any]:
    """The parts of a step of these operators, each 10 us long, on a CPU or as kernels of a device."""
    trace = TraceBuilder(device or "cpu")
    trace.mark("begin", 0)
    for start in (1000, 2000):
        trace.mark("step", start)
        for index, name in enumerate(names, start=1):
            at = start + 20 * index
            trace.operator(name, at, at + 10)
            if device is not None:
                trace.call("launch", at + 1, at + 2, start + index)
                trace.kernel("gemm", at + 3, at + 13, start + index)
    trace.mark("step", 3000)
    found = parts_us(next_token(trace.text()))
    return {name: us for name, us in found.items() if name not in ("host", "launches", "idle")}


LAYER = ("aten::mm", "aten::bmm", "aten::mul", "aten::add", "aten::_softmax", "aten::bmm", "aten::mm")


@pytest.mark.parametrize("device", [None, "xpu", "cuda"])
def test_products_around_a_softmax_are_attention(device: Kind | None) -> None:
    found = operators_us(*LAYER, *LAYER, device=device)
    assert found == {"weights": 40, "attention": 60, "other_kernels": 40}


@pytest.mark.parametrize("device", [None, "xpu", "cuda"])
def test_the_rotary_embeddings_product_is_no_attention(device: Kind | None) -> None:
    found = operators_us("aten::bmm", "aten::cat", "aten::cos", "aten::sin", *LAYER, device=device)
    assert found == {"weights": 20, "attention": 30, "other_kernels": 40 + 20}


def test_products_of_experts_are_weights() -> None:
    router = ("aten::mm", "aten::softmax", "aten::topk", "aten::bmm", "aten::silu", "aten::bmm")
    found = operators_us("aten::_scaled_dot_product_flash_attention_for_cpu", *router, *router)
    # The softmax of a router is counted as attention, its neighbours are not.
    assert found == {"weights": 60, "attention": 30, "other_kernels": 40}


def test_products_in_a_matrix_product_around_a_softmax_are_attention() -> None:
    trace = TraceBuilder("cpu")
    trace.mark("begin", 0)
    trace.mark("step", 100)
    for at, outer, inner in (
        (110, "aten::matmul", "aten::bmm"),
        (130, "aten::softmax", "aten::_softmax"),
        (150, "aten::matmul", "aten::bmm"),
        (170, "aten::linear", "aten::mm"),
    ):
        trace.operator(outer, at, at + 14)
        trace.operator(inner, at + 2, at + 12)
    trace.mark("step", 200)
    assert parts_us(next_token(trace.text())) == {"attention": 30, "weights": 10, "host": 60}


def test_a_disturbed_step_does_not_count() -> None:
    trace = TraceBuilder("cpu")
    trace.mark("begin", 0)
    at = 100.0
    for number in range(9):
        trace.mark("step", at)
        length = 5000 if number == 4 else 100
        trace.operator("aten::mm", at + 10, at + length - 10)
        at += length
    trace.mark("step", at)
    assert next_token(trace.text()).parts["weights"] == pytest.approx(80e3)


def test_the_profilers_own_work_and_other_threads_count_nowhere() -> None:
    text = json.loads(cpu_trace())
    plain = next_token(cpu_trace()).parts
    other: dict[str, Any] = {"ph": "X", "cat": "cpu_op", "name": "aten::mm", "pid": 100, "tid": 7}
    text["traceEvents"].append(other | {"ts": 5e6 + 1100, "dur": 500.0, "args": {}})
    text["traceEvents"].append(other | {"cat": "overhead", "tid": 100, "ts": 5e6 + 1100, "dur": 5.0})
    assert next_token(json.dumps(text).encode()).parts == plain


def test_a_trace_without_marks_is_refused() -> None:
    trace = TraceBuilder("xpu")
    trace.operator("aten::mm", 0, 1)
    with pytest.raises(RunFailure, match="marks"):
        read_trace(trace.text())


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("aten::mm", "weights"),
        ("aten::_weight_int4pack_mm_for_cpu", "weights"),
        ("torch_ipex::mm_qkv_out_int4", "weights"),
        ("torch_ipex::ipex_linear", "weights"),
        ("torch_ipex::IpexSDP", "attention"),
        ("torch_ipex::fast_rms_norm", "other_kernels"),
        ("mkldnn::_linear_pointwise", "weights"),
        ("aten::_scaled_dot_product_flash_attention_for_cpu", "attention"),
        ("aten::bmm", "weights"),
        ("graph_0_cpp_fused_bmm_cos_sin_1", "other_kernels"),
        ("graph_0_cpp_fused__softmax_bmm_1", "attention"),
        ("aten::add_", "other_kernels"),
        ("aten::cat", "other_kernels"),
        ("aten::topk", "other_kernels"),
        ("aten::embedding", "other_kernels"),
        ("aten::transpose", "host"),
        ("aten::unsqueeze_", "host"),
        ("aten::empty_strided", "host"),
        ("gloo:all_reduce", "collectives"),
        ("deepspeed_comm::inference_all_reduce_", "collectives"),
        ("c10d::allreduce_", "collectives"),
        ("RowParallel", "collectives"),
        ("ColumnParallel", "host"),
        ("graph_0_cpp_fused_mm_silu_4", "weights"),
        ("aten::quadratic_nonsense", None),
        ("acme::mm", None),
    ],
)
def test_parts_of_operators(name: str, part: str | None) -> None:
    assert part_of_operator(name) == part


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("triton_per_fused__to_copy_add_mean_mul_pow_rsqrt_0", "other_kernels"),
        ("triton_tem_fused_mm_5", "weights"),
        ("triton_red_fused__softmax_3", "attention"),
        ("gemvNSP_kernel<__nv_bfloat16>", "weights"),
        ("nvjet_hsh_64x8_64x16_1x4_h_bz_TNT", "weights"),
        ("fmha_cutlassF_f16_aligned_64x64_rf_sm80", "attention"),
        ("ncclDevKernel_AllReduce_Sum_bf16_RING_LL", "collectives"),
        ("gen_conv_kernel", None),
    ],
)
def test_parts_of_kernels(name: str, part: str | None) -> None:
    assert part_of_kernel(name) == part
