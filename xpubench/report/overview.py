"""All that a report says, from the records of its directories."""

from collections import Counter
from collections.abc import Callable
from math import isfinite
from pathlib import Path

import msgspec

from xpubench.compare.row import RunRow, row_of
from xpubench.record import Record, now
from xpubench.report.matrix import MatrixRow, Tally, matrix, newest, tally
from xpubench.results import ROUND, LeftOut, nothing_found, records_in
from xpubench.runtimes.registry import OPTIONS


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """`runs` are in the order of reading; `repeats` tells how many share the id of another. `slowest` reached
    the least of the measured bandwidth; `failed` are those of the newest runs that did not go well."""

    created: str
    directories: list[str]
    environments: list[tuple[str, int]]
    tallies: list[Tally]
    slowest: RunRow | None
    failed: list[RunRow]
    repeats: int
    matrix: list[MatrixRow]
    runs: list[RunRow]
    left_out: list[tuple[str, str]]


def overview(directories: list[Path], each: Callable[[RunRow, Record], None] | None = None) -> Overview:
    """Reads the directories, one record in memory at a time; `each` sees every run with its record.

    UserError when a directory cannot be read or none holds a record.
    """
    runs: list[RunRow] = []
    left_out: list[LeftOut] = []
    environments: Counter[str] = Counter()
    keys: Counter[str] = Counter()
    for directory in dict.fromkeys(directories):
        for found in records_in(directory):
            if isinstance(found, LeftOut):
                left_out.append(found)
                continue
            record = found.record
            keys[record.id] += 1
            key = record.id if keys[record.id] == 1 else f"{record.id}.{keys[record.id]}"
            if keys[record.id] > 1 and not found.path.parent.name.startswith(ROUND):
                left_out.append(
                    LeftOut(
                        found.path, f"repeats the run {record.id}: in the table, the matrix takes the newest"
                    )
                )
            run = row_of(record, found.path, key)
            runs.append(run)
            environments[environment_line(record)] += 1
            if each is not None:
                each(run, record)
    if not runs:
        raise nothing_found(directories, left_out)
    lines = matrix(runs)
    last = newest(runs)
    return Overview(
        created=now(),
        directories=[str(directory) for directory in directories],
        environments=environments.most_common(),
        tallies=tally(lines),
        slowest=_slowest(last),
        failed=[run for run in last if run.status != "ok"],
        repeats=sum(count - 1 for count in keys.values()),
        matrix=lines,
        runs=runs,
        left_out=[(str(one.path), one.reason) for one in left_out],
    )


def environment_line(record: Record) -> str:
    """Where a record was made, in one line: the device, its driver, the stack, the machine."""
    environment, subject = record.environment, record.spec.subject
    device, host = environment.device, environment.host
    parts = [subject.device if device is None else device.name]
    if device is not None and device.driver:
        parts.append(f"driver {device.driver}")
    # The package that gives each runtime its name.
    stacks = ("torch", *(options.packages[0] for options in OPTIONS.values() if options.packages))
    parts += [
        f"{name} {environment.versions[name]}"
        for name in dict.fromkeys((*stacks, "transformers"))
        if name in environment.versions
    ]
    if environment.python:
        parts.append(f"Python {environment.python}")
    cores = f", {host.logical_cores} logical cores" if host is not None and host.logical_cores else ""
    parts.append(f"host {'unknown' if host is None else host.cpu}{cores}")
    return " · ".join(parts)


def _slowest(runs: list[RunRow]) -> RunRow | None:
    reached = [(run.mbu_measured, run) for run in runs if run.mbu_measured is not None and run.status == "ok"]
    finite = [(share, run) for share, run in reached if isfinite(share)]
    return min(finite, key=lambda pair: pair[0])[1] if finite else None
