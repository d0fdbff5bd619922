"""The page's script: its modules as they are written, and joined as they stand in a page."""

import re
from importlib.resources import files
from pathlib import Path

import pytest

from tests.conftest import CommandLine
from tests.records import latency_record, subject, write

LONGEST = 120
TEMPLATES = files("xpubench.report.page").joinpath("templates")
MODULES = [one for one in TEMPLATES.iterdir() if one.name.endswith(".js")]


@pytest.fixture
def script(xpubench: CommandLine, tmp_path: Path) -> str:
    """The script of a report's page."""
    write(tmp_path / "results", latency_record(subject()))
    assert xpubench("report", tmp_path / "results", "-o", tmp_path / "page.html").code == 0
    page = (tmp_path / "page.html").read_text()
    [found] = re.findall(r'<script>("use strict".*?)</script>', page, re.DOTALL)
    return str(found)


def test_every_module_is_in_the_script_behind_what_it_imports(script: str) -> None:
    assert not re.search(r"^(import|export)\b", script, re.MULTILINE)
    starts = {one.name: script.index(one.read_text().splitlines()[0]) for one in MODULES}
    for one in MODULES:
        for imported in re.findall(r'from "\./(\w+\.js)"', one.read_text()):
            assert starts[imported] < starts[one.name], f"{one.name} imports {imported}"


def test_every_imported_name_is_exported() -> None:
    for one in MODULES:
        for names, imported in re.findall(
            r'^import \{([^}]*)\} from "\./(\w+\.js)"', one.read_text(), re.MULTILINE
        ):
            source = TEMPLATES.joinpath(imported).read_text()
            exported = set(
                re.findall(r"^export (?:async )?(?:function|const|class) (\w+)", source, re.MULTILINE)
            )
            assert {name.strip() for name in names.split(",") if name.strip()} <= exported, one.name


def test_no_name_is_declared_by_two_modules(script: str) -> None:
    declared = re.findall(r"^(?:async )?(?:function|const|let|class) (\w+)", script, re.MULTILINE)
    assert len(declared) > 20
    assert len(declared) == len(set(declared))


def test_no_line_is_too_long_for_a_reader() -> None:
    long = [
        f"{one.name}:{number}"
        for one in MODULES
        for number, line in enumerate(one.read_text().splitlines(), 1)
        if len(line) > LONGEST
    ]
    assert long == []
