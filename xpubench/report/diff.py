"""Two directories side by side: machines, drivers or stacks, run by run."""

from collections import Counter, defaultdict
from pathlib import Path

import msgspec

from xpubench.compare.accuracy import AccuracyChange, accuracy_change, accuracy_difference
from xpubench.compare.latency import LatencyChange, Ratio, memory_ratio, ratio_of
from xpubench.compare.row import RunRow, row_of
from xpubench.record import Record
from xpubench.results import LeftOut, nothing_found, records_in
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

PairVerdict = LatencyChange | AccuracyChange


class RunPair(msgspec.Struct, frozen=True, kw_only=True):
    """Two runs of one work. Ratios are B / A; the accuracy's difference is B less A in percentage points and
    `p_value` McNemar's, where both scored the same items."""

    a: RunRow
    b: RunRow
    first_token: Ratio | None = None
    next_token: Ratio | None = None
    memory: float | None = None
    accuracy_points: float | None = None
    p_value: float | None = None

    @property
    def verdict(self) -> PairVerdict | None:
        """By the next token latency, of runs of one token by the first; of accuracies by McNemar's test."""
        if decisive := self.next_token or self.first_token:
            return decisive.verdict()
        if self.p_value is None or self.accuracy_points is None:
            return None
        return accuracy_change(self.accuracy_points, self.p_value)


class EnvironmentDifference(msgspec.Struct, frozen=True, kw_only=True):
    """A fact of the environments that is not the same on both sides: its values, the most frequent first."""

    name: str
    a: str
    b: str


class Diff(msgspec.Struct, frozen=True, kw_only=True):
    """All that two directories say about each other."""

    a: str
    b: str
    pairs: list[RunPair]
    environment: list[EnvironmentDifference]
    only_a: list[RunRow]
    only_b: list[RunRow]
    left_out: list[tuple[str, str]]


class _Side:
    """The newest record of each work and variant of a directory."""

    def __init__(self, directory: Path) -> None:
        self.left_out: list[LeftOut] = []
        self.runs: dict[str, dict[str, tuple[RunRow, Record]]] = defaultdict(dict)
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
                variants[variant] = row_of(record, found.path, record.id), record
        if not self.runs:
            raise nothing_found([directory], self.left_out)


def diff(a: Path, b: Path) -> Diff:
    """Pairs the runs of two directories that did the same work, each on its own stack.

    Where both sides have a stack, it is held against itself; a stack that one side alone has, against all
    that the other alone has. UserError when a directory has no record.
    """
    sides = _Side(a), _Side(b)
    pairs: list[RunPair] = []
    alone: tuple[list[RunRow], list[RunRow]] = [], []
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


def _pair(one: RunRow, base: Record, other: RunRow, new: Record) -> RunPair:
    points, p_value = accuracy_difference(base, new)
    return RunPair(
        a=one,
        b=other,
        first_token=ratio_of([base], [new], "first"),
        next_token=ratio_of([base], [new], "next"),
        memory=memory_ratio(base, new),
        accuracy_points=points,
        p_value=p_value,
    )


def _differences(a: dict[str, Counter[str]], b: dict[str, Counter[str]]) -> list[EnvironmentDifference]:
    return [
        EnvironmentDifference(name=name, a=_values(a.get(name)), b=_values(b.get(name)))
        for name in sorted(a.keys() | b.keys())
        if set(a.get(name, ())) != set(b.get(name, ()))
    ]


def _values(counts: Counter[str] | None) -> str:
    if not counts:
        return "absent"
    shown = [value for value, _ in counts.most_common(MOST_VALUES)]
    more = f" and {len(counts) - MOST_VALUES} more" if len(counts) > MOST_VALUES else ""
    return " | ".join(shown) + more
