"""The table of docs/ipex-xpu.md: what each family gives on each emulated GPU, through our own command.

    python -m tests.ipex_xpu.matrix                 run every cell and write the table
    python -m tests.ipex_xpu.matrix --profiles arc --families llama3 opt
                                                    run these alone, and keep the others as they were

Each cell is a run of `run_generation.py --ipex` in a process of its own, forked after the libraries are
imported. Results are kept in docs/ipex-xpu-matrix.json, a cell at a time, so that a run that is stopped goes
on where it was with `--missing`.
"""

import argparse
import itertools
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from tests.ipex_xpu import models
from tests.ipex_xpu.emulation.profiles import PROFILES
from tests.ipex_xpu.environment import command_environment
from tests.ipex_xpu.observation import TOKENS_VARIABLE
from tests.ipex_xpu.reference import Reference
from tests.ipex_xpu.source import HOW, ROOT, find_source
from tests.ipex_xpu.zygote import Zygote

RESULTS = ROOT / "docs" / "ipex-xpu-matrix.json"
PAGE = ROOT / "docs" / "ipex-xpu.md"
BEGIN, END = "<!-- matrix: begin -->", "<!-- matrix: end -->"
SEARCHES = {"greedy": ("--greedy",), "4 beams": ("--num-beams", "4")}
CACHES: dict[str, tuple[str, ...]] = {"dynamic": (), "static": ("--use-static-cache",)}
WEIGHTS: dict[str, tuple[str, ...]] = {"float16": (), "INT4": ("--woq", "--group_size", str(models.GROUP))}
BATCHES = ("1", "2")
SHAPE = ("--input-tokens", "12", "--max-new-tokens", "8", "--num-iter", "2", "--num-warmup", "1")


class Cell(NamedTuple):
    """One run."""

    profile: str
    family: str
    weights: str
    search: str
    cache: str
    batch: str

    @property
    def key(self) -> str:
        return "/".join(self)

    @property
    def flags(self) -> list[str]:
        """The flags of the run beside the model's and the shape's."""
        return [
            *SEARCHES[self.search],
            *CACHES[self.cache],
            *WEIGHTS[self.weights],
            *("--batch-size", self.batch),
        ]


def cells(profiles: Iterable[str], families: Iterable[str]) -> list[Cell]:
    """Every run of these GPUs and families."""
    axes = (profiles, families, WEIGHTS, SEARCHES, CACHES, BATCHES)
    return [Cell(*values) for values in itertools.product(*axes)]


def run(cell: Cell, zygote: Zygote, model: Path, reference: Reference) -> dict[str, Any]:
    """A cell's result: `{"result", "line", "error"}`, the line being what the user saw, the error how wrong
    the tokens were in tolerances. The result is right; wrong, where a run ended well with wrong tokens;
    caught, where our check ended it as numerics; refused; or failed."""
    with tempfile.TemporaryDirectory() as directory:
        tokens = Path(directory, "tokens.jsonl")
        arguments = [
            *("run_generation.py", "-m", str(model), "--benchmark", "--device", "xpu", "--ipex"),
            *("--dtype", "float16", *SHAPE, "--results-dir", f"{directory}/results", "--json", *cell.flags),
        ]
        code, _, err = zygote.run(arguments, {TOKENS_VARIABLE: str(tokens)}, Path(directory))
        lines = tokens.read_text().splitlines() if tokens.exists() else []
    calls = [call for line in lines if (call := json.loads(line))["device"] == "xpu"]
    said = [line for line in err.splitlines() if line.startswith("error: ")]
    line = said[-1].replace(str(model), cell.family) if said else ""
    if code:
        ends = {"error: numerics:": "caught", "error: unsupported:": "refused"}
        result = next((word for start, word in ends.items() if line.startswith(start)), "failed")
        return {"result": "refused" if code == 2 else result, "line": line, "error": None}
    error = max((reference.error(call) for call in calls), default=float("inf"))
    return {"result": "right" if error <= 1 else "wrong", "line": line, "error": round(error, 3)}


def table(results: dict[str, dict[str, Any]]) -> str:
    """The results in Markdown: a table for each GPU that ran, and the lines that users saw, numbered."""
    notes: dict[str, int] = {}
    parts = []
    for profile in PROFILES:
        columns = list(itertools.product(SEARCHES, CACHES))
        heads = [f"{search}, {cache}" for search, cache in columns]
        rows = [
            f"**{profile}**: {PROFILES[profile].device_name}",
            "",
            f"| model | weights | {' | '.join(heads)} |",
            f"|{'---|' * (2 + len(heads))}",
        ]
        for family, weights in itertools.product(models.FAMILIES, WEIGHTS):
            ran = [key for key in results if key.startswith(f"{profile}/{family}/{weights}/")]
            if not ran:
                continue
            texts = []
            for search, cache in columns:
                of_batch = [
                    results.get(Cell(profile, family, weights, search, cache, batch).key) for batch in BATCHES
                ]
                shown = [_shown(result, notes) for result in of_batch]
                texts.append(shown[0] if shown[0] == shown[1] else f"{shown[0]}; batch 2: {shown[1]}")
            rows.append(f"| {family} | {weights} | {' | '.join(texts)} |")
        if len(rows) > 4:
            parts.append("\n".join(rows))
    lines = [f"{number}. `{line}`" for line, number in notes.items()]
    return "\n\n".join(parts) + "\n\n" + "\n".join(lines) + "\n"


def _shown(result: dict[str, Any] | None, notes: dict[str, int]) -> str:
    if result is None:
        return "not run"
    if result["result"] in ("right", "wrong"):
        return "right" if result["result"] == "right" else "**wrong**"
    # The figure of a difference is that of one model alone.
    line = re.sub(r"/\S*/", "", result["line"]) or "no line"
    line = re.sub(r"\d+\.\d+%", "…%", line)
    return f"{result['result']} ({notes.setdefault(line, len(notes) + 1)})"


def write_page(results: dict[str, dict[str, Any]]) -> None:
    """Puts the table between the two marks of the page."""
    text = PAGE.read_text()
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    PAGE.write_text(f"{before}{BEGIN}\n{table(results)}{END}{after}")


def main() -> None:
    """Runs cells and writes the table."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--profiles", nargs="+", default=list(PROFILES), choices=PROFILES)
    parser.add_argument("--families", nargs="+", default=list(models.FAMILIES), choices=models.FAMILIES)
    parser.add_argument("--missing", action="store_true", help="run only the cells that have no result yet")
    parser.add_argument("--table", action="store_true", help="run nothing, write the table anew")
    given = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if not given.table:
        source = find_source()
        if source is None:
            sys.exit(HOW)
        wanted = [
            cell
            for cell in cells(given.profiles, given.families)
            if not (given.missing and cell.key in results)
        ]
        with tempfile.TemporaryDirectory() as directory:
            for profile, of_profile in itertools.groupby(wanted, lambda cell: cell.profile):
                _run_all(list(of_profile), source, profile, Path(directory), results)
    write_page(results)


def _run_all(
    wanted: list[Cell], source: Path, profile: str, directory: Path, results: dict[str, dict[str, Any]]
) -> None:
    environment = command_environment(source, profile, **{TOKENS_VARIABLE: os.devnull})
    with Zygote(sys.executable, environment) as zygote:
        for family, of_family in itertools.groupby(wanted, lambda cell: cell.family):
            model = directory / family
            if not model.exists():
                models.make(family, model)
            reference = Reference(model)
            for cell in of_family:
                results[cell.key] = run(cell, zygote, model, reference)
                print(cell.key, results[cell.key]["result"], results[cell.key]["line"], flush=True)
            RESULTS.write_text(json.dumps(results, indent=0, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
