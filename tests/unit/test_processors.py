"""Whether the threads had a processor when they wanted one, from counters as the kernel writes them."""

from pathlib import Path

import pytest

from tests.conftest import CommandLine
from xpubench.measure.ledger import processors
from xpubench.measure.ledger.processors import Waits

SECOND = 10**9


class Tasks:
    """A directory of threads with their schedstat, beside a clock that a test moves."""

    def __init__(self, root: Path) -> None:
        self.root, self.now_ns = root, 0

    def write(self, thread: int, run_s: float, wait_s: float) -> None:
        """The counters of a thread, which are sums since its start."""
        (self.root / str(thread)).mkdir(exist_ok=True)
        (self.root / str(thread) / "schedstat").write_text(f"{run_s * SECOND:.0f} {wait_s * SECOND:.0f} 7\n")

    def share(self, *grown: tuple[float, float]) -> float | None:
        """What is seen of a block of one second in which threads ran and waited for so many seconds."""
        waits = Waits()
        self.block(waits, *grown)
        return waits.share

    def block(self, waits: Waits, *grown: tuple[float, float]) -> None:
        for thread in range(len(grown)):
            self.write(thread, 3.0, 2.0)
        with waits.watching():
            for thread, (run_s, wait_s) in enumerate(grown):
                self.write(thread, 3.0 + run_s, 2.0 + wait_s)
            self.now_ns += SECOND


@pytest.fixture
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tasks:
    found = Tasks(tmp_path)
    monkeypatch.setattr(processors, "TASKS", tmp_path)
    monkeypatch.setattr(processors, "perf_counter_ns", lambda: found.now_ns)
    return found


def test_threads_that_always_had_a_processor(tasks: Tasks) -> None:
    assert tasks.share((1.0, 0.0), (0.9, 0.0)) == 1.0


def test_the_share_is_of_the_time_in_which_a_thread_wanted_a_processor(tasks: Tasks) -> None:
    # It slept for 0.5 s, wanted a processor for the other half, and had one for four fifths of that.
    assert tasks.share((0.4, 0.1)) == pytest.approx(0.8)


def test_the_thread_that_waited_most_counts(tasks: Tasks) -> None:
    assert tasks.share((1.0, 0.0), (0.6, 0.4), (0.9, 0.1)) == pytest.approx(0.6)


def test_many_threads_on_one_core_are_seen(tasks: Tasks) -> None:
    assert tasks.share(*[(0.025, 0.975)] * 40) == pytest.approx(0.025)


def test_a_quota_that_leaves_almost_nothing_is_seen(tasks: Tasks) -> None:
    assert tasks.share((0.01, 0.99)) == pytest.approx(0.01)


def test_a_thread_that_sleeps_wants_no_processor(tasks: Tasks) -> None:
    # The second one woke up for a moment, when both cores were taken.
    assert tasks.share((0.98, 0.0), (0.001, 0.03)) == 1.0
    assert tasks.share((0.001, 0.001)) == 1.0


def test_a_thread_that_starts_in_the_block_counts(tasks: Tasks) -> None:
    waits = Waits()
    tasks.write(1, 1.0, 0.0)
    with waits.watching():
        tasks.write(1, 2.0, 0.0)
        tasks.write(2, 0.5, 0.5)
        tasks.now_ns += SECOND
    assert waits.share == pytest.approx(0.5)


def test_the_worst_block_counts(tasks: Tasks) -> None:
    waits = Waits()
    for grown in ((1.0, 0.0), (0.7, 0.3), (0.9, 0.1)):
        tasks.block(waits, grown)
    assert waits.share == pytest.approx(0.7)


def test_a_kernel_without_schedstat_reports_nothing(tasks: Tasks) -> None:
    assert tasks.share() is None


def test_a_ledger_says_where_the_waits_are_not_known(scripted: CommandLine) -> None:
    def notes(**more: float) -> str:
        token = {"parts": {"weights": 1e6}}
        script = {"explained": {"method": "as scripted", "next": token, "notes": ["its own"], **more}}
        found: list[str] = scripted(script, "--explain").records[0]["explanation"]["notes"]
        assert "its own" in found
        return " ".join(found)

    assert "not known whether the threads had a processor" in notes()
    assert "not known" not in notes(cpu_share=1.0)
