"""Whether planted faults are caught, clean runs raise no alarm, and what the checks cost.

    make bench-checks

Every run is a command of its own in this process: `xpubench generate`, on tiny random models of several
architectures and, for the cost, on SmolLM2-135M.
"""

import contextlib
import itertools
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from benchmarks import clock
from benchmarks.goal import Goal, show
from tests.ipex_xpu.models import make
from xpubench.cli.main import main as xpubench
from xpubench.record import Record, read_record
from xpubench.runtimes.fake.faults import FAULTS

SHAPE = ("--input-tokens", "32", "--max-new-tokens", "12", "--num-iter", "8", "--num-warmup", "1")
SEARCHES = {"greedy": ("--greedy",), "4 beams": ("--num-beams", "4")}
CACHES = {"dynamic": (), "static": ("--use-static-cache",)}
BATCHES = ("1", "4")
# Of a fault that shows beyond the fourth row alone.
LARGE_BATCH = "8"
COMPILED = ("--torch-compile", "--backend", "eager")
# These change the model itself, so that only another model can tell.
WITH_REFERENCE = ("dropped-rank", "shifted-scales")
CLEAN_FAMILIES = ("llama3", "phi3", "qwen3", "gptj", "opt", "bloom")
CLEAN_DTYPES = ("float32", "bfloat16", "float16")
CLEAN_RUNS = 200


class Ran(NamedTuple):
    """A run of the fault in a setting, and its status."""

    fault: str
    setting: str
    status: str
    message: str


def command(directory: Path, model: Path | str, *flags: str) -> Record:
    """The record of a run on the CPU."""
    with tempfile.TemporaryDirectory(dir=directory) as results:
        with silent():
            xpubench(["generate", "-m", str(model), "--device", "cpu", "--results-dir", results, *flags])
        (path,) = Path(results).glob("*.json")
        return read_record(path)


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Drops what this process writes, to its descriptors too."""
    kept = [os.dup(stream) for stream in (1, 2)]
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        for stream in (1, 2):
            os.dup2(nowhere, stream)
        yield
    finally:
        for stream, copy in zip((1, 2), kept, strict=True):
            os.dup2(copy, stream)
            os.close(copy)
        os.close(nowhere)


def applies(fault: str, search: str, batch: str, cache: str, compiled: bool) -> bool:
    """Whether the fault shows in such a run at all."""
    if fault in ("rows-from-2-zero", "leaking-row", "swapped-rows", "sixth-row"):
        return batch != "1"
    if fault == "faint-leak":
        return batch != "1" or search != "greedy"
    if fault == "wrong-static-cache":
        return cache == "static"
    return compiled if fault == "wrong-compiled" else True


def planted(directory: Path) -> Iterator[Ran]:
    """Each fault in each setting that it shows in."""
    model = directory / "llama3"
    make("llama3", model)
    for fault, search, cache, batch, compiled in itertools.product(
        FAULTS, SEARCHES, CACHES, BATCHES, (False, True)
    ):
        # Compiling takes most of the time; the faults of the compiler alone need all of its settings.
        if compiled and fault != "wrong-compiled" and (search, cache, batch) != ("greedy", "static", "4"):
            continue
        if not applies(fault, search, batch, cache, compiled):
            continue
        size = LARGE_BATCH if fault == "sixth-row" else batch
        flags = [*SEARCHES[search], *CACHES[cache], "--batch-size", size, *(COMPILED if compiled else ())]
        reference = ["--reference", "cpu-float32"] if fault in WITH_REFERENCE else []
        fault_flags = ["--runtime", "faulty", "--fault", fault, "--dtype", "float32"]
        record = command(directory, model, *fault_flags, *SHAPE, *flags, *reference)
        setting = f"{search}, {cache} cache, batch {size}, {'compiled' if compiled else 'eager'}"
        yield Ran(fault, setting, record.status, record.failure.message if record.failure else "")


def clean(directory: Path) -> Iterator[Ran]:
    """Runs without a fault, of six architectures and three dtypes with other prompts each."""
    for family in CLEAN_FAMILIES:
        if not (directory / family).exists():
            make(family, directory / family)
    settings = itertools.cycle(itertools.product(CLEAN_FAMILIES, CLEAN_DTYPES, SEARCHES, CACHES, BATCHES))
    for seed, setting in enumerate(itertools.islice(settings, CLEAN_RUNS)):
        family, dtype, search, cache, batch = setting
        # Bloom's ALiBi takes no static cache in transformers.
        flags = [*SEARCHES[search], *(() if family == "bloom" else CACHES[cache]), "--batch-size", batch]
        more = ["--dtype", dtype, "--seed", str(seed), "--reference", "cpu-float32"]
        record = command(directory, directory / family, *SHAPE, *flags, *more)
        alarmed = record.status != "ok" or record.divergence is None or record.divergence.verdict == "failure"
        message = record.failure.message if record.failure else ""
        yield Ran("none", f"{', '.join(setting)}, seed {seed}", "alarm" if alarmed else "ok", message)


def share(directory: Path) -> Iterator[Goal]:
    """The time of all checks of a default run of SmolLM2-135M / the wall time of the command."""
    start = perf_counter()
    record = command(directory, "smollm2-135m", "--dtype", "bfloat16", "--greedy")
    wall_s = perf_counter() - start
    assert record.checks.tokens is not None, record.failure
    checks_s = record.checks.tokens.checks_s
    detail = f"{checks_s:.1f} of {wall_s:.1f} s, 1,024 tokens in, 128 out, 10 iterations"
    yield Goal("checks / wall time of a default run", checks_s / wall_s, 0.05, "", detail)


def main() -> int:
    """Prints the table of the faults, the alarms of clean runs, and their goals."""
    console = Console(width=160)
    with tempfile.TemporaryDirectory() as name:
        found = list(planted(Path(name)))
        table = Table("fault", "runs", "caught as numerics", "first message", title="planted faults")
        for fault in FAULTS:
            runs = [one for one in found if one.fault == fault]
            caught = [one for one in runs if one.status == "numerics"]
            table.add_row(fault, str(len(runs)), str(len(caught)), caught[0].message[:90] if caught else "")
        console.print(table)
        missed = [one for one in found if one.status != "numerics"]
        for one in missed:
            console.print(f"not caught: {one.fault}, {one.setting}: {one.status} {one.message}")
        faults = Counter(one.fault for one in missed)
        console.print(
            f"{len(FAULTS) - len(faults)} of {len(FAULTS)} faults caught in each of {len(found)} runs"
        )
        alarms = [one for one in clean(Path(name)) if one.status != "ok"]
        for one in alarms:
            console.print(f"alarm: {one.setting}: {one.message}")
        console.print(f"{len(alarms)} alarms in {CLEAN_RUNS} clean runs")
        late = show(clock.run()) + show(share(Path(name)))
    return 1 if missed or alarms or late else 0


if __name__ == "__main__":
    sys.exit(main())
