"""The next token latency over several batches, and where it leaves the bandwidth's regime."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.conftest import CommandLine
from tests.records import latency_record, subject
from xpubench.record import Record
from xpubench.report.batches import batch_curves

GB = 10**9


def run(batch_size: int, next_ms: float, step_bytes: int, **fields: Any) -> Record:
    record = latency_record(subject(**fields), batch_size=batch_size, next_ms=next_ms)
    assert record.latency is not None
    return msgspec.structs.replace(
        record, summary=msgspec.structs.replace(record.latency, step_bytes=step_bytes)
    )


@pytest.mark.parametrize(
    ("latencies", "leaves_at"),
    [
        ({1: 20.0, 2: 20.1, 8: 20.5, 32: 22.0}, None),  # by their bytes, to 1.31 times of them
        ({1: 20.0, 2: 20.1, 8: 30.0, 32: 90.0}, 8),  # computing takes over
        ({1: 20.0, 2: 20.1, 8: 20.5, 32: 40.0}, 32),
        ({1: 20.0, 2: 21.5, 8: 21.5, 32: 23.0}, None),  # within the tolerance
    ],
)
def test_where_decode_leaves_the_bandwidths_regime(
    latencies: dict[int, float], leaves_at: int | None
) -> None:
    runs = [run(size, ms, 13 * GB + size * GB // 8) for size, ms in latencies.items()]
    (curve,) = batch_curves(reversed(runs))
    assert [point.batch_size for point in curve.points] == [1, 2, 8, 32]
    assert curve.leaves_at == leaves_at
    assert ("leaves the bandwidth's regime" in curve.message) is (leaves_at is not None)
    if leaves_at == 8:
        assert "at batch 8: 1.50 times as long as of batch 1, with 1.07 times the bytes" in curve.message


def test_a_batch_that_reads_more_may_take_longer() -> None:
    """With a KV cache as large as the weights, a batch of 8 reads 4.5 times as much."""
    runs = [run(size, 10.0 * (1 + size), GB * (1 + size)) for size in (1, 8)]
    (curve,) = batch_curves(runs)
    assert curve.leaves_at is None
    assert curve.limit_ms[1] == pytest.approx(1.1 * 20.0 * 4.5, rel=0.02)


def test_runs_that_differ_otherwise_are_other_curves() -> None:
    runs = [run(1, 20.0, GB), run(2, 20.0, GB, dtype="bfloat16"), run(4, 20.0, GB, device="cuda")]
    assert batch_curves(runs) == []
    assert len(batch_curves([*runs, run(8, 20.0, GB), run(8, 20.0, GB, device="cuda")])) == 2


def elsewhere(record: Record, **changes: Any) -> Record:
    """The record in another environment, in which `threads` are those of torch."""
    environment = record.environment
    if threads := changes.pop("threads", None):
        assert environment.host is not None
        changes["host"] = msgspec.structs.replace(environment.host, torch_threads=threads)
    return msgspec.structs.replace(record, environment=msgspec.structs.replace(environment, **changes))


@pytest.mark.parametrize(
    "changes",
    [{"threads": 2}, {"versions": {"torch": "1.0"}}, {"variables": {"OMP_NUM_THREADS": "2"}}],
)
def test_runs_of_other_threads_versions_or_variables_are_other_curves(changes: dict[str, Any]) -> None:
    """Batch 2 took twice as long for another reason than its batch."""
    one, two = run(1, 20.0, GB), run(2, 40.0, GB)
    assert batch_curves([one, elsewhere(two, **changes)]) == []
    here, there = batch_curves([one, two, *(elsewhere(record, **changes) for record in (one, two))])
    assert (here.leaves_at, there.leaves_at) == (2, 2)


def test_what_differs_from_moment_to_moment_or_for_the_ledger_parts_no_curve() -> None:
    one, two = run(1, 20.0, GB), run(2, 20.0, GB)
    assert two.environment.host is not None
    host = msgspec.structs.replace(two.environment.host, load_average_1min=9.0, available_memory_bytes=1)
    variables = two.environment.variables | {"TORCHINDUCTOR_CPP_ENABLE_KERNEL_PROFILE": "1"}
    (curve,) = batch_curves([one, elsewhere(two, host=host, variables=variables)])
    assert [point.batch_size for point in curve.points] == [1, 2]


def test_curves_on_a_cpu_tell_their_threads() -> None:
    runs = [elsewhere(run(size, 20.0, GB, device="cpu"), threads=2) for size in (1, 2)]
    assert batch_curves(runs)[0].title.endswith(" · 2 threads")


def test_of_runs_of_one_spec_the_latest_counts() -> None:
    early, late = (run(1, ms, GB) for ms in (10.0, 20.0))
    early = msgspec.structs.replace(early, created="2020-01-01T00:00:00Z")
    (curve,) = batch_curves([late, early, run(2, 20.0, GB)])
    assert curve.points[0].next_token_ms == pytest.approx(20.0, rel=0.01)


def test_failed_runs_count_in_no_curve() -> None:
    good, failed = run(1, 20.0, GB), msgspec.structs.replace(run(2, 20.0, GB), status="oom", summary=None)
    assert batch_curves([good, failed]) == []


def test_the_terminal_says_it(scripted: CommandLine, xpubench: CommandLine, tmp_path: Path) -> None:
    scripted({})
    flags = ("--runtime", "fake", "--fake-script", tmp_path / "script.json", "--device", "cpu", "--greedy")
    shape = ("--input-tokens", 8, "--max-new-tokens", 4, "--num-iter", 2, "--results-dir", tmp_path / "other")
    told = " ".join(
        xpubench("generate", "-m", "smollm2-135m", *flags, *shape, "--batch-size", 1, 4).out.split()
    )
    assert "1.00 ms at batch 1, 1.00 ms at batch 4: up to batch 4 the bytes of a step explain" in told
    assert len(scripted({}, "--batch-size", 1, 4).records) == 2  # JSON alone
    assert "batches of" not in xpubench("generate", "-m", "smollm2-135m", *flags, *shape).out
