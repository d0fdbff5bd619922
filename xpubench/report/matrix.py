"""The guide's table of validated models, each cell measured on its platform."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import msgspec

from xpubench.catalog import CatalogModel, find_model, models
from xpubench.catalog.platforms import platform_title, platforms
from xpubench.compare.accuracy import below_reference
from xpubench.compare.row import Mode, RunRow
from xpubench.report.references import AccuracyReference, references_of
from xpubench.report.text import percent

EntryVerdict = Literal["pass", "fail", "partial"]
# The guide's own word on a cell: in its table, also in its narrower list for the platform, or nothing.
Mark = Literal["validated", "listed", "none"]
# The modes of the guide's table, and those that a platform has a column for where they were measured.
MODES: tuple[Mode, ...] = ("fp16", "int4", "distributed")
OTHER_MODES: tuple[Mode, ...] = ("bf16", "int8")
DISTRIBUTED_ON = "max"
UNKNOWN = "device not known"
# The references of each accuracy run, by the run's key.
References = dict[str, list[AccuracyReference]]


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """What one runtime did with a model. `latency` and `accuracy` are the runs to show, None where there
    is none, and `reference` is what the accuracy was held against, which it is below where it is
    `too_low`."""

    runtime: str
    verdict: EntryVerdict
    reason: str
    latency: RunRow | None = None
    accuracy: RunRow | None = None
    reference: AccuracyReference | None = None
    too_low: bool = False


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """A model in a mode on a platform: the guide's mark, and each runtime's own entry."""

    platform: str
    mode: Mode
    mark: Mark
    entries: list[Entry] = []


class MatrixColumn(msgspec.Struct, frozen=True):
    """A mode of a platform."""

    platform: str
    mode: Mode


class MatrixRow(msgspec.Struct, frozen=True, kw_only=True):
    """A model with a cell for each column, and whether one of them was measured."""

    family: str
    model: str
    measured: bool
    cells: list[Cell]


class Matrix(msgspec.Struct, frozen=True, kw_only=True):
    """The columns, those of a platform side by side; `titles` holds each platform's. Rows are in the
    catalog's order."""

    titles: dict[str, str]
    columns: list[MatrixColumn]
    rows: list[MatrixRow]


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """How many models have which verdict in a column through a runtime. `marked` is the number of models
    that the guide validated there."""

    platform: str
    mode: Mode
    runtime: str
    marked: int
    passed: int
    failed: int
    partial: int


def matrix(runs: Iterable[RunRow]) -> Matrix:
    """The guide's models and the catalog's others that were measured.

    An entry passes when all its newest runs went well: at least one of latency, with trained weights, whose
    timed tokens were looked at, and for each of these recipes one of accuracy, on the whole task, that is not
    below a reference by more than the model's limit. It fails when an accuracy is below that, or no latency
    run or no accuracy run went well. Any other one is partial.
    """
    last = newest(runs)
    references = references_of(last)
    by_cell: dict[tuple[str, str, Mode], list[RunRow]] = defaultdict(list)
    for run in last:
        if run.mode is not None:
            by_cell[run.checkpoint, run.platform or UNKNOWN, run.mode].append(run)
    known = [
        one for one in models() if one.status == "validated" or any(one.id == cell[0] for cell in by_cell)
    ]
    measured = {cell[1:] for cell in by_cell if find_model(cell[0])}
    columns = _columns(measured)
    rows = []
    for one in known:
        cells = [
            Cell(
                platform=column.platform,
                mode=column.mode,
                mark=_mark(one, column),
                entries=_entries(by_cell[one.id, column.platform, column.mode], references),
            )
            for column in columns
        ]
        with_runs = any(cell.entries for cell in cells)
        rows.append(MatrixRow(family=one.family, model=one.id, measured=with_runs, cells=cells))
    titles = {column.platform: platform_title(column.platform) for column in columns}
    return Matrix(titles=titles, columns=columns, rows=rows)


def tally(found: Matrix) -> list[Tally]:
    """The counts of the verdicts of each column and runtime."""
    tallies = []
    for place, column in enumerate(found.columns):
        cells = [row.cells[place] for row in found.rows]
        for runtime in dict.fromkeys(entry.runtime for cell in cells for entry in cell.entries):
            verdicts = [entry.verdict for cell in cells for entry in cell.entries if entry.runtime == runtime]
            tallies.append(
                Tally(
                    platform=column.platform,
                    mode=column.mode,
                    runtime=runtime,
                    marked=sum(cell.mark != "none" for cell in cells),
                    passed=verdicts.count("pass"),
                    failed=verdicts.count("fail"),
                    partial=verdicts.count("partial"),
                )
            )
    return tallies


def newest(runs: Iterable[RunRow]) -> list[RunRow]:
    """Among runs that share an id and a kind of device, the one that was made last."""
    last: dict[tuple[str, str], RunRow] = {}
    for run in _placed(list(runs)):
        key = (run.id, run.device_name)
        if key not in last or run.created >= last[key].created:
            last[key] = run
    return list(last.values())


def _placed(runs: Sequence[RunRow]) -> list[RunRow]:
    """The runs. Those that ended before their device was known get that of the other runs in their directory
    on that kind of device where there is one, or the platform alone where these have one platform."""
    seen: defaultdict[tuple[str, str], set[tuple[str, str]]] = defaultdict(set)
    for run in runs:
        if run.platform is not None:
            seen[run.directory, run.device].add((run.platform, run.device_name))
    placed = []
    for run in runs:
        there = seen[run.directory, run.device]
        platforms_there = {platform for platform, _ in there}
        if run.platform is None and len(platforms_there) == 1:
            [platform] = platforms_there
            name = next(iter(there))[1] if len(there) == 1 else run.device_name
            placed.append(msgspec.structs.replace(run, platform=platform, device_name=name))
        else:
            placed.append(run)
    return placed


def _columns(measured: set[tuple[str, Mode]]) -> list[MatrixColumn]:
    """The guide's platforms with its modes, then the others that were measured; other modes where they
    were."""
    guide = [one.id for one in platforms()]
    others = sorted({platform for platform, _ in measured} - set(guide))
    return [
        MatrixColumn(platform, mode)
        for platform in (*guide, *others)
        for mode in (*MODES, *OTHER_MODES)
        if (platform, mode) in measured or (platform in guide and mode in MODES)
    ]


def _mark(model: CatalogModel, column: MatrixColumn) -> Mark:
    # The guide's distributed mode is FP16, and its published runs over ranks are on one platform alone.
    distributed = model.fp16 and column.platform == DISTRIBUTED_ON
    modes: dict[Mode, bool] = {"fp16": model.fp16, "int4": model.int4, "distributed": distributed}
    if column.platform not in model.platforms or not modes.get(column.mode):
        return "none"
    return "listed" if column.platform in model.listed else "validated"


def _entries(runs: Sequence[RunRow], references: References) -> list[Entry]:
    by_runtime: defaultdict[str, list[RunRow]] = defaultdict(list)
    for run in runs:
        by_runtime[run.runtime].append(run)
    return [_entry(runtime, own, references) for runtime, own in sorted(by_runtime.items())]


def _entry(runtime: str, runs: Sequence[RunRow], references: References) -> Entry:
    latencies = [run for run in runs if run.kind == "latency"]
    accuracies = [run for run in runs if run.kind == "accuracy"]
    low = next((pair for pair in _held(accuracies, references) if _below(*pair)), None)
    verdict, reason = _verdict(latencies, accuracies, low, references)
    latency = _run_to_show(latencies)
    alike = [run for run in accuracies if latency is not None and run.recipe == latency.recipe]
    shown = low[0] if low else _run_to_show(alike or accuracies)
    first = next(iter(references.get(shown.key, [])), None) if shown else None
    return Entry(
        runtime=runtime,
        verdict=verdict,
        reason=reason,
        latency=latency,
        accuracy=shown,
        reference=low[1] if low else first,
        too_low=low is not None,
    )


def _held(accuracies: Sequence[RunRow], references: References) -> Iterator[tuple[RunRow, AccuracyReference]]:
    """Each accuracy with each of its references."""
    return ((run, one) for run in accuracies for one in references.get(run.key, []))


def _verdict(
    latencies: Sequence[RunRow],
    accuracies: Sequence[RunRow],
    low: tuple[RunRow, AccuracyReference] | None,
    references: References,
) -> tuple[EntryVerdict, str]:
    for name, runs in (("latency", latencies), ("accuracy", accuracies)):
        if runs and not any(run.status == "ok" for run in runs):
            return "fail", f"{name}: {runs[-1].status}"
    if low is not None:
        return "fail", f"accuracy below {low[1].source}, {percent(low[1].acc)} %"
    missing = _missing(latencies, accuracies, references)
    return ("partial", missing) if missing else ("pass", "")


def _below(run: RunRow, reference: AccuracyReference) -> bool:
    """Whether an accuracy on a whole test set is below a reference."""
    if run.acc is None or run.acc_partial:
        return False
    return below_reference(run.acc, reference.acc, run.checkpoint)


def _missing(latencies: Sequence[RunRow], accuracies: Sequence[RunRow], references: References) -> str:
    """What keeps an entry that did not fail from passing."""
    if not latencies:
        return "no latency run"
    if all(run.weights == "dummy" for run in latencies):
        return "dummy weights"
    runs = [*latencies, *accuracies]
    if failed := sum(run.status != "ok" for run in runs):
        return f"{failed} of {len(runs)} runs failed"
    if unchecked := sum(not run.tokens_checked for run in latencies):
        return f"tokens not checked in {unchecked} of {len(latencies)} latency runs"
    if not accuracies:
        return "no accuracy run"
    whole = [run for run in accuracies if not run.acc_partial]
    if not whole:
        return "accuracy not on the whole test set"
    for latency in (run for run in latencies if run.weights != "dummy"):
        own = [run for run in whole if run.recipe == latency.recipe]
        if not own:
            return f"accuracy of another recipe: {_instead(whole[-1], latency)}"
        if not any(references.get(run.key) for run in own):
            return "no reference for the accuracy"
    return ""


def _instead(one: RunRow, other: RunRow) -> str:
    """How the recipe of one run differs from that of another."""
    one_alone = [part for part in one.recipe if part not in other.recipe]
    other_alone = [part for part in other.recipe if part not in one.recipe]
    return " instead of ".join(", ".join(parts) or "the default" for parts in (one_alone, other_alone))


def _run_to_show(runs: Sequence[RunRow]) -> RunRow | None:
    """The run that stands for several: one that went well if there is one, with trained weights and on the
    whole task if possible, and the newest of these."""

    def rank(run: RunRow) -> tuple[bool, bool, bool, str]:
        return run.status == "ok", run.weights != "dummy", not run.acc_partial, run.created

    return max(runs, key=rank, default=None)
