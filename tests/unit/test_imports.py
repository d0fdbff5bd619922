"""Which rooms of the package import which, read from every import statement, those inside functions too."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGE = ROOT / "xpubench"
HEAVY = ("torch", "transformers")
# By room, what none of its modules may import.
FORBIDDEN = {
    "compare": (*HEAVY, "xpubench.report", "xpubench.cli", "xpubench.run", "xpubench.accuracy"),
    "report": (*HEAVY, "xpubench.cli", "xpubench.run", "xpubench.accuracy", "rich"),
    "run": ("xpubench.cli", "xpubench.report", "xpubench.compare", "rich"),
}


def imports_of(path: Path) -> Iterator[str]:
    """The dotted names that a module imports when it runs, `a.b` for `from a import b` too."""
    tree = ast.parse(path.read_text())
    for_types = {id(node) for block in ast.walk(tree) if _is_for_types(block) for node in ast.walk(block)}
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def types_of(path: Path) -> Iterator[str]:
    """The names of a module's classes and of its aliases of types, which are written alike."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign):
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
            yield from (name for name in names if name[0].isupper() and not name.isupper())


# From below to above: a module imports from lower layers and from its own room alone.
LAYERS = (
    ("errors", "environment", "explanation", "files", "progress", "prompts"),
    ("catalog", "options"),
    ("spec",),
    ("plan", "expectation"),
    ("record",),
    ("results", "weights"),
    ("measure",),
    ("failures",),
    ("process", "compare"),
    ("runtimes",),
    ("accuracy", "distributed"),
    ("run", "report"),
    ("cli",),
    ("__main__",),
)
# What a runtime declares without its stack lies below the specs.
DECLARED = re.compile(r"xpubench\.(runtimes\.(registry|options|\w+\.options)|distributed\.options)\b")


def layer_of(module: str) -> tuple[int, str]:
    """The layer of a module and its room."""
    room = "options" if DECLARED.match(module) else module.split(".")[1]
    return next((index, room) for index, layer in enumerate(LAYERS) if room in layer)


def test_imports_run_one_way() -> None:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        if module == "xpubench.__init__":
            continue
        layer, room = layer_of(module)
        for name in imports_of(path):
            if not name.startswith("xpubench."):
                continue
            other, other_room = layer_of(name)
            if other_room != room and other >= layer:
                found.append(f"{path.relative_to(ROOT)}: {name}")
    assert found == []


@pytest.mark.parametrize("room", FORBIDDEN)
def test_a_room_imports_nothing_from_above_it(room: str) -> None:
    modules = sorted((PACKAGE / room).rglob("*.py"))
    assert len(modules) > 3
    found = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in modules
        for name in imports_of(path)
        if any(name == one or name.startswith(f"{one}.") for one in FORBIDDEN[room])
    ]
    assert found == []


def test_compare_and_report_load_neither_torch_nor_transformers() -> None:
    """Nor does anything that they import."""
    paths = [path for room in ("compare", "report") for path in (PACKAGE / room).rglob("*.py")]
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in paths
    ]
    code = f"import sys, importlib; [importlib.import_module(one) for one in {names!r}]; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert set(names) <= loaded
    assert not loaded & set(HEAVY)
