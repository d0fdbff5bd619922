"""The references that an accuracy is compared with: a published figure, or a float32 run of the same
checkpoint."""

from collections import defaultdict
from collections.abc import Sequence

import msgspec

from xpubench.compare.row import RunRow
from xpubench.runtimes.registry import DEFAULT

# A float32 run below this accuracy is no reference: a model that knows nothing comes near it on no task.
LEAST_ACC = 0.1
PUBLISHED = "the published figure"
FLOAT32_RUN = "the float32 run"


class AccuracyReference(msgspec.Struct, frozen=True, kw_only=True):
    """An accuracy from 0 to 1, and where it is from. `key` names the run that made it, None of a published
    one."""

    acc: float
    source: str
    key: str | None = None


def references_of(runs: Sequence[RunRow]) -> dict[str, list[AccuracyReference]]:
    """By the key of each accuracy run its references: the published figure that its record names, and
    float32 runs of stock PyTorch, on the same task and the same weights where both are known."""
    made: defaultdict[tuple[str, str], list[RunRow]] = defaultdict(list)
    for run in runs:
        if _is_reference(run):
            made[run.checkpoint, run.workload].append(run)
    return {
        run.key: [*_published(run), *_of_runs(run, made[run.checkpoint, run.workload])]
        for run in runs
        if run.kind == "accuracy"
    }


def _is_reference(run: RunRow) -> bool:
    return (
        (run.kind, run.status, run.weights) == ("accuracy", "ok", "pretrained")
        and (run.runtime, run.precision_class, run.ranks, run.lora) == (DEFAULT, "float32", 1, None)
        and run.acc is not None
        and run.acc >= LEAST_ACC
        and not run.acc_partial
        and not run.acc_regression
    )


def _published(run: RunRow) -> list[AccuracyReference]:
    if run.acc_reference is None:
        return []
    return [AccuracyReference(acc=run.acc_reference, source=PUBLISHED)]


def _of_runs(run: RunRow, made: Sequence[RunRow]) -> list[AccuracyReference]:
    return [
        AccuracyReference(acc=one.acc, source=FLOAT32_RUN, key=one.key)
        for one in made
        if one.acc is not None
        and one.key != run.key
        and (one.weights_digest == run.weights_digest or None in (one.weights_digest, run.weights_digest))
    ]
