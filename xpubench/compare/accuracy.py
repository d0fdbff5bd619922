"""Two accuracy records of the same items: the difference, whether it is noise, and a verdict."""

from typing import Literal, cast

import msgspec

from xpubench.catalog import ACCURACY_LIMIT_POINTS, find_model
from xpubench.record import Accuracy, Record
from xpubench.spec import AccuracySpec

WARN_POINTS = 1.5

# A difference that chance explains with at least this probability counts as no difference.
SIGNIFICANT = 0.05
# This many standard errors to each side of a figure hold 95% of the normal distribution.
Z95 = 1.96

AccuracyVerdict = Literal["ok", "warning", "regression", "not comparable"]
AccuracyChange = Literal["same", "better", "worse"]


class AccuracyComparison(msgspec.Struct, frozen=True, kw_only=True):
    """`difference_points` is new less base in percentage points; `p_value` is McNemar's, exact, over the
    `gained` and `lost` items that only one of the two has right."""

    verdict: AccuracyVerdict
    reason: str
    task: str | None = None
    base_acc: float | None = None
    new_acc: float | None = None
    difference_points: float | None = None
    gained: int | None = None
    lost: int | None = None
    p_value: float | None = None
    n: int | None = None
    allowed_drop_points: float | None = None


def compare_accuracies(base: Record, new: Record) -> AccuracyComparison:
    """Compares accuracy item by item. A drop of at least the model's limit (3 points where the catalog has
    none) is a regression, one of 1.5 points a warning. McNemar's exact test is the two-sided binomial test of
    the items on which the two differ (McNemar 1947), and tells whether the difference is more than chance."""
    if reason := _not_comparable(base, new):
        return AccuracyComparison(verdict="not comparable", reason=reason)
    one, other = cast("tuple[Accuracy, Accuracy]", (base.accuracy, new.accuracy))
    gained, lost = _gained_and_lost(one, other)
    difference = 100 * (gained - lost) / len(one.items)
    limit = allowed_drop_points(base.spec.subject.model)
    p_value = mcnemar(gained, lost)
    verdict, reason = _verdict(difference, limit)
    return AccuracyComparison(
        verdict=verdict,
        reason=f"{reason}; McNemar's p {p_value:.3g}",
        task=one.task,
        base_acc=one.acc,
        new_acc=other.acc,
        difference_points=difference,
        gained=gained,
        lost=lost,
        p_value=p_value,
        n=len(one.items),
        allowed_drop_points=limit,
    )


def allowed_drop_points(model: str) -> float:
    """The drop of a model's accuracy, in percentage points, that is a regression."""
    known = find_model(model)
    return known.accuracy_limit_points if known else ACCURACY_LIMIT_POINTS


def accuracy_difference(base: Record, new: Record) -> tuple[float | None, float | None]:
    """New less base in percentage points, and McNemar's p-value where both scored the same items; None for
    what the records do not tell."""
    one, other = base.accuracy, new.accuracy
    if one is None or other is None or one.acc is None or other.acc is None:
        return None, None
    return 100 * (other.acc - one.acc), compare_accuracies(base, new).p_value


def accuracy_change(points: float, *, noise: bool) -> AccuracyChange:
    """The name of a change by so many percentage points, which may be noise."""
    if noise:
        return "same"
    return "better" if points > 0 else "worse"


def mcnemar(gained: int, lost: int) -> float:
    """The two-sided exact p-value of so many items gained and lost, which chance would share equally."""
    if gained + lost == 0:
        return 1.0
    from scipy.stats import binomtest

    return float(binomtest(gained, gained + lost).pvalue)


def _gained_and_lost(base: Accuracy, new: Accuracy) -> tuple[int, int]:
    """How many of the same items the new run alone has right, and how many the base alone."""
    before, after = ({item.id for item in side.items if item.correct} for side in (base, new))
    return len(after - before), len(before - after)


def _verdict(difference: float, limit: float) -> tuple[AccuracyVerdict, str]:
    if difference <= -limit:
        return "regression", f"{-difference:.2f} points lower, the limit is {limit:g}"
    if difference <= -WARN_POINTS:
        return "warning", f"{-difference:.2f} points lower, a warning from {WARN_POINTS:g}"
    return "ok", f"{difference:+.2f} points, within {WARN_POINTS:g}"


def _not_comparable(base: Record, new: Record) -> str | None:
    for name, record in (("base", base), ("new", new)):
        if record.status != "ok" or record.accuracy is None or not isinstance(record.spec, AccuracySpec):
            return f"the {name} record holds no accuracy (status {record.status})"
    one, other = (_identity(record) for record in (base, new))
    for name in one:
        if one[name] != other[name]:
            return f"another {name}: {one[name]} and {other[name]}"
    ours, theirs = (record.accuracy.items if record.accuracy else [] for record in (base, new))
    if [item.id for item in ours] != [item.id for item in theirs]:
        return f"other items: {len(ours)} and {len(theirs)} of {one['task']}"
    if not ours:
        return f"the records hold no items of {one['task']}"
    if any(item.correct is None for item in (*ours, *theirs)):
        return f"the items of {one['task']} are neither right nor wrong"
    return None


def _identity(record: Record) -> dict[str, str | int | None]:
    assert record.accuracy is not None
    assert isinstance(record.spec, AccuracySpec)
    return {
        "task": record.accuracy.task,
        "task version": record.accuracy.task_version,
        "content of the data file": record.spec.task.data_sha256,
        "number of examples before each item": record.spec.task.num_fewshot,
    }
