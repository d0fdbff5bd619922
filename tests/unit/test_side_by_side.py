"""The table of several runtimes on one workload."""

from itertools import cycle

import msgspec

from tests.records import latency_record, subject
from xpubench.record import Record
from xpubench.report.side_by_side import COLUMNS, SideBySide, side_by_side

RUNTIMES = ["pytorch", "openvino-genai"]


def row_of(found: SideBySide, runtime: str) -> dict[str, str]:
    """The texts of a runtime's row, by their columns."""
    rows = [dict(zip(COLUMNS, row, strict=True)) for row in found.rows]
    return next(row for row in rows if row["runtime"] == runtime)


def record(runtime: str, iterations_ms: list[list[float]]) -> Record:
    """A run whose iterations took these times for their next tokens."""
    made = latency_record(subject(runtime=runtime), iterations=len(iterations_ms))
    times = cycle(iterations_ms)
    rows = [
        msgspec.structs.replace(one, next_token_ns=[int(ms * 1e6) for ms in next(times)])
        if one.next_token_ns
        else one
        for one in made.samples.iterations
    ]
    return msgspec.structs.replace(made, samples=msgspec.structs.replace(made.samples, iterations=rows))


def table_of(runs: list[Record]) -> SideBySide:
    """The table of one round."""
    (found,) = side_by_side([{name: [one] for name, one in zip(RUNTIMES, runs, strict=True)}], RUNTIMES)
    return found


def test_a_ratio_is_that_of_the_medians_beside_it() -> None:
    runs = [
        record("pytorch", [[20.0] * 4, [20.0] * 4]),
        # Most tokens are fast: the median of the iterations' own medians would say slower.
        record("openvino-genai", [[10.0] * 4, [10.0, 40.0, 40.0, 40.0]]),
    ]
    row = row_of(table_of(runs), "openvino-genai")
    assert (row["next token, ms"], row["times as fast"]) == ("10.00", "2.00")


def test_each_row_has_the_precision_of_its_run() -> None:
    """IPEX quantizes in float32 on a CPU, for example."""
    found = table_of(
        [
            latency_record(subject(runtime=RUNTIMES[0], dtype="bfloat16")),
            latency_record(subject(runtime=RUNTIMES[1], dtype="float32")),
        ]
    )
    assert [row_of(found, name)["precision"] for name in RUNTIMES] == ["bfloat16", "float32"]
    assert "bfloat16" not in found.title


def test_a_failed_run_has_no_figure() -> None:
    good, other = (latency_record(subject(runtime=name)) for name in RUNTIMES)
    failed = msgspec.structs.replace(other, status="oom", summary=None)
    assert table_of([good, failed]).rows[1] == ["openvino-genai", "float16", "oom", *["–"] * 9]


def test_the_verdict_is_that_of_compare() -> None:
    """Three rounds in turns, one runtime 20% slower: its times as fast are the ratio turned over."""
    rounds = []
    for number in (1, 2, 3):
        made = [
            latency_record(
                subject(runtime=name), next_ms=ms, seed=number, created=f"2026-11-20T10:{number}{second}:00Z"
            )
            for second, (name, ms) in enumerate(zip(RUNTIMES, (20.0, 24.0), strict=True))
        ]
        rounds.append({name: [one] for name, one in zip(RUNTIMES, made, strict=True)})
    (found,) = side_by_side(rounds, RUNTIMES)
    first, other = found.rows
    at = COLUMNS.index("times as fast")
    assert (other[at][:4], other[at + 2]) == ("0.83", "slower")
    assert other[at + 1].startswith("0.83 to 0.83")
    assert first[at : at + 3] == ["–"] * 3
