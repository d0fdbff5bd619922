"""Tables that the page filters, sorts and shows a hundred rows at a time."""

from typing import Any, Literal

import msgspec

from xpubench.report.runs import Run

# `run` opens the panel of the row's key; `interval` is [median, low, high].
Kind = Literal["run", "text", "long", "status", "number", "interval", "date"]


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """A column. With `filter`, the reader chooses among its values; one that is `hidden` serves for that."""

    label: str
    kind: Kind = "text"
    digits: int = 2
    filter: bool = False
    hidden: bool = False


RUNS: dict[str, Column] = {
    "model": Column(label="Model", kind="run"),
    "family": Column(label="Family", filter=True, hidden=True),
    "workload": Column(label="Workload", kind="long"),
    "runtime": Column(label="Runtime", filter=True),
    "device": Column(label="Device", filter=True),
    "precision": Column(label="Precision", filter=True),
    "status": Column(label="Status", kind="status", filter=True),
    "first": Column(label="First token, ms", kind="interval"),
    "next": Column(label="Next token, ms", kind="interval"),
    "rate": Column(label="Tokens/s", kind="number"),
    "mbu": Column(label="MBU, %", kind="number", digits=1),
    "accuracy": Column(label="Accuracy, %", kind="number", digits=1),
    "memory": Column(label="Peak memory, GB", kind="number"),
    "created": Column(label="Made, UTC", kind="date"),
}


def runs_table(runs: list[Run]) -> dict[str, Any]:
    """The table of runs, the newest first; each row is the run's place in `runs`, its key, and its cells."""
    order = sorted(range(len(runs)), key=lambda index: runs[index].created, reverse=True)
    return {
        "columns": list(RUNS.values()),
        "rows": [[index, runs[index].key, *_cells(runs[index])] for index in order],
    }


def _cells(run: Run) -> list[Any]:
    memory = run.peak_device_bytes or run.peak_host_bytes
    return [
        run.model if run.weights == "pretrained" else f"{run.model} ({run.weights} weights)",
        run.family,
        run.workload,
        run.runtime,
        run.device if run.ranks == 1 else f"{run.ranks} x {run.device}",
        run.precision,
        run.status,
        _interval(run.first_token_ms, run.first_token_ci95),
        _interval(run.next_token_ms, run.next_token_ci95),
        run.tokens_per_s,
        _percent(run.mbu_measured),
        _percent(run.acc),
        memory / 1e9 if memory else None,
        run.created,
    ]


def _interval(median: float | None, ends: tuple[float, float] | None) -> list[float] | None:
    return None if median is None else [median, *(ends or ())]


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share
