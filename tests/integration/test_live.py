"""`compare --live`: two workers that generate in turn, by the fake runtime, which tells their times."""

import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import records
from tests.conftest import CommandLine, Outcome
from xpubench.compare.live import compare_blocks
from xpubench.compare.processes import Limits
from xpubench.record import read_record
from xpubench.results import ResultsDirectory
from xpubench.run.live import WARMUP, Resident, Side, run_block
from xpubench.run.order import Order
from xpubench.spec import Protocol, RunSpec, Workload

SHAPE = "--device cpu --greedy --input-tokens 8 --max-new-tokens 4 --num-iter 6 --num-warmup 2"


def times(factor: float, jitter: float = 0.0) -> dict[str, Any]:
    """A script whose generations differ by up to the jitter."""
    rows = [
        {"first_token_ns": 5_000_000, "next_token_ns": [int(1e6 * factor * (1 + jitter * (at % 3 - 1)))]}
        for at in range(6)
    ]
    return {"every_token": rows, "end_to_end": rows}


@pytest.fixture
def live(xpubench: CommandLine, tmp_path: Path) -> Callable[..., Outcome]:
    """`live(a, b, *flags)`: two scripts compared; None stands for no command line."""

    def run(a: dict[str, Any], b: dict[str, Any] | None, *flags: object) -> Outcome:
        sides = []
        for name, script in (("a", a), ("b", b)):
            if script is not None:
                path = tmp_path / f"{name}.json"
                path.write_text(json.dumps(script))
                sides.append(f"-m smollm2-135m --runtime fake --fake-script {path} {SHAPE}")
        return xpubench("compare", "--live", *sides, "--results-dir", tmp_path / "live", *flags)

    return run


@pytest.mark.parametrize(
    ("factor", "verdict", "code"), [(1.1, "slower", 1), (0.9, "faster", 0), (1.0, "same", 0)]
)
def test_blocks_go_on_until_they_decide(
    live: Callable[..., Outcome],
    xpubench: CommandLine,
    tmp_path: Path,
    factor: float,
    verdict: str,
    code: int,
) -> None:
    done = live(times(1.0, 0.003), times(factor, -0.003))
    assert (done.code, f"{verdict}: next token, ratio " in done.out) == (code, True)
    blocks = len(list((tmp_path / "live" / "a").glob("round-*")))
    assert blocks == 5
    assert "block 4: inconclusive" in done.err
    # The records stay, and are rounds that took turns.
    again = xpubench("compare", tmp_path / "live" / "a", tmp_path / "live" / "b", "--json")
    if factor == 1.0:
        (run,) = json.loads(again.out)["runs"]
        assert run["primary"]["method"] == "paired t"


def test_a_budget_that_ends_is_inconclusive(live: Callable[..., Outcome]) -> None:
    done = live(times(1.0), times(2.0), "--budget", 1, "--json")
    (run,) = json.loads(done.out)["runs"]
    assert (done.code, run["verdict"], run["primary"]["to_decide"]) == (3, "inconclusive", None)
    assert "at least 5 blocks" in run["reason"]
    assert run["primary"]["change"] == pytest.approx(2.0)


def test_one_command_line_in_two_environments(live: Callable[..., Outcome]) -> None:
    done = live(times(1.0), None, "--budget", 1, "--b-env", "OMP_NUM_THREADS=7")
    assert done.code == 3
    assert "OMP_NUM_THREADS" in done.out
    assert "→ 7" in done.out


def test_a_side_that_fails(live: Callable[..., Outcome], tmp_path: Path) -> None:
    """The other side's run goes on to its end."""
    broken = times(1.0) | {
        "faults": [{"stage": "generate", "call": 4, "error": "RuntimeError", "message": "no"}]
    }
    done = live(times(1.0), broken)
    assert (done.code, "newly failing: crash: RuntimeError: no" in done.out) == (1, True)
    (path,) = (tmp_path / "live" / "a" / "round-1").glob("*[0-9a-f].json")
    assert json.loads(path.read_text())["status"] == "ok"


def test_a_worker_that_dies(live: Callable[..., Outcome]) -> None:
    done = live(times(1.0), times(1.0) | {"faults": [{"stage": "load", "signal": 9}]})
    assert (done.code, "newly failing: " in done.out, "SIGKILL" in done.out) == (1, True, True)


def test_workers_run_alone_where_memory_holds_one(live: Callable[..., Outcome]) -> None:
    done = live(
        times(1.0), times(1.0) | {"faults": [{"stage": "load", "error": "MemoryError"}]}, "--budget", 1
    )
    assert "memory holds one worker alone" in done.err
    assert (done.code, "newly failing: oom" in done.out) == (1, True)


# An interpreter whose first worker has the script of its first argument, and later ones that of the second.
CHANGING = """#!/bin/sh
if [ "$1" != -c ]; then
  if [ -e {there} ]; then cp {second} {script}; else cp {first} {script}; touch {there}; fi
fi
exec {python} "$@"
"""


@pytest.fixture
def changing(tmp_path: Path) -> Callable[..., Path]:
    """`changing(first, second)`: an interpreter of B with which its script is another from the second on."""

    def make(first: dict[str, Any], second: dict[str, Any]) -> Path:
        names = {"there": tmp_path / "there", "script": tmp_path / "b.json"}
        for name, script in (("first", first), ("second", second)):
            names[name] = tmp_path / f"{name}.json"
            names[name].write_text(json.dumps(script))
        python = tmp_path / "changing"
        python.write_text(CHANGING.format(python=sys.executable, **names))
        python.chmod(0o755)
        return python

    return make


FULL = times(1.0) | {"faults": [{"stage": "load", "error": "MemoryError"}]}


def test_blocks_of_workers_that_ran_alone_say_what_it_costs(
    live: Callable[..., Outcome], changing: Callable[..., Path], tmp_path: Path
) -> None:
    python = changing(FULL, times(1.1, -0.003))
    done = live(times(1.0, 0.003), times(1.0), "--b-python", python, "--json")
    (run,) = json.loads(done.out)["runs"]
    assert (done.code, run["verdict"], run["blocks_alone"]) == (1, "slower", 5)
    assert "in 5 of the blocks the sides ran one after the other" in run["reason"]
    assert "more blocks are needed" in run["reason"]
    kept = [
        json.loads(path.read_text())["status"]
        for side in "ab"
        for path in (tmp_path / "live" / side).glob("round-*/*[0-9a-f].json")
    ]
    assert kept == ["ok"] * 10


def test_a_worker_that_dies_is_not_judged_by_an_earlier_record(tmp_path: Path) -> None:
    """The block is made again in its directory, where B's first attempt has left a record that went well."""
    sides = []
    for name in "AB":
        script = tmp_path / f"{name}.json"
        script.write_text(json.dumps(FULL if name == "A" else times(1.0)))
        subject = records.subject("smollm2-135m", runtime="fake", device="cpu", script=str(script))
        workload = Workload(input_tokens=8, new_tokens=4)
        spec = RunSpec(subject=subject, workload=workload, protocol=Protocol(num_iter=3, num_warmup=WARMUP))
        sides.append(Side(name=name, order=Order(specs=[spec], results=""), python=sys.executable))
    directories = tmp_path / "a", tmp_path / "b"

    def statuses(*, alone: bool) -> list[str]:
        made = run_block((sides[0], sides[1]), directories, random.Random(1), lambda text: None, alone=alone)
        return [record.status for record in made]

    assert statuses(alone=False) == ["oom", "ok"]
    (tmp_path / "A.json").write_text(json.dumps(times(1.0)))
    dying = times(1.0) | {"faults": [{"stage": "load", "signal": 9}]}
    (tmp_path / "B.json").write_text(json.dumps(dying))
    assert statuses(alone=True) == ["ok", "crash"]


@pytest.mark.parametrize("side", ["a", "b"])
@pytest.mark.parametrize(
    ("python", "words"),
    [
        ("/nonexistent/python", "the interpreter /nonexistent/python is not there"),
        ("/bin/false", "the interpreter /bin/false runs no worker of this tool (exit code 1)"),
        ("EMPTY", "No module named"),
    ],
)
def test_an_interpreter_that_runs_no_worker_is_no_regression(
    live: Callable[..., Outcome], tmp_path: Path, side: str, python: str, words: str
) -> None:
    """Neither side is started."""
    if python == "EMPTY":
        path = tmp_path / "python"
        path.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
        path.chmod(0o755)
        python = str(path)
    done = live(times(1.0), times(1.0), f"--{side}-python", python)
    assert (done.code, words in done.error_line) == (2, True)
    assert "block 1" not in done.err
    assert not (tmp_path / "live" / "a").exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--budget", 0], "--budget must be at least 1"),
        (["--b-env", "X"], "'X' sets no variable"),
        ([], "both sides are the same"),
    ],
)
def test_what_cannot_be_asked(live: Callable[..., Outcome], flags: list[object], words: str) -> None:
    done = live(times(1.0), None, *flags)
    assert (done.code, words in done.error_line) == (2, True)


def test_a_comparison_does_not_go_on_after_a_look(live: Callable[..., Outcome]) -> None:
    assert live(times(1.0), times(2.0), "--budget", 1).code == 3
    done = live(times(1.0), times(2.0), "--budget", 1)
    assert (done.code, "holds an earlier comparison" in done.error_line) == (2, True)


def test_two_sets_are_needed_without_live(xpubench: CommandLine, tmp_path: Path) -> None:
    done = xpubench("compare", tmp_path)
    assert (done.code, "name BASE and NEW" in done.error_line) == (2, True)


# A worker that writes its name at each turn, and a record at the end.
STUB = """#!{python}
import sys
sys.path[:0] = {path!r}
import msgspec
from xpubench.process.reports import Done, Waiting
from xpubench.results import ResultsDirectory
from xpubench.record import read_record
from pathlib import Path

def say(report):
    print(msgspec.json.encode(report).decode(), flush=True)

order = msgspec.json.decode(sys.stdin.readline())
for _ in range({turns}):
    say(Waiting())
    sys.stdin.readline()
    with open({log!r}, "a") as log:
        log.write({name!r})
ResultsDirectory(Path(order["results"])).write(read_record(Path({record!r})))
say(Done())
"""


def test_they_take_turns_in_an_order_drawn_by_chance(tmp_path: Path) -> None:
    """Each worker is loaded and warmed up before they take turns, one generation each."""
    record = records.latency_record(records.subject())
    path, log, generations = records.write(tmp_path, record), tmp_path / "log", 20
    sides = []
    for name in "AB":
        stub = tmp_path / name
        stub.write_text(
            STUB.format(
                python=sys.executable,
                path=sys.path,
                turns=1 + WARMUP + generations,
                log=str(log),
                name=name,
                record=str(path),
            )
        )
        stub.chmod(0o755)
        sides.append(Side(name=name, order=Order(specs=[record.spec], results=""), python=str(stub)))
    directories = tmp_path / "a", tmp_path / "b"
    found = run_block((sides[0], sides[1]), directories, random.Random(1), lambda text: None)
    assert found == (record, record)
    turns = log.read_text()
    first = turns[0]
    # A worker that has its last turn ends its run.
    assert turns[: 2 * WARMUP] == first * WARMUP + ("AB".replace(first, "")) * WARMUP
    pairs = [turns[at : at + 2] for at in range(2 * WARMUP, len(turns), 2)]
    assert len(pairs) == generations + 1
    assert set(pairs) == {"AB", "BA"}


def resident(tmp_path: Path, script: dict[str, Any]) -> Resident:
    """A worker of four measured pairs of the fake runtime."""
    path = tmp_path / "script.json"
    path.write_text(json.dumps(script))
    spec = RunSpec(
        subject=records.subject("smollm2-135m", runtime="fake", device="cpu", script=str(path)),
        workload=Workload(input_tokens=8, new_tokens=4),
        protocol=Protocol(num_iter=4 + WARMUP, num_warmup=WARMUP),
    )
    side = Side(name="A", order=Order(specs=[spec], results=""), python=sys.executable)
    return Resident(side, ResultsDirectory(tmp_path / "results"), lambda text: None)


def test_a_worker_that_hangs_has_a_record_of_the_timeout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has generated once by then, and writes a record itself when it is ended."""
    hangs = {"faults": [{"stage": "generate", "call": 2, "hang_s": 3600}]}
    with resident(tmp_path, times(1.0) | hangs) as worker:
        worker.wait()
        worker.turn()
        monkeypatch.setattr("xpubench.run.live.TIMEOUT_S", 0.5)
        worker.turn()
        record = worker.record()
    assert record.failure is not None
    assert (record.status, record.failure.failure_class) == ("timeout", "timeout")
    assert "no generation within 0.5 s" in record.failure.message
    assert len(record.samples.warmup) == 2
    assert read_record(tmp_path / "results" / f"{record.id}.json") == record


def test_a_worker_waits_before_each_generation(tmp_path: Path) -> None:
    turns = 0
    with resident(tmp_path, times(1.0)) as worker:
        worker.wait()
        while worker.waiting:
            turns += 1
            worker.turn()
        assert worker.record().status == "ok"
    # Before the first generation, and after each one: those of the warm-up, and two of each pair.
    assert turns == 1 + WARMUP + 2 * 4


def test_a_later_block_that_fails_is_told() -> None:
    """A base that fails now is no reason to call the new side anything."""
    good = records.latency_record(records.subject())
    broken = records.failed(good, "crash", "it broke")
    told = [
        compare_blocks([good, a], [good, b], Limits(), "next_token").verdict
        for a, b in ((broken, good), (good, broken), (broken, broken))
    ]
    assert told == ["not comparable", "newly failing", "failing in both"]
