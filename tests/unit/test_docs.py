"""The documentation says what the code does, where a program can tell."""

import argparse
import json
import re
import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT, CommandLine
from tests.ipex_xpu import matrix
from xpubench.cli import tensor_parallel
from xpubench.cli.main import COMMANDS
from xpubench.record import decode

DOCS = ROOT / "docs"
RANKS = "run_generation_with_deepspeed.py"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.glob("*.md")])
# Flags of other programs: mpirun, torchrun and pip.
OTHERS = {"--prepend-rank", "--bind-to", "--allow-run-as-root", "--nproc-per-node", "--no-deps"}
# Apache Otava's.
OTHERS |= {"--branch"}
# Those of the matrix of docs/ipex-xpu.md, a program of the tests.
OTHERS |= {"--missing", "--profiles"}
# Slurm's.
OTHERS |= {"--nodes", "--ntasks", "--ntasks-per-node", "--exclusive", "--mpi", "--kill-on-bad-exit"}
# Those of `benchmarks.ledger` and `benchmarks.checks`.
OTHERS |= {"--only", "--dtypes", "--processes"}


def code_in(page: Path) -> list[str]:
    """The indented lines of a page, those that continue as one, and what stands between backticks."""
    text = re.sub(r"\\\n\s*", "", page.read_text())
    return [*re.findall(r"^ {4}.*", text, re.MULTILINE), *re.findall(r"`([^`\n]+)`", text)]


def commands_in(page: Path) -> Iterator[tuple[str, list[str]]]:
    """The commands in a page's code, each a name of `COMMANDS` or a script, with the flags that it is given.
    Flags within quotes are those of another command."""
    for line in code_in(page):
        for call in re.split(r"[;|#]|&&", line):
            if found := re.search(r"\bxpubench ([a-z]+)\b(.*)|\b(run_generation\w*\.py)(.*)", call):
                words = re.sub(r"'[^']*'|\"[^\"]*\"", "", found[2] or found[4] or "")
                yield found[1] or found[3], re.findall(r"--[a-z][\w-]+", words)


def test_the_page_of_the_records_fields_is_what_the_types_give() -> None:
    written = runpy.run_path(str(DOCS / "record.py"))["page"]()
    assert (DOCS / "record.md").read_text() == written, "make docs writes the page anew"


def test_the_example_on_that_page_is_a_record() -> None:
    record = decode((DOCS / "record-example.json").read_text())
    assert record.spec.id == record.id
    assert record.latency is not None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_a_page_names_are_there(page: Path) -> None:
    linked = [page.parent / target for target in re.findall(r"\]\(([^)#:]+)[^):]*\)", page.read_text())]
    named = re.findall(r"(?<![\w/])(?:xpubench|benchmarks|tests|docs)/[\w./-]*\w", "\n".join(code_in(page)))
    found = {*linked, *(ROOT / name for name in named)}
    assert [str(path) for path in sorted(found) if not path.exists()] == []


def test_commands_that_the_pages_name_are_there() -> None:
    code = "\n".join(line for page in PAGES for line in code_in(page))
    named = set(re.findall(r"\bxpubench ([a-z]+)", code))
    assert len(named) > 5
    assert named <= set(COMMANDS)


def test_flags_that_the_pages_name_are_there(xpubench: CommandLine) -> None:
    # The changelog names flags that are gone.
    code = "\n".join(line for page in PAGES if page.name != "CHANGELOG.md" for line in code_in(page))
    named = set(re.findall(r"--[a-z][\w-]+", code))
    ranks = argparse.ArgumentParser()
    tensor_parallel.add_flags(ranks)
    helps = {command: xpubench(command, "--help").out for command in COMMANDS}
    helps |= {"run_generation.py": helps["generate"], RANKS: ranks.format_help()}
    known = {command: set(re.findall(r"--[a-z][\w-]*", text)) for command, text in helps.items()}
    assert len(named) > 30
    assert named - set().union(*known.values()) - OTHERS == set()
    quoted = [one for page in PAGES if page.name != "CHANGELOG.md" for one in commands_in(page)]
    assert {command for command, flags in quoted if flags} > {"suite", "compare", "run_generation.py", RANKS}
    assert [
        (command, flag) for command, flags in quoted for flag in flags if flag not in known[command]
    ] == []


def test_the_layout_names_every_room() -> None:
    _, _, rest = (ROOT / "CONTRIBUTING.md").read_text().partition("## Layout\n")
    layout = rest.partition("\n## ")[0]
    there = [path for path in (ROOT / "xpubench").iterdir() if not path.name.startswith(("_", "py.typed"))]
    assert [path.name for path in there if not re.search(rf"\b{re.escape(path.name)}(?![\w.])", layout)] == []


def test_the_table_of_ipex_on_xpu_is_that_of_its_results() -> None:
    """And no run ended well with wrong tokens, or in another way than the page speaks of."""
    results = json.loads(matrix.RESULTS.read_text())
    assert f"{matrix.BEGIN}\n{matrix.table(results)}{matrix.END}" in matrix.PAGE.read_text()
    assert {one["result"] for one in results.values()} == {"right", "refused", "caught"}
    assert all(one["line"] or one["result"] == "right" for one in results.values())
