"""The devices of OpenVINO, found by their names and described by the properties of their plugins."""

from collections.abc import Callable
from functools import cache
from time import perf_counter_ns
from typing import Any

import numpy as np

from xpubench.environment import DeviceFacts
from xpubench.errors import UserError, unknown
from xpubench.measure.ceilings import highest_peak, highest_shown
from xpubench.measure.device import TorchDevice
from xpubench.measure.host import CpuClock, available_host_bytes, cpu_clock, reset_host_peak
from xpubench.record import Bandwidth, CeilingSample, MatrixPeak, PeakSample, now
from xpubench.runtimes.base import Device
from xpubench.runtimes.openvino.options import KINDS, excluded_devices, family, named_devices, shares
from xpubench.runtimes.openvino.stack import import_openvino

REPEATS, REPEATS_AFTER, WARM_UP = 15, 5, 2
BUFFER_BYTES, SMALLEST_BUFFER_BYTES = 2**30, 2**26
COLUMNS = 4096
# The peak is the rate of a product of two matrices [n, n] of this size.
PEAK_SIZE = 4096
# Random bits are drawn for this many values and then repeated, because drawing takes longer than reading.
BLOCK = 2**21
# For each dtype: the integer type of its bits, the dtype itself, a mask of the bits that are drawn, and the
# bits that are set. The magnitudes are from 1/8 to below 2. OpenVINO's GPUs and NPUs compute in float16 where
# bfloat16 is asked for.
PATTERNS: dict[str, tuple[Any, Any, int, int]] = {
    "float32": (np.uint32, np.float32, 0x81FFFFFF, 0x3E000000),
    "float16": (np.uint16, np.float16, 0x8FFF, 0x3000),
}


class OpenVinoDevice:
    """A GPU or an NPU under OpenVINO. Its facts are properties of its plugin; None stands for a property that
    the plugin does not have."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._core = import_openvino().Core()
        self._peak_bytes: int | None = None

    def facts(self) -> DeviceFacts:
        """Name, driver, UUID and memory. The free memory is known only for an NPU, whose driver counts all
        users."""
        kind = family(self.name)
        total = self._number(f"{kind}_DEVICE_TOTAL_MEM_SIZE")
        used = self._number(f"{kind}_DEVICE_ALLOC_MEM_SIZE")
        driver, uuid = self._property(f"{kind}_DRIVER_VERSION"), self._property("DEVICE_UUID")
        return DeviceFacts(
            kind=KINDS[kind],
            name=str(self._property("FULL_DEVICE_NAME") or self.name),
            driver=str(driver) if driver else None,
            uuid=str(uuid) if uuid else None,
            total_memory_bytes=total,
            free_memory_bytes=None if total is None or used is None else total - used,
        )

    def reset_peaks(self) -> None:
        """Resets the peaks of memory, on the device and on the host."""
        reset_host_peak()
        self._peak_bytes = None
        self._look_at_memory()

    def peak_bytes(self) -> int | None:
        """The largest number of bytes that the GPU's plugin held at any look: at the reset, after each
        generation and now. Looking that rarely suffices, because the plugin keeps the buffers of an inference
        until the model is freed."""
        self._look_at_memory()
        return self._peak_bytes

    def available_host_bytes(self) -> int | None:
        """The memory that the whole machine has available now."""
        self._look_at_memory()
        return available_host_bytes()

    def cpu_clock(self) -> CpuClock | None:
        """The process's use of the machine's cores so far."""
        return cpu_clock()

    def bandwidth(self, dtype: str) -> Bandwidth:
        """The bandwidth at which a matrix-vector product, compiled and run by OpenVINO, reads its matrix,
        from the fastest repeat, and the highest that the device has shown."""
        return self._measured(dtype, self._buffer_bytes(), REPEATS)

    def bandwidth_again(self, dtype: str, before: Bandwidth) -> Bandwidth:
        """The earlier measurement with a new, shorter one in its `after_` fields, or unchanged where the
        buffer no longer fits."""
        try:
            found = self._measured(dtype, before.buffer_bytes or self._buffer_bytes(), REPEATS_AFTER)
        except RuntimeError:
            return before
        return Bandwidth(
            ceiling_gb_per_s=before.ceiling_gb_per_s,
            matvec_gb_per_s=before.matvec_gb_per_s,
            matvec_dtype=before.matvec_dtype,
            buffer_bytes=before.buffer_bytes,
            matvec_ns=before.matvec_ns,
            after_ceiling_gb_per_s=found.ceiling_gb_per_s,
            after_matvec_ns=found.matvec_ns,
            highest=found.highest,
        )

    def matrix_peak(self, dtype: str) -> MatrixPeak | None:
        """The rate of a product of two matrices, compiled and run by OpenVINO once in a process, and the
        highest that the device has shown; None where the device refuses the product."""
        return _matrix_peak(self.name, dtype if dtype in PATTERNS else "float16")

    def profile(self, generate: Callable[[], object]) -> tuple[bytes, str]:
        """Raises UserError, because torch's profiler does not see OpenVINO's kernels."""
        raise UserError("torch's profiler does not see OpenVINO's kernels")

    def _measured(self, dtype: str, size: int, repeats: int) -> Bandwidth:
        kind = dtype if dtype in PATTERNS else "float16"
        rows = size // np.dtype(PATTERNS[kind][1]).itemsize // COLUMNS
        times = self.product_times(kind, 1, (rows, COLUMNS), repeats)
        reached = size / min(times)
        sample = CeilingSample(created=now(), gb_per_s=reached)
        return Bandwidth(
            ceiling_gb_per_s=reached,
            matvec_gb_per_s=reached,
            matvec_dtype=kind,
            buffer_bytes=size,
            matvec_ns=times,
            highest=highest_shown(self.facts(), None, size, sample),
        )

    def product_times(self, dtype: str, count: int, shape: tuple[int, int], repeats: int) -> list[int]:
        """The times in ns of products of `count` rows with a constant matrix [rows, columns]."""
        request = self._product(dtype, count, shape)
        times = []
        for _ in range(WARM_UP + repeats):
            start_ns = perf_counter_ns()
            request.infer()
            times.append(perf_counter_ns() - start_ns)
        return times[WARM_UP:]

    def _product(self, dtype: str, count: int, shape: tuple[int, int]) -> Any:
        """A request for the product of `count` rows with a constant matrix [rows, columns]."""
        openvino = import_openvino()
        from openvino import opset13

        bits, numbers, drawn, fixed = PATTERNS[dtype]
        width = np.dtype(numbers).itemsize
        block = np.random.default_rng(0).integers(0, 2 ** (8 * width), BLOCK, dtype=bits)
        matrix = np.resize((block & bits(drawn)) | bits(fixed), shape)
        weights = opset13.constant(matrix.view(numbers), shared_memory=True)
        given = opset13.parameter([count, shape[1]], dtype=numbers)
        product = opset13.matmul(given, weights, transpose_a=False, transpose_b=True)
        model = openvino.Model([product], [given])
        precision = {"float32": "f32", "float16": "f16"}[dtype]
        compiled = self._core.compile_model(model, self.name, {"INFERENCE_PRECISION_HINT": precision})
        request = compiled.create_infer_request()
        request.set_input_tensor(openvino.Tensor(np.ones((count, shape[1]), dtype=numbers)))
        return request

    def _buffer_bytes(self) -> int:
        """A power of two, at most a quarter of the free memory, or of the whole memory where the free part is
        not known."""
        facts, wanted = self.facts(), BUFFER_BYTES
        free = facts.free_memory_bytes or facts.total_memory_bytes
        while free is not None and wanted > SMALLEST_BUFFER_BYTES and 4 * wanted > free:
            wanted //= 2
        return wanted

    def _look_at_memory(self) -> None:
        statistics = self._property("GPU_MEMORY_STATISTICS")
        if isinstance(statistics, dict) and statistics:
            self._peak_bytes = max(self._peak_bytes or 0, sum(map(int, statistics.values())))

    def _number(self, name: str) -> int | None:
        value = self._property(name)
        return int(value) if value else None

    def _property(self, name: str) -> Any:
        """A property of the plugin by OpenVINO's name for it; None where the plugin does not have it."""
        try:
            return self._core.get_property(self.name, name)
        except RuntimeError:
            return None


@cache
def _matrix_peak(name: str, dtype: str) -> MatrixPeak | None:
    device = OpenVinoDevice(name)
    try:
        times = device.product_times(dtype, PEAK_SIZE, (PEAK_SIZE, PEAK_SIZE), REPEATS_AFTER)
    except RuntimeError:
        return None
    reached = 2 * PEAK_SIZE**3 / min(times) / 1e3
    sample = PeakSample(created=now(), tflop_per_s=reached)
    found = MatrixPeak(tflop_per_s=reached, dtype=dtype, size=PEAK_SIZE, times_ns=times)
    return found.shown(highest_peak(device.facts(), None, dtype, sample))


def candidates(name: str) -> list[str]:
    """The devices that may run a model under a name, the preferred one first. AUTO without a list has those
    that it does not exclude, in the order of OpenVINO's documentation: discrete GPUs, integrated ones, CPU,
    and an NPU only where it is listed.

    https://docs.openvino.ai/2025/openvino-workflow/running-inference/inference-devices-and-modes/auto-device-selection.html
    """
    if named := named_devices(name):
        return named
    core, excluded = import_openvino().Core(), excluded_devices(name)

    def rank(one: str) -> int:
        if family(one) != "GPU":
            return 2
        try:
            told = core.get_property(one, "DEVICE_TYPE")
        except RuntimeError:
            return 1
        return 0 if str(getattr(told, "name", told)).upper() == "DISCRETE" else 1

    able = [one for one in core.available_devices if family(one) in ("CPU", "GPU")]
    allowed = [one for one in able if not any(out in (one, family(one)) for out in excluded)]
    if not allowed:
        raise UserError(f"{name} leaves no device here (there is: {', '.join(able)})")
    return sorted(allowed, key=rank)


def measured_device(name: str, kind: str) -> str:
    """The preferred device of a kind under a name, whose facts and bandwidth a run records."""
    found = candidates(name)
    for one in found:
        if KINDS[family(one)] == kind:
            return one
    raise UserError(f"OpenVINO's {name} has no {kind} here but {', '.join(found)}; leave out --device {kind}")


def device_named(name: str, kind: str) -> Device:
    """The device of a kind that is measured under a name. The CPU is measured by torch, in the same way for
    all stacks."""
    one = measured_device(name, kind)
    return TorchDevice("cpu") if family(one) == "CPU" else OpenVinoDevice(one)


def ran_elsewhere(name: str, kind: str, told: list[str] | None) -> str | None:
    """Where a model runs, if not on the measured device alone: by its property EXECUTION_DEVICES, or the name
    itself where that is not shown (`told` is None) and several devices may run it. None else, and for a name
    that stands for one device."""
    if shares(name) is None:
        return None
    measured = measured_device(name, kind)
    if told is None:
        return name if len(candidates(name)) > 1 else None
    # AUTO's parentheses hold a device that helps until the chosen one is ready.
    return None if list(map(_indexed, told)) == [_indexed(measured)] else ", ".join(told)


def _indexed(name: str) -> str:
    """A name with its index: GPU is GPU.0."""
    return name if "." in name else f"{name}.0"


def check_device(name: str) -> None:
    """Raises UserError for a device that OpenVINO does not find on this machine."""
    found = import_openvino().Core().available_devices
    for one in named_devices(name):
        if one in found or any(other.startswith(f"{one}.") for other in found):
            continue
        families = list(dict.fromkeys(map(family, found)))
        if family(one) in KINDS and family(one) not in families:
            raise UserError(
                f"OpenVINO finds no {family(one)} here (there is: {', '.join(found)}); a GPU or an NPU needs "
                "its driver, and --ov-device CPU runs without one"
            )
        raise unknown("device of OpenVINO", one, [*families, *found])
