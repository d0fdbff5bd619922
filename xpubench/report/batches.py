"""How the next token latency grows with the batch, and where decode leaves the bandwidth's regime."""

from collections import defaultdict
from collections.abc import Iterable

import msgspec

from xpubench.record import LatencySummary, Record
from xpubench.report.text import number
from xpubench.spec import RunSpec

# The latency may grow by this much more than its bytes before it counts.
TOLERANCE = 1.1


class BatchPoint(msgspec.Struct, frozen=True, kw_only=True):
    """The next token latency of a batch in ms with its 95% interval, the bytes of its step, and tokens/s."""

    batch_size: int
    next_token_ms: float
    ci95: tuple[float, float] | None
    step_bytes: int
    tokens_per_s: float


class BatchCurve(msgspec.Struct, frozen=True, kw_only=True):
    """Runs that differ in their batch alone, the smallest first. `leaves_at` is the first batch whose next
    token latency grew over that of the smallest by more than the bytes of its step did, by the ends of both
    intervals and 10%; None where none did. `limit_ms` is the latency of each batch up to which its bytes
    explain it."""

    title: str
    points: list[BatchPoint]
    limit_ms: list[float]
    leaves_at: int | None

    @property
    def message(self) -> str:
        """What the curve says, in one line."""
        first, last = self.points[0], self.points[-1]
        if self.leaves_at is None:
            return (
                f"up to batch {last.batch_size} the bytes of a step explain how the next token's time grows"
            )
        place = next(at for at, one in enumerate(self.points) if one.batch_size == self.leaves_at)
        one = self.points[place]
        grown = f"{one.next_token_ms / first.next_token_ms:.2f} times as long as of batch {first.batch_size}"
        explained = f"{one.step_bytes / first.step_bytes:.2f} times the bytes"
        return f"decode leaves the bandwidth's regime at batch {one.batch_size}: {grown}, with {explained}"

    @property
    def line(self) -> str:
        """The points, in one line."""
        return ", ".join(f"{number(one.next_token_ms)} ms at batch {one.batch_size}" for one in self.points)


def batch_curves(records: Iterable[Record]) -> list[BatchCurve]:
    """A curve for each subject, workload and protocol of which latency runs with several batches went well;
    of runs of the same spec the latest counts."""
    groups: dict[RunSpec, dict[int, Record]] = defaultdict(dict)
    for record in sorted(records, key=lambda one: one.created):
        spec, summary = record.spec, record.latency
        if isinstance(spec, RunSpec) and summary and summary.next_token_ms and summary.step_bytes:
            workload = msgspec.structs.replace(spec.workload, batch_size=1)
            groups[msgspec.structs.replace(spec, workload=workload)][spec.workload.batch_size] = record
    return [_curve(spec, runs) for spec, runs in groups.items() if len(runs) > 1]


def _curve(spec: RunSpec, runs: dict[int, Record]) -> BatchCurve:
    points = [_point(size, one.latency) for size, one in sorted(runs.items()) if one.latency is not None]
    first = points[0]
    slowest = first.ci95[1] if first.ci95 else first.next_token_ms
    limits = [TOLERANCE * slowest * one.step_bytes / first.step_bytes for one in points]
    beyond = [
        one.batch_size
        for one, limit in zip(points[1:], limits[1:], strict=True)
        if (one.ci95[0] if one.ci95 else one.next_token_ms) > limit
    ]
    subject = spec.subject
    length = next(iter(runs.values())).latency
    shape = spec.workload.title(length.input_tokens if length else None).replace(", batch 1", "")
    return BatchCurve(
        title=f"{subject.model} · {subject.options.label} · {subject.device} {subject.dtype} · {shape}",
        points=points,
        limit_ms=limits,
        leaves_at=min(beyond, default=None),
    )


def _point(batch_size: int, summary: LatencySummary) -> BatchPoint:
    assert summary.next_token_ms is not None
    return BatchPoint(
        batch_size=batch_size,
        next_token_ms=summary.next_token_ms.median,
        ci95=summary.next_token_ms.ci95,
        step_bytes=summary.step_bytes or 0,
        tokens_per_s=summary.tokens_per_s,
    )
