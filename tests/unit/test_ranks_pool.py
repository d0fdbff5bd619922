"""What rank 0 makes of what the other ranks hand back, without MPI: a stand-in for their executor."""

from concurrent.futures import Future
from pathlib import Path

import msgspec
import pytest

from tests import records
from xpubench.record import Record, encode, read_record
from xpubench.results import ResultsDirectory
from xpubench.run.order import Order
from xpubench.run.ranks_pool import Handed, hand_out


class OneRank:
    """Hands the same back for each order."""

    def __init__(self, handed: Handed) -> None:
        self._handed = handed

    def submit(self, *_: object) -> Future[bytes]:
        future: Future[bytes] = Future()
        future.set_result(msgspec.json.encode(self._handed))
        return future


@pytest.fixture
def results(tmp_path: Path) -> ResultsDirectory:
    return ResultsDirectory(tmp_path)


def gathered(results: ResultsDirectory, of: list[Record], handed: Handed) -> list[list[Record]]:
    """What a suite is told of the runs of these records, which a rank was to make again."""
    order = Order(specs=[record.spec for record in of], results="")
    found = hand_out(OneRank(handed), [order], results, rerun="all", timeout_s=1.0, say=lambda text: None)
    return list(found)


@pytest.mark.parametrize("failure", ["rank 1 on node: cannot write to results", None])
def test_a_run_that_a_rank_did_not_make_again_has_failed(
    results: ResultsDirectory, failure: str | None
) -> None:
    """Its earlier record went well."""
    old = [records.accuracy_record(records.subject(), task=name) for name in ("a", "b")]
    for record in old:
        results.write(record)
    new = msgspec.structs.replace(old[0], created="2026-11-28T00:00:00Z")
    handed = Handed(place="rank 1 on node", records=[encode(new)], tasks={}, failure=failure)
    made, lacking = gathered(results, old, handed)
    assert made == [new]
    assert [record.status for record in lacking] == ["crash"]
    assert lacking[0].failure is not None
    assert lacking[0].failure.message == (failure or "rank 1 on node left no record of this run")
    assert [read_record(results.record_path(record.id)) for record in old] == [new, *lacking]


@pytest.mark.parametrize("failed_before", [False, True])
@pytest.mark.parametrize("made", [True, False])
def test_a_group_of_tasks_that_a_rank_did_not_make_again_has_failed(
    results: ResultsDirectory, made: bool, failed_before: bool
) -> None:
    """All of its tasks went well once, and it may have failed after that."""
    group = records.accuracy_record(records.subject(), task="lambada")
    tasks = [records.accuracy_record(records.subject(), task=name) for name in ("a", "b")]
    ids = [results.write(record).stem for record in tasks]
    results.write_tasks(group.id, ids)
    if failed_before:
        results.write(records.failed(group, "oom", "full"))
    handed = Handed(
        place="rank 1 on node",
        records=[encode(record) for record in tasks[: 1 + made]],
        tasks={group.id: ids} if made else {},
        failure=None if made else "rank 1 on node: disk full",
    )
    (found,) = gathered(results, [group], handed)
    assert [record.status for record in found] == (["ok", "ok"] if made else ["crash"])
    assert [record.id for record in found] == (ids if made else [group.id])
