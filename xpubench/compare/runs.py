"""One run held against another, and two sets of runs: ratios with their intervals, and verdicts."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from xpubench.compare.accuracy import AccuracyComparison, compare_accuracies
from xpubench.compare.latency import Ratio, memory_ratio, ratio_of
from xpubench.compare.title import title_of
from xpubench.errors import UserError
from xpubench.record import Record, read_records
from xpubench.results import Found, records_in, rounds_of, writable
from xpubench.spec import AccuracySpec, RunSpec

RunVerdict = Literal["same", "faster", "slower", "regression", "warning", "not comparable"]

BAD = frozenset({"slower", "regression"})


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """From which change on a latency counts, and a peak of memory, as a share of the base."""

    latency: float = 0.05
    memory: float = 0.10


class RunComparison(msgspec.Struct, frozen=True, kw_only=True):
    """A run against its base. Ratios are new / base; `memory` is of the device's peak where both know it,
    else the host's. `differs` names the fields of the subject that are not the same, with both values."""

    title: str
    verdict: RunVerdict
    reason: str
    differs: list[str] = []
    first_token: Ratio | None = None
    next_token: Ratio | None = None
    memory: float | None = None
    accuracy: AccuracyComparison | None = None
    top1_agreement: float | None = None
    mean_kl: float | None = None


class Comparisons(msgspec.Struct, frozen=True, kw_only=True):
    """Two sets of runs: those of the same id compared, and the titles of those that one set alone has."""

    runs: list[RunComparison]
    only_base: list[str]
    only_new: list[str]
    left_out: list[str]

    @property
    def exit_code(self) -> int:
        """1 when a run is slower or less accurate, 2 when one or all cannot be compared, else 0."""
        verdicts = {run.verdict for run in self.runs}
        if verdicts & BAD:
            return 1
        return 2 if "not comparable" in verdicts or not verdicts else 0


def compare_paths(base: Path, new: Path, limits: Limits) -> Comparisons:
    """Compares two runs, or two sets of them: directories, or files with several records.

    Two single runs are compared as they are, those of sets by their run's id. Records that share an id are
    rounds of one run. UserError when a path holds no record.
    """
    left_out: list[str] = []
    ours, theirs = _runs(base, left_out), _runs(new, left_out)
    if len(ours) == len(theirs) == 1 and not base.is_dir() and not new.is_dir():
        (before,), (after,) = ours.values(), theirs.values()
        found = compare_runs(before, after, limits)
        return Comparisons(runs=[found], only_base=[], only_new=[], left_out=left_out)
    return Comparisons(
        runs=[compare_runs(ours[one], theirs[one], limits) for one in ours if one in theirs],
        only_base=[title_of(rounds[-1]) for one, rounds in ours.items() if one not in theirs],
        only_new=[title_of(rounds[-1]) for one, rounds in theirs.items() if one not in ours],
        left_out=left_out,
    )


def compare_runs(base: Sequence[Record], new: Sequence[Record], limits: Limits) -> RunComparison:
    """A latency against a latency, or an accuracy against an accuracy, each given by its rounds. Of memory
    and accuracy, which hardly differ from one to the next, the last counts."""
    before, after = base[-1], new[-1]
    title, differs = title_of(after), _differing(before, after)
    if isinstance(before.spec, AccuracySpec) and isinstance(after.spec, AccuracySpec):
        found = compare_accuracies(before, after)
        verdict: RunVerdict = "same" if found.verdict == "ok" else found.verdict
        return RunComparison(
            title=title,
            verdict=verdict,
            reason=found.reason,
            differs=differs,
            memory=memory_ratio(before, after),
            accuracy=found,
        )
    if reason := _not_comparable(before, after) or _without_figures(base, new):
        return RunComparison(title=title, verdict="not comparable", reason=reason, differs=differs)
    first, following = ratio_of(base, new, "first"), ratio_of(base, new, "next")
    memory = memory_ratio(before, after)
    verdict, reason = _verdict(first, following, memory, limits)
    return RunComparison(
        title=title,
        verdict=verdict,
        reason=reason,
        differs=differs,
        first_token=first,
        next_token=following,
        memory=memory,
        top1_agreement=after.divergence.top1_agreement if after.divergence else None,
        mean_kl=after.divergence.mean_kl if after.divergence else None,
    )


def _verdict(
    first: Ratio | None, following: Ratio | None, memory: float | None, limits: Limits
) -> tuple[RunVerdict, str]:
    """Slower when a latency is or the peak of memory grew; faster when a latency is and nothing is slower."""
    changes = {
        f"{name} {change}, ratio {ratio.text}": change
        for name, ratio in (("first token", first), ("next token", following))
        if ratio is not None and (change := _change(ratio, limits.latency)) is not None
    }
    if memory is not None and memory > 1 + limits.memory:
        changes[f"peak memory larger, ratio {memory:.3f}"] = "slower"
    if not changes:
        return "same", f"within {limits.latency:.0%}, or no more than the noise"
    worst: RunVerdict = "slower" if "slower" in changes.values() else "faster"
    return worst, "; ".join(changes)


def _change(ratio: Ratio, limit: float) -> Literal["slower", "faster"] | None:
    """A change counts when its whole interval is on one side of 1 and the ratio beyond the limit; without an
    interval, as of runs with one iteration alone, by the ratio."""
    if abs(ratio.ratio - 1) < limit or ratio.verdict(0) == "same":
        return None
    return "slower" if ratio.ratio > 1 else "faster"


def _not_comparable(base: Record, new: Record) -> str | None:
    one, other = base.spec, new.spec
    if not isinstance(one, RunSpec) or not isinstance(other, RunSpec):
        return "one is a latency, the other an accuracy"
    # One model can have a directory here and a name on the hub.
    models = [Path(spec.subject.model).name for spec in (one, other)]
    if models[0].lower() != models[1].lower():
        return f"another model: {models[0]} and {models[1]}"
    if one.subject.weights != other.subject.weights:
        return f"other weights: {one.subject.weights} and {other.subject.weights}"
    for field in one.workload.__struct_fields__:
        left, right = getattr(one.workload, field), getattr(other.workload, field)
        # Another cache is another way to do the same work.
        if left != right and field != "cache":
            return f"another {field}: {left} and {right}"
    return None


def _without_figures(base: Sequence[Record], new: Sequence[Record]) -> str | None:
    for name, rounds in (("base", base), ("new", new)):
        for record in rounds:
            if record.status != "ok" or record.latency is None:
                return f"the {name} run has no figures (status {record.status})"
    return None


def _differing(base: Record, new: Record) -> list[str]:
    """What the subjects, and the kinds of cache, do not share."""
    one, other = (_fields(record) for record in (base, new))
    return [
        f"{name}: {_text(one.get(name))} and {_text(other.get(name))}"
        for name in sorted(one.keys() | other.keys())
        if one.get(name) != other.get(name)
    ]


def _fields(record: Record) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(record.spec.subject)
    recipe = record.spec.subject.quantization
    fields["quantization"] = recipe.title if recipe else None
    if isinstance(record.spec, RunSpec):
        fields["cache"] = record.spec.workload.cache
    return fields


def _text(value: object) -> str:
    return "none" if value is None else str(value)


def _runs(path: Path, left_out: list[str]) -> dict[str, list[Record]]:
    """By their ids, the runs of a directory or a file, each with its rounds. `DIR/ID.json` is also a run that
    lies in the rounds of DIR."""
    records: list[Record] = []
    if path.is_dir():
        for one in records_in(path):
            if isinstance(one, Found):
                records.append(one.record)
            else:
                left_out.append(f"{one.path}: {one.reason}")
    else:
        rounds = [one / path.name for one in rounds_of(path.parent) if (one / path.name).exists()]
        for file in [path] if path.exists() or not rounds else rounds:
            records += [writable(record, file) for record in read_records(file)]
    if not records:
        raise UserError(f"no records in {path}")
    runs: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        runs[record.id].append(record)
    return runs
