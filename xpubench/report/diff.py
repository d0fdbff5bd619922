"""Runs of the same work side by side: on two machines, drivers or stacks, run by run."""

from collections import defaultdict
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import msgspec

from xpubench.compare.copies import without_copies
from xpubench.compare.environments import EnvironmentDifference, Environments, differences
from xpubench.compare.processes import EarlierRuns
from xpubench.compare.row import RunRow, row_of
from xpubench.compare.run import RunComparison, compare_runs, first_other_token
from xpubench.compare.runs import Rules, adjusted, counting
from xpubench.compare.work import Work, exact_key, recipe_text, stack_key, work_keys
from xpubench.errors import UserError
from xpubench.report.migration import Move, moves
from xpubench.results import Found, records_in
from xpubench.runtimes.registry import OPTIONS


class RunPair(msgspec.Struct, frozen=True, kw_only=True):
    """Two runs of one work, each by its last round that counts, and how B compares with A. `model` is the
    name that both models share. `first_other_token` is that of the untimed generation, from 1, and 0 where
    all tokens are equal. `recipes` tells how the weights of both were quantized, where they were."""

    a: RunRow
    b: RunRow
    model: str
    comparison: RunComparison
    first_other_token: int | None
    recipes: tuple[str | None, str | None]


class Diff(msgspec.Struct, frozen=True, kw_only=True):
    """Two sides: what a move from each stack of A to each of B brings, the pairs of their runs, and what
    only one of them has."""

    a: str
    b: str
    moves: list[Move]
    pairs: list[RunPair]
    environment: list[EnvironmentDifference]
    only_a: list[RunRow]
    only_b: list[RunRow]
    left_out: list[tuple[str, str]]


OfOneSide = list[Found]
# The rounds of a run.
Rounds = list[Found]


def diff(directories: Sequence[Path]) -> Diff:
    """Pairs the runs that did the same work, each on its own stack. A is the first directory and B all
    others; of a single directory, A is one stack in it, that of the guide where it is there, and B are the
    others. A stack that both sides have is paired with itself; one that only one side has, with all that
    only the other has. UserError when a directory has no record, or a single one has no second stack."""
    left_out: list[tuple[str, str]] = []
    names, sides = _sides(directories, left_out)
    runs = _by_work(sides)
    pairs: list[tuple[str, Rounds, Rounds]] = []
    alone: tuple[list[tuple[str, Rounds]], list[tuple[str, Rounds]]] = ([], [])
    for work, (ours, theirs) in runs.items():
        left = [run for stack, run in ours.items() if stack not in theirs]
        right = [run for stack, run in theirs.items() if stack not in ours]
        matched = [(run, theirs[stack]) for stack, run in ours.items() if stack in theirs]
        pairs += [(work.model, one, other) for one, other in (*matched, *product(left, right))]
        if not right:
            alone[0].extend((work.model, run) for run in left)
        if not left:
            alone[1].extend((work.model, run) for run in right)
    compared = _compared([(model, _newest(one), _newest(other)) for model, one, other in pairs])
    a, b = (Environments(record for _, record in side) for side in sides)
    only_a, only_b = ([(model, _row(run)) for model, run in side] for side in alone)
    return Diff(
        a=names[0],
        b=names[1],
        moves=moves([(pair.model, pair.a, pair.b, pair.comparison) for pair in compared], only_a),
        pairs=sorted(compared, key=lambda pair: (pair.a.model, pair.a.workload)),
        environment=differences(a, b),
        only_a=[run for _, run in only_a],
        only_b=[run for _, run in only_b],
        left_out=left_out,
    )


def _sides(
    directories: Sequence[Path], left_out: list[tuple[str, str]]
) -> tuple[tuple[str, str], tuple[OfOneSide, OfOneSide]]:
    """The name of each side, and its records without copies."""

    def side(paths: Sequence[Path]) -> OfOneSide:
        return list(without_copies(records_in(paths, left_out, below=True), left_out))

    first = side(directories[:1])
    if len(directories) > 1:
        others = ", ".join(map(str, directories[1:]))
        return (str(directories[0]), others), (first, side(directories[1:]))
    there = {record.spec.subject.runtime for _, record in first}
    if len(there) < 2:
        raise UserError(f"{directories[0]} holds one stack, {', '.join(there)}; name a second directory")
    # A move starts from the guide's stack.
    base = min(there, key=lambda name: (OPTIONS[name].preferred_where is None, list(OPTIONS).index(name)))
    rest = ", ".join(name for name in OPTIONS if name in there - {base})
    before = [found for found in first if found.record.spec.subject.runtime == base]
    after = [found for found in first if found.record.spec.subject.runtime != base]
    return (f"{base} in {directories[0]}", f"{rest} in {directories[0]}"), (before, after)


def _by_work(sides: tuple[OfOneSide, OfOneSide]) -> dict[Work, tuple[dict[str, Rounds], dict[str, Rounds]]]:
    """The runs of both sides by their work, and within it by their stacks."""
    keys = iter(work_keys([record for side in sides for _, record in side]))
    runs: dict[Work, tuple[dict[str, Rounds], dict[str, Rounds]]] = {}
    for place, side in enumerate(sides):
        for found in side:
            stacks = runs.setdefault(next(keys), (defaultdict(list), defaultdict(list)))[place]
            stacks[stack_key(found.record)].append(found)
    return runs


def _newest(run: Rounds) -> Rounds:
    """The rounds of the newest run: runs of one work and stack may still differ in their protocol."""
    last = max(run, key=lambda found: found.record.created).record
    return [found for found in run if exact_key(found.record) == exact_key(last)]


def _compared(pairs: list[tuple[str, Rounds, Rounds]]) -> list[RunPair]:
    earlier, rules = EarlierRuns(), Rules()
    sides = [[[record for _, record in run] for run in (a, b)] for _, a, b in pairs]
    for base, new in sides:
        earlier.add(base, "a")
        earlier.add(new, "b")
    judged = adjusted(
        [compare_runs(base, new, rules.limits, rules.primary, earlier.judge) for base, new in sides]
    )
    return [_pair(model, counting(a), b[-1], one) for (model, a, b), one in zip(pairs, judged, strict=True)]


def _pair(model: str, a: Found, b: Found, comparison: RunComparison) -> RunPair:
    return RunPair(
        a=row_of(a.record, a.path, a.record.id),
        b=row_of(b.record, b.path, b.record.id),
        model=model,
        comparison=comparison,
        first_other_token=first_other_token(a.record, b.record),
        recipes=(recipe_text(a.record), recipe_text(b.record)),
    )


def _row(run: Rounds) -> RunRow:
    path, record = _newest(run)[-1]
    return row_of(record, path, record.id)
