"""What rank 0 makes of a failure in a step that the other ranks did not fail in."""

from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("deepspeed")

from xpubench.distributed.runtime import in_step  # after the check that it is installed

GLOO = "Read error [127.0.0.1]: Connection closed by peer"


class JobIsOver(BaseException):
    """The end of the job."""


def rank_0(*, recorded: bool) -> Any:
    """Rank 0 of a job of which another rank does not answer. `recorded` says whether the watchdog has
    recorded a failure, such as that rank's death."""

    def end(*_: object) -> None:
        raise JobIsOver

    return SimpleNamespace(
        rank=0,
        timeout=timedelta(seconds=1),
        lost=None,
        all_failed=lambda error: False,
        end_if_failed=end if recorded else lambda: None,
        fail=end,
    )


def test_a_death_that_is_recorded_is_not_overwritten_by_what_follows_from_it() -> None:
    """Rank 0 would write the run's record again, with gloo's error in it."""
    job = rank_0(recorded=True)
    with pytest.raises(JobIsOver), in_step(job, "cpu", measured=True):
        raise RuntimeError(GLOO)
    assert job.lost is None


def test_a_failure_of_rank_0_alone_is_raised_so_that_its_record_keeps_the_samples() -> None:
    job = rank_0(recorded=False)
    with pytest.raises(RuntimeError, match="Read error"), in_step(job, "cpu", measured=True):
        raise RuntimeError(GLOO)
    assert "Read error" in job.lost.message


def test_before_anything_is_measured_the_job_ends_at_once() -> None:
    with pytest.raises(JobIsOver), in_step(rank_0(recorded=False), "cpu"):
        raise RuntimeError(GLOO)
