"""The device's and the host's memory, bandwidth and errors, measured on this CPU."""

import errno
import zlib
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from torch.overrides import TorchFunctionMode

from tests.conftest import CommandLine
from xpubench.errors import RunFailure, UserError
from xpubench.failures import is_out_of_memory
from xpubench.measure import bandwidth as bandwidth_module
from xpubench.measure import environment, host, matmul
from xpubench.measure.bandwidth import measure_bandwidth
from xpubench.measure.device import TorchDevice, _matrix_peak, available_devices, synchronizer
from xpubench.measure.host import CLEAR_REFS, free_host_bytes, peak_host_bytes, total_host_bytes
from xpubench.measure.matmul import measure_peak
from xpubench.record import Bandwidth, MatrixPeak

BLOCK_BYTES = 256 * 2**20


@pytest.fixture(scope="module")
def bandwidth() -> Bandwidth:
    return measure_bandwidth("cpu", "bfloat16")


def test_the_ceiling_is_the_largest_of_what_was_measured(bandwidth: Bandwidth) -> None:
    found = (bandwidth.copy_gb_per_s, bandwidth.read_gb_per_s, bandwidth.matvec_gb_per_s)
    figures = [figure for figure in found if figure is not None]
    assert len(figures) == 3
    assert bandwidth.ceiling_gb_per_s == max(figures)
    # From a slow memory to more than any CPU's: beyond it, the bytes or the unit are wrong.
    assert all(0.5 < figure < 5000 for figure in figures)


def test_the_figures_follow_from_the_raw_samples(bandwidth: Bandwidth) -> None:
    size = bandwidth.buffer_bytes
    assert size is not None
    assert bandwidth.copy_gb_per_s == 2 * size / min(bandwidth.copy_ns)
    assert bandwidth.read_gb_per_s == size / min(bandwidth.read_ns)
    assert bandwidth.matvec_gb_per_s == size / min(bandwidth.matvec_ns)
    assert len(bandwidth.copy_ns) == len(bandwidth.read_ns) == len(bandwidth.matvec_ns) > 1
    assert bandwidth.matvec_dtype in ("float32", "bfloat16")


def test_a_clock_that_stands_still_measures_no_bandwidth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xpubench.measure.times.perf_counter_ns", lambda: 10**9)
    with pytest.raises(RunFailure, match="clock went back or stood still"):
        measure_bandwidth("cpu", "bfloat16")


def test_the_buffers_leave_the_caches_and_fit_the_memory(bandwidth: Bandwidth) -> None:
    assert bandwidth.buffer_bytes is not None
    assert 64 * 2**20 <= bandwidth.buffer_bytes < total_host_bytes()


def test_the_buffers_shrink_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xpubench.measure.device.free_host_bytes", lambda: 2**28)
    assert measure_bandwidth("cpu", "float32").buffer_bytes == 2**26


def test_after_the_run_the_ceiling_is_that_of_as_many_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    # OpenVINO's runtimes leave torch one thread, with which a part of the bandwidth is reached.
    threads = []

    def measure(device: str, dtype: str, repeats: int) -> Bandwidth:
        threads.append(torch.get_num_threads())
        return Bandwidth(ceiling_gb_per_s=30.0, buffer_bytes=2**26, threads=threads[-1])

    monkeypatch.setattr(bandwidth_module, "measure_bandwidth", measure)
    monkeypatch.setattr(bandwidth_module, "_recent", {})
    own = torch.get_num_threads()
    before = Bandwidth(ceiling_gb_per_s=20.0, buffer_bytes=2**26, threads=own + 1)
    found = TorchDevice("cpu").bandwidth_again("float32", before)
    assert (found.threads, threads, torch.get_num_threads()) == (own + 1, [own + 1], own)
    # A measurement of a moment ago with other threads does not serve.
    TorchDevice("cpu").bandwidth_again("float32", msgspec.structs.replace(before, threads=own + 5))
    assert threads == [own + 1, own + 5]


def test_the_hosts_peak_grows_with_an_allocation_and_stays() -> None:
    block = torch.ones(BLOCK_BYTES, dtype=torch.uint8)
    grown = peak_host_bytes() or 0
    del block
    assert grown > BLOCK_BYTES
    assert (peak_host_bytes() or 0) >= grown


def _can_reset() -> bool:
    try:
        CLEAR_REFS.write_text("5")
    except OSError:
        return False
    return True


@pytest.mark.skipif(not _can_reset(), reason="the kernel lets this process reset no peak")
def test_the_hosts_peak_is_forgotten() -> None:
    TorchDevice("cpu").reset_peaks()
    before = peak_host_bytes() or 0
    block = torch.ones(BLOCK_BYTES, dtype=torch.uint8)
    grown = peak_host_bytes() or 0
    assert grown - before > BLOCK_BYTES * 0.9
    del block
    TorchDevice("cpu").reset_peaks()
    assert (peak_host_bytes() or 0) < grown - BLOCK_BYTES * 0.9


def test_a_peak_that_cannot_be_reset_is_still_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("xpubench.measure.host.CLEAR_REFS", tmp_path / "none" / "clear_refs")
    monkeypatch.setattr("xpubench.measure.host.STATUS", tmp_path / "status")
    TorchDevice("cpu").reset_peaks()
    assert (peak_host_bytes() or 0) > 2**20


def test_the_cpu_is_there_and_has_no_allocator() -> None:
    assert available_devices()[-1] == "cpu"
    device = TorchDevice("cpu")
    synchronizer("cpu")()
    assert device.facts().name
    assert device.facts().driver is None
    assert device.peak_bytes() is None


@pytest.mark.parametrize("device", ["xpu", "cuda"])
def test_a_device_that_is_not_there_is_one_line(device: str) -> None:
    if device in available_devices():
        pytest.skip("the machine has the device")
    with pytest.raises(UserError) as caught:
        TorchDevice(device)
    line = str(caught.value)
    assert "\n" not in line
    assert f"no {device} device here" in line
    assert "cpu" in line
    assert "xpubench doctor" in line


@pytest.mark.parametrize(
    ("tree", "own", "total", "free"),
    [
        # version 2: the limit of the group above holds too
        (
            {
                "a/memory.max": "1000000",
                "a/memory.current": "600000",
                "a/memory.stat": "anon 1\ninactive_file 200000",
                "a/b/memory.max": "max",
                "a/b/memory.current": "5",
            },
            "0::/a/b",
            1_000_000,
            600_000,
        ),
        # version 1, its path that of the machine and not of the container
        (
            {
                "memory/memory.limit_in_bytes": "2000000",
                "memory/memory.usage_in_bytes": "500000",
                "memory/memory.stat": "inactive_file 7\ntotal_inactive_file 100000",
            },
            "9:cpu,cpuacct:/x\n4:memory:/docker/abc",
            2_000_000,
            1_600_000,
        ),
        # a use above the limit for a moment
        ({"memory.max": "1000", "memory.current": "2000"}, "0::/", 1000, 0),
    ],
)
def test_the_cgroups_limit_is_the_memory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tree: dict[str, str], own: str, total: int, free: int
) -> None:
    _write_cgroups(monkeypatch, tmp_path, tree, own)
    assert total_host_bytes() == total
    assert free_host_bytes() == free


@pytest.mark.parametrize(
    ("tree", "own", "cores"),
    [
        ({"a/cpu.max": "150000 100000", "cpu.max": "max 100000"}, "0::/a", 1.5),
        ({"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"}, "3:cpu,cpuacct:/a", 2.0),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, "3:cpu,cpuacct:/a", None),
        ({}, "0::/", None),
    ],
)
def test_the_cgroups_limit_of_cores(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tree: dict[str, str], own: str, cores: float | None
) -> None:
    _write_cgroups(monkeypatch, tmp_path, tree, own)
    assert dict(environment.capture(TorchDevice("cpu").facts(), ()).facts()).get("host.cgroup_cores") == (
        None if cores is None else str(float(cores))
    )


def _write_cgroups(monkeypatch: pytest.MonkeyPatch, root: Path, tree: dict[str, str], own: str) -> None:
    for name, text in tree.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")
    (root / "own").write_text(own + "\n")
    monkeypatch.setattr(host, "CGROUPS", root)
    monkeypatch.setattr(host, "OWN_CGROUPS", root / "own")


def test_the_cpus_own_allocator_runs_out() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize(
    ("error", "memory"),
    [
        (torch.OutOfMemoryError("XPU out of memory. Tried to allocate 512.00 MiB."), True),
        (MemoryError(), True),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), True),
        (
            RuntimeError("UR backend failed. UR backend returns:39 (UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY)"),
            True,
        ),
        (RuntimeError("UR error: 40 (UR_RESULT_ERROR_OUT_OF_RESOURCES)"), True),
        (RuntimeError("unable to mmap 8 bytes from file <m>: Cannot allocate memory (12)"), True),
        (RuntimeError("UR backend failed. UR backend returns:20 (UR_RESULT_ERROR_DEVICE_LOST)"), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (OSError(errno.ENOENT, "No such file"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_errors_of_memory_are_told_from_others(error: BaseException, memory: bool) -> None:
    assert is_out_of_memory(error) is memory


class FirstSummed(TorchFunctionMode):  # type: ignore[misc]  # torch is not typed here
    """Keeps the first tensor that is summed while it lasts."""

    first: torch.Tensor | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") == "sum" and self.first is None:
            self.first = args[0]
        return func(*args, **(kwargs or {}))


def test_the_buffers_hold_what_cannot_be_compressed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xpubench.measure.device.free_host_bytes", lambda: 2**28)
    with FirstSummed() as seen:
        measure_bandwidth("cpu", "bfloat16", repeats=1)
    assert seen.first is not None
    part = seen.first[: 2**18]
    packed = zlib.compress(part.view(torch.int16).numpy().tobytes())
    assert len(packed) > 0.8 * part.nbytes
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        values = part.view(dtype)
        assert bool(torch.isfinite(values).all())
        # Subnormal numbers would slow a CPU's products.
        assert float(values.abs().min()) >= torch.finfo(dtype).smallest_normal


def test_the_bandwidth_of_a_run_is_measured_again_and_kept(
    generate: CommandLine, tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (record,) = generate(tiny_llama, "--json").records
    found, summary = record["bandwidth"], record["summary"]
    assert len(found["after_read_ns"]) == len(found["after_copy_ns"]) > 0
    highest = found["highest"]["gb_per_s"]
    assert found["after_ceiling_gb_per_s"] <= highest
    assert summary["ceiling_of"] == "device"
    assert summary["bandwidth_measured_gb_per_s"] == highest
    (path,) = (tmp_path / "xpubench" / "ceilings").iterdir()
    # What another process has shown is the next run's ceiling.
    path.write_text('{"created": "2026-11-24T00:00:00Z", "gb_per_s": 9999.0}\n')
    (record,) = generate(tiny_llama, "--json", "--seed", 1).records
    assert record["summary"]["bandwidth_measured_gb_per_s"] == 9999
    assert record["summary"]["mbu_measured"] < summary["mbu_measured"]
    assert path.read_text().count("gb_per_s") == 2
    assert all(one["available_host_bytes"] > 0 for one in record["samples"]["iterations"])


def test_runs_that_follow_fast_share_the_measurement_after_them(
    generate: CommandLine, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def after(limit_s: float, seed: int) -> list[int]:
        monkeypatch.setattr(bandwidth_module, "RECENT_S", limit_s)
        (record,) = generate(tiny_llama, "--json", "--seed", seed).records
        return list(record["bandwidth"]["after_read_ns"])

    first = after(0.0, 1)
    # Nanoseconds of several repeats are never all the same.
    assert after(3600.0, 2) == first
    assert after(0.0, 3) != first


def test_the_peak_follows_from_operations_and_time() -> None:
    found = measure_peak("cpu", "float32")
    assert 2 * found.size**3 / min(found.times_ns) / 1e3 <= found.tflop_per_s
    # A core's float32 units reach from some GFLOP/s to some TFLOP/s: beyond it, operations or unit are wrong.
    assert 1e-3 < found.tflop_per_s < 500
    assert len(found.times_ns) > 1


def test_a_process_measures_the_peak_of_a_dtype_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matmul, "LARGEST", 256)
    measured, before = [], matmul.measure_peak

    def counted(device: str, dtype: str) -> MatrixPeak:
        measured.append(dtype)
        return before(device, dtype)

    monkeypatch.setattr(matmul, "measure_peak", counted)
    _matrix_peak.cache_clear()
    found = [TorchDevice("cpu").matrix_peak(dtype) for dtype in ("float32", "float32", "bfloat16")]
    _matrix_peak.cache_clear()
    assert measured == ["float32", "bfloat16"]
    assert found[0] is found[1]
    assert found[0] is not None
    assert found[0].highest_tflop_per_s >= found[0].tflop_per_s


def test_a_device_that_computes_no_product_has_no_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(device: str, dtype: str) -> MatrixPeak:
        raise RuntimeError("unsupported scalar type")

    monkeypatch.setattr(matmul, "measure_peak", refused)
    assert matmul.first_peak(TorchDevice("cpu"), "float32") is None


def test_a_clock_that_stands_still_measures_no_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xpubench.measure.times.perf_counter_ns", lambda: 10**9)
    with pytest.raises(RunFailure, match="clock went back or stood still"):
        matmul.first_peak(TorchDevice("cpu"), "float32")
