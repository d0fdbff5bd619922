"""Two directories side by side: machines, drivers or stacks, run by run."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from xpubench.compare.accuracy import mcnemar
from xpubench.measure.statistics import median_ratio
from xpubench.record import Record
from xpubench.report.collect import LeftOut, nothing_found, records_in
from xpubench.report.runs import Run, run_of
from xpubench.spec import AccuracySpec, Subject

# What may differ between two runs of one work; all else of a subject makes another work.
STACK_FIELDS = frozenset({"options", "device", "trust_remote_code", "allow_pickle"})
# Facts of one moment, which differ between any two runs.
VOLATILE = frozenset(
    {
        *("device.free_memory_bytes", "host.available_memory_bytes", "host.load_average_1min"),
        *("harness.commit", "harness.version"),
    }
)
MOST_VALUES = 3

# Runs of the same thing differ by about this much from one process to the next, which no interval shows.
MARGIN = 0.01
SIGNIFICANT = 0.05

Verdict = Literal["faster", "slower", "same", "no interval", "better", "worse"]


class Ratio(msgspec.Struct, frozen=True, kw_only=True):
    """B / A with the ends of its 95% interval, None where a side has one iteration alone."""

    ratio: float
    low: float | None
    high: float | None

    @property
    def text(self) -> str:
        """The ratio with its interval."""
        if self.low is None or self.high is None:
            return f"{self.ratio:.3f}"
        return f"{self.ratio:.3f} ({self.low:.3f} to {self.high:.3f})"

    def verdict(self, margin: float = MARGIN) -> Verdict:
        """Whether the whole interval is more than the margin away from 1, and on which side."""
        if self.low is None or self.high is None:
            return "no interval"
        if self.high < 1 - margin:
            return "faster"
        return "slower" if self.low > 1 + margin else "same"


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """Two runs of one work. Ratios are B / A; the accuracy's difference is B less A in percentage points and
    `p_value` McNemar's, where both scored the same items."""

    a: Run
    b: Run
    first_token: Ratio | None = None
    next_token: Ratio | None = None
    memory: float | None = None
    accuracy_points: float | None = None
    p_value: float | None = None

    @property
    def verdict(self) -> Verdict | None:
        """By the next token latency, of runs of one token by the first; of accuracies by McNemar's test."""
        if decisive := self.next_token or self.first_token:
            return decisive.verdict()
        if self.p_value is None or self.accuracy_points is None:
            return None
        if self.p_value >= SIGNIFICANT:
            return "same"
        return "better" if self.accuracy_points > 0 else "worse"


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """A fact of the environments that is not the same on both sides: its values, the most frequent first."""

    name: str
    a: str
    b: str


class Diff(msgspec.Struct, frozen=True, kw_only=True):
    """All that two directories say about each other."""

    a: str
    b: str
    pairs: list[Pair]
    environment: list[Difference]
    only_a: list[Run]
    only_b: list[Run]
    left_out: list[tuple[str, str]]


class _Side:
    """The newest record of each work and variant of a directory."""

    def __init__(self, directory: Path) -> None:
        self.left_out: list[LeftOut] = []
        self.runs: dict[str, dict[str, tuple[Run, Record]]] = defaultdict(dict)
        self.facts: dict[str, Counter[str]] = defaultdict(Counter)
        for found in records_in(directory):
            if isinstance(found, LeftOut):
                self.left_out.append(found)
                continue
            record = found.record
            for name, value in record.environment.facts():
                if name not in VOLATILE:
                    self.facts[name][value] += 1
            variants = self.runs[_work(record)]
            variant = _stack(record.spec.subject)
            if variant not in variants or record.created >= variants[variant][1].created:
                variants[variant] = run_of(record, found.path, record.id), record
        if not self.runs:
            raise nothing_found([directory], self.left_out)


def diff(a: Path, b: Path) -> Diff:
    """Pairs the runs of two directories that did the same work, each on its own stack.

    Where both sides have a stack, it is held against itself; a stack that one side alone has, against all
    that the other alone has. UserError when a directory has no record.
    """
    sides = _Side(a), _Side(b)
    pairs: list[Pair] = []
    alone: tuple[list[Run], list[Run]] = [], []
    for work in sides[0].runs | sides[1].runs:
        ours, theirs = (side.runs.get(work, {}) for side in sides)
        both = [variant for variant in ours if variant in theirs]
        left = [entry for variant, entry in ours.items() if variant not in theirs]
        right = [entry for variant, entry in theirs.items() if variant not in ours]
        pairs += [_pair(*ours[variant], *theirs[variant]) for variant in both]
        pairs += [_pair(*one, *other) for one in left for other in right]
        if not right:
            alone[0].extend(run for run, _ in left)
        if not left:
            alone[1].extend(run for run, _ in right)
    return Diff(
        a=str(a),
        b=str(b),
        pairs=sorted(pairs, key=lambda pair: (pair.a.model, pair.a.workload)),
        environment=_differences(sides[0].facts, sides[1].facts),
        only_a=alone[0],
        only_b=alone[1],
        left_out=[(str(one.path), one.reason) for side in sides for one in side.left_out],
    )


def ratio_of(base: Sequence[Record], new: Sequence[Record], what: Literal["first", "next"]) -> Ratio | None:
    """The ratio of two runs' latencies, new / base, from their raw samples; None where one has none.

    A run that was repeated is given by its rounds, which are resampled as wholes, and in pairs where both
    sides have as many.
    """
    sides = [_rounds(records, what) for records in (base, new)]
    if not all(sides):
        return None
    ratio, low, high = median_ratio(*sides, paired=len(base) == len(new) > 1)
    return Ratio(ratio=ratio, low=low, high=high)


def _rounds(records: Sequence[Record], what: Literal["first", "next"]) -> list[list[int]]:
    if len(records) == 1:
        return _rows(records[0], what)
    rounds = [_rows(record, what) for record in records]
    return [[sample for row in rows for sample in row] for rows in rounds if rows]


def _rows(record: Record, what: Literal["first", "next"]) -> list[list[int]]:
    stamped = [one for one in record.samples.iterations if one.sync_policy == "every_token"]
    if record.status != "ok":
        return []
    if what == "first":
        return [[one.first_token_ns] for one in stamped if one.first_token_ns and one.first_token_ns > 0]
    return [one.next_token_ns for one in stamped if one.next_token_ns and min(one.next_token_ns) > 0]


def _work(record: Record) -> str:
    """What was run, whatever ran it."""
    spec = record.spec
    subject = {
        name: value for name, value in msgspec.to_builtins(spec.subject).items() if name not in STACK_FIELDS
    }
    # Where quantized weights lie changes none of them.
    if isinstance(recipe := subject.get("quantization"), dict):
        subject["quantization"] = recipe | {"checkpoint": None}
    if isinstance(spec, AccuracySpec):
        # Where the passages lie and how they are batched change no item.
        task = msgspec.structs.replace(spec.task, data=None, batch_size=0)
        return msgspec.json.encode([subject, task]).decode()
    return msgspec.json.encode([subject, spec.workload]).decode()


def _stack(subject: Subject) -> str:
    fields = msgspec.to_builtins(subject)
    return msgspec.json.encode({name: fields.get(name) for name in sorted(STACK_FIELDS)}).decode()


def _pair(one: Run, base: Record, other: Run, new: Record) -> Pair:
    points, p_value = _accuracy(base, new)
    return Pair(
        a=one,
        b=other,
        first_token=ratio_of([base], [new], "first"),
        next_token=ratio_of([base], [new], "next"),
        memory=memory_ratio(base, new),
        accuracy_points=points,
        p_value=p_value,
    )


def memory_ratio(base: Record, new: Record) -> float | None:
    """New / base of the peaks: device memory where both know it, else the host's."""
    one, other = base.summary, new.summary
    if one is None or other is None:
        return None
    for before, after in (
        (one.peak_device_bytes, other.peak_device_bytes),
        (one.peak_host_bytes, other.peak_host_bytes),
    ):
        if before and after:
            return after / before
    return None


def _accuracy(base: Record, new: Record) -> tuple[float | None, float | None]:
    one, other = base.accuracy, new.accuracy
    if one is None or other is None or one.acc is None or other.acc is None:
        return None, None
    points = 100 * (other.acc - one.acc)
    before = {item.id: item.correct for item in one.items}
    after = {item.id: item.correct for item in other.items}
    if not before or before.keys() != after.keys():
        return points, None
    gained = sum(bool(after[index]) and not before[index] for index in before)
    lost = sum(bool(before[index]) and not after[index] for index in before)
    return points, mcnemar(gained, lost)


def _differences(a: dict[str, Counter[str]], b: dict[str, Counter[str]]) -> list[Difference]:
    return [
        Difference(name=name, a=_values(a.get(name)), b=_values(b.get(name)))
        for name in sorted(a.keys() | b.keys())
        if set(a.get(name, ())) != set(b.get(name, ()))
    ]


def _values(counts: Counter[str] | None) -> str:
    if not counts:
        return "absent"
    shown = [value for value, _ in counts.most_common(MOST_VALUES)]
    more = f" and {len(counts) - MOST_VALUES} more" if len(counts) > MOST_VALUES else ""
    return " | ".join(shown) + more
