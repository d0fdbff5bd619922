"""Two directories side by side: machines, drivers or stacks, run by run."""

from collections import Counter, defaultdict
from itertools import product
from pathlib import Path

import msgspec

from xpubench.compare.accuracy import SIGNIFICANT, AccuracyChange, accuracy_change, accuracy_difference
from xpubench.compare.latency import LatencyChange, Ratio, memory_ratio, ratio_of
from xpubench.compare.row import RunRow, row_of
from xpubench.record import Record
from xpubench.results import records_in
from xpubench.spec import AccuracySpec

# Two runs of the same work may differ in these fields of the subject and in no other.
STACK_FIELDS = ("allow_pickle", "device", "options", "trust_remote_code")
# Facts of one moment, which differ between any two runs.
VOLATILE = (
    *("device.free_memory_bytes", "host.available_memory_bytes", "host.load_average_1min"),
    *("harness.commit", "harness.version"),
)
MOST_VALUES = 3

FactCounts = defaultdict[str, Counter[str]]


class RunPair(msgspec.Struct, frozen=True):
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
    def verdict(self) -> LatencyChange | AccuracyChange | None:
        """By the next token latency, of runs of one token by the first; of accuracies by McNemar's test."""
        if decisive := self.next_token or self.first_token:
            return decisive.verdict()
        if self.p_value is None or self.accuracy_points is None:
            return None
        return accuracy_change(self.accuracy_points, noise=self.p_value >= SIGNIFICANT)


class EnvironmentDifference(msgspec.Struct, frozen=True):
    """A fact of the environments that is not the same on both sides: its values, the most frequent first."""

    name: str
    a: str
    b: str


class Diff(msgspec.Struct, frozen=True, kw_only=True):
    """Two directories: the pairs of their runs, and what only one of them has."""

    a: str
    b: str
    pairs: list[RunPair]
    environment: list[EnvironmentDifference]
    only_a: list[RunRow]
    only_b: list[RunRow]
    left_out: list[tuple[str, str]]


class _Side:
    """The newest record of each work and stack of a directory, and how often its environments have a fact."""

    def __init__(self, directory: Path, left_out: list[tuple[str, str]]) -> None:
        self.runs: dict[str, dict[str, tuple[RunRow, Record]]] = defaultdict(dict)
        self.facts: FactCounts = defaultdict(Counter)
        for path, record in records_in([directory], left_out):
            for name, value in record.environment.facts():
                if name not in VOLATILE:
                    self.facts[name][value] += 1
            work, stack = _work_and_stack(record)
            known = self.runs[work].get(stack)
            if known is None or record.created >= known[1].created:
                self.runs[work][stack] = row_of(record, path, record.id), record


def diff(a: Path, b: Path) -> Diff:
    """Pairs the runs of two directories that did the same work, each on its own stack. A stack that both
    sides have is paired with itself; one that only one side has, with all that only the other side has.
    UserError when a directory has no record."""
    left_out: list[tuple[str, str]] = []
    sides = _Side(a, left_out), _Side(b, left_out)
    pairs: list[RunPair] = []
    only_a: list[RunRow] = []
    only_b: list[RunRow] = []
    for work in sides[0].runs | sides[1].runs:
        ours, theirs = (side.runs.get(work, {}) for side in sides)
        left = [run for stack, run in ours.items() if stack not in theirs]
        right = [run for stack, run in theirs.items() if stack not in ours]
        matched = [(run, theirs[stack]) for stack, run in ours.items() if stack in theirs]
        pairs += [_pair(*one, *other) for one, other in (*matched, *product(left, right))]
        only_a += [row for row, _ in left if not right]
        only_b += [row for row, _ in right if not left]
    return Diff(
        a=str(a),
        b=str(b),
        pairs=sorted(pairs, key=lambda pair: (pair.a.model, pair.a.workload)),
        environment=_differences(sides[0].facts, sides[1].facts),
        only_a=only_a,
        only_b=only_b,
        left_out=left_out,
    )


def _work_and_stack(record: Record) -> tuple[str, str]:
    """The work that a record did, and the stack that did it, each as JSON."""
    spec = record.spec
    subject = msgspec.to_builtins(spec.subject)
    stack = [subject.pop(name, None) for name in STACK_FIELDS]
    # Neither the place of quantized weights changes them, nor that of the passages or their batches an item.
    if subject.get("quantization"):
        subject["quantization"]["checkpoint"] = None
    if isinstance(spec, AccuracySpec):
        work: msgspec.Struct = msgspec.structs.replace(spec.task, data=None, batch_size=0)
    else:
        work = spec.workload
    return msgspec.json.encode([subject, work]).decode(), msgspec.json.encode(stack).decode()


def _pair(one: RunRow, base: Record, other: RunRow, new: Record) -> RunPair:
    first, following = ratio_of([base], [new], "first"), ratio_of([base], [new], "next")
    return RunPair(one, other, first, following, memory_ratio(base, new), *accuracy_difference(base, new))


def _differences(a: FactCounts, b: FactCounts) -> list[EnvironmentDifference]:
    return [
        EnvironmentDifference(name, _values(a[name]), _values(b[name]))
        for name in sorted(a.keys() | b.keys())
        if a[name].keys() != b[name].keys()
    ]


def _values(counts: Counter[str]) -> str:
    if not counts:
        return "absent"
    shown = " | ".join(value for value, _ in counts.most_common(MOST_VALUES))
    return shown + (f" and {len(counts) - MOST_VALUES} more" if len(counts) > MOST_VALUES else "")
