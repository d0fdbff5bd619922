"""What the one-click scripts make of their environment, with a stand-in for Python that prints arguments."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT

STAND_IN = '#!/bin/sh\nprintf \'%s\\n\' "$0" "$@"\n'


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A directory with the scripts and a .venv."""
    directory = tmp_path / "checkout"
    directory.mkdir()
    for script in ROOT.glob("run_*.sh"):
        shutil.copy(script, directory)
    python(directory / ".venv")
    return directory


def python(environment: Path, name: str = "python") -> str:
    """The path of an environment, in which Python is the stand-in."""
    (environment / "bin").mkdir(parents=True)
    (environment / "bin" / name).write_text(STAND_IN)
    (environment / "bin" / name).chmod(0o755)
    return str(environment)


def called(checkout: Path, script: str, **variables: str) -> tuple[str, list[str]]:
    """The Python that a script starts, and its arguments."""
    done = run(checkout, script, **variables)
    assert (done.returncode, done.stderr) == (0, "")
    program, *arguments = done.stdout.splitlines()
    return program, arguments


def run(
    checkout: Path, script: str, *arguments: str, directory: str = "/", **variables: str
) -> "subprocess.CompletedProcess[str]":
    """The script in that working directory."""
    command = ["bash", str(checkout / script), *arguments]
    variables = {"PATH": "/usr/bin:/bin"} | variables
    return subprocess.run(command, env=variables, capture_output=True, text=True, cwd=directory)


def test_the_activated_python_is_taken_first(checkout: Path, tmp_path: Path) -> None:
    activated, conda = python(tmp_path / "activated"), python(tmp_path / "conda")
    script = "run_benchmark.sh"
    assert called(checkout, script, VIRTUAL_ENV=activated, CONDA_PREFIX=conda)[0] == f"{activated}/bin/python"
    assert called(checkout, script, CONDA_PREFIX=conda)[0] == f"{conda}/bin/python"
    assert called(checkout, script)[0] == f"{checkout}/.venv/bin/python"
    # An environment that was removed is not activated any more.
    assert called(checkout, script, VIRTUAL_ENV=str(tmp_path / "gone"))[0] == f"{checkout}/.venv/bin/python"
    shutil.rmtree(checkout / ".venv")
    system = python(tmp_path / "system", "python3")
    assert called(checkout, script, PATH=f"{system}/bin:/usr/bin:/bin")[0] == f"{system}/bin/python3"


def parts(arguments: list[str]) -> tuple[list[str], list[str]]:
    """The arguments of `xpubench suite` but for `--flags`, and the words in those."""
    assert arguments[:3] == ["-m", "xpubench", "suite"]
    (flags,) = [one.removeprefix("--flags=") for one in arguments if one.startswith("--flags=")]
    return [one for one in arguments[3:] if not one.startswith("--flags=")], shlex.split(flags)


BENCHMARK = "--num-beams 4 --batch-size 1 --input-tokens 1024 --max-new-tokens 128 --num-iter 10"


@pytest.mark.parametrize(
    ("script", "suite", "defaults"),
    [
        ("run_benchmark.sh", "benchmark", BENCHMARK),
        ("run_benchmark_ds.sh", "benchmark-ds", BENCHMARK),
        ("run_benchmark_woq.sh", "benchmark-woq", BENCHMARK),
        ("run_accuracy.sh", "accuracy", "--acc-tasks lambada_standard"),
        ("run_accuracy_ds.sh", "accuracy-ds", "--acc-tasks lambada_standard"),
    ],
)
def test_the_defaults_are_the_guides(checkout: Path, script: str, suite: str, defaults: str) -> None:
    arguments, flags = parts(called(checkout, script)[1])
    assert arguments == [suite, "--stack", "auto", "--results-dir", "results"]
    assert flags == defaults.split()


def test_every_variable_arrives(checkout: Path) -> None:
    shared = {
        **{"models": "a b", "stack": "openvino", "np": "4", "timeout": "60", "results": "r", "rerun": "all"},
        **{"device": "xpu", "dtype": "float16", "flags": "--greedy --seed 1"},
    }
    workload = {"beam": "1 4", "bs": "2", "input": "32", "out": "16", "iter": "5"}
    arguments, flags = parts(called(checkout, "run_benchmark_ds.sh", **shared, **workload)[1])
    assert arguments == [
        *("benchmark-ds", "--stack", "openvino", "--models", "a", "b", "--ranks", "4", "--timeout", "60"),
        *("--results-dir", "r", "--rerun", "all"),
    ]
    expected = "--num-beams 1 4 --batch-size 2 --input-tokens 32 --max-new-tokens 16 --num-iter 5"
    assert " ".join(flags) == f"{expected} --device xpu --dtype float16 --greedy --seed 1"
    # The README's name of the variable that the guide's scripts call `out`.
    assert "--max-new-tokens 8" in " ".join(called(checkout, "run_benchmark.sh", output="8")[1])
    _, flags = parts(called(checkout, "run_accuracy.sh", task="lambada_standard")[1])
    assert flags == ["--acc-tasks", "lambada_standard"]


@pytest.mark.parametrize(
    ("models", "names"),
    [
        ("a b\tc", ["a", "b", "c"]),
        ("/data/My Models/a\nb", ["/data/My Models/a", "b"]),
        ("\n  /data/My Models/a\n\n  b*\n", ["/data/My Models/a", "b*"]),
        ("My Models/a", ["My Models/a"]),
        ("My Models/b", ["My", "Models/b"]),
        ("", []),
    ],
)
def test_models_are_words_or_lines_or_a_path(
    checkout: Path, tmp_path: Path, models: str, names: list[str]
) -> None:
    (tmp_path / "My Models" / "a").mkdir(parents=True)
    (tmp_path / "bb").touch()
    done = run(checkout, "run_benchmark.sh", directory=str(tmp_path), models=models)
    arguments, _ = parts(done.stdout.splitlines()[1:])
    assert arguments == [
        *("benchmark", "--stack", "auto", *(["--models", *names] if names else [])),
        *("--results-dir", "results"),
    ]


def test_relative_paths_are_the_callers_and_the_code_is_the_checkouts(checkout: Path, tmp_path: Path) -> None:
    (checkout / ".venv" / "bin" / "python").write_text(
        '#!/bin/sh\nprintf \'%s\\n\' "$PWD" "$PYTHONPATH" "$LLM_ACC_TEST"\n'
    )
    here = tmp_path / "here"
    here.mkdir()
    done = run(checkout, "run_accuracy_ds.sh", directory=str(here), PYTHONPATH="/own")
    assert done.stdout.splitlines() == [str(here), f"{checkout}:/own", "1"], done.stderr
    # The caller may also name the script by a path that starts at the working directory.
    done = run(Path("checkout"), "run_benchmark_woq.sh", directory=str(tmp_path))
    assert done.stdout.splitlines()[:2] == [str(tmp_path), str(checkout)], done.stderr


SCRIPTS = [path.name for path in ROOT.glob("run_*.sh") if path.name != "run_suite.sh"]


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_lists_the_variables_on_one_screen(checkout: Path, script: str) -> None:
    done = run(checkout, script, "-m", "llama", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == f"usage: [VARIABLE=VALUE ...] bash {script} [--help]"
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    own = {"task"} if "accuracy" in script else {"beam", "bs", "input", "out", "iter"}
    shared = {"models", "stack", "np", "device", "dtype", "flags", "timeout", "results", "rerun"}
    listed = {line.split()[0].strip(",") for line in lines if re.match("  [a-z]", line)}
    assert listed == own | shared


@pytest.mark.parametrize("script", SCRIPTS)
def test_other_arguments_are_refused(checkout: Path, script: str) -> None:
    done = run(checkout, script, "-m", "llama", "--device", "xpu")
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {script} takes no arguments such as -m")
    assert "--help" in line
