"""What a run spec accepts, and that its id is stable."""

import msgspec
import pytest

from xpubench.errors import UserError
from xpubench.spec import Protocol, RunSpec, Subject, Workload


def spec(**changes: object) -> RunSpec:
    return RunSpec(
        subject=Subject(model="m", device="cpu", dtype="float32"),
        workload=msgspec.structs.replace(Workload(input_tokens=8, new_tokens=4), **changes),
        protocol=Protocol(),
    )


def test_the_id_is_that_of_earlier_versions() -> None:
    assert spec().id == "0b030521827213f6"


def test_the_id_tells_workloads_apart() -> None:
    assert len({spec().id, spec(num_beams=4).id, spec(input_tokens=9).id, spec(cache="static").id}) == 4


@pytest.mark.parametrize("field", ["input_tokens", "new_tokens", "batch_size", "num_beams"])
def test_a_workload_of_nothing_is_refused(field: str) -> None:
    with pytest.raises(UserError, match="at least 1"):
        spec(**{field: 0})


@pytest.mark.parametrize(
    ("num_iter", "num_warmup", "message"),
    [(3, 3, "--num-iter 3"), (1, -1, "--num-warmup"), (0, 0, "--num-iter 0")],
)
def test_a_protocol_that_measures_nothing_is_refused(num_iter: int, num_warmup: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Protocol(num_iter=num_iter, num_warmup=num_warmup)


def test_a_workload_takes_a_length_or_a_text() -> None:
    with pytest.raises(UserError, match="either"):
        Workload(input_tokens=8, new_tokens=4, prompt="text")
    with pytest.raises(UserError, match="empty"):
        Workload(input_tokens=None, new_tokens=4, prompt="")
