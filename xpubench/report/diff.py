"""Two directories side by side: machines, drivers or stacks, run by run."""

from collections import defaultdict
from itertools import product
from pathlib import Path

import msgspec

from xpubench.compare.environments import EnvironmentDifference, Environments, differences
from xpubench.compare.processes import EarlierRuns
from xpubench.compare.row import RunRow, row_of
from xpubench.compare.run import RunComparison, compare_runs
from xpubench.compare.runs import Rules, adjusted
from xpubench.record import Record
from xpubench.results import records_in
from xpubench.spec import AccuracySpec

# Two runs of the same work may differ in these fields of the subject and in no other.
STACK_FIELDS = ("allow_pickle", "device", "options", "trust_remote_code")


class RunPair(msgspec.Struct, frozen=True):
    """Two runs of one work, each by its last round, and how B compares with A."""

    a: RunRow
    b: RunRow
    comparison: RunComparison


class Diff(msgspec.Struct, frozen=True, kw_only=True):
    """Two directories: the pairs of their runs, and what only one of them has."""

    a: str
    b: str
    pairs: list[RunPair]
    environment: list[EnvironmentDifference]
    only_a: list[RunRow]
    only_b: list[RunRow]
    left_out: list[tuple[str, str]]


Rounds = list[tuple[Path, Record]]


class _Side:
    """The records of each work and stack of a directory, and how often its environments have a fact."""

    def __init__(self, directory: Path, left_out: list[tuple[str, str]]) -> None:
        self.runs: dict[str, dict[str, Rounds]] = defaultdict(lambda: defaultdict(list))
        self.environments = Environments()
        for path, record in records_in([directory], left_out):
            self.environments.add(record)
            work, stack = _work_and_stack(record)
            self.runs[work][stack].append((path, record))


def diff(a: Path, b: Path) -> Diff:
    """Pairs the runs of two directories that did the same work, each on its own stack. A stack that both
    sides have is paired with itself; one that only one side has, with all that only the other side has.
    UserError when a directory has no record."""
    left_out: list[tuple[str, str]] = []
    sides = _Side(a, left_out), _Side(b, left_out)
    pairs: list[tuple[Rounds, Rounds]] = []
    only_a: list[RunRow] = []
    only_b: list[RunRow] = []
    for work in sides[0].runs | sides[1].runs:
        ours, theirs = (side.runs.get(work, {}) for side in sides)
        left = [run for stack, run in ours.items() if stack not in theirs]
        right = [run for stack, run in theirs.items() if stack not in ours]
        matched = [(run, theirs[stack]) for stack, run in ours.items() if stack in theirs]
        pairs += [*matched, *product(left, right)]
        only_a += [_row(run) for run in left if not right]
        only_b += [_row(run) for run in right if not left]
    compared = _compared([(_newest(one), _newest(other)) for one, other in pairs])
    return Diff(
        a=str(a),
        b=str(b),
        pairs=sorted(compared, key=lambda pair: (pair.a.model, pair.a.workload)),
        environment=differences(sides[0].environments, sides[1].environments),
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


def _newest(run: Rounds) -> Rounds:
    """The rounds of the newest run: runs of one work and stack may still differ in their protocol."""
    last = max(run, key=lambda found: found[1].created)[1]
    return [found for found in run if found[1].id == last.id]


def _compared(pairs: list[tuple[Rounds, Rounds]]) -> list[RunPair]:
    earlier, rules = EarlierRuns(), Rules()
    sides = [[[record for _, record in run] for run in pair] for pair in pairs]
    for base, new in sides:
        earlier.add(base, "a")
        earlier.add(new, "b")
    found = adjusted([compare_runs(base, new, rules.limits, rules.primary, earlier) for base, new in sides])
    return [RunPair(_row(a), _row(b), one) for (a, b), one in zip(pairs, found, strict=True)]


def _row(run: Rounds) -> RunRow:
    path, record = _newest(run)[-1]
    return row_of(record, path, record.id)
