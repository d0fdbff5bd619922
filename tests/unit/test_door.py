"""How the package is laid out: the registry is the only door to a runtime, and a name means one thing."""

import ast
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.records import latency_record, subject, write
from tests.unit.test_imports import HEAVY, PACKAGE, imports_of, types_of
from xpubench.runtimes.registry import RUNTIMES

REGISTRY = "runtimes/registry.py"
# By each runtime's name the directory of its room, relative to the package.
ROOMS = {name: "/".join(path.partition(":")[0].split(".")[1:-1]) for name, path in RUNTIMES.items()}
# Ranks are also a layer, which `run` and `cli` know.
LAYER = "distributed"
# An extra of this project may have a runtime's name, and then stands in the command that installs it.
EXTRA = re.compile(r"pip install '\.\[[\w,-]+\]'")
# What each command, and each room's diagnosis, has by the same name: these are interfaces.
SHARED_NAMES = {"add_flags", "run", "main", "facts", "diagnose"}
# Strings that hold such a word and do not choose by it, by their file and the word, with the reason.
EXCEPTIONS = {
    ("measure/profile.py", "deepspeed"): "the namespace of an operator, as torch's profiler has it",
    ("measure/ledger/operators.py", "deepspeed"): "the namespace of its operators",
    ("measure/ledger/operators.py", "ipex"): "the namespace of its operators",
    ("record/version_1.py", "openvino"): "a field of records of schema version 1",
}


def docstrings(tree: ast.AST) -> Iterator[ast.AST]:
    """The constants that are docstrings, those of attributes too: strings that stand alone."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            yield node.value


def names_in(text: str) -> list[str]:
    """The runtimes that a text names, each as a word: `deepspeed-ipex` is not `ipex`."""
    text = EXTRA.sub("", text)
    return [name for name in RUNTIMES if re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text)]


def strings_of(path: Path) -> Iterator[tuple[int, str]]:
    """The line and the text of each string that is no docstring."""
    tree = ast.parse(path.read_text())
    skipped = set(map(id, docstrings(tree)))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skipped:
            yield node.lineno, node.value


def modules() -> list[tuple[str, Path]]:
    """Each module of the package but the registry, with its path relative to the package."""
    found = [(path.relative_to(PACKAGE).as_posix(), path) for path in sorted(PACKAGE.rglob("*.py"))]
    assert len(found) > 100
    return [(place, path) for place, path in found if place != REGISTRY]


def test_no_runtime_is_named_outside_its_room() -> None:
    found, excepted = [], set()
    for place, path in modules():
        for line, text in strings_of(path):
            for name in names_in(text):
                if place.startswith(f"{ROOMS[name]}/"):
                    continue
                if (place, name) in EXCEPTIONS:
                    excepted.add((place, name))
                else:
                    found.append(f"xpubench/{place}:{line}: {name} in {text!r}")
    assert found == [], "\n".join(found)
    assert excepted == set(EXCEPTIONS)


def test_a_room_is_imported_by_rooms_alone() -> None:
    packages = tuple(f"xpubench.{room.replace('/', '.')}." for room in ROOMS.values() if room != LAYER)
    found = [
        f"xpubench/{place}: {name}"
        for place, path in modules()
        if not place.startswith(tuple(f"{room}/" for room in ROOMS.values()))
        for name in imports_of(path)
        if f"{name}.".startswith(packages)
    ]
    assert found == [], "\n".join(found)


def test_no_class_name_means_two_things() -> None:
    """In the package, its benchmarks and its tests together."""
    places: dict[str, list[str]] = defaultdict(list)
    for room in (PACKAGE, ROOT / "benchmarks", ROOT / "tests"):
        for path in room.rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ClassDef):
                    places[node.name].append(str(path.relative_to(ROOT)))
    assert len(places) > 150
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_no_public_function_or_alias_of_a_type_means_two_things() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for place, path in modules():
        functions = (
            node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)
        )
        for name in {*functions, *types_of(path)} - SHARED_NAMES:
            if not name.startswith("_"):
                places[name].append(place)
    assert len(places) > 400
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("generate", "--help"),
        ("plan", "-m", "smollm2-135m"),
        ("models",),
        ("report", "RECORDS", "-o", "RECORDS/report.html"),
        ("report", "--diff", "RECORDS", "RECORDS", "-o", "RECORDS/diff.html"),
        ("history", "RECORDS", "--model", "meta-llama/Llama-2-7b-hf", "-o", "RECORDS/history.html"),
        ("compare", "RECORDS", "RECORDS", "--inconclusive-ok"),
        ("suite", "--help"),
    ],
    ids=" ".join,
)
def test_a_command_without_a_model_needs_no_stack(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    write(tmp_path, latency_record(subject()))
    filled = [one.replace("RECORDS", str(tmp_path)) for one in arguments]
    done = without(HEAVY, *filled)
    assert done.returncode == 0, done.stderr


def without(packages: Sequence[str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    """A command line of `xpubench` in a process of its own in which the packages cannot be imported."""
    code = f"""
import sys

class Without:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {packages!r}:
            raise AssertionError("it imports " + name)

sys.meta_path.insert(0, Without())
from xpubench.cli.main import main
sys.exit(main({list(arguments)!r}))
"""
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
