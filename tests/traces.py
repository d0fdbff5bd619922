"""Chrome traces in the format of torch's profiler, made by hand. Nothing here ran on such a device.

The xpu's activities lie on SYCL and Level Zero queues, and have no stream, grid or block
(https://github.com/intel/torch-xpu-ops/issues/5284); the cuda's have those. Times are in microseconds.
"""

import json
from typing import Any, Literal

Kind = Literal["xpu", "cuda", "cpu"]
# By kind, the names that the same work has.
NAMES: dict[str, dict[str, str]] = {
    "cuda": {
        "launch": "cudaLaunchKernel",
        "synchronize": "cudaDeviceSynchronize",
        "gemm": "void cutlass::Kernel2<cutlass_80_tensorop_f16_s16816gemm_relu_f16_64x64_32x6_tn_align8>",
        "elementwise": "void at::native::vectorized_elementwise_kernel<4, at::native::mul>(int)",
        "flash": "void pytorch_flash::flash_fwd_splitkv_kernel<Flash_fwd_kernel_traits<128, 64, 128, 4>>",
        "all_reduce": "ncclDevKernel_AllReduce_Sum_f16_RING_LL(ncclDevKernelArgsStorage<4096ul>)",
        "copy": "Memcpy DtoH (Device -> Pageable)",
    },
    "xpu": {
        "launch": "urEnqueueKernelLaunch",
        "synchronize": "urEventWait",
        "gemm": "gemm_kernel",
        "elementwise": "at::native::xpu::VectorizedElementwiseKernel<4, at::native::xpu::MulFunctor<float>>",
        "flash": "micro_sdpa",
        "all_reduce": "oneccl_allreduce_small",
        "copy": "Memcpy D2M",
    },
}


class TraceBuilder:
    """Events of one process whose generation runs on a thread and, on an accelerator, on queues."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.events: list[dict[str, Any]] = []

    def mark(self, name: str, at: float) -> None:
        """A mark of the generation's begin or of a step's end."""
        self._add(f"xpubench::{name}", "user_annotation", at, at)

    def operator(self, name: str, start: float, end: float) -> None:
        """An operator of the host."""
        self._add(name, "cpu_op", start, end)

    def call(self, name: str, start: float, end: float, correlation: int = 0) -> None:
        """A call of the driver's runtime, by its name in `NAMES`."""
        extra = {"cbid": 211} if self.kind == "cuda" else {}
        arguments = {"correlation": correlation, **extra}
        self._add(NAMES[self.kind][name], f"{self.kind}_runtime", start, end, **arguments)

    def kernel(self, name: str, start: float, end: float, correlation: int, queue: int = 0) -> None:
        """An activity of the device, by its name in `NAMES` or its own."""
        category = "gpu_memcpy" if name == "copy" else "kernel"
        place: dict[str, Any] = {"device": 0, "correlation": correlation}
        if self.kind == "cuda":
            place |= {"stream": 7 + queue, "grid": [1, 1, 1], "block": [128, 1, 1], "context": 1}
        else:
            place |= {"sycl queue": hex(0xA0 + queue), "l0 queue": hex(0xB0 + queue), "submitted": start}
        event = self._add(NAMES[self.kind].get(name, name), category, start, end, **place)
        event |= {"pid": 0, "tid": 7 + queue}

    def overhead(self, start: float, end: float) -> None:
        """The profiler's own work."""
        self._add("Activity Buffer Request", "overhead", start, end)

    def text(self) -> bytes:
        """The trace as a file's bytes."""
        head = {"schemaVersion": 1, "baseTimeNanoseconds": 1790857026000000000, "displayTimeUnit": "ms"}
        other = [{"ph": "M", "name": "process_name", "pid": 100, "tid": 0, "args": {"name": "python"}}]
        return json.dumps(head | {"traceEvents": other + self.events}).encode()

    def _add(self, name: str, category: str, start: float, end: float, **arguments: Any) -> dict[str, Any]:
        event = {"ph": "X", "cat": category, "name": name, "pid": 100, "tid": 100, "ts": 5e6 + start}
        event |= {"dur": end - start, "args": arguments}
        self.events.append(event)
        return event


def accelerator_trace(kind: Kind) -> bytes:
    """A first token of 1000 us and two next ones alike, on two queues of which one overlaps the other."""
    trace = TraceBuilder(kind)
    trace.mark("begin", 0)
    for step, start in enumerate((1000.0, 2000.0), start=1):
        number = 100 * step
        trace.operator("aten::linear", start + 10, start + 95)
        trace.operator("aten::addmm", start + 20, start + 90)
        trace.call("launch", start + 50, start + 60, number)
        trace.kernel("gemm", start + 100, start + 400, number)
        trace.operator("aten::mul", start + 110, start + 150)
        trace.call("launch", start + 120, start + 140, number + 1)
        trace.kernel("elementwise", start + 300, start + 500, number + 1, queue=1)
        trace.operator("aten::scaled_dot_product_attention", start + 160, start + 240)
        trace.call("launch", start + 180, start + 190, number + 2)
        trace.kernel("flash", start + 600, start + 700, number + 2)
        trace.operator("acme::secret", start + 250, start + 290)
        trace.call("launch", start + 260, start + 270, number + 3)
        trace.kernel("acme_kernel", start + 720, start + 740, number + 3)
        trace.operator("aten::copy_", start + 300, start + 340)
        trace.call("launch", start + 310, start + 320, number + 4)
        trace.kernel("copy", start + 750, start + 800, number + 4)
        trace.call("synchronize", start + 850, start + 950)
        trace.overhead(start + 400, start + 480)
        trace.mark("step", start)
    trace.mark("step", 3000)
    return trace.text()
