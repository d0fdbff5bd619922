"""One run held against another, and two sets of runs: ratios with their intervals, and verdicts."""

import json
from pathlib import Path
from typing import Any, Literal

import msgspec

from xpubench.accuracy.compare import Comparison
from xpubench.accuracy.compare import compare as compare_accuracy
from xpubench.errors import UserError
from xpubench.record import Record, decode, read_record
from xpubench.report.collect import Found, records_in
from xpubench.report.console import title_of
from xpubench.report.diff import Ratio, memory_ratio, ratio_of
from xpubench.spec import AccuracySpec, RunSpec

Verdict = Literal["same", "faster", "slower", "regression", "warning", "not comparable"]

BAD = frozenset({"slower", "regression"})


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """From which change on a latency counts, and a peak of memory, as a share of the base."""

    latency: float = 0.05
    memory: float = 0.10


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """A run against its base. Ratios are new / base; `memory` is of the device's peak where both know it,
    else the host's. `differs` names the fields of the subject that are not the same, with both values."""

    title: str
    verdict: Verdict
    reason: str
    differs: list[str] = []
    first_token: Ratio | None = None
    next_token: Ratio | None = None
    memory: float | None = None
    accuracy: Comparison | None = None
    top1_agreement: float | None = None
    mean_kl: float | None = None


class Comparisons(msgspec.Struct, frozen=True, kw_only=True):
    """Two sets of runs: those of the same id compared, and the titles of those that one set alone has."""

    runs: list[Compared]
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
    """Compares two records, or two sets of them: directories, or files with a record a line.

    Two single records are compared as they are, those of sets by their run's id. UserError when a path holds
    no record.
    """
    left_out: list[str] = []
    before, after = _records(base, left_out), _records(new, left_out)
    if len(before) == len(after) == 1 and base.is_file() and new.is_file():
        return Comparisons(
            runs=[compare_records(before[0], after[0], limits)],
            only_base=[],
            only_new=[],
            left_out=left_out,
        )
    ours, theirs = ({record.id: record for record in records} for records in (before, after))
    return Comparisons(
        runs=[compare_records(ours[one], theirs[one], limits) for one in ours if one in theirs],
        only_base=[title_of(record) for one, record in ours.items() if one not in theirs],
        only_new=[title_of(record) for one, record in theirs.items() if one not in ours],
        left_out=left_out,
    )


def compare_records(base: Record, new: Record, limits: Limits) -> Compared:
    """A latency against a latency, or an accuracy against an accuracy."""
    title, differs = title_of(new), _differing(base, new)
    if isinstance(base.spec, AccuracySpec) and isinstance(new.spec, AccuracySpec):
        found = compare_accuracy(base, new)
        verdict: Verdict = "same" if found.verdict == "ok" else found.verdict
        return Compared(
            title=title,
            verdict=verdict,
            reason=found.reason,
            differs=differs,
            memory=memory_ratio(base, new),
            accuracy=found,
        )
    if reason := _not_comparable(base, new):
        return Compared(title=title, verdict="not comparable", reason=reason, differs=differs)
    first, following = ratio_of(base, new, "first"), ratio_of(base, new, "next")
    memory = memory_ratio(base, new)
    verdict, reason = _verdict(first, following, memory, limits)
    return Compared(
        title=title,
        verdict=verdict,
        reason=reason,
        differs=differs,
        first_token=first,
        next_token=following,
        memory=memory,
        top1_agreement=new.divergence.top1_agreement if new.divergence else None,
        mean_kl=new.divergence.mean_kl if new.divergence else None,
    )


def _verdict(
    first: Ratio | None, following: Ratio | None, memory: float | None, limits: Limits
) -> tuple[Verdict, str]:
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
    worst: Verdict = "slower" if "slower" in changes.values() else "faster"
    return worst, "; ".join(changes)


def _change(ratio: Ratio, limit: float) -> Literal["slower", "faster"] | None:
    """A change counts when its whole interval is on one side of 1 and the ratio beyond the limit; without an
    interval, as of runs with one iteration alone, by the ratio."""
    if abs(ratio.ratio - 1) < limit or ratio.verdict == "same":
        return None
    return "slower" if ratio.ratio > 1 else "faster"


def _not_comparable(base: Record, new: Record) -> str | None:
    one, other = base.spec, new.spec
    if not isinstance(one, RunSpec) or not isinstance(other, RunSpec):
        return "one is a latency, the other an accuracy"
    for name, record in (("base", base), ("new", new)):
        if record.status != "ok" or record.summary is None:
            return f"the {name} run has no figures (status {record.status})"
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


def _records(path: Path, left_out: list[str]) -> list[Record]:
    """The records of a directory, of a file with one a line, or of a file that is one."""
    records: list[Record] = []
    if path.is_dir():
        for one in records_in(path):
            if isinstance(one, Found):
                records.append(one.record)
            else:
                left_out.append(f"{one.path}: {one.reason}")
    elif path.suffix == ".jsonl":
        records = _lines(path)
    else:
        records = [read_record(path)]
    if not records:
        raise UserError(f"no records in {path}")
    return records


def _lines(path: Path) -> list[Record]:
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    records = []
    for number, line in enumerate(lines, 1):
        try:
            if line.strip():
                records.append(decode(line))
        except UserError as error:
            raise UserError(f"{path}, line {number} is {error}") from error
    return records


def as_json(found: Comparisons) -> str:
    """For a machine."""
    return json.dumps(msgspec.to_builtins(found), indent=1)
