"""Two accuracy records of the same items: the difference, whether it is noise, and a verdict."""

from typing import Literal

import msgspec

from xpubench.catalog import find_model
from xpubench.record import Accuracy, Record
from xpubench.spec import AccuracySpec

WARN_POINTS = 1.5
DEFAULT_LIMIT_POINTS = 3.0

Verdict = Literal["ok", "warning", "regression", "not comparable"]


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """`difference_points` is new less base in percentage points; `p_value` is McNemar's, exact, over the
    `gained` and `lost` items that only one of the two has right."""

    verdict: Verdict
    reason: str
    task: str | None = None
    base_acc: float | None = None
    new_acc: float | None = None
    difference_points: float | None = None
    gained: int | None = None
    lost: int | None = None
    p_value: float | None = None
    n: int | None = None
    limit_points: float | None = None


def compare(base: Record, new: Record) -> Comparison:
    """Compares accuracy item by item.

    A drop of at least the model's limit (3 points where the catalog has none) is a regression, one of 1.5
    points a warning. McNemar's exact test is the two-sided binomial test of the items on which the two
    differ (McNemar 1947), and tells whether the difference is more than chance.
    """
    if reason := _not_comparable(base, new):
        return Comparison(verdict="not comparable", reason=reason)
    one, other = _accuracy(base), _accuracy(new)
    before = {item.id: bool(item.correct) for item in one.items}
    after = {item.id: bool(item.correct) for item in other.items}
    gained = sum(after[index] and not before[index] for index in before)
    lost = sum(before[index] and not after[index] for index in before)
    difference = 100 * (gained - lost) / len(before)
    limit = _limit_points(base)
    p_value = mcnemar(gained, lost)
    verdict, reason = _verdict(difference, limit, p_value)
    return Comparison(
        verdict=verdict,
        reason=reason,
        task=one.task,
        base_acc=one.acc,
        new_acc=other.acc,
        difference_points=difference,
        gained=gained,
        lost=lost,
        p_value=p_value,
        n=len(before),
        limit_points=limit,
    )


def mcnemar(gained: int, lost: int) -> float:
    """The two-sided exact p-value of so many items gained and lost, which chance would share equally."""
    if gained + lost == 0:
        return 1.0
    from scipy.stats import binomtest

    return float(binomtest(gained, gained + lost).pvalue)


def _verdict(difference: float, limit: float, p_value: float) -> tuple[Verdict, str]:
    chance = f"McNemar's p {p_value:.3g}"
    if difference <= -limit:
        return "regression", f"{-difference:.2f} points lower, the limit is {limit:g}; {chance}"
    if difference <= -WARN_POINTS:
        return "warning", f"{-difference:.2f} points lower, a warning from {WARN_POINTS:g}; {chance}"
    return "ok", f"{difference:+.2f} points, within {WARN_POINTS:g}; {chance}"


def _not_comparable(base: Record, new: Record) -> str | None:
    for name, record in (("base", base), ("new", new)):
        if record.status != "ok" or record.accuracy is None:
            return f"the {name} record holds no accuracy (status {record.status})"
    one, other = _accuracy(base), _accuracy(new)
    fields = (
        ("task", one.task, other.task),
        ("task version", one.task_version, other.task_version),
        ("content of the data file", _data(base), _data(new)),
        ("number of examples before each item", _fewshot(base), _fewshot(new)),
    )
    for name, left, right in fields:
        if left != right:
            return f"another {name}: {left} and {right}"
    if [item.id for item in one.items] != [item.id for item in other.items]:
        return f"other items: {one.n} and {other.n} of {one.task}"
    if any(item.correct is None for item in (*one.items, *other.items)):
        return f"the items of {one.task} are neither right nor wrong"
    return None


def _accuracy(record: Record) -> Accuracy:
    assert record.accuracy is not None
    return record.accuracy


def _data(record: Record) -> str | None:
    return record.spec.task.data_sha256 if isinstance(record.spec, AccuracySpec) else None


def _fewshot(record: Record) -> int | None:
    return record.spec.task.num_fewshot if isinstance(record.spec, AccuracySpec) else None


def _limit_points(record: Record) -> float:
    known = find_model(record.spec.subject.model)
    return known.accuracy_limit_points if known else DEFAULT_LIMIT_POINTS
