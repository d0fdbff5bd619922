"""Two accuracy records of the same items: the difference, whether it is noise, and a verdict."""

from math import exp, log
from typing import cast

import msgspec

from xpubench.catalog import TEST_SETS, accuracy_limit_points
from xpubench.compare.intervals import paired
from xpubench.compare.items import judge_items
from xpubench.compare.judgement import COST, MOST_LOG, Judgement, judge_ratio, without_interval
from xpubench.record import Accuracy, Record
from xpubench.spec import AccuracySpec

PERPLEXITY_LIMIT = 0.05


class AccuracyComparison(msgspec.Struct, frozen=True, kw_only=True):
    """The accuracies of the same `n` items, from 0 to 1, and the items that only one of the two has right.
    `accuracy` is the judgement on the difference in percentage points, `perplexity` that on the ratio of the
    perplexities of the right answers, where both have one."""

    task: str
    base_acc: float | None
    new_acc: float | None
    gained: int
    lost: int
    n: int
    accuracy: Judgement
    perplexity: Judgement | None


def compare_accuracies(base: Record, new: Record) -> AccuracyComparison | str:
    """Compares two accuracy runs item by item; the reason where they cannot be compared."""
    if reason := _not_comparable(base, new):
        return reason
    one, other = cast("tuple[Accuracy, Accuracy]", (base.accuracy, new.accuracy))
    gained, lost = _gained_and_lost(one, other)
    return AccuracyComparison(
        task=one.task,
        base_acc=one.acc,
        new_acc=other.acc,
        gained=gained,
        lost=lost,
        n=len(one.items),
        accuracy=judge_items(gained, lost, len(one.items), accuracy_limit_points(base.spec.subject.model)),
        perplexity=_judge_perplexity(one, other),
    )


def below_published(record: Record) -> bool:
    """Whether the accuracy is below the published figure by more than the model's limit. Both figures are of
    one test set, whose items are no sample, so that their difference has no interval; a record of some of the
    items, or of others, is not below."""
    found = record.accuracy
    if found is None or found.acc is None or found.reference is None or other_items(record):
        return False
    return below_reference(found.acc, found.reference.acc, record.spec.subject.model)


def below_reference(acc: float, reference: float, model: str) -> bool:
    """Whether an accuracy on a whole test set, whose items are no sample, is below a reference on the same
    set, both from 0 to 1, by more than the model's limit."""
    return 100 * (reference - acc) > accuracy_limit_points(model)


def other_items(record: Record) -> bool:
    """Whether the items of an accuracy record are, or may be, others than the task's whole test set: only
    some of them, or those of a local file."""
    assert record.accuracy is not None
    assert isinstance(record.spec, AccuracySpec)
    digest = record.spec.task.data_sha256
    return record.accuracy.partial or (digest is not None and digest != TEST_SETS.get(record.spec.task.name))


def _judge_perplexity(base: Accuracy, new: Accuracy) -> Judgement | None:
    """The ratio of the perplexities. Its interval is that of the mean difference of the items'
    log-likelihoods."""
    if not base.perplexity or not new.perplexity:
        return None
    told = log(new.perplexity / base.perplexity)
    before, after = (
        [-item.loglikelihood for item in side.items if item.loglikelihood is not None] for side in (base, new)
    )
    if len(before) == len(after) == len(base.items) > 1:
        interval = paired(before, after)
        if abs(interval.estimate - told) < PERPLEXITY_LIMIT / 2:
            return judge_ratio("perplexity", interval, PERPLEXITY_LIMIT, COST)
    reason = "the items' log-likelihoods do not give this ratio, and so no interval"
    return without_interval("perplexity", exp(min(told, MOST_LOG)), PERPLEXITY_LIMIT, reason)


def _gained_and_lost(base: Accuracy, new: Accuracy) -> tuple[int, int]:
    """Two counts among the items of both runs: those that only the new run has right, and those that only
    the base has right."""
    before, after = ({item.id for item in side.items if item.correct} for side in (base, new))
    return len(after - before), len(before - after)


def _not_comparable(base: Record, new: Record) -> str | None:
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
