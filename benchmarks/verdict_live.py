"""Live comparisons of real processes on this machine: how often their verdicts are wrong, what they find.

Every comparison is the command `xpubench compare --live`. What each gave is a line of a file, to which a
later run adds those that are still wanted; the figures are those of all lines.
"""

import contextlib
import io
import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from math import inf, log
from pathlib import Path
from statistics import median, stdev
from time import monotonic

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.goal import Goal
from benchmarks.verdict import BUDGET, FIXED_PLAN, LIVE_LIMIT, table
from xpubench.cli.main import main as xpubench
from xpubench.compare.live import block_value, running_verdicts
from xpubench.measure.bootstrap import Floats
from xpubench.record import read_record
from xpubench.results import rounds_of

# The standard deviation of blocks up to which 3% is to be found, and the one at which 10% is.
QUIET, LOUD = 0.028, 0.05
REPLAYS = 40
LIGHT = (
    "-m smollm2-135m --runtime fake --fake-script {script} --device cpu --greedy --input-tokens 16 "
    "--max-new-tokens 16 --num-iter 10 --num-warmup 2"
)
SMOLLM2 = (
    "-m smollm2-135m --device cpu --dtype float32 --greedy --input-tokens 16 --max-new-tokens 8 "
    "--num-iter 6 --num-warmup 2"
)
# A block of SmolLM2 takes over a minute on one core, so that its comparisons end after fewer of them.
SMOLLM2_BUDGET = 10


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """A live comparison: which processes, the factor planted in the new side, the verdict, each block's value
    (the logarithm of new / base), when it began, how long it took, and the load of the machine then."""

    design: str
    planted: float
    verdict: str
    values: list[float]
    created: str
    seconds: float
    load_average_1min: float


# So many comparisons of each design and planted factor are wanted, in the order in which they are made.
WANTED = {
    **{("light", planted): 10 for planted in (1.03, 1.05, 1.10)},
    ("light", 1.0): 400,
    ("smollm2", 1.0): 20,
}


# The standard deviation of blocks up to which a planted factor is to be found.
FOUND_UP_TO = {1.03: QUIET, 1.10: LOUD}


def read(file: Path) -> list[Compared]:
    """The comparisons so far."""
    if not file.exists():
        return []
    return [msgspec.json.decode(line, type=Compared) for line in file.read_bytes().splitlines()]


def measure(file: Path, design: str | None, minutes: float) -> None:
    """Makes the comparisons that the file lacks, of one design or of all, for about so long."""
    end = monotonic() + 60 * minutes
    made = Counter((one.design, one.planted) for one in read(file) if _wanted(one))
    with tempfile.TemporaryDirectory() as name:
        light = None
        for (which, planted), count in WANTED.items():
            for _ in range(count - made[which, planted] if design in (None, which) else 0):
                if monotonic() > end:
                    return
                if which == "light":
                    light = light or light_sides(Path(name))
                    command = [*light, f"LIGHT_SLOWER={planted}"]
                else:
                    command = [SMOLLM2, "--b-env", "BENCHMARKED=again"]
                found = live_comparison(which, planted, command)
                # A comparison on a noisier machine than the goal's is kept, and its place stays open.
                with file.open("ab") as out:
                    out.write(msgspec.json.encode(found) + b"\n")
                print(
                    f"{which}, planted {planted:g}: {found.verdict} after {len(found.values)}",
                    file=sys.stderr,
                )


def _wanted(one: Compared) -> bool:
    """Whether it is one of those wanted: of a planted factor with a goal, the blocks were quiet enough."""
    return len(one.values) < 2 or stdev(one.values) <= FOUND_UP_TO.get(one.planted, inf)


def light_sides(directory: Path) -> list[str]:
    """The sides of comparisons of the light worker, whose records are like one that a run of the fake
    runtime writes here."""
    worker, script = directory / "worker", directory / "script.json"
    worker.write_text(
        f'#!/bin/sh\nexec {sys.executable} -I -S {Path(__file__).with_name("light_worker.py")} "$@"\n'
    )
    worker.chmod(0o755)
    script.write_text("{}")
    flags = LIGHT.format(script=script)
    _command(flags, "--b-env", "A=B", "--budget", "1", "--results-dir", str(directory / "template"))
    (template,) = (directory / "template" / "a" / "round-1").glob("*[0-9a-f].json")
    variable = f"LIGHT_TEMPLATE={template}"
    pythons = ["--a-python", str(worker), "--b-python", str(worker)]
    return [flags, *pythons, "--a-env", variable, "--b-env", variable]


def live_comparison(design: str, planted: float, command: list[str]) -> Compared:
    """What `xpubench compare --live` with the command's arguments says, and the blocks that it judged."""
    load, created, start = os.getloadavg()[0], datetime.now(UTC).isoformat(timespec="seconds"), monotonic()
    with tempfile.TemporaryDirectory() as name:
        home = Path(name) / "live"
        how = [
            "--latency-limit",
            f"{100 * LIVE_LIMIT:g}",
            "--budget",
            str(SMOLLM2_BUDGET if design == "smollm2" else BUDGET),
            "--results-dir",
            str(home),
        ]
        (run,) = json.loads(_command(*command, *how, "--json"))["runs"]
        rounds = zip(*(rounds_of(home / side) for side in "ab"), strict=True)
        blocks = [[read_record(next(one.glob("*[0-9a-f].json"))) for one in pair] for pair in rounds]
        values = [block_value(base, new, "next_token") for base, new in blocks]
        return Compared(
            design=design,
            planted=planted,
            verdict=run["verdict"],
            values=values,
            created=created,
            seconds=monotonic() - start,
            load_average_1min=load,
        )


def _command(*arguments: str) -> str:
    """What `xpubench compare --live` prints, in this process."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as said:
        code = xpubench(["compare", "--live", *arguments])
    if code not in (0, 1, 3):
        raise RuntimeError(f"xpubench compare --live ended with {code}: {said.getvalue()}")
    return out.getvalue()


def goals(found: Sequence[Compared]) -> Iterator[Goal]:
    """The table of all comparisons, and the goals that they reach."""
    rows = []
    for (design, planted), count in WANTED.items():
        own = [one for one in found if (one.design, one.planted) == (design, planted)]
        if not own:
            continue
        names = Counter(one.verdict for one in own)
        told = ", ".join(f"{number} {name}" for name, number in names.most_common())
        deviation = median(stdev(one.values) for one in own if len(one.values) > 1)
        blocks = median(len(one.values) for one in own)
        seconds = sum(one.seconds for one in own) / sum(len(one.values) for one in own)
        load = median(one.load_average_1min for one in own)
        rows.append(
            [
                *(design, f"{planted - 1:+.0%}", f"{len(own)}, {count} wanted", told, f"{blocks:g}"),
                *(f"{deviation:.1%}", f"{seconds:.2g} s", f"{load:.1f}"),
            ]
        )
    columns = (
        *("process", "planted", "comparisons", "verdicts", "median blocks", "median sd of blocks"),
        *("a block took", "median load"),
    )
    title = (
        f"Live on this machine, at most {BUDGET} blocks ({SMOLLM2_BUDGET} of smollm2), limit {LIVE_LIMIT:.0%}"
    )
    table(title, columns, rows)
    for design in ("light", "smollm2"):
        if alike := [one for one in found if (one.design, one.planted) == (design, 1.0)]:
            false = sum(one.verdict in ("slower", "faster") for one in alike)
            yield _goal(f"false verdicts live, {design}, A/A", false, alike, WANTED[design, 1.0], 3)
    for planted in FOUND_UP_TO:
        own = [one for one in found if (one.design, one.planted) == ("light", planted)]
        wanted = WANTED["light", planted]
        if quiet := [one for one in own if _wanted(one)]:
            missed = sum(one.verdict != "slower" for one in quiet)
            name = f"planted {planted - 1:.0%} live that is not found, sd at most {FOUND_UP_TO[planted]:.1%}"
            yield _goal(name, missed, quiet, wanted, 10)
        if own:
            wrong = sum(one.verdict in ("same", "faster") for one in own)
            name = f"planted {planted - 1:.0%} live called the same or faster, whatever the sd"
            yield _goal(name, wrong, own, wanted, 5)
    yield from _replayed([one for one in found if (one.design, one.planted) == ("light", 1.0)])


def _goal(name: str, wrong: int, of: Sequence[Compared], wanted: int, limit: float) -> Goal:
    """That at most so many percent are wrong, which fewer comparisons than are wanted never show. They show
    the contrary where too many are wrong even if none of the others is."""
    total, few = max(wanted, len(of)), len(of) < wanted
    return Goal(
        name,
        100 * wrong / len(of),
        limit,
        "%",
        f"{wrong} of {len(of)}; wanted are {wanted}",
        low=100 * wrong / total,
        high=100.0 if few else None,
    )


def _replayed(alike: Sequence[Compared]) -> Iterator[Goal]:
    """What the judge says of the recorded blocks of the light process against itself, in windows of
    successive ones, as though the new side had been so much slower."""
    values = np.array([value for one in alike for value in one.values])
    if len(values) < 2 * FIXED_PLAN + REPLAYS:
        return
    windows = np.lib.stride_tricks.sliding_window_view(values, 2 * FIXED_PLAN)
    deviations = windows[:, :BUDGET].std(axis=1, ddof=1)
    quiet = windows[deviations <= QUIET]
    if len(quiet) >= REPLAYS:
        chosen = quiet[np.linspace(0, len(quiet) - 1, REPLAYS).astype(int), :BUDGET]
        verdicts, _ = _decided(chosen + log(1.03))
        windows_of = f"{REPLAYS} windows of {BUDGET} recorded blocks, of {len(quiet)}"
        detail = f"{windows_of} with an sd of at most {QUIET:.1%}"
        missed = 100 * float((verdicts != "slower").mean())
        yield Goal("planted 3% in recorded blocks that is not found", missed, 10, "%", detail)
        for planted in (1.0, 1.05):
            _, blocks = _decided(quiet + log(planted))
            name = f"recorded blocks, {planted - 1:+.0%} / those of a plan for 3% at 3% noise"
            yield Goal(name, float(blocks.mean()) / FIXED_PLAN, 0.55, "", f"{len(quiet)} windows")
    loud = windows[deviations > QUIET][:, :BUDGET]
    if len(loud):
        verdicts, _ = _decided(loud + log(1.03))
        wrong = 100 * float(np.isin(verdicts, ["same", "faster"]).mean())
        told = (f"{(verdicts == name).mean():.0%} {name}" for name in ("slower", "inconclusive"))
        detail = f"{len(loud)} windows with a larger sd: {', '.join(told)}"
        yield Goal("planted 3% in noisier blocks called the same or faster", wrong, 5, "%", detail)
    tens = np.lib.stride_tricks.sliding_window_view(values, 10)
    scaled = (tens - tens.mean(axis=1, keepdims=True)) * LOUD / tens.std(axis=1, ddof=1, keepdims=True)
    verdicts, _ = _decided(tens.mean(axis=1, keepdims=True) + scaled + log(1.10))
    detail = f"{len(tens)} windows of 10 recorded blocks, scaled to an sd of {LOUD:.0%}"
    yield Goal(
        "planted 10% not found in 10 of them", 100 * float((verdicts != "slower").mean()), 10, "%", detail
    )
    yield Goal("planted 10% called the same", 100 * float((verdicts == "same").mean()), 0.2, "%", detail)


def _decided(values: Floats) -> tuple[NDArray[np.str_], NDArray[np.int_]]:
    """The verdict on each series of blocks, and after how many of them it fell."""
    verdicts = running_verdicts(values, log(1 + LIVE_LIMIT))
    decided = verdicts != "inconclusive"
    place = np.where(decided.any(axis=1), decided.argmax(axis=1), values.shape[1] - 1)
    return verdicts[np.arange(len(values)), place], place + 1
