"""The contents of a report, from the records of its directories."""

from collections import Counter
from collections.abc import Callable
from math import isfinite
from pathlib import Path

import msgspec

from xpubench.compare.row import RunRow, row_of
from xpubench.record import Record, now
from xpubench.report.matrix import Matrix, Tally, matrix, newest, tally
from xpubench.results import ROUND, records_in
from xpubench.runtimes.registry import OPTIONS


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """`runs` are in the order of reading, and `found` tells how many of them each directory held;
    `repeats` are those that share id and device with another. `slowest` is the run with the smallest share
    of the measured bandwidth; `failed` are the newest runs that failed."""

    created: str
    directories: list[str]
    found: list[tuple[str, int]]
    environments: list[tuple[str, int]]
    tallies: list[Tally]
    slowest: RunRow | None
    failed: list[RunRow]
    repeats: int
    matrix: Matrix
    runs: list[RunRow]
    left_out: list[tuple[str, str]]


def overview(directories: list[Path], each: Callable[[RunRow, Record], None] | None = None) -> Overview:
    """Reads the directories and those below them, one record in memory at a time; `each` sees every run
    with its record. UserError when a directory cannot be read or none holds a record."""
    runs: list[RunRow] = []
    left_out: list[tuple[str, str]] = []
    environments: Counter[str] = Counter()
    keys: Counter[str] = Counter()
    places: Counter[str] = Counter()
    there: set[tuple[str, str]] = set()
    for path, record in records_in(directories, left_out, below=True):
        keys[record.id] += 1
        places[str(path.parent)] += 1
        key = record.id if keys[record.id] == 1 else f"{record.id}.{keys[record.id]}"
        run = row_of(record, path, key)
        if (run.id, run.device_name) in there and not path.parent.name.startswith(ROUND):
            reason = f"repeats the run {record.id}: in the table, the matrix takes the newest"
            left_out.append((str(path), reason))
        there.add((run.id, run.device_name))
        runs.append(run)
        environments[_environment_line(record)] += 1
        if each is not None:
            each(run, record)
    table, last = matrix(runs), newest(runs)
    reached = [
        run
        for run in last
        if run.status == "ok" and run.mbu_measured is not None and isfinite(run.mbu_measured)
    ]
    return Overview(
        created=now(),
        directories=[str(directory) for directory in directories],
        found=list(places.items()),
        environments=environments.most_common(),
        tallies=tally(table),
        slowest=min(reached, key=lambda run: run.mbu_measured or 0.0, default=None),
        failed=[run for run in last if run.status != "ok"],
        repeats=len(runs) - len(there),
        matrix=table,
        runs=runs,
        left_out=left_out,
    )


def _environment_line(record: Record) -> str:
    """The device, its driver, the stack and the machine of a record in one line."""
    environment, subject = record.environment, record.spec.subject
    device, host = environment.device, environment.host
    parts = [device.name if device else subject.device]
    if device is not None and device.driver:
        parts.append(f"driver {device.driver}")
    # The first package of a runtime is the one that gives it its name.
    stacks = ("torch", *(options.packages[0] for options in OPTIONS.values() if options.packages))
    versions = environment.versions
    names = dict.fromkeys((*stacks, "transformers"))
    parts += [f"{name} {versions[name]}" for name in names if name in versions]
    if environment.python:
        parts.append(f"Python {environment.python}")
    cores = f", {host.logical_cores} logical cores" if host is not None and host.logical_cores else ""
    return " · ".join([*parts, f"host {host.cpu if host else 'unknown'}{cores}"])
