"""What a suite makes of its workers: they run the fake runtime, or do what no worker should."""

import json
import signal
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, CommandLine, Outcome
from xpubench.catalog import model
from xpubench.failures import death_of
from xpubench.measure.host import out_of_memory_kills
from xpubench.run.order import Order

SHAPES = 3


def at_the_first_run(stage: str = "verify", **what: Any) -> dict[str, Any]:
    """A script in which that goes wrong in the run of 8 input tokens."""
    return {"faults": [{"stage": stage, "input_tokens": 8, **what}]}


KILL = at_the_first_run(signal=signal.SIGKILL)


class SuiteRunner:
    """A suite of one worker with three shapes: `run(script, *flags)`."""

    def __init__(self, directory: Path, xpubench: CommandLine) -> None:
        self.results = directory / "results"
        self.file = directory / "suite.toml"
        self._script = directory / "script.json"
        self.file.write_text(
            'title = "t"\n[[grid]]\nmodels = ["smollm2-135m"]\n'
            f'flags = "--runtime fake --fake-script {self._script} --device cpu --greedy --num-iter 2 '
            '--input-tokens 8 9 10 --max-new-tokens 2"\n'
        )
        self._xpubench = xpubench

    def run(self, script: dict[str, Any], *flags: object) -> Outcome:
        self._script.write_text(json.dumps(script))
        return self._xpubench("suite", self.file, "--results-dir", self.results, *flags)

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
def suite(tmp_path: Path, xpubench: CommandLine) -> SuiteRunner:
    return SuiteRunner(tmp_path, xpubench)


def test_a_run_that_hangs_has_the_timeout_and_no_other(suite: SuiteRunner) -> None:
    done = suite.run(at_the_first_run(hang_s=60), "--timeout", 3)
    assert done.code == 1
    assert suite.statuses == {"ok": SHAPES - 1, "timeout": 1}
    (record,) = (one for one in suite.records if one["status"] == "timeout")
    assert record["failure"]["class"] == "timeout"
    assert "3 s" in record["failure"]["message"]
    # What the worker could still write down stays.
    assert record["environment"]["device"]["name"] == "Scripted device"
    assert "[1/3] timeout" in done.out


def test_a_download_does_not_count_towards_the_timeout(suite: SuiteRunner) -> None:
    done = suite.run({"faults": [{"stage": "fetch", "hang_s": 5}]}, "--timeout", 4)
    assert done.code == 0, done.out
    assert suite.statuses == {"ok": SHAPES}


def test_a_worker_that_does_not_hear_is_killed(suite: SuiteRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xpubench.process.child.GRACE_S", 0.5)
    assert suite.run(at_the_first_run(deaf=True, hang_s=60), "--timeout", 3).code == 1
    assert suite.statuses == {"ok": SHAPES - 1, "timeout": 1}


def test_a_worker_that_somebody_interrupts_costs_its_run_alone(suite: SuiteRunner) -> None:
    assert suite.run(at_the_first_run(error="KeyboardInterrupt")).code == 1
    assert suite.statuses == {"ok": SHAPES - 1, "interrupted": 1}
    assert suite.run({}).code == 0
    assert suite.statuses == {"ok": SHAPES}


def test_a_process_that_the_kernel_kills_for_memory_is_oom() -> None:
    kills = out_of_memory_kills()
    assert death_of("the worker", kills, -signal.SIGKILL).failure_class == "crash"
    assert death_of("the worker", kills - 1, -signal.SIGKILL).failure_class == "oom"
    assert death_of("the worker", kills - 1, -signal.SIGSEGV).failure_class == "crash"


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ({"signal": signal.SIGKILL}, "the worker was killed by SIGKILL"),
        ({"signal": signal.SIGSEGV}, "the worker was killed by SIGSEGV"),
        ({"exit_code": 7}, "the worker ended with exit code 7 and without a report"),
        ({"error": "RuntimeError", "message": "no kernel image"}, "RuntimeError: no kernel image"),
    ],
)
@pytest.mark.parametrize("stage", ["verify", "generate"])
def test_what_ends_a_worker_costs_the_run_at_work_alone(
    suite: SuiteRunner, stage: str, what: dict[str, Any], message: str
) -> None:
    assert suite.run(at_the_first_run(stage, **what)).code == 1
    assert suite.statuses == {"ok": SHAPES - 1, "crash": 1}
    (record,) = (one for one in suite.records if one["status"] == "crash")
    assert message in record["failure"]["message"]
    assert record["spec"]["workload"]["input_tokens"] == 8


def test_an_order_that_is_refused_is_refused_for_all_its_runs(suite: SuiteRunner) -> None:
    assert suite.run({"faults": [{"stage": "check", "message": "there is no such thing"}]}).code == 1
    assert suite.statuses == {"unsupported": SHAPES}
    assert {one["failure"]["message"] for one in suite.records} == {"there is no such thing"}


def test_what_libraries_print_is_no_report(suite: SuiteRunner) -> None:
    assert suite.run({"faults": [{"stage": "load", "prints": "a library's words"}]}).code == 0
    assert suite.statuses == {"ok": SHAPES}
    (log,) = suite.results.glob("logs/*.log")
    assert "a library's words" in log.read_text()
    assert "report" not in log.read_text()


def test_rounds_repeat_the_grid_and_go_on(suite: SuiteRunner) -> None:
    assert suite.run(KILL, "--rounds", 2).code == 1
    assert suite.statuses == {"ok": 2 * (SHAPES - 1), "crash": 2}
    assert sorted(path.name for path in suite.results.iterdir()) == ["round-1", "round-2"]
    plan = suite.run({}, "--rounds", 3, "--dry-run")
    assert "3 to run" in plan.out
    assert plan.out.count("2 of 3 done") == SHAPES
    done = suite.run({}, "--rounds", 2, "--rerun", "failed")
    assert (done.code, suite.statuses) == (0, {"ok": 2 * SHAPES})


def test_the_plan_tells_what_finished_runs_took(suite: SuiteRunner) -> None:
    suite.run(KILL)
    plan = suite.run({}, "--dry-run")
    assert "time: nothing is left to run" in plan.out
    next(suite.results.glob("*.json")).write_text("{}")
    plan = suite.run({}, "--dry-run")
    assert "1 to run" in plan.out
    assert "time: about " in plan.out


def test_a_converted_model_in_a_directory_is_done_until_it_is_another(
    suite: SuiteRunner, tmp_path: Path
) -> None:
    """Its runtime alone knows the fingerprint of the checkpoint that it was made of."""
    directory = tmp_path / "converted"
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(model("smollm2-135m").config()))
    text = suite.file.read_text()
    suite.file.write_text(text.replace("smollm2-135m", str(directory)))
    made_of = {"fingerprint": {"config": "c" * 64, "weights": "a" * 64}}
    assert suite.run(made_of).code == 0
    assert suite.statuses == {"ok": SHAPES}
    assert f"0 of {SHAPES} runs to make" in suite.run(made_of).out
    made_of["fingerprint"]["weights"] = "b" * 64
    assert f"{SHAPES} of {SHAPES} runs to make" in suite.run(made_of).out


Misbehave = Callable[[Sequence[str]], list[Order]]


@pytest.fixture
def misbehave(monkeypatch: pytest.MonkeyPatch) -> Misbehave:
    """`misbehave(behaviours)`: the next workers are the stand-in, with a behaviour each; their orders."""

    def begin(behaviours: Sequence[str]) -> list[Order]:
        left, orders = iter(behaviours), list[Order]()

        def worker(order: Order) -> list[str]:
            orders.append(order)
            return [sys.executable, str(ROOT / "tests/worker.py"), next(left)]

        monkeypatch.setattr("xpubench.run.supervisor._command", worker)
        return orders

    return begin


@pytest.mark.parametrize(
    ("behaviour", "message", "tail"),
    [
        ("crash", "ZeroDivisionError: by zero", "in work"),
        ("nothing", "said that it was done", ""),
    ],
)
def test_a_worker_that_leaves_no_record_costs_a_run(
    suite: SuiteRunner, misbehave: Misbehave, behaviour: str, message: str, tail: str
) -> None:
    orders = misbehave([behaviour, "ok"])
    assert suite.run({}).code == 1
    assert len(orders) == 2
    assert suite.statuses == {"ok": SHAPES - 1, "crash": 1}
    (record,) = (one for one in suite.records if one["status"] == "crash")
    assert message in record["failure"]["message"]
    assert tail in record["failure"]["log_tail"]


def test_a_record_that_cannot_be_written_ends_the_suite_and_is_no_failure_of_the_stack(
    suite: SuiteRunner, misbehave: Misbehave
) -> None:
    misbehave(["full"])
    done = suite.run({})
    assert (done.code, done.error_line) == (2, "error: cannot write the second record")
    assert suite.statuses == {"ok": 1}
    assert "2 to run" in suite.run({}, "--dry-run").out


def test_a_failure_shows_the_log_of_its_own_attempt(suite: SuiteRunner, misbehave: Misbehave) -> None:
    misbehave(["crash", "ok"])
    suite.run({})
    misbehave(["nothing"])
    suite.run({}, "--rerun", "failed")
    (record,) = (one for one in suite.records if one["status"] == "crash")
    assert "said that it was done" in record["failure"]["message"]
    assert record["failure"]["log_tail"] == ""
    (log,) = (path.read_text() for path in suite.results.glob(f"logs/{record['id']}.log"))
    assert "by zero" in log


def test_a_worker_that_dies_after_a_record_is_no_failure_of_the_next_run(
    suite: SuiteRunner, misbehave: Misbehave
) -> None:
    orders = misbehave(["late", "ok"])
    done = suite.run({}, "--flags", "--depths 5")
    assert (done.code, done.out.count("ok  ")) == (0, SHAPES)
    assert [len(order.specs) for order in orders] == [SHAPES, SHAPES - 1]
    assert suite.statuses == {"ok": SHAPES}
    ended = "the run ended after its measurement, and what was to follow may be missing"
    words = f"{ended}: the worker was killed by SIGKILL"
    warned = [one["id"] for one in suite.records if words in one["warnings"]]
    assert warned == [orders[0].specs[0].id]


def test_a_death_that_the_ranks_watchdog_recorded_costs_its_run_alone(
    suite: SuiteRunner, misbehave: Misbehave
) -> None:
    misbehave(["watched", "ok"])
    assert suite.run({}).code == 1
    assert suite.statuses == {"ok": SHAPES - 1, "oom": 1}


def test_a_group_of_tasks_is_done_when_its_tasks_are(suite: SuiteRunner, misbehave: Misbehave) -> None:
    misbehave(["group"])
    done = suite.run({})
    assert (done.code, done.out.count("ok  ")) == (0, 2 * SHAPES)
    assert "[3/3] ok" in done.out
    assert suite.statuses == {"ok": 2 * SHAPES}
    assert "0 of 3 runs" in suite.run({}).out
    misbehave(["group"])
    assert suite.run({}, "--rerun", "all").code == 0
    # One of the tasks is lost: its group is to run.
    next(suite.results.glob("*-second.json")).unlink()
    misbehave(["group"])
    assert "1 of 3 runs" in suite.run({}).out
    assert suite.statuses == {"ok": 2 * SHAPES}


def test_a_group_whose_worker_died_is_whole_after_a_rerun(suite: SuiteRunner, misbehave: Misbehave) -> None:
    misbehave(["crash", "group"])
    suite.run({})
    assert suite.statuses == {"crash": 1, "ok": 2 * (SHAPES - 1)}
    misbehave(["group"])
    assert suite.run({}, "--rerun", "failed").code == 0
    assert suite.statuses == {"ok": 2 * SHAPES}


@pytest.fixture
def turns(suite: SuiteRunner, xpubench: CommandLine, misbehave: Misbehave) -> Any:
    """`turns(behaviours, *flags)`: two runtimes in two rounds, a behaviour a worker; and the orders made."""

    def run(behaviours: list[str], *flags: object) -> tuple[Outcome, list[Order]]:
        orders = misbehave(behaviours)
        done = xpubench(
            *("generate", "-m", "m", "--device", "cpu", "--greedy", "--input-tokens", 8),
            *("--runtime", "pytorch,openvino-base", "--kv-cache-precision", "u8"),
            *("--rounds", 2, "--results-dir", suite.results, *flags),
        )
        assert len(orders) == len(behaviours)
        return done, orders

    return run


def test_runtimes_in_turns_rotate_and_have_their_own_flags(turns: Any) -> None:
    done, orders = turns(["ok"] * 4, "--json")
    assert done.code == 0, done.err
    assert len(done.records) == 4
    said = [line.partition(": ")[2] for line in done.err.splitlines() if line.startswith("round")]
    assert said == ["pytorch", "openvino-base", "openvino-base", "pytorch"]
    subjects = [order.specs[0].subject for order in orders]
    assert [subject.runtime for subject in subjects] == said
    caches = [getattr(subject.options, "kv_cache_precision", None) for subject in subjects]
    assert caches == [None, "u8", "u8", None]


def test_runtimes_in_turns_go_on_and_repeat_what_failed(turns: Any, suite: SuiteRunner) -> None:
    done, _ = turns(["ok", "crash", "ok", "refuse"])
    assert done.code == 1
    assert "openvino-base: error: crash: ZeroDivisionError: by zero" in done.err
    assert suite.statuses == {"ok": 2, "crash": 1, "unsupported": 1}
    assert sorted(path.name for path in suite.results.iterdir()) == ["round-1", "round-2"]
    assert list(suite.results.glob("round-1/logs/*.log"))
    done, _ = turns(["ok", "ok"])
    assert (done.code, suite.statuses) == (0, {"ok": 4})
    assert done.err.count("are done already") == 2
    assert "2 rounds" in done.out


def test_rounds_are_of_several_runtimes(xpubench: CommandLine) -> None:
    done = xpubench("generate", "-m", "m", "--device", "cpu", "--rounds", 2)
    assert (done.code, "--rounds repeats several runtimes" in done.error_line) == (2, True)


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


def test_one_command_line_of_millions_of_runs_is_refused(xpubench: CommandLine, tmp_path: Path) -> None:
    numbers = " ".join(map(str, range(1, 216)))
    flags = f"--greedy --input-tokens {numbers} --max-new-tokens {numbers} --batch-size {numbers}"
    path = tmp_path / "suite.toml"
    path.write_text(f'title = "t"\n[[grid]]\nmodels = ["smollm2-135m"]\nflags = "{flags}"\n')
    for command in (["suite", path, "--dry-run"], ["generate", "-m", "smollm2-135m", *flags.split()]):
        done = xpubench(*command)
        assert done.code == 2
        assert "9938375 runs, and at most 10000" in done.error_line
    assert "--timeout" in xpubench("suite", "smoke", "--timeout", "nan").error_line
    assert "No closing quotation" in xpubench("suite", "smoke", "--flags", "'").error_line


def test_the_plan_runs_nothing(xpubench: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "script.json").write_text("{}")
    flags = ("--dry-run", "--results-dir", tmp_path / "none")
    fake = f"--device xpu --runtime fake --fake-script {tmp_path}/script.json"
    done = xpubench("suite", "benchmark", *flags, "--flags", fake)
    assert done.code == 0
    assert "meta-llama/Llama-2-7b-hf" in done.out
    assert "13.48" in done.out
    assert not (tmp_path / "none").exists()


def test_the_plan_has_the_roofline_of_this_machine(xpubench: CommandLine, tmp_path: Path) -> None:
    device = {"name": "Intel(R) Data Center GPU Max 1550", "total_memory_bytes": 137_438_953_472}
    (tmp_path / "script.json").write_text(json.dumps({"device": device}))
    done = xpubench(
        *("suite", "benchmark", "--dry-run", "--results-dir", tmp_path / "none"),
        "--flags",
        f"--device xpu --greedy --runtime fake --fake-script {tmp_path}/script.json",
        *("--models", "meta-llama/Llama-2-7b-hf"),
    )
    # 13.48 GB of weights without the token table, and 0.57 GB of KV cache, over 3,277 GB/s; 13 generations.
    (row,) = (line for line in done.out.splitlines() if "≥" in line)
    assert " 4.21 " in row
    assert "time: about 10 s to 24 s, the roofline's lower bound of 7 s at the 30% to 70% of it" in done.out


def test_a_device_without_a_data_sheet_is_measured_for_the_plan(suite: SuiteRunner) -> None:
    """Other work can only lower what it reaches now."""
    speed = {"bandwidth_gb_per_s": 12, "bandwidth_shown_gb_per_s": 123}
    plan = suite.run({"device": {"name": "Prototype", **speed}}, "--dry-run")
    assert "Prototype, 123.0 GB/s (the most that it has shown" in plan.out
    assert "TFLOP/s" not in plan.out


@pytest.mark.parametrize(
    ("name", "dtype", "peak"),
    [
        ("Prototype", "bfloat16", "2 TFLOP/s (the most that it has shown"),
        # A data sheet without a peak, one with that of 16 bits, and the same in float32.
        ("Intel(R) Arc(TM) A750 Graphics", "bfloat16", "2 TFLOP/s (the most that it has shown"),
        ("Intel(R) Arc(TM) B580 Graphics", "bfloat16", "116 TFLOP/s (derived"),
        ("Intel(R) Arc(TM) B580 Graphics", "float32", "2 TFLOP/s (the most that it has shown"),
    ],
)
def test_a_peak_that_no_data_sheet_has_is_measured_for_the_plan(
    xpubench: CommandLine, tmp_path: Path, name: str, dtype: str, peak: str
) -> None:
    device = {"name": name, "peak_tflop_per_s": 2}
    (tmp_path / "script.json").write_text(json.dumps({"device": device}))
    flags = f"--device xpu --dtype {dtype} --runtime fake --fake-script {tmp_path}/script.json"
    models = ("--models", "meta-llama/Llama-2-7b-hf", "--results-dir", tmp_path / "none")
    plan = xpubench("suite", "accuracy", "--dry-run", *models, "--flags", flags)
    assert peak in plan.out
    assert "without a bound" not in plan.out


def test_a_suite_that_is_killed_at_any_moment_loses_no_finished_run(tmp_path: Path) -> None:
    from benchmarks.suite import kills

    (tmp_path / "script.json").write_text("{}")
    suite = tmp_path / "suite.toml"
    suite.write_text(
        'title = "t"\n[[grid]]\nmodels = ["smollm2-135m"]\n'
        f'flags = "--runtime fake --fake-script {tmp_path}/script.json --device cpu --greedy --num-iter 2 '
        '--input-tokens 8 9 10 --max-new-tokens 2"\n'
        'vary = [["", "--use-static-cache"]]\n'
    )
    for goal in kills(4, [sys.executable, "-m", "xpubench"], suite, latest_s=2.0):
        assert goal.verdict == "ok", goal
