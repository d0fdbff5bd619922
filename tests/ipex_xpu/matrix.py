"""The table of docs/ipex-xpu.md: what each family gives on each emulated GPU, through our own command.

    python -m tests.ipex_xpu.matrix                 run every cell and write the table
    python -m tests.ipex_xpu.matrix --profiles arc --families llama3 opt
                                                    run these alone, and keep the others as they were
    python -m tests.ipex_xpu.matrix --ranks         two ranks in float16 on a Data Center GPU Max

Baichuan2 is one of the families where `BAICHUAN2_SOURCE` names its code (see `tests.ipex_xpu.models`).

Each cell is a run of `run_generation.py --ipex` in a process of its own, forked after the libraries are
imported. Results are kept in docs/ipex-xpu-matrix.json, a cell at a time, so that a run that is stopped goes
on where it was with `--missing`.
"""

import argparse
import contextlib
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tests.ipex_xpu import models
from tests.ipex_xpu.emulation.profiles import PROFILES
from tests.ipex_xpu.environment import command_environment
from tests.ipex_xpu.observation import TOKENS_VARIABLE
from tests.ipex_xpu.reference import PlainReference
from tests.ipex_xpu.source import HOW, ROOT, find_source
from tests.ipex_xpu.zygote import Zygote

RESULTS = ROOT / "docs" / "ipex-xpu-matrix.json"
PAGE = ROOT / "docs" / "ipex-xpu.md"
BEGIN, END = "<!-- matrix: begin -->", "<!-- matrix: end -->"
SEARCHES = {"greedy": ("--greedy",), "4 beams": ("--num-beams", "4")}
CACHES: dict[str, tuple[str, ...]] = {"dynamic": (), "static": ("--use-static-cache",)}
WEIGHTS: dict[str, tuple[str, ...]] = {"float16": (), "INT4": ("--woq", "--group_size", str(models.GROUP))}
BATCHES = ("1", "2")
RANKS = "pvc x 2"
# A command's exit status and standard error.
Command = Callable[[list[str], dict[str, str], Path], tuple[int, str]]
SHAPE = ("--input-tokens", "12", "--max-new-tokens", "8", "--num-iter", "2", "--num-warmup", "1")


class MatrixCell(NamedTuple):
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


def cells_of_ranks(families: Iterable[str]) -> list[MatrixCell]:
    """The runs over two ranks, a sequence at a time."""
    return [
        MatrixCell(RANKS, family, "float16", search, cache, "1")
        for family, search, cache in itertools.product(families, SEARCHES, CACHES)
    ]


def cells(profiles: Iterable[str], families: Iterable[str]) -> list[MatrixCell]:
    """Every run of these GPUs and families."""
    axes = (profiles, families, WEIGHTS, SEARCHES, CACHES, BATCHES)
    return [MatrixCell(*values) for values in itertools.product(*axes)]


def run(cell: MatrixCell, command: Command, model: Path, reference: PlainReference) -> dict[str, Any]:
    """A cell's result: `{"result", "line", "error"}`, the line being what the user saw, the error how wrong
    the tokens were in tolerances. The result is right; wrong, where a run ended well with wrong tokens;
    caught, where our check ended it as numerics; refused; or failed."""
    with tempfile.TemporaryDirectory() as directory:
        tokens = Path(directory, "tokens.jsonl")
        arguments = [
            *("-m", str(model), *models.flags_of(cell.family), "--benchmark"),
            *("--device", "xpu", "--ipex", "--dtype", "float16", *SHAPE),
            *("--results-dir", f"{directory}/results", "--json", *cell.flags),
        ]
        code, err = command(arguments, {TOKENS_VARIABLE: str(tokens)}, Path(directory))
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


@contextlib.contextmanager
def commands(source: Path, profile: str) -> Iterator[Command]:
    """Runs the script with further arguments and variables of its environment: on one GPU forked from a
    process that has imported the libraries, over ranks under mpirun."""
    if profile != RANKS:
        with Zygote(
            sys.executable, command_environment(source, profile, **{TOKENS_VARIABLE: os.devnull})
        ) as zygote:
            yield lambda arguments, variables, directory: zygote.run(
                ["run_generation.py", *arguments], variables, directory
            )[::2]
        return

    def under_mpirun(arguments: list[str], variables: dict[str, str], directory: Path) -> tuple[int, str]:
        environment = command_environment(source, "pvc", XPU_EMULATION_DEVICES="2", **variables)
        line = [str(Path(sys.executable).parent / "mpirun"), "-np", "2", sys.executable, "-u"]
        line += ["run_generation_with_deepspeed.py", *arguments]
        done = subprocess.run(line, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=280)
        return done.returncode, done.stderr

    yield under_mpirun


def table(results: dict[str, dict[str, Any]]) -> str:
    """The results in Markdown: a table for each GPU that ran, and the lines that users saw, numbered."""
    notes: dict[str, int] = {}
    parts = []
    # Baichuan2 may have results and no code here.
    families = dict.fromkeys([*models.FAMILIES, *(key.split("/")[1] for key in results)])
    titles = {name: profile.device_name for name, profile in PROFILES.items()}
    titles[RANKS] = f"{PROFILES['pvc'].device_name}, two ranks, over gloo"
    for profile, title in titles.items():
        columns = list(itertools.product(SEARCHES, CACHES))
        heads = [f"{search}, {cache}" for search, cache in columns]
        rows = [
            f"**{profile}**: {title}",
            "",
            f"| model | weights | {' | '.join(heads)} |",
            f"|{'---|' * (2 + len(heads))}",
        ]
        for family, weights in itertools.product(families, WEIGHTS):
            ran = [key for key in results if key.startswith(f"{profile}/{family}/{weights}/")]
            if not ran:
                continue
            texts = []
            for search, cache in columns:
                of_batch = [
                    results.get(MatrixCell(profile, family, weights, search, cache, batch).key)
                    for batch in BATCHES
                ]
                shown = [_shown(result, notes) for result in of_batch if result is not None]
                texts.append("; batch 2: ".join(dict.fromkeys(shown)) or "not run")
            rows.append(f"| {family} | {weights} | {' | '.join(texts)} |")
        if len(rows) > 4:
            parts.append("\n".join(rows))
    lines = [f"{number}. `{line}`" for line, number in notes.items()]
    return "\n\n".join(parts) + "\n\n" + "\n".join(lines) + "\n"


def _shown(result: dict[str, Any], notes: dict[str, int]) -> str:
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
    note = "run those over two ranks instead"
    parser.add_argument("--ranks", action="store_true", help=note)
    given = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if not given.table:
        source = find_source()
        if source is None:
            sys.exit(HOW)
        every = cells_of_ranks(given.families) if given.ranks else cells(given.profiles, given.families)
        wanted = [cell for cell in every if not (given.missing and cell.key in results)]
        with tempfile.TemporaryDirectory() as directory:
            for profile, of_profile in itertools.groupby(wanted, lambda cell: cell.profile):
                _run_all(list(of_profile), source, profile, Path(directory), results)
    write_page(results)


def _run_all(
    wanted: list[MatrixCell], source: Path, profile: str, directory: Path, results: dict[str, dict[str, Any]]
) -> None:
    with commands(source, profile) as command:
        for family, of_family in itertools.groupby(wanted, lambda cell: cell.family):
            model = directory / family
            if not model.exists():
                models.make(family, model)
            reference = PlainReference(model)
            for cell in of_family:
                results[cell.key] = run(cell, command, model, reference)
                print(cell.key, results[cell.key]["result"], results[cell.key]["line"], flush=True)
            RESULTS.write_text(json.dumps(results, indent=0, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
