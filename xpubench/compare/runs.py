"""Two sets of runs: those of one id compared, those that one set lacks, and the exit code."""

from collections import defaultdict
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import msgspec

from xpubench.compare.answers import with_answers
from xpubench.compare.copies import without_copies
from xpubench.compare.figures import FigureName
from xpubench.compare.processes import EarlierRuns, Limits
from xpubench.compare.run import RunComparison, RunVerdict, compare_runs
from xpubench.compare.title import title_of
from xpubench.compare.work import exact_key, work_keys
from xpubench.errors import UserError
from xpubench.measure.sequential import ALPHA
from xpubench.record import Record, read_records
from xpubench.results import Found, readable, records_in, rounds_of, writable

# The verdicts that fail a comparison.
BAD: frozenset[RunVerdict] = frozenset({"slower", "worse", "newly failing", "missing"})
FAILED, NOT_COMPARABLE, INCONCLUSIVE = 1, 2, 3


# By the exact key of each run its rounds.
Runs = dict[str, list[Found]]


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """How runs are judged: the limits, the figure that gives the verdict, globs of the ids or titles of runs
    that the new set may lack, and directories of earlier records, which tell the noise between processes."""

    limits: Limits = Limits()
    primary: FigureName = "next_token"
    may_lack: tuple[str, ...] = ()
    earlier: tuple[Path, ...] = ()


class Comparisons(msgspec.Struct, frozen=True, kw_only=True):
    """Two sets of runs: those of the same id compared, or where the sets have no stack in common those of
    the same work, and those that the new set lacks, whose verdict is `missing` unless they may be;
    `only_base` and `only_new` are titles. Of the `judged` runs, chance would call about `false_by_chance`
    changed were all the same, and `exit_code` is what the verdicts give."""

    runs: list[RunComparison]
    only_base: list[str] = []
    only_new: list[str] = []
    left_out: list[str]
    judged: int
    false_by_chance: float
    exit_code: int


def compare_paths(base: Path, new: Path, rules: Rules) -> Comparisons:
    """Compares two runs, or two sets of them: directories, or files with several records. Two single runs
    are compared as they are, those of sets by their run's id or, where the sets have no stack in common,
    by their work. Records that share an id are rounds of one run. UserError when a path holds no record."""
    left_out: list[tuple[str, str]] = []
    before, after = _runs(base, left_out), _runs(new, left_out)
    earlier = EarlierRuns()
    if rules.earlier:
        for found in records_in(rules.earlier, left_out):
            earlier.add([found.record], "earlier")
    if len(before) == len(after) == 1 and not base.is_dir() and not new.is_dir():
        # A single run of each side is compared under whatever id it has.
        pairs = [(one, other) for one in before for other in after]
    elif _runtimes(before) & _runtimes(after):
        pairs = [(one, one) for one in before if one in after]
    else:
        pairs = _of_one_work(before, after)
    paired = ({one for one, _ in pairs}, {other for _, other in pairs})
    lacking = [one for one in before if one not in paired[0]]
    allowed = [one for one in lacking if _may_lack(_last(before[one]), rules.may_lack)]
    runs = []
    for one, other in pairs:
        ours, theirs = ([found.record for found in rounds] for rounds in (before[one], after[other]))
        earlier.add(ours, "base")
        earlier.add(theirs, "new")
        run = compare_runs(ours, theirs, rules.limits, rules.primary, earlier.judge)
        runs.append(with_answers(run, counting(before[one]).path, after[other][-1].path))
    runs += [_missing(_last(before[one])) for one in lacking if one not in allowed]
    runs = adjusted(runs)
    judged = sum(run.adjusted_p is not None for run in runs)
    return Comparisons(
        runs=runs,
        only_base=[title_of(_last(before[one])) for one in allowed],
        only_new=[title_of(_last(rounds)) for one, rounds in after.items() if one not in paired[1]],
        left_out=[f"{path}: {reason}" for path, reason in left_out],
        judged=judged,
        false_by_chance=ALPHA * judged,
        exit_code=verdict_exit_code({run.verdict for run in runs}),
    )


def counting(rounds: Sequence[Found]) -> Found:
    """The last round that went well, or the last where all failed: that of a base which counts for what is
    told of one round alone."""
    return next((found for found in reversed(rounds) if found.record.status == "ok"), rounds[-1])


def verdict_exit_code(verdicts: set[RunVerdict]) -> int:
    """1 when a run is slower, less accurate, newly failing or missing, else 2 when one cannot be compared or
    none was, else 3 when one is inconclusive, else 0. Runs that fail in both do not count."""
    if verdicts & BAD:
        return FAILED
    if "not comparable" in verdicts or verdicts <= {"failing in both"}:
        return NOT_COMPARABLE
    return INCONCLUSIVE if "inconclusive" in verdicts else 0


def adjusted(runs: Sequence[RunComparison]) -> list[RunComparison]:
    """The runs with the p-values of their primary figures adjusted for the number of these (Benjamini and
    Hochberg 1995)."""
    known = [p_value for p_value in map(_p_value, runs) if p_value is not None]
    if not known:
        return list(runs)
    if len(known) > 1:
        from scipy.stats import false_discovery_control  # 0.5 s to import

        known = false_discovery_control(known).tolist()
    values = iter(known)
    return [
        run if _p_value(run) is None else msgspec.structs.replace(run, adjusted_p=next(values))
        for run in runs
    ]


def _p_value(run: RunComparison) -> float | None:
    return None if run.primary is None else run.primary.p_value


def _last(rounds: list[Found]) -> Record:
    return rounds[-1].record


def _runtimes(runs: Runs) -> set[str]:
    return {_last(rounds).spec.subject.runtime for rounds in runs.values()}


def _of_one_work(ours: Runs, theirs: Runs) -> list[tuple[str, str]]:
    """The ids of each base run and of each new run that did the same work on another stack."""
    keys = work_keys([counting(rounds).record for runs in (ours, theirs) for rounds in runs.values()])
    before, after = keys[: len(ours)], keys[len(ours) :]
    return [
        (one, other)
        for one, work in zip(ours, before, strict=True)
        for other, again in zip(theirs, after, strict=True)
        if work == again
    ]


def _missing(record: Record) -> RunComparison:
    reason = "the new set lacks it; --allow-missing names what it may lack"
    return RunComparison(id=record.id, title=title_of(record), verdict="missing", reason=reason)


def _may_lack(record: Record, globs: Sequence[str]) -> bool:
    names = (record.id, record.spec.subject.model, title_of(record))
    return any(fnmatchcase(name, glob) for glob in globs for name in names)


def _runs(path: Path, left_out: list[tuple[str, str]]) -> Runs:
    """The runs of a directory or a file by their ids, each with its rounds. `DIR/ID.json` also names the run
    of that id in the rounds of DIR. Copies of one process's record are left out. UserError where there is no
    record or none can be read."""
    with readable(path):
        is_directory, is_there = path.is_dir(), path.exists()
    if is_directory:
        records = list(records_in([path], left_out))
    else:
        rounds = [one / path.name for one in rounds_of(path.parent)]
        files = [path] if is_there else [file for file in rounds if file.exists()] or [path]
        records = [Found(file, writable(record, file)) for file in files for record in read_records(file)]
    if not records:
        raise UserError(f"no records in {path}")
    runs: Runs = defaultdict(list)
    for found in without_copies(records, left_out):
        runs[exact_key(found.record)].append(found)
    return runs
