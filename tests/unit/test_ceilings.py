"""The ceiling that MBU is the share of, its interval, and the machine's memory, over the fake runtime."""

import random
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.conftest import CommandLine, files_of_at_most
from xpubench.environment import DeviceFacts
from xpubench.measure.ceilings import LATEST, MOST, highest_shown, kept_ceiling
from xpubench.record import CeilingSample, decode

MIB = 2**20
STEP_BYTES = 10**6
GPU = DeviceFacts(kind="xpu", name="Arc", driver="1", total_memory_bytes=2**34)


def record_of(scripted: CommandLine, device: dict[str, Any], *flags: object) -> dict[str, Any]:
    """The record of a run on a scripted device with next token latencies of 1 and 2 ms in turn."""
    times = [{"next_token_ns": [1_000_000 * (1 + index % 2)]} for index in range(4)]
    script = {"every_token": times, "step_weight_bytes": STEP_BYTES, "device": device}
    done = scripted(script, "--num-iter", 9, *flags)
    assert done.code == 0, done.err
    return done.records[0]


def test_mbu_is_the_share_of_the_most_that_the_device_has_shown(scripted: CommandLine) -> None:
    speeds = {"bandwidth_gb_per_s": 40, "bandwidth_after_gb_per_s": 25, "bandwidth_shown_gb_per_s": 50}
    record = record_of(scripted, speeds)
    summary = record["summary"]
    assert (summary["ceiling_of"], summary["bandwidth_measured_gb_per_s"]) == ("device", 50)
    assert summary["bandwidth_lowest_gb_per_s"] == 25
    reached_gb_per_s = summary["step_bytes"] / (summary["next_token_ms"]["median"] * 1e6)
    assert summary["mbu_measured"] == pytest.approx(reached_gb_per_s / 50)
    fast_ms, slow_ms = summary["next_token_ms"]["ci95"]
    least, largest = summary["mbu_measured_interval"]
    assert least == pytest.approx(summary["step_bytes"] / (slow_ms * 1e6) / 50)
    assert largest == pytest.approx(summary["step_bytes"] / (fast_ms * 1e6) / 25)
    assert least < summary["mbu_measured"] < largest
    assert record["bandwidth"]["highest"]["gb_per_s"] == 50


def test_a_device_that_kept_nothing_has_the_ceiling_of_its_process(scripted: CommandLine) -> None:
    summary = record_of(scripted, {"bandwidth_gb_per_s": 40})["summary"]
    assert (summary["ceiling_of"], summary["bandwidth_measured_gb_per_s"]) == ("process", 40)


@pytest.mark.parametrize(("shown", "warned"), [(3276.0, False), (3400.0, True)])
def test_a_ceiling_above_the_data_sheet_is_told(scripted: CommandLine, shown: float, warned: bool) -> None:
    sheet = {"name": "Intel(R) Data Center GPU Max 1550", "total_memory_bytes": 2**37}
    record = record_of(scripted, sheet | {"bandwidth_shown_gb_per_s": shown})
    found = [line for line in record["warnings"] if "above the data sheet's 3277.0" in line]
    assert bool(found) is warned


def test_an_earlier_record_has_the_ceiling_of_its_process(scripted: CommandLine) -> None:
    record = record_of(scripted, {"bandwidth_shown_gb_per_s": 50})
    for name in ("ceiling_of", "mbu_measured_interval", "bandwidth_lowest_gb_per_s"):
        del record["summary"][name]
    del record["bandwidth"]["highest"]
    read = decode(msgspec.json.encode(record))
    assert read.latency is not None
    assert read.latency.ceiling_of == "process"
    assert read.bandwidth is not None
    assert read.bandwidth.highest is None


def test_the_terminal_names_the_ceiling(scripted: CommandLine, xpubench: CommandLine, tmp_path: Path) -> None:
    record_of(scripted, {"bandwidth_gb_per_s": 40, "bandwidth_shown_gb_per_s": 50})
    script = tmp_path / "script.json"
    flags = ("--runtime", "fake", "--fake-script", script, "--device", "cpu", "--greedy", "--num-iter", 9)
    shape = ("--input-tokens", 8, "--max-new-tokens", 4, "--results-dir", tmp_path / "other")
    done = xpubench("generate", "-m", "smollm2-135m", *flags, *shape)
    assert "of 50.0 GB/s that this device has shown (" in " ".join(done.out.split())


def sample(gb_per_s: float) -> CeilingSample:
    return CeilingSample(created="2026-11-24T00:00:00Z", gb_per_s=gb_per_s)


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "xpubench" / "ceilings"


def kept_in(path: Path) -> list[float]:
    lines = [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]
    return [line["gb_per_s"] for line in lines if "of" not in line]


def test_the_highest_of_a_device_is_kept(cache: Path) -> None:
    assert highest_shown(GPU, None, 2**31, sample(40)).gb_per_s == 40
    assert highest_shown(GPU, None, 2**31, sample(45)).gb_per_s == 45
    assert highest_shown(GPU, None, 2**31, sample(26)).gb_per_s == 45
    (path,) = cache.iterdir()
    assert kept_in(path) == [40, 45, 26]


def test_the_ceiling_of_a_device_is_found_without_it(cache: Path) -> None:
    assert kept_ceiling("xpu", "Arc", None) is None
    for gb_per_s in (40, 45, 26):
        highest_shown(GPU, 2, 2**31, sample(gb_per_s))
    # A smaller buffer may lie in a cache.
    highest_shown(GPU, 2, 2**26, sample(400))
    highest_shown(msgspec.structs.replace(GPU, name="Flex"), 2, 2**31, sample(90))
    for threads in (None, 2):
        assert kept_ceiling("xpu", "Arc", threads) == sample(45)
    assert kept_ceiling("xpu", "Arc", 1) is None
    assert kept_ceiling("cpu", "Arc", None) is None
    # A file of an earlier version does not tell whose it is, before its next sample.
    for path in cache.iterdir():
        path.write_bytes(b"".join(line for line in path.read_bytes().splitlines(True) if b'"of"' not in line))
    assert kept_ceiling("xpu", "Arc", None) is None
    highest_shown(GPU, 2, 2**31, sample(20))
    assert kept_ceiling("xpu", "Arc", None) == sample(45)


def test_other_devices_drivers_threads_and_buffers_have_their_own(cache: Path) -> None:
    highest_shown(GPU, None, 2**31, sample(45))
    for other in ({"name": "Flex"}, {"driver": "2"}, {"total_memory_bytes": 2**33}, {"kind": "cuda"}):
        device = msgspec.structs.replace(GPU, **other)
        assert highest_shown(device, None, 2**31, sample(20)).gb_per_s == 20
    assert highest_shown(GPU, 2, 2**31, sample(20)).gb_per_s == 20
    # A smaller buffer may lie in a cache, and its ceiling would be too high for ever.
    assert highest_shown(GPU, None, 2**26, sample(400)).gb_per_s == 400
    assert highest_shown(GPU, None, 2**31, sample(20)).gb_per_s == 45


def test_a_broken_file_of_ceilings_breaks_nothing(cache: Path) -> None:
    highest_shown(GPU, None, 2**31, sample(45))
    (path,) = cache.iterdir()
    path.write_bytes(b'\xff\n{"gb_per_s": 9999}\n[]\n' + path.read_bytes() + b'{"created": "2026')
    assert highest_shown(GPU, None, 2**31, sample(20)).gb_per_s == 45


def test_a_cache_that_cannot_be_used_breaks_nothing(cache: Path) -> None:
    cache.parent.mkdir()
    cache.write_text("a file")
    assert highest_shown(GPU, None, 2**31, sample(20)).gb_per_s == 20
    cache.unlink()
    with files_of_at_most(0):
        assert highest_shown(GPU, None, 2**31, sample(20)).gb_per_s == 20


def test_a_long_file_keeps_its_highest_and_its_latest(cache: Path) -> None:
    highest_shown(GPU, None, 2**31, sample(45))
    (path,) = cache.iterdir()
    path.write_bytes(path.read_bytes() + msgspec.json.encode(sample(20)) + b"\n" * 1)
    path.write_bytes(path.read_bytes() + (msgspec.json.encode(sample(21)) + b"\n") * MOST)
    assert highest_shown(GPU, None, 2**31, sample(22)).gb_per_s == 45
    kept = kept_in(path)
    assert len(kept) == LATEST + 1
    assert kept_ceiling("xpu", "Arc", None) == sample(45)
    assert (max(kept), kept[-1]) == (45, 22)


def falling(step: int, noise: int, seed: int = 0) -> list[int]:
    """16 readings of which each is lower by a step, with noise of up to so many bytes."""
    draw = random.Random(seed)
    return [2**34 - index * step + draw.randint(-noise, noise) for index in range(16)]


def memory_warnings(scripted: CommandLine, readings: list[int]) -> tuple[list[str], dict[str, Any]]:
    record = record_of(scripted, {"available_host_bytes": readings}, "--num-iter", 9, "--num-warmup", 1)
    found = [line for line in record["warnings"] if "available memory fell" in line]
    return found, record


def test_memory_that_falls_with_each_iteration_is_told(scripted: CommandLine) -> None:
    (warning,), record = memory_warnings(scripted, [2**34, *falling(8 * MIB, MIB)])
    assert "MiB an iteration" in warning
    assert record["summary"]["available_host_bytes_per_iteration"] == pytest.approx(-8 * MIB, rel=0.05)
    assert record["samples"]["iterations"][0]["available_host_bytes"] > 0


@pytest.mark.parametrize("seed", range(5))
def test_noise_of_the_memory_is_not_told(scripted: CommandLine, seed: int) -> None:
    walk = [2**34]
    draw = random.Random(seed)
    for _ in range(16):
        walk.append(walk[-1] + draw.randint(-64, 64) * MIB)
    for readings in (walk, falling(0, 200 * MIB, seed), falling(8 * MIB, 100 * MIB, seed)):
        assert memory_warnings(scripted, [2**34, *readings])[0] == []


@pytest.mark.parametrize(
    "readings",
    [
        [2**34 - 10 * MIB * (index >= 8) * 100 for index in range(16)],  # one program takes 1 GB once
        [2**34 - index * 2**12 for index in range(16)],  # a daemon's pages
        [2**34 + index * 8 * MIB for index in range(16)],  # memory that comes back
        [2**34 - index - (1000 * MIB if index >= 8 else 0) for index in range(16)],
    ],
)
def test_other_changes_of_the_memory_are_not_told(scripted: CommandLine, readings: list[int]) -> None:
    assert memory_warnings(scripted, [2**34, *readings])[0] == []
