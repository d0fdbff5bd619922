"""The guide's table of validated models, each cell measured."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Literal

import msgspec

from xpubench.catalog import find_model, models
from xpubench.compare.row import Mode, RunRow

CellVerdict = Literal["pass", "fail", "partial", "not run", "not validated"]
MODES: tuple[Mode, ...] = ("fp16", "int4", "distributed")


class Cell(msgspec.Struct, frozen=True):
    """A model in a mode. `latency` and `accuracy` are the runs to show, None where there is none."""

    mode: Mode
    verdict: CellVerdict
    reason: str
    latency: RunRow | None = None
    accuracy: RunRow | None = None


class MatrixRow(msgspec.Struct, frozen=True):
    """A validated model with a cell for each mode. `platforms` are those of the guide's table, `listed` those
    whose own, narrower list names the model too."""

    family: str
    model: str
    platforms: list[str]
    listed: list[str]
    cells: list[Cell]


class Tally(msgspec.Struct, frozen=True):
    """How many of the models that the guide validated in a mode have which verdict."""

    mode: Mode
    validated: int
    passed: int
    failed: int
    partial: int
    not_run: int


def matrix(runs: Iterable[RunRow]) -> list[MatrixRow]:
    """The validated models in the catalog's order. A cell passes when all its newest runs went well: at least
    one of latency, with trained weights, and one of accuracy, on the whole task and not below the published
    figure by more than the model's limit. It fails when the accuracy is below that, or no latency run or no
    accuracy run went well. Any other cell with a run is partial."""
    by_cell: dict[tuple[str, Mode], list[RunRow]] = defaultdict(list)
    for run in newest(runs):
        if run.mode is not None and (known := find_model(run.model)):
            by_cell[known.id, run.mode].append(run)
    found = []
    for one in (one for one in models() if one.status == "validated"):
        # The guide validated the distributed models in FP16.
        validated: dict[Mode, bool] = {"fp16": one.fp16, "int4": one.int4, "distributed": one.fp16}
        cells = [_cell(mode, by_cell[one.id, mode], validated[mode]) for mode in MODES]
        found.append(MatrixRow(one.family, one.id, one.platforms, one.listed, cells))
    return found


def tally(lines: list[MatrixRow]) -> list[Tally]:
    """The verdicts of each mode, counted."""
    found = []
    for index, mode in enumerate(MODES):
        counts = Counter(line.cells[index].verdict for line in lines)
        verdicts = (counts["pass"], counts["fail"], counts["partial"], counts["not run"])
        found.append(Tally(mode, len(lines) - counts["not validated"], *verdicts))
    return found


def newest(runs: Iterable[RunRow]) -> list[RunRow]:
    """Of runs that share an id, on one kind of device, the one that was made last."""
    last: dict[tuple[str, str], RunRow] = {}
    for run in runs:
        key = (run.id, run.device_name)
        if key not in last or run.created >= last[key].created:
            last[key] = run
    return list(last.values())


def _cell(mode: Mode, runs: list[RunRow], validated: bool) -> Cell:
    if not runs and validated:
        return Cell(mode, "not run", "")
    if not runs:
        return Cell(mode, "not validated", "not in the guide's table")
    latencies = [run for run in runs if run.kind == "latency"]
    accuracies = [run for run in runs if run.kind == "accuracy"]
    verdict, reason = _verdict(latencies, accuracies)
    return Cell(mode, verdict, reason, _run_to_show(latencies), _run_to_show(accuracies))


def _verdict(latencies: list[RunRow], accuracies: list[RunRow]) -> tuple[CellVerdict, str]:
    for name, runs in (("latency", latencies), ("accuracy", accuracies)):
        if runs and not any(run.status == "ok" for run in runs):
            return "fail", f"{name}: {runs[-1].status}"
    if worse := [run for run in accuracies if run.acc_regression]:
        return "fail", f"accuracy below the published {100 * (worse[0].acc_reference or 0):.1f} %"
    missing = _missing(latencies, accuracies)
    return ("partial", missing) if missing else ("pass", "")


def _missing(latencies: list[RunRow], accuracies: list[RunRow]) -> str:
    """What keeps a cell that did not fail from passing."""
    if not latencies:
        return "no latency run"
    if all(run.weights == "dummy" for run in latencies):
        return "dummy weights"
    runs = latencies + accuracies
    if failed := sum(run.status != "ok" for run in runs):
        return f"{failed} of {len(runs)} runs failed"
    if not accuracies:
        return "no accuracy run"
    return "accuracy not on the whole test set" if all(run.acc_partial for run in accuracies) else ""


def _run_to_show(runs: list[RunRow]) -> RunRow | None:
    """A run that went well rather than not, with trained weights, on the whole task; of those the newest."""

    def rank(run: RunRow) -> tuple[bool, bool, bool, str]:
        return run.status == "ok", run.weights != "dummy", not run.acc_partial, run.created

    return max(runs, key=rank, default=None)
