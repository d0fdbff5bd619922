"""Two runs, or two sets of runs: ratios with their intervals, and verdicts."""

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
from xpubench.results import records_in, rounds_of, writable
from xpubench.spec import AccuracySpec, RunSpec

RunVerdict = Literal["same", "faster", "slower", "regression", "warning", "not comparable"]

# The verdicts that fail a comparison.
BAD = frozenset({"slower", "regression"})


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The least changes that count, of a latency and of a peak of memory, as a share of the base."""

    latency: float = 0.05
    memory: float = 0.10


class RunComparison(msgspec.Struct, frozen=True, kw_only=True):
    """A run and its base. Ratios are new / base; `memory` compares the device's peaks where both are known,
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
    """Two sets of runs: those of the same id compared, and the titles of those that only one set has."""

    runs: list[RunComparison]
    only_base: list[str] = []
    only_new: list[str] = []
    left_out: list[str]

    @property
    def exit_code(self) -> int:
        """1 when a run is slower or less accurate, 2 when one or all cannot be compared, else 0."""
        verdicts = {run.verdict for run in self.runs}
        if verdicts & BAD:
            return 1
        return 2 if "not comparable" in verdicts or not verdicts else 0


def compare_paths(base: Path, new: Path, limits: Limits) -> Comparisons:
    """Compares two runs, or two sets of them: directories, or files with several records. Two single runs are
    compared as they are, those of sets by their run's id. Records that share an id are rounds of one run.
    UserError when a path holds no record."""
    left_out: list[tuple[str, str]] = []
    ours, theirs = _runs(base, left_out), _runs(new, left_out)
    reasons = [f"{path}: {reason}" for path, reason in left_out]
    if len(ours) == len(theirs) == 1 and not base.is_dir() and not new.is_dir():
        (before,), (after,) = ours.values(), theirs.values()
        return Comparisons(runs=[compare_runs(before, after, limits)], left_out=reasons)
    return Comparisons(
        runs=[compare_runs(ours[one], theirs[one], limits) for one in ours if one in theirs],
        only_base=[title_of(rounds[-1]) for one, rounds in ours.items() if one not in theirs],
        only_new=[title_of(rounds[-1]) for one, rounds in theirs.items() if one not in ours],
        left_out=reasons,
    )


def compare_runs(base: Sequence[Record], new: Sequence[Record], limits: Limits) -> RunComparison:
    """Compares two latency runs or two accuracy runs, each given by its rounds. The last round counts for
    memory and accuracy, which hardly differ from round to round."""
    before, after = base[-1], new[-1]
    shared: dict[str, Any] = {"title": title_of(after), "differs": _differing(before, after)}
    memory = memory_ratio(before, after)
    if isinstance(before.spec, AccuracySpec) and isinstance(after.spec, AccuracySpec):
        found = compare_accuracies(before, after)
        accurate: RunVerdict = "same" if found.verdict == "ok" else found.verdict
        return RunComparison(**shared, verdict=accurate, reason=found.reason, memory=memory, accuracy=found)
    if reason := _not_comparable(before, after) or _without_figures(base, new):
        return RunComparison(**shared, verdict="not comparable", reason=reason)
    first, following = ratio_of(base, new, "first"), ratio_of(base, new, "next")
    verdict, reason = _verdict(first, following, memory, limits)
    return RunComparison(
        **shared,
        verdict=verdict,
        reason=reason,
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
    changes: dict[str, RunVerdict] = {}
    for name, ratio in (("first token", first), ("next token", following)):
        # Without an interval, as of runs with one iteration alone, the ratio decides.
        if ratio and abs(ratio.ratio - 1) >= limits.latency and ratio.verdict(0) != "same":
            change: RunVerdict = "slower" if ratio.ratio > 1 else "faster"
            changes[f"{name} {change}, ratio {ratio.text}"] = change
    if memory is not None and memory > 1 + limits.memory:
        changes[f"peak memory larger, ratio {memory:.3f}"] = "slower"
    if not changes:
        return "same", f"within {limits.latency:.0%}, or no more than the noise"
    return "slower" if "slower" in changes.values() else "faster", "; ".join(changes)


def _not_comparable(base: Record, new: Record) -> str | None:
    one, other = base.spec, new.spec
    if not isinstance(one, RunSpec) or not isinstance(other, RunSpec):
        return "one is a latency, the other an accuracy"
    # A model may be a directory here and a name on the hub.
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
    """The fields in which the subjects, or the kinds of cache, differ."""
    one, other = _fields(base.spec), _fields(new.spec)
    return [
        f"{name}: {one.get(name, 'none')} and {other.get(name, 'none')}"
        for name in sorted(one.keys() | other.keys())
        if one.get(name) != other.get(name)
    ]


def _fields(spec: RunSpec | AccuracySpec) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(spec.subject)
    fields["quantization"] = spec.subject.quantization and spec.subject.quantization.title
    fields["cache"] = spec.workload.cache if isinstance(spec, RunSpec) else None
    return {name: value for name, value in fields.items() if value is not None}


def _runs(path: Path, left_out: list[tuple[str, str]]) -> dict[str, list[Record]]:
    """The runs of a directory or a file by their ids, each with its rounds. `DIR/ID.json` also names the run
    of that id in the rounds of DIR."""
    if path.is_dir():
        records = [found.record for found in records_in([path], left_out)]
    else:
        rounds = [one / path.name for one in rounds_of(path.parent) if (one / path.name).exists()]
        files = [path] if path.exists() or not rounds else rounds
        records = [writable(record, file) for file in files for record in read_records(file)]
    if not records:
        raise UserError(f"no records in {path}")
    runs: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        runs[record.id].append(record)
    return runs
