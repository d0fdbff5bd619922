"""Each file of requirements installs what the commands that it serves import, read from the code itself."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.unit.test_imports import imports_of

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# The commands, and the worker that suites start.
ENTRIES = ("xpubench.cli.main", "xpubench.run.worker")
# A module that is named in a string, such as those of the commands and the runtimes.
NAMED = re.compile(r"(xpubench(?:\.\w+)+)(?::\w+)?")
# By file, the modules whose stack belongs into another environment, and what is imported by its name: by the
# kernels of INT4 weights, ipex.llm.optimize (diffusers, einops), neural-compressor (datasets) and DeepSpeed.
OPENVINO = "xpubench.runtimes.openvino."
LLAMA_CPP = "xpubench.runtimes.llama_cpp."
# auto-round wants a later PyTorch than IPEX.
AUTOROUND = "xpubench.weights.int4.calibrated."
IPEX = ("xpubench.runtimes.ipex.runtime.", "xpubench.runtimes.ipex.neural_compressor.")
FILES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "requirements-xpu.txt": ((OPENVINO, LLAMA_CPP, *IPEX), ("torchao",)),
    "requirements-ipex-xpu.txt": (
        (OPENVINO, LLAMA_CPP, AUTOROUND),
        ("diffusers", "einops", "datasets", "oneccl_bind_pt"),
    ),
}
# Where a distribution has another name than its module, or comes with one that is listed.
DISTRIBUTIONS = {
    "datasets": "lm-eval",
    "markupsafe": "jinja2",
    "neural_compressor": "neural-compressor-pt",
    "tokenizers": "transformers",
    "yaml": "transformers",
}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def names_of(requirements: Iterable[str]) -> set[str]:
    """The distributions that requirement specifiers name."""
    return {normal(re.split(r"[\s<>=!~;\[]", one, maxsplit=1)[0]) for one in requirements}


def listed(file: Path, lines: Iterable[str] | None = None) -> set[str]:
    """The distributions that a file of requirements names, with those of the files and extras in it."""
    found: set[str] = set()
    for line in map(str.strip, file.read_text().splitlines() if lines is None else lines):
        if line.startswith("-r "):
            found |= listed(file.parent / line.removeprefix("-r "))
        elif line.startswith("-e "):
            found |= names_of(PROJECT["dependencies"]) | {"xpubench"}
            for extra in re.findall(r"\w+", line.partition("[")[2]):
                found |= names_of(PROJECT["optional-dependencies"][extra])
        elif line and not line.startswith(("#", "-")):
            found |= names_of([line])
    return found


def module_path(name: str) -> Path | None:
    """The file of a module of the package, also for a name in one; None for other names."""
    path = ROOT / name.replace(".", "/")
    while path != ROOT:
        for candidate in (path.with_suffix(".py"), path / "__init__.py"):
            if candidate.exists():
                return candidate
        path = path.parent
    return None


@cache
def names_in(path: Path) -> tuple[str, ...]:
    """What a module imports, and the modules of the package that its strings name."""
    texts = (
        node.value
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    return (*imports_of(path), *(match[1] for text in texts if (match := NAMED.fullmatch(text))))


def reached(skipped: tuple[str, ...]) -> dict[str, str]:
    """The modules of others that the commands import, each with a module of the package that does."""
    outside: dict[str, str] = {}
    seen: set[Path] = set()
    left = list(ENTRIES)
    while left:
        name = left.pop()
        path = module_path(name)
        if path is None or path in seen or f"{name}.".startswith(skipped):
            continue
        seen.add(path)
        for imported in names_in(path):
            top = imported.partition(".")[0]
            if top == "xpubench":
                left.append(imported)
            elif top not in sys.stdlib_module_names:
                outside.setdefault(top, str(path.relative_to(ROOT)))
    assert len(seen) > 100
    return outside


def lacking(file: str, lines: list[str]) -> dict[str, str]:
    """The modules that no line of the file brings, each with who imports it."""
    skipped, by_name = FILES[file]
    there = listed(ROOT / file, lines)
    needed = reached(skipped) | dict.fromkeys(by_name, "by name")
    return {
        name: who
        for name, who in needed.items()
        if not {normal(name), normal(DISTRIBUTIONS.get(name, name))} & there
    }


@pytest.mark.parametrize("file", FILES)
def test_a_file_brings_all_that_its_commands_import(file: str) -> None:
    assert lacking(file, (ROOT / file).read_text().splitlines()) == {}


@pytest.mark.parametrize(
    ("file", "line", "name"),
    [
        ("requirements-xpu.txt", "deepspeed>=0.16.9", "deepspeed"),
        ("requirements-xpu.txt", "mpi4py>=4,<5", "mpi4py"),
        ("requirements-xpu.txt", "-e .[accuracy,autoround,report,woq]", "torchao"),
        ("requirements-ipex-xpu.txt", "diffusers==0.39.0", "diffusers"),
        ("requirements-ipex-xpu.txt", "neural-compressor-pt==3.4.1", "neural_compressor"),
    ],
)
def test_a_line_that_is_taken_away_is_missed(file: str, line: str, name: str) -> None:
    lines = (ROOT / file).read_text().splitlines()
    lines.remove(line)
    assert name in lacking(file, lines)


def test_the_projects_bounds_hold_for_the_pins_of_the_frozen_stack() -> None:
    from packaging.requirements import Requirement

    text = (ROOT / "requirements-ipex-xpu.txt").read_text()
    found = re.findall(r"^([\w-]+)==([^\s+]+)", text, re.MULTILINE)
    pins = {normal(name): version for name, version in found}
    extras = PROJECT["optional-dependencies"]
    for one in map(Requirement, [*PROJECT["dependencies"], *extras["accuracy"], *extras["report"]]):
        assert one.specifier.contains(pins[normal(one.name)]), one


def test_no_text_names_this_project_as_a_package_of_an_index() -> None:
    texts = [
        path for pattern in ("*.md", "*.txt", "docs/*.md", "xpubench/**/*.py") for path in ROOT.glob(pattern)
    ]
    assert len(texts) > 100
    wrong = [str(path) for path in texts if re.search(r"install '?xpubench|xpubench\[", path.read_text())]
    assert wrong == []


# An interpreter that notes how it is called. Its venv holds itself, and its torch is built as the index says.
INTERPRETER = """#!/bin/bash
here=$(dirname "$0")
case "$*" in
  "-m venv"*) mkdir -p "${@: -1}/bin"; cp "$0" "${@: -1}/bin/python" ;;
  "-m pip show torch") echo "Version: $(cat "$here/version")" ;;
  *--index-url*/xpu*) echo 2.13.0+xpu > "$here/version" ;;
  *--index-url*) echo 2.13.0+cpu > "$here/version" ;;
  *"-r /"*) cat "${@: -1}" >> calls ;;
  *) echo "$*" >> calls ;;
esac
"""


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.parametrize("build", ["cpu", "xpu"])
def test_the_environment_of_an_intel_gpu_keeps_oneapis_mpirun(tmp_path: Path, build: str) -> None:
    for name in ("Makefile", "pyproject.toml", "requirements.txt", "requirements-xpu.txt"):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / "python"
    python.write_text(INTERPRETER)
    python.chmod(0o755)
    index = f"TORCH_INDEX=https://download.pytorch.org/whl/{build}"
    subprocess.run(["make", "-s", "venv", f"PYTHON={python}", index], cwd=tmp_path, check=True, timeout=20)
    installed = (tmp_path / "calls").read_text()
    extras = [name for found in re.findall(r"-e '?\.\[([\w,]+)", installed) for name in found.split(",")]
    assert {"dev", "report"} <= set(extras)
    assert ("deepspeed" in extras) is (build == "cpu")
    # The extra has them too.
    assert (build == "cpu") or {"deepspeed", "mpi4py"} <= names_of(installed.splitlines())
    assert "mpich" not in installed
