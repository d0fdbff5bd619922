"""The guide's table of validated models, each cell measured."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Literal

import msgspec

from xpubench.catalog import CatalogModel, find_model, models
from xpubench.compare.row import Mode, RunRow

CellVerdict = Literal["pass", "fail", "partial", "not run", "not validated"]
MODES: tuple[Mode, ...] = ("fp16", "int4", "distributed")


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """A model in a mode. `latency` and `accuracy` are the runs that speak for it, None where none does."""

    mode: Mode
    verdict: CellVerdict
    reason: str
    latency: RunRow | None = None
    accuracy: RunRow | None = None


class MatrixRow(msgspec.Struct, frozen=True, kw_only=True):
    """A validated model with a cell for each mode. `platforms` are those of the guide's table, `listed` those
    whose own, narrower list names the model too."""

    family: str
    model: str
    platforms: list[str]
    listed: list[str]
    cells: list[Cell]


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """How many of the models that the guide validated in a mode have which verdict."""

    mode: Mode
    validated: int
    passed: int
    failed: int
    partial: int
    not_run: int


def matrix(runs: Iterable[RunRow]) -> list[MatrixRow]:
    """The validated models in the catalog's order.

    A cell passes when all its newest runs went well: at least one of latency, with trained weights, and one
    of accuracy, on the whole task and not below the published figure by more than the model's limit. It
    fails when the accuracy is below that, or no latency run or no accuracy run went well. What is between is
    partial.
    """
    mine: dict[tuple[str, Mode], list[RunRow]] = defaultdict(list)
    for run in newest(runs):
        if run.mode is not None and (known := find_model(run.model)):
            mine[known.id, run.mode].append(run)
    return [
        MatrixRow(
            family=one.family,
            model=one.id,
            platforms=one.platforms,
            listed=one.listed,
            cells=[_cell(one, mode, mine.get((one.id, mode), [])) for mode in MODES],
        )
        for one in models()
        if one.status == "validated"
    ]


def tally(lines: list[MatrixRow]) -> list[Tally]:
    """The verdicts of each mode, counted."""
    found = []
    for index, mode in enumerate(MODES):
        counts = Counter(line.cells[index].verdict for line in lines)
        found.append(
            Tally(
                mode=mode,
                validated=len(lines) - counts["not validated"],
                passed=counts["pass"],
                failed=counts["fail"],
                partial=counts["partial"],
                not_run=counts["not run"],
            )
        )
    return found


def newest(runs: Iterable[RunRow]) -> list[RunRow]:
    """Of runs that share an id, on one kind of device, the one that was made last."""
    last: dict[tuple[str, str], RunRow] = {}
    for run in runs:
        key = (run.id, run.device_name)
        if key not in last or run.created >= last[key].created:
            last[key] = run
    return list(last.values())


def _validated(model: CatalogModel, mode: Mode) -> bool:
    # The guide validated the models in FP16 on several devices too, and none in INT4.
    return model.int4 if mode == "int4" else model.fp16


def _cell(model: CatalogModel, mode: Mode, runs: list[RunRow]) -> Cell:
    if not runs:
        if _validated(model, mode):
            return Cell(mode=mode, verdict="not run", reason="")
        return Cell(mode=mode, verdict="not validated", reason="not in the guide's table")
    latencies = [run for run in runs if run.kind == "latency"]
    accuracies = [run for run in runs if run.kind == "accuracy"]
    verdict, reason = _verdict(latencies, accuracies)
    return Cell(
        mode=mode,
        verdict=verdict,
        reason=reason,
        latency=_speaker(latencies),
        accuracy=_speaker(accuracies),
    )


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


def _speaker(runs: list[RunRow]) -> RunRow | None:
    """The run to show: one that went well rather than not, with trained weights, on the whole task; of
    those the newest."""

    def weight(run: RunRow) -> tuple[bool, bool, bool, str]:
        return run.status == "ok", run.weights != "dummy", not run.acc_partial, run.created

    return max(runs, key=weight, default=None)
