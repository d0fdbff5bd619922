"""Suites whose workers run in environments of their own, and what the guide's table asks of a platform."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import CommandLine, interpreter_with_an_xpu
from xpubench.run.suite import command_lines, read_suite
from xpubench.runtimes.registry import listed, options_class

RUN = "--device cpu --greedy --num-iter 2 --input-tokens 8 --max-new-tokens 2"


@pytest.fixture
def fake(tmp_path: Path) -> str:
    """The flags of the fake runtime."""
    (tmp_path / "script.json").write_text("{}")
    return f"--runtime fake --fake-script {tmp_path}/script.json {RUN}"


def grid(flags: str, more: str = "") -> str:
    return f'[[grid]]\nmodels = ["smollm2-135m"]\nflags = "{flags}"\n{more}\n'


@pytest.fixture
def suite(tmp_path: Path, xpubench: CommandLine) -> Any:
    """`suite(text, *flags)`: the suite in a file of `tmp_path/here`, and its records in
    `tmp_path/results`."""

    def run(text: str, *flags: object) -> Any:
        file = tmp_path / "here" / "suite.toml"
        file.parent.mkdir(exist_ok=True)
        file.write_text('title = "t"\n' + text)
        return xpubench("suite", file, "--results-dir", tmp_path / "results", *flags)

    return run


def records(tmp_path: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted((tmp_path / "results").glob("*.json"))]


def test_a_worker_runs_in_the_environment_of_its_grid(suite: Any, fake: str, tmp_path: Path) -> None:
    """The interpreter's path starts at the suite's file, and the variables are the worker's alone."""
    python = tmp_path / "here" / "venv" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\ntouch {tmp_path}/ran\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    environment = '[environments.other]\npython = "venv/python"\nvariables = { OMP_NUM_THREADS = "3" }\n'
    other = grid(f"{fake} --batch-size 2", 'environment = "other"')
    assert suite(environment + grid(fake) + other).code == 0
    threads = {
        record["spec"]["workload"].get("batch_size", 1): record["environment"]["variables"].get(
            "OMP_NUM_THREADS"
        )
        for record in records(tmp_path)
    }
    assert threads[2] == "3"
    assert threads[1] != "3"
    assert (tmp_path / "ran").exists()


def test_the_runtime_looks_for_its_device_in_the_environment_of_its_grid(
    suite: Any, fake: str, tmp_path: Path
) -> None:
    """There the runtime finds an xpu, of which torch knows nothing."""
    interpreter_with_an_xpu(tmp_path / "here" / "stack")
    flags = fake.replace("--device cpu", "")
    done = suite('[environments.other]\npython = "stack/python"\n' + grid(flags, 'environment = "other"'))
    assert done.code == 0, done.out
    assert [record["spec"]["subject"]["device"] for record in records(tmp_path)] == ["xpu"]


def test_a_stack_that_an_environment_lacks_is_said_by_its_runs(suite: Any, tmp_path: Path) -> None:
    lacking = grid(f"--runtime openvino-base {RUN}".replace("--device cpu", ""), 'environment = "own"')
    done = suite(f'[environments.own]\npython = "{sys.executable}"\n' + lacking)
    assert done.code == 1
    [record] = records(tmp_path)
    assert record["status"] == "unsupported"
    assert "requirements-openvino.txt" in record["failure"]["message"]


def test_an_optional_stack_that_is_not_here_is_left_out_and_named(
    suite: Any, fake: str, tmp_path: Path
) -> None:
    missing = grid(f"--runtime ipex {RUN}", 'optional = true\nenvironment = "none"')
    done = suite('[environments.none]\npython = "none/python"\n' + grid(fake) + missing)
    assert done.code == 0
    assert "ipex is left out: neither" in done.out
    assert "intel-extension-for-pytorch" in done.out
    assert len(records(tmp_path)) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{fake}", "is not there"),
        ("{twice}", "two environments run the same smollm2-135m"),
        ("{unknown}", "no environment 'unheard'"),
        ("{ranks}", "/bare/python or on PATH; pip install"),
    ],
)
def test_what_an_environment_cannot_be(
    suite: Any, fake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, words: str
) -> None:
    monkeypatch.setenv("PATH", "/none")
    python = tmp_path / "here" / "bare" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    own = f'[environments.own]\npython = "{sys.executable}"\nvariables = {{ A = "1" }}\n'
    texts = {
        "{fake}": '[environments.own]\npython = "none/python"\n' + grid(fake, 'environment = "own"'),
        "{twice}": own + grid(fake) + grid(fake, 'environment = "own"'),
        "{unknown}": grid(fake, 'environment = "unheard"'),
        "{ranks}": '[environments.own]\npython = "bare/python"\n'
        + grid(RUN, 'environment = "own"\nranks = 2'),
    }
    done = suite(texts[text])
    assert (done.code, words in done.error_line) == (2, True)
    assert not (tmp_path / "results").exists()


def test_a_suite_has_a_number_of_rounds_of_its_own(suite: Any, fake: str, tmp_path: Path) -> None:
    assert suite("rounds = 2\n" + grid(fake)).code == 0
    assert len(list((tmp_path / "results").glob("round-*/*.json"))) == 2
    assert suite("rounds = 2\n" + grid(fake), "--rounds", 1).code == 0
    assert len(records(tmp_path)) == 1


def test_the_suite_of_all_stacks(
    xpubench: CommandLine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In a directory without the environments of other stacks it runs those of this one."""
    monkeypatch.chdir(tmp_path)
    done = xpubench("suite", "stacks", "--dry-run", "--flags", "--device cpu")
    assert done.code == 0, done.err
    runs = [line for line in done.out.splitlines() if "smollm2-135m · pytorch" in line]
    # The latency and the accuracy, each in 16 bits and in INT4.
    assert len(runs) == 4
    assert "3 round(s)" in done.out
    assert "without a bound" not in done.out


def test_flags_of_one_kind_of_run_go_to_the_runs_of_that_kind(suite: Any, fake: str, tmp_path: Path) -> None:
    alone = fake.replace(RUN, "--device cpu")
    latency, accuracy = grid(f"{alone} {RUN}"), grid(f"{alone} --accuracy-only --acc-tasks lambada_smoke")
    (tmp_path / "script.json").write_text('{"scores": true}')
    done = suite(latency + accuracy, "--flags", "--max-new-tokens 3 --until-ci 50 --num-iter 8 --acc-iter 4")
    assert done.code == 0, done.out
    specs = {record["spec"]["kind"]: record["spec"] for record in records(tmp_path)}
    assert specs["latency"]["workload"]["new_tokens"] == 3
    assert specs["latency"]["protocol"]["until_ci"] == 0.5
    assert specs["accuracy"]["task"]["limit"] == 4
    # Of its own command line nothing is taken back.
    own = suite(latency + grid(f"{alone} --accuracy-only --max-new-tokens 3"))
    assert (own.code, "--max-new-tokens is for latency runs" in own.error_line) == (2, True)
    for one, flags, words in (
        (latency, "--acc-iter 4", "--acc-iter is for accuracy runs"),
        (accuracy, "--max-new-tokens 3", "--max-new-tokens is for latency runs"),
        (accuracy, "--explain", "--explain and --depths are for latency runs"),
    ):
        refused = suite(one, f"--flags={flags}")
        assert (refused.code, words in refused.error_line) == (2, True), flags


@pytest.mark.parametrize(
    "flags",
    [
        *("--max-new-tokens 8", "--depths 8 16", "--explain", "--profile", "--loads 2", "--acc-iter 4"),
        *(
            "--reference cpu-float32 --max-kl 0.5",
            "--torch-compile --backend eager",
            "--acc-tasks lambada_smoke",
        ),
        "--until-decided --reference record.json",
    ],
)
def test_a_suite_of_both_kinds_takes_the_flags_of_either(xpubench: CommandLine, flags: str) -> None:
    done = xpubench("suite", "smoke", "--dry-run", "--flags", f"--device cpu {flags}")
    assert done.code == 0, done.err


def test_the_stacks_are_compared_in_tokens_divergence_and_accuracy() -> None:
    read = read_suite("stacks")
    lines = [" ".join(line.flags) for line in command_lines(read, None, [])]
    for name in listed():
        if options_class(name).shards is not None:
            continue
        own = [line for line in lines if f"--runtime {name} " in f"{line} "]
        accuracies = [line for line in own if "--acc-tasks lambada_smoke" in line]
        latencies = [line for line in own if "--max-new-tokens" in line]
        hides = options_class(name).hides_logits is not None
        assert len(latencies) >= 1, name
        assert len(accuracies) == (0 if hides else len(latencies)), name
        assert all(("--reference cpu-float32" in line) != hides for line in latencies), name


def test_the_plan_of_a_platform_says_how_long_it_takes(xpubench: CommandLine) -> None:
    flags = ("--flags", "--device cpu")
    done = xpubench("validate", "--dry-run", "--platform", "b580", *flags)
    assert done.code == 0, done.err
    assert "platform: Arc B580; 3 models of the guide's table, 12 processes" in done.out
    assert "the roofline's lower bound" in done.out
    # The peak of a CPU is in no data sheet, but measured.
    assert "without a bound" not in done.out
    assert "bloom" not in done.out
    # OPT is validated in float16 alone.
    opt = xpubench("validate", "--dry-run", "--platform", "max", "--models", "opt-6.7b", *flags).out
    assert "RTN" not in opt


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--platform", "b850"], "did you mean b580"),
        (["--platform", "b580", "--models", "opt-6.7b"], "asks nothing of Arc B580"),
        (
            ["--platform", "b580", "--models", "Llama-2-7b-hf", "Lama-3-8B"],
            "unknown model 'Lama-3-8B'; did you",
        ),
        ([], "none of the guide's platforms; --platform max"),
    ],
)
def test_what_cannot_be_validated(xpubench: CommandLine, flags: list[str], words: str) -> None:
    done = xpubench("validate", "--dry-run", "--flags", "--device cpu", *flags)
    assert (done.code, words in done.error_line) == (2, True), done.err


def test_a_model_that_the_platforms_table_lacks_is_named(xpubench: CommandLine) -> None:
    models = ("--models", "Llama-2-7b-hf", "opt-6.7b", "smollm2-135m")
    done = xpubench("validate", "--dry-run", "--platform", "b580", *models, "--flags", "--device cpu")
    assert done.code == 0, done.err
    left_out = [line for line in done.out.splitlines() if line.startswith("left out")]
    assert [line.partition(" on ")[2] for line in left_out] == ["Arc B580: smollm2-135m, facebook/opt-6.7b"]
    everything = xpubench("validate", "--dry-run", "--platform", "b580", "--flags", "--device cpu")
    assert "left out" not in everything.out


def test_validate_takes_the_flags_of_both_kinds_of_run(xpubench: CommandLine) -> None:
    flags = ("--flags", "--device cpu --max-new-tokens 8 --acc-iter 4")
    done = xpubench("validate", "--dry-run", "--platform", "b580", "--models", "Llama-2-7b-hf", *flags)
    assert done.code == 0, done.err
    assert "1024 in, 8 out" in done.out
    assert "1 models of the guide's table" in done.out


def test_validate_writes_the_page_and_goes_on_where_it_stopped(xpubench: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "script.json").write_text("{}")
    flags = f"--runtime fake --fake-script {tmp_path}/script.json --device cpu"
    results = tmp_path / "results"
    where = ("--platform", "core-ultra", "--models", "Meta-Llama-3-70B", "--results-dir", results)
    command = ("validate", *where, "--flags", flags)
    done = xpubench(*command)
    before, _, _ = done.out.partition("runs to make")
    assert "time: " in before
    # The passages of the accuracy runs are on the hub, which tests do not ask.
    assert done.code == 1
    kinds = [(record["spec"]["kind"], record["status"]) for record in records(tmp_path)]
    assert kinds.count(("latency", "ok")) == 2
    assert len(kinds) == 4
    assert (results / "report.html").read_text().startswith("<!DOCTYPE html>")
    again = xpubench(*command)
    assert "time: nothing is left to run" in again.out
    assert "0 of 4 runs to make" in again.out


def references_in(plan: str) -> list[str]:
    return [line for line in plan.splitlines() if "lambada_standard" in line and "float32" in line]


def test_validate_makes_the_reference_where_none_is_published(xpubench: CommandLine) -> None:
    def plan(*names: str, flags: str = "--device cpu") -> str:
        command = ("validate", "--dry-run", "--platform", "max", "--models", *names, "--flags", flags)
        done = xpubench(*command)
        assert done.code == 0, done.err
        return done.out

    small = plan("Llama-3.2-1B", "Llama-2-7b-hf")
    assert len(references_in(small)) == 1
    assert "of 1 of them no accuracy is published" in small
    assert references_in(plan("Llama-2-7b-hf")) == []
    # 282 GB of float32 weights fit into no machine of a test.
    too_large = plan("Meta-Llama-3-70B")
    assert references_in(too_large) == []
    assert "xpubench reference -m meta-llama/Meta-Llama-3-70B --results-dir results" in too_large
    assert references_in(plan("Llama-3.2-1B", flags="--device cpu --dummy-weights")) == []
