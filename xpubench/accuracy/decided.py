"""Whether an accuracy run has lost more of a reference's items than its limit allows, found out before all
items are scored."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from xpubench.accuracy.check import other_adapter, same_model
from xpubench.catalog import accuracy_limit_points
from xpubench.errors import UserError
from xpubench.measure.sequential import DECIDES, Sided, item_capitals
from xpubench.record import Decision, read_record
from xpubench.spec import AccuracySpec


class Decided(Exception):
    """Raised to end the scoring, because the items so far decide."""


class Reference:
    """The items of a reference's record, and their comparison with the items of a run so far. UserError
    where the record at `path` cannot be the reference of this task in this version."""

    def __init__(self, path: str, spec: AccuracySpec, task_version: str) -> None:
        record = read_record(Path(path))
        theirs = record.spec
        if not isinstance(theirs, AccuracySpec) or record.accuracy is None or record.status != "ok":
            raise UserError(f"the reference {path} is no accuracy run that went well ({record.status})")
        for name in ("name", "data_sha256", "num_fewshot"):
            one, other = getattr(theirs.task, name), getattr(spec.task, name)
            if one != other:
                raise UserError(f"the reference {path} ran another task: {name} {one}, not {other}")
        reason = other_adapter(record, spec.subject)
        if not same_model(theirs.subject, spec.subject):
            models = [Path(subject.model).name for subject in (theirs.subject, spec.subject)]
            reason = f"another model: {models[0]} and {models[1]}"
        elif record.accuracy.task_version != task_version:
            reason = f"another task version: {record.accuracy.task_version} and {task_version}"
        if reason is not None:
            raise UserError(f"the reference {path} cannot be compared: {reason}")
        self.correct = {item.id: item.correct for item in record.accuracy.items}
        if None in self.correct.values():
            raise UserError(f"the items of the reference {path} are neither right nor wrong")
        self.limit_points = accuracy_limit_points(spec.subject.model)
        self._path, self._id = path, record.id

    def check_items(self, ids: Sequence[int]) -> None:
        """UserError where the run's items differ from the reference's."""
        if set(ids) != self.correct.keys():
            raise UserError(
                f"the reference {self._path} holds {len(self.correct)} items and this run has {len(ids)}, or "
                "others; make it again with the same --acc-iter and without --until-decided"
            )

    def decision(self, drawn: Sequence[int], correct: Mapping[int, bool | None]) -> Decision:
        """What the answered items, in the order in which they were `drawn`, tell about all items."""
        differences = [float(bool(correct[one]) - bool(self.correct[one])) for one in drawn if one in correct]
        return Decision(
            reference=self._id,
            limit_points=self.limit_points,
            read=len(differences),
            total=len(self.correct),
            gained=differences.count(1.0),
            lost=differences.count(-1.0),
            decided=decided(differences, len(self.correct), self.limit_points / 100),
        )


def decided(differences: Sequence[float], total: int, limit: float) -> Sided | None:
    """Whether the loss over all `total` items is `within` or `beyond` `limit` (a share of them), decided by
    the first bound that the items so far, in their order, have crossed, or by the count once all are
    read; None before that."""
    if len(differences) == total:
        return "within" if -sum(differences) <= limit * total else "beyond"
    crossed: dict[int, Sided] = {}
    sides: tuple[Sided, ...] = ("within", "beyond")
    for side in sides:
        capitals = item_capitals(np.array([differences]), total, limit, side)[0]
        if len(places := np.flatnonzero(capitals >= DECIDES)):
            crossed.setdefault(int(places[0]), side)
    return crossed[min(crossed)] if crossed else None
