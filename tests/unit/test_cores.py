"""What a process got of the machine's cores: counters that the kernel keeps, and warnings about too few."""

from pathlib import Path
from typing import Any

import pytest

from tests.conftest import CommandLine
from xpubench.measure import host
from xpubench.measure.cores import between, cores, cores_wanted, too_few_cores
from xpubench.measure.host import CpuClock
from xpubench.record import CpuUse

S = 1_000_000_000


def use(cpu: float, waited: float | None = 0.0, stopped: float | None = 0.0) -> CpuUse:
    """What a process got in a second, in seconds."""

    def ns(seconds: float | None) -> int | None:
        return None if seconds is None else int(seconds * S)

    return CpuUse(wall_ns=S, cpu_ns=int(cpu * S), waited_ns=ns(waited), stopped_ns=ns(stopped))


def test_threads_that_wait_for_a_core_are_said() -> None:
    uses = [use(1.0, 1.0), use(1.2, 0.8)]
    assert (cores(uses), cores_wanted(uses)) == pytest.approx((1.1, 2.0))
    (warning,) = too_few_cores(uses)
    assert "wanted 2.0 cores and got 1.1" in warning


@pytest.mark.parametrize(
    "uses",
    [
        [use(2.0)],
        [use(0.3)],  # Most of the time the host waits for a GPU.
        [use(1.96, 0.04)],
        [use(0.5, None, None)],
        [],
    ],
)
def test_threads_that_got_what_they_wanted_are_no_warning(uses: list[CpuUse]) -> None:
    assert too_few_cores(uses) == []


def test_a_limit_that_stops_the_process_is_said() -> None:
    (warning,) = too_few_cores([use(0.5, 0.0, 0.5), use(0.5, 0.0, 0.3)])
    assert "container's limit stopped the process for 40%" in warning


def test_a_thread_that_ended_takes_its_waiting_with_it() -> None:
    found = between(CpuClock(0, 0, 900, None), CpuClock(100, 90, 500, 3))
    assert found == CpuUse(wall_ns=100, cpu_ns=90, waited_ns=0, stopped_ns=None)


def test_the_counters_are_the_kernel_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for task, text in (("11", "500 20 3"), ("12", "0 7 1")):
        (tmp_path / "task" / task).mkdir(parents=True)
        (tmp_path / "task" / task / "schedstat").write_text(text)
    (tmp_path / "own").write_text("0::/pod/box\n")
    (tmp_path / "cgroups/pod/box").mkdir(parents=True)
    (tmp_path / "cgroups/pod/cpu.stat").write_text("nr_throttled 4\nthrottled_usec 5\n")
    (tmp_path / "cgroups/pod/box/cpu.stat").write_text("nr_throttled 4\nthrottled_usec 9\n")
    monkeypatch.setattr(host, "TASKS", tmp_path / "task")
    monkeypatch.setattr(host, "OWN_CGROUPS", tmp_path / "own")
    monkeypatch.setattr(host, "CGROUPS", tmp_path / "cgroups")
    clock = host.cpu_clock()
    assert (clock.waited_ns, clock.stopped_ns) == (27, 9000)
    # Version 1 counts nanoseconds.
    (tmp_path / "own").write_text("4:cpu,cpuacct:/box\n")
    (tmp_path / "cgroups/cpu/box").mkdir(parents=True)
    (tmp_path / "cgroups/cpu/box/cpu.stat").write_text("nr_throttled 4\nthrottled_time 77\n")
    assert host.cpu_clock().stopped_ns == 77 or host.cgroup_directories("cpu")
    monkeypatch.setattr(host, "TASKS", tmp_path / "none")
    assert host.cpu_clock().waited_ns is None


def test_memory_by_its_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rollup = "55-7ff ---p 0 00:00 0  [rollup]\nRss:  900 kB\nAnonymous: 600 kB\nAnonHugePages:   512 kB\n"
    (tmp_path / "smaps_rollup").write_text(rollup)
    (tmp_path / "enabled").write_text("always [madvise] never\n")
    monkeypatch.setattr(host, "SMAPS_ROLLUP", tmp_path / "smaps_rollup")
    monkeypatch.setattr(host, "HUGE_PAGES", tmp_path / "enabled")
    assert host.resident_memory() == (900 * 1024, 600 * 1024, 512 * 1024)
    assert host.transparent_huge_pages() == "madvise"
    monkeypatch.setattr(host, "SMAPS_ROLLUP", tmp_path / "none")
    monkeypatch.setattr(host, "HUGE_PAGES", tmp_path / "none")
    assert host.resident_memory() == (None, None, None)
    assert host.transparent_huge_pages() is None


def test_the_process_s_own_counters_go_on() -> None:
    before = host.cpu_clock()
    assert sum(range(100_000)) > 0
    found = between(before, host.cpu_clock())
    assert found.cpu_ns > 0
    assert found.wall_ns > 0


def test_a_run_keeps_the_counters_and_says_that_cores_were_missing(scripted: CommandLine) -> None:
    clocks = [[0, 0, 0, 0], [1000, 1100, 900, 0]]
    script: dict[str, Any] = {"device": {"cpu_clocks": clocks}}
    (record,) = scripted(script, "--num-iter", 6).records
    used = {"wall_ns": 1000, "cpu_ns": 1100, "waited_ns": 900, "stopped_ns": 0}
    assert [one["cpu"] for one in record["samples"]["iterations"]] == [used] * 9
    assert (record["summary"]["cores"], record["summary"]["cores_wanted"]) == (1.1, 2.0)
    assert any("wanted 2.0 cores and got 1.1" in text for text in record["warnings"])
