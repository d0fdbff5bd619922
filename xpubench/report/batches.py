"""How the next token latency grows with the batch, and where decode leaves the bandwidth's regime."""

from collections import defaultdict
from collections.abc import Iterable

import msgspec

from xpubench.compare.environments import lasting_facts
from xpubench.record import Record
from xpubench.report.text import number
from xpubench.spec import RunSpec, Subject, Workload

# The latency may grow by this much more than its bytes before it counts.
TOLERANCE = 1.1


class BatchPoint(msgspec.Struct, frozen=True, kw_only=True):
    """The next token latency of a batch in ms with its 95% interval, the least that the measured bandwidth
    allows, the bytes of its step, and tokens/s. `key` names the run in the page."""

    key: str
    batch_size: int
    next_token_ms: float
    ci95: tuple[float, float] | None
    least_ms: float | None
    step_bytes: int
    tokens_per_s: float


class BatchCurve(msgspec.Struct, frozen=True, kw_only=True):
    """The latest run at each batch size, the smallest first; `keys` are those of all runs of the curve.
    `leaves_at` is the first batch whose next token latency grew over that of the smallest by more than the
    bytes of its step did, by the ends of both intervals and 10%; None where none did. `limit_ms` is the
    latency of each batch up to which its bytes explain it."""

    title: str
    points: list[BatchPoint]
    keys: list[str]
    limit_ms: list[float]
    leaves_at: int | None
    message: str

    @property
    def line(self) -> str:
        """The points, in one line."""
        return ", ".join(f"{number(one.next_token_ms)} ms at batch {one.batch_size}" for one in self.points)


class BatchSeries(msgspec.Struct, frozen=True, kw_only=True):
    """What the runs of a curve share. `environment` holds the lasting facts, such as threads and versions."""

    subject: Subject
    workload: Workload
    input_tokens: int
    environment: dict[str, str]

    @property
    def title(self) -> str:
        """The runs in words."""
        shape = self.workload.title(self.input_tokens).replace(", batch 1", "")
        subject = self.subject
        words = [subject.model, subject.options.label, f"{subject.device} {subject.dtype}", shape]
        threads = self.environment.get("host.torch_threads")
        if threads is not None and subject.device == "cpu":
            words.append(f"{threads} threads")
        return " · ".join(words)


class BatchCurves:
    """Collects the latency runs that went well by what they share beside the batch size. Runs of other
    threads, versions or variables are of another curve."""

    def __init__(self) -> None:
        self._series: dict[bytes, BatchSeries] = {}
        self._runs: defaultdict[bytes, list[tuple[str, BatchPoint]]] = defaultdict(list)

    def add(self, record: Record, key: str) -> None:
        """Takes the next run, where it has a next token latency and the bytes of its step are known."""
        spec, summary = record.spec, record.latency
        if not isinstance(spec, RunSpec) or not summary or not summary.next_token_ms:
            return
        if record.status != "ok" or not summary.step_bytes:
            return
        next_ms, mbu = summary.next_token_ms.median, summary.mbu_measured
        series = BatchSeries(
            subject=spec.subject,
            workload=msgspec.structs.replace(spec.workload, batch_size=1),
            input_tokens=summary.input_tokens,
            environment=dict(sorted(lasting_facts(record))),
        )
        point = BatchPoint(
            key=key,
            batch_size=spec.workload.batch_size,
            next_token_ms=next_ms,
            ci95=summary.next_token_ms.ci95,
            least_ms=None if mbu is None else next_ms * mbu,
            step_bytes=summary.step_bytes,
            tokens_per_s=summary.tokens_per_s,
        )
        shared = msgspec.json.encode(series)
        self._series[shared] = series
        self._runs[shared].append((record.created, point))

    def curves(self) -> list[BatchCurve]:
        """The curves of two batch sizes or more."""
        found = []
        for shared, runs in self._runs.items():
            latest = {point.batch_size: point for _, point in sorted(runs, key=lambda one: one[0])}
            if len(latest) > 1:
                points = [latest[size] for size in sorted(latest)]
                found.append(_curve(self._series[shared].title, points, [point.key for _, point in runs]))
        return found


def batch_curves(records: Iterable[Record]) -> list[BatchCurve]:
    """The curves of these records."""
    found = BatchCurves()
    for record in records:
        found.add(record, record.id)
    return found.curves()


def _curve(title: str, points: list[BatchPoint], keys: list[str]) -> BatchCurve:
    first = points[0]
    slowest = first.ci95[1] if first.ci95 else first.next_token_ms
    limits = [TOLERANCE * slowest * one.step_bytes / first.step_bytes for one in points]
    beyond = [
        one
        for one, limit in zip(points[1:], limits[1:], strict=True)
        if (one.ci95[0] if one.ci95 else one.next_token_ms) > limit
    ]
    return BatchCurve(
        title=title,
        points=points,
        keys=keys,
        limit_ms=limits,
        leaves_at=beyond[0].batch_size if beyond else None,
        message=_message(points, beyond[0] if beyond else None),
    )


def _message(points: list[BatchPoint], leaving: BatchPoint | None) -> str:
    first = points[0]
    if leaving is None:
        return (
            f"up to batch {points[-1].batch_size} the bytes of a step explain how the next token's time grows"
        )
    grown = f"{leaving.next_token_ms / first.next_token_ms:.2f} times as long as of batch {first.batch_size}"
    explained = f"{leaving.step_bytes / first.step_bytes:.2f} times the bytes"
    where = f"decode leaves the bandwidth's regime at batch {leaving.batch_size}"
    return f"{where}: {grown}, with {explained}"
