"""A rank's wait for the others, told apart from its collectives."""

import pytest

from xpubench.explanation import PartName
from xpubench.measure.ledger.measured import Measured, MeasuredToken
from xpubench.measure.ledger.ranks import without_waiting


def measured(collectives: float, *, cpu_share: float | None = None, first: float | None = None) -> Measured:
    """A rank that spent so many ns of each token in collectives, and 100 in products with weights."""

    def token(ns: float) -> MeasuredToken:
        return MeasuredToken(parts={"weights": 100.0, "collectives": ns})

    return Measured(
        method="made up",
        first=None if first is None else token(first),
        next=token(collectives),
        cpu_share=cpu_share,
    )


def parts(own: Measured, *others: Measured) -> dict[PartName, float]:
    found = without_waiting(own, [own, *others]).next
    assert found is not None
    return found.parts


def test_a_rank_waits_beyond_what_the_last_one_spends() -> None:
    assert parts(measured(70.0), measured(20.0), measured(50.0)) == {
        "weights": 100.0,
        "collectives": 20.0,
        "waiting": 50.0,
    }


def test_the_rank_that_comes_last_does_not_wait() -> None:
    assert parts(measured(20.0), measured(70.0)) == {"weights": 100.0, "collectives": 20.0}


def test_ranks_alike_do_not_wait() -> None:
    assert parts(measured(30.0), measured(30.0)) == {"weights": 100.0, "collectives": 30.0}


def test_first_and_next_token_are_divided_apart() -> None:
    ranks = [measured(30.0, first=500.0), measured(30.0, first=100.0)]
    found = without_waiting(ranks[0], ranks)
    assert found.first is not None
    assert found.first.parts == {"weights": 100.0, "collectives": 100.0, "waiting": 400.0}
    assert found.next == ranks[0].next


def test_a_rank_without_a_ledger_counts_for_nothing() -> None:
    nothing = Measured(method="made up")
    assert parts(measured(70.0), nothing, measured(20.0))["waiting"] == 50.0
    assert parts(measured(70.0), nothing) == {"weights": 100.0, "collectives": 70.0}
    found = without_waiting(nothing, [nothing, measured(70.0)])
    assert found.first is None
    assert found.next is None


def test_a_rank_without_collectives_came_last() -> None:
    alone = Measured(method="made up", next=MeasuredToken(parts={"weights": 100.0}))
    found = parts(measured(70.0), alone)
    assert found["waiting"] == 70.0
    assert not found["collectives"]


@pytest.mark.parametrize(
    ("shares", "least"), [((0.99, 0.6, 0.98), 0.6), ((None, 0.9), 0.9), ((None, None), None)]
)
def test_the_share_of_the_processor_is_the_worst_ranks(
    shares: tuple[float | None, ...], least: float | None
) -> None:
    ranks = [measured(10.0, cpu_share=share) for share in shares]
    assert without_waiting(ranks[0], ranks).cpu_share == least
