"""Whether planted faults are caught, clean runs raise no alarm, and what the checks cost.

    make bench-checks
    python -m benchmarks.checks --only clean operators

Every run is a command of its own in this process: `xpubench generate`, on tiny random models of several
architectures and, for the cost, on SmolLM2-135M. The operators are compared in processes of their own.

Faults run on greedy search and 4 beams, dynamic and static cache, batch 1 and 4, as far as they show there.
That is eager. Compiled, only `wrong-compiled` runs in all of these settings, because compiling takes most of
the time: the other faults run compiled on greedy search with a static cache at batch 4 alone. Compiled
means the backend "eager" of torch.compile, which traces the step and generates no kernels.
"""

import argparse
import contextlib
import itertools
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
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
# Of each kind of warning that a check gives, words that each of them has.
WARNINGS = {
    "near ties": ("near tie",),
    "neighbours": ("change with the rows beside it",),
    "degenerate output": ("one token for ever", "in a loop of at most"),
    "divergence": ("the tokens agree with",),
    "weights": ("NaN or infinite values in", "weights that the model has no place for"),
    "operators": ("operator not compared",),
}
OPERATORS_S = 10.0
OPERATORS = ("-m", "xpubench", "doctor", "--operators", "--device", "cpu", "--dtype", "float32")
REPEATS = 3
ROOT = Path(__file__).parent.parent


class Ran(NamedTuple):
    """A run of the fault in a setting, its status, and the kinds of the warnings that its checks gave."""

    fault: str
    setting: str
    status: str
    message: str
    warned: tuple[str, ...] = ()


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
        name, status = f"{', '.join(setting)}, seed {seed}", "alarm" if alarmed else "ok"
        yield Ran("none", name, status, message, warned_of(record.warnings))


def warned_of(warnings: Sequence[str]) -> tuple[str, ...]:
    """The kinds of the warnings of a run that its checks gave, each once."""
    return tuple(
        kind for kind, words in WARNINGS.items() if any(word in text for word in words for text in warnings)
    )


def share(directory: Path) -> Iterator[Goal]:
    """The time of all checks of a default run of SmolLM2-135M / the wall time of the command. The operators'
    comparison, which is kept, and the untimed generation that begins the warm-up stand beside it."""
    start = perf_counter()
    record = command(directory, "smollm2-135m", "--dtype", "bfloat16", "--greedy")
    wall_s = perf_counter() - start
    assert record.checks.tokens is not None, record.failure
    checks_s, operators_s = record.checks.tokens.checks_s, record.checks.operators_s or 0.0
    untimed_s = record.samples.warmup[0].end_to_end_ns / 1e9
    beside = f"{operators_s:.2f} s for the operators, {untimed_s:.2f} s of warm-up that is looked at"
    detail = f"{checks_s:.2f} of {wall_s:.1f} s, 1,024 tokens in, 128 out, 10 iterations; beside it {beside}"
    yield Goal("checks / wall time of a default run", checks_s / wall_s, 0.05, "", detail)
    for kind in warned_of(record.warnings):
        print(f"the default run warned of {kind}")


def operators() -> Iterator[Goal]:
    """The median wall time of the operators' comparison, from the start of the process to its end."""
    times = []
    for _ in range(REPEATS):
        start = perf_counter()
        subprocess.run([sys.executable, *OPERATORS], cwd=ROOT, capture_output=True, check=True)
        times.append(perf_counter() - start)
    each = f"{min(times):.1f} to {max(times):.1f} s"
    yield Goal("doctor --operators --dtype float32", median(times), OPERATORS_S, " s", each)


def show_planted(console: Console, directory: Path) -> int:
    """Prints the table of the faults; 1 where a run with one passed."""
    found = list(planted(directory))
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
    console.print(f"{len(FAULTS) - len(faults)} of {len(FAULTS)} faults caught in each of {len(found)} runs")
    return 1 if missed else 0


def show_clean(console: Console, directory: Path) -> int:
    """Prints the alarms of runs without a fault and, as a figure of its own, how many of these runs
    have warnings of their checks; 1 where there is an alarm."""
    found = list(clean(directory))
    alarms = [one for one in found if one.status != "ok"]
    for one in alarms:
        console.print(f"alarm: {one.setting}: {one.message}")
    console.print(f"{len(alarms)} alarms in {len(found)} clean runs")
    warned = [one for one in found if one.warned]
    kinds = Counter(kind for one in warned for kind in one.warned)
    each = ", ".join(f"{kind} in {kinds[kind]}" for kind in WARNINGS)
    console.print(f"warnings of the checks in {len(warned)} of {len(found)} clean runs: {each}")
    return 1 if alarms else 0


PARTS: dict[str, Callable[[Console, Path], int]] = {
    "planted": show_planted,
    "clean": show_clean,
    "clock": lambda _, __: show(clock.run()),
    "share": lambda _, directory: show(share(directory)),
    "operators": lambda _, __: show(operators()),
}


def main(words: Sequence[str] | None = None) -> int:
    """Prints the table of the faults, the alarms and warnings of clean runs, and the goals; 1 where one is
    missed."""
    parser = argparse.ArgumentParser(description="what the checks find, and what they cost")
    note = "the parts to run, all by default"
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=note)
    console = Console(width=160)
    with tempfile.TemporaryDirectory() as name:
        # Each part is run, whatever the ones before gave.
        return max([PARTS[part](console, Path(name)) for part in parser.parse_args(words).only])


if __name__ == "__main__":
    sys.exit(main())
