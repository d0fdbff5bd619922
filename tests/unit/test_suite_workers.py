"""What a suite makes of its workers, which write records here without running anything."""

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, CommandLine, Outcome
from xpubench.run.order import Order

SHAPES = 3


class Suite:
    """A suite of one worker with three shapes: `run(behaviours, *flags)`, a behaviour a worker."""

    def __init__(self, directory: Path, xpubench: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
        self.results = directory / "results"
        self._file = directory / "suite.toml"
        self._file.write_text(
            'title = "t"\n[[grid]]\nmodels = ["m"]\nflags = "--device cpu --greedy --input-tokens 8 9 10"\n'
        )
        self._xpubench, self._patch = xpubench, monkeypatch

    def run(self, behaviours: list[str], *flags: object) -> Outcome:
        left = iter(behaviours)

        def worker(order: Order) -> list[str]:
            return [sys.executable, str(ROOT / "tests/worker.py"), next(left)]

        self._patch.setattr("xpubench.run.supervisor._command", worker)
        done = self._xpubench("suite", self._file, "--results-dir", self.results, *flags)
        assert next(left, None) is None
        return done

    @property
    def records(self) -> list[dict[str, Any]]:
        return [
            json.loads(path.read_text())
            for path in sorted(self.results.rglob("*.json"))
            if path.stem[0] != "."
        ]

    @property
    def statuses(self) -> Counter[str]:
        return Counter(record["status"] for record in self.records)


@pytest.fixture
def suite(tmp_path: Path, xpubench: CommandLine, monkeypatch: pytest.MonkeyPatch) -> Suite:
    monkeypatch.setattr("xpubench.process.child.POLL_S", 0.05)
    # Nothing is measured for a plan.
    monkeypatch.setattr("xpubench.cli.suite_plan.device_of", lambda name: None)
    return Suite(tmp_path, xpubench, monkeypatch)


def test_a_run_that_hangs_has_the_timeout_and_no_other(suite: Suite) -> None:
    done = suite.run(["hang", "ok"], "--timeout", 3)
    assert done.code == 1
    assert suite.statuses == {"ok": SHAPES - 1, "timeout": 1}
    (record,) = (one for one in suite.records if one["status"] == "timeout")
    assert record["failure"]["class"] == "timeout"
    assert "3 s" in record["failure"]["message"]
    # What the worker could still write down stays.
    assert record["environment"] != {}
    assert "[1/3] timeout" in done.out


def test_a_worker_that_somebody_interrupts_costs_its_run_alone(suite: Suite) -> None:
    assert suite.run(["stop", "ok"]).code == 1
    assert suite.statuses == {"ok": SHAPES - 1, "interrupted": 1}
    assert suite.run(["ok"]).code == 0
    assert suite.statuses == {"ok": SHAPES}


@pytest.mark.parametrize(("counts", "failure"), [((3, 3), "crash"), ((3, 4), "oom")])
def test_a_worker_that_the_kernel_kills_for_memory_is_oom(
    suite: Suite, monkeypatch: pytest.MonkeyPatch, counts: tuple[int, int], failure: str
) -> None:
    told = iter([*counts, 9, 9])
    monkeypatch.setattr("xpubench.run.supervisor.out_of_memory_kills", lambda: next(told))
    monkeypatch.setattr("xpubench.failures.out_of_memory_kills", lambda: next(told))
    assert suite.run(["kill", "ok"]).code == 1
    assert suite.statuses == {"ok": SHAPES - 1, failure: 1}


@pytest.mark.parametrize(
    ("behaviour", "failure", "message", "tail"),
    [
        ("kill", "crash", "the worker was killed by SIGKILL", ""),
        ("crash", "crash", "ZeroDivisionError: by zero", "in work"),
        ("nothing", "crash", "said that it was done", ""),
    ],
)
def test_what_ends_a_worker_costs_the_run_at_work_alone(
    suite: Suite, behaviour: str, failure: str, message: str, tail: str
) -> None:
    assert suite.run([behaviour, "ok"]).code == 1
    assert suite.statuses == {"ok": SHAPES - 1, failure: 1}
    (record,) = (one for one in suite.records if one["status"] == failure)
    assert message in record["failure"]["message"]
    assert tail in record["failure"]["log_tail"]


def test_an_order_that_is_refused_is_refused_for_all_its_runs(suite: Suite) -> None:
    assert suite.run(["refuse"]).code == 1
    assert suite.statuses == {"unsupported": SHAPES}
    assert {one["failure"]["message"] for one in suite.records} == {"there is no such thing"}


def test_a_record_whose_report_got_lost_stays(suite: Suite) -> None:
    assert suite.run(["late", "ok"]).code == 1
    # The worker was at the second run by then, as far as anybody can tell.
    assert suite.statuses == {"ok": SHAPES - 1, "crash": 1}
    assert suite.run(["ok"], "--rerun", "failed").code == 0


def test_a_worker_that_does_not_hear_is_killed(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xpubench.process.child.GRACE_S", 0.5)
    assert suite.run(["deaf", "ok"], "--timeout", 3).code == 1
    assert suite.statuses == {"ok": SHAPES - 1, "timeout": 1}


def test_what_libraries_print_is_no_report(suite: Suite) -> None:
    assert suite.run(["print"]).code == 0
    assert suite.statuses == {"ok": SHAPES}
    (log,) = suite.results.glob("logs/*.log")
    assert "a library's words" in log.read_text()
    assert "report" not in log.read_text()


def test_a_group_of_tasks_is_done_when_its_tasks_are(suite: Suite) -> None:
    done = suite.run(["group"])
    assert (done.code, done.out.count("ok  ")) == (0, 2 * SHAPES)
    assert "[3/3] ok" in done.out
    assert suite.statuses == {"ok": 2 * SHAPES}
    assert "0 of 3 runs" in suite.run([]).out
    assert suite.run(["group"], "--rerun", "all").code == 0
    # One of the tasks is lost: its group is to run.
    next(suite.results.glob("*-second.json")).unlink()
    assert "1 of 3 runs" in suite.run(["group"]).out
    assert suite.statuses == {"ok": 2 * SHAPES}


def test_a_group_whose_worker_died_is_whole_after_a_rerun(suite: Suite) -> None:
    suite.run(["kill", "group"])
    assert suite.statuses == {"crash": 1, "ok": 2 * (SHAPES - 1)}
    assert suite.run(["group"], "--rerun", "failed").code == 0
    assert suite.statuses == {"ok": 2 * SHAPES}


def test_rounds_repeat_the_grid_and_go_on(suite: Suite) -> None:
    assert suite.run(["ok", "kill", "ok"], "--rounds", 2).code == 1
    assert suite.statuses == {"ok": 2 * SHAPES - 1, "crash": 1}
    assert sorted(path.name for path in suite.results.iterdir()) == ["round-1", "round-2"]
    plan = suite.run([], "--rounds", 3, "--dry-run")
    assert "3 to run" in plan.out
    assert plan.out.count("2 of 3 done") == SHAPES
    done = suite.run(["ok"], "--rounds", 2, "--rerun", "failed")
    assert (done.code, suite.statuses) == (0, {"ok": 2 * SHAPES})


@pytest.fixture
def turns(suite: Suite, xpubench: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`turns(behaviours, *flags)`: two runtimes in two rounds, a behaviour a worker; and the orders made."""
    orders: list[Order] = []

    def run(behaviours: list[str], *flags: object) -> Outcome:
        left = iter(behaviours)

        def worker(order: Order) -> list[str]:
            orders.append(order)
            return [sys.executable, str(ROOT / "tests/worker.py"), next(left)]

        monkeypatch.setattr("xpubench.run.supervisor._command", worker)
        done = xpubench(
            *("generate", "-m", "m", "--device", "cpu", "--greedy", "--input-tokens", 8),
            *("--runtime", "pytorch,openvino-base", "--kv-cache-precision", "u8"),
            *("--rounds", 2, "--results-dir", suite.results, *flags),
        )
        assert next(left, None) is None
        return done

    return run, orders


def test_runtimes_in_turns_rotate_and_have_their_own_flags(turns: Any) -> None:
    run, orders = turns
    done = run(["ok"] * 4, "--json")
    assert done.code == 0, done.err
    assert len(done.records) == 4
    said = [line.partition(": ")[2] for line in done.err.splitlines() if line.startswith("round")]
    assert said == ["pytorch", "openvino-base", "openvino-base", "pytorch"]
    subjects = [order.specs[0].subject for order in orders]
    assert [subject.runtime for subject in subjects] == said
    caches = [subject.openvino and subject.openvino.kv_cache_precision for subject in subjects]
    assert caches == [None, "u8", "u8", None]


def test_runtimes_in_turns_go_on_and_repeat_what_failed(turns: Any, suite: Suite) -> None:
    run, _ = turns
    done = run(["ok", "kill", "ok", "refuse"])
    assert done.code == 1
    assert "openvino-base: error: crash: the worker was killed by SIGKILL" in done.err
    assert suite.statuses == {"ok": 2, "crash": 1, "unsupported": 1}
    assert sorted(path.name for path in suite.results.iterdir()) == ["round-1", "round-2"]
    assert list(suite.results.glob("round-1/logs/*.log"))
    done = run(["ok", "ok"])
    assert (done.code, suite.statuses) == (0, {"ok": 4})
    assert done.err.count("are done already") == 2
    assert "2 rounds" in done.out


def test_rounds_are_of_several_runtimes(xpubench: CommandLine) -> None:
    done = xpubench("generate", "-m", "m", "--device", "cpu", "--rounds", 2)
    assert (done.code, "--rounds repeats several runtimes" in done.error_line) == (2, True)


def test_the_plan_tells_what_finished_runs_took(suite: Suite) -> None:
    suite.run(["kill", "ok"])
    plan = suite.run([], "--dry-run")
    assert "time: nothing is left to run" in plan.out
    next(suite.results.glob("*.json")).write_text("{}")
    plan = suite.run([], "--dry-run")
    assert "1 to run" in plan.out
    assert "time: about " in plan.out


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("title = 1", "is not valid"),
        ("nonsense", "is not valid"),
        ('title = "t"\n[[grid]]\nmodels = "all"', "is not valid"),
        ('title = "t"\ngrid = []', "no runs"),
        ('title = "t"\n[[grid]]\nmodels = ["m"]\nflags = "--colour"', "unrecognized arguments: --colour"),
        ('title = "t"\n[[grid]]\nmodels = ["m"]\nflags = "it\'s"', "No closing quotation"),
        ('title = "t"\n[[grid]]\nmodels = ["m"]\nranks = 0', "is not valid"),
        ('title = "t"\n[[grid]]\nmodels = ["m"]\nflags = "--runtime pytorch,openvino"', "name one --runtime"),
        ('title = "t"\n[[grid]]\nmodels = ["m"]\nflags = "--rounds 2"', "--rounds repeats several"),
        ('title = "t"\n[[grid]]\nmodels = ["m"]\nflags = "--help"', "unrecognized arguments: --help"),
        ('title = "t"\n[[grid]]\nmodels = ["m\\u0000"]', "a NUL character"),
        (f'title = "t"\n[[grid]]\nmodels = ["m"]\nvary = {[[""] * 10] * 7}', "10000000 command lines"),
    ],
)
def test_files_that_are_no_suites(xpubench: CommandLine, tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "bad.toml").write_text(text)
    done = xpubench("suite", tmp_path / "bad.toml", "--flags", "--device cpu")
    assert (done.code, words in done.error_line) == (2, True)


def test_unknown_suites_and_limits(xpubench: CommandLine, tmp_path: Path) -> None:
    assert "did you mean smoke" in xpubench("suite", "smok").error_line
    assert "cannot read" in xpubench("suite", tmp_path / "none.toml").error_line
    assert "--rounds" in xpubench("suite", "smoke", "--rounds", 0).error_line
    assert "from 1 to 1000" in xpubench("suite", "smoke", "--rounds", 1000000).error_line
    assert "--timeout" in xpubench("suite", "smoke", "--timeout", "nan").error_line
    assert "No closing quotation" in xpubench("suite", "smoke", "--flags", "'").error_line


def test_the_plan_runs_nothing(xpubench: CommandLine, tmp_path: Path) -> None:
    flags = ("--dry-run", "--results-dir", tmp_path / "none")
    done = xpubench("suite", "benchmark", *flags, "--flags", "--device xpu")
    assert done.code == 0
    assert "meta-llama/Llama-2-7b-hf" in done.out
    assert "13.48" in done.out
    assert not (tmp_path / "none").exists()


def test_the_plan_has_the_roofline_of_this_machine(
    xpubench: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from xpubench.catalog import device

    monkeypatch.setattr("xpubench.cli.suite_plan.device_of", lambda name: device("max-1550"))
    done = xpubench(
        *("suite", "benchmark", "--dry-run", "--results-dir", tmp_path / "none"),
        *("--flags", "--device xpu --greedy", "--models", "meta-llama/Llama-2-7b-hf"),
    )
    # 13.48 GB of weights without the token table, and 0.57 GB of KV cache, over 3,277 GB/s; 17 generations.
    (row,) = (line for line in done.out.splitlines() if "≥" in line)
    assert " 4.21 " in row
    assert "at least 9 s" in done.out
    assert "lower bound" in done.out


def test_a_suite_that_is_killed_at_any_moment_loses_no_finished_run(tmp_path: Path) -> None:
    from benchmarks.suite import kills

    stand_in = f"""
import sys, xpubench.run.supervisor
from xpubench.cli.main import main
xpubench.run.supervisor.WORKER = (sys.executable, {str(ROOT / "tests/worker.py")!r}, "ok")
sys.exit(main())
"""
    suite = tmp_path / "suite.toml"
    suite.write_text(
        'title = "t"\n[[grid]]\nmodels = ["m"]\nflags = "--device cpu --greedy --input-tokens 8 9 10"\n'
        'vary = [["", "--use-static-cache"]]\n'
    )
    for goal in kills(4, [sys.executable, "-c", stand_in], suite, latest_s=2.0):
        assert goal.reached, goal
