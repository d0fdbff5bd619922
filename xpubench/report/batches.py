"""The next token latency over batch sizes, of runs that differ in nothing else."""

from collections import defaultdict

import msgspec

from xpubench.compare.row import RunRow
from xpubench.record import Record
from xpubench.spec import RunSpec


class BatchPoint(msgspec.Struct, frozen=True, kw_only=True):
    """A run at a batch size: its next token latency in ms with the 95% interval, the least that the measured
    bandwidth allows, and its tokens/s. `key` names the run in the page."""

    key: str
    batch_size: int
    next_token_ms: float
    ci95: tuple[float, float] | None
    least_ms: float | None
    tokens_per_s: float | None


class BatchCurve(msgspec.Struct, frozen=True, kw_only=True):
    """The newest run at each batch size, in rising order. `keys` are those of all runs of the curve."""

    points: list[BatchPoint]
    keys: list[str]


class BatchCurves:
    """Collects the runs that went well by what they share beside the batch size: subject, workload and
    device."""

    def __init__(self) -> None:
        self._runs: defaultdict[bytes, list[tuple[str, BatchPoint]]] = defaultdict(list)

    def add(self, run: RunRow, record: Record) -> None:
        """Takes the next run, where it has a next token latency."""
        spec = record.spec
        if not isinstance(spec, RunSpec) or record.status != "ok" or run.next_token_ms is None:
            return
        workload = msgspec.structs.replace(spec.workload, batch_size=1)
        shared = msgspec.json.encode([spec.subject, workload, run.device_name])
        point = BatchPoint(
            key=run.key,
            batch_size=spec.workload.batch_size,
            next_token_ms=run.next_token_ms,
            ci95=run.next_token_ci95,
            least_ms=None if run.mbu_measured is None else run.next_token_ms * run.mbu_measured,
            tokens_per_s=run.tokens_per_s,
        )
        self._runs[shared].append((run.created, point))

    def curves(self) -> list[BatchCurve]:
        """The curves of two batch sizes or more."""
        found = []
        for runs in self._runs.values():
            newest = {point.batch_size: point for _, point in sorted(runs, key=lambda one: one[0])}
            if len(newest) > 1:
                points = [newest[size] for size in sorted(newest)]
                found.append(BatchCurve(points=points, keys=[point.key for _, point in runs]))
        return found
