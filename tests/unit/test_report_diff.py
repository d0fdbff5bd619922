"""Two directories side by side, and a model's history."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.conftest import CommandLine
from tests.records import ENVIRONMENT, accuracy_record, failed, latency_record, subject, write
from xpubench.spec import Quantization

LLAMA = "meta-llama/Llama-2-7b-hf"


@pytest.fixture
def sides(tmp_path: Path) -> tuple[Path, Path]:
    """The paths of two directories."""
    return tmp_path / "a", tmp_path / "b"


def diff(xpubench: CommandLine, sides: tuple[Path, Path]) -> dict[str, Any]:
    """The comparison as JSON."""
    done = xpubench("report", "--diff", *sides, "--format", "json")
    assert done.code == 0, done.err
    found: dict[str, Any] = json.loads(done.out)
    return found


@pytest.mark.parametrize(("factor", "verdict"), [(1.1, "slower"), (0.9, "faster"), (1.0, "same")])
def test_the_ratio_of_one_work_on_two_stacks(
    xpubench: CommandLine, sides: tuple[Path, Path], factor: float, verdict: str
) -> None:
    a, b = sides
    write(a, latency_record(subject(LLAMA, runtime="ipex"), seed=1))
    write(b, latency_record(subject(LLAMA, device="cuda"), next_ms=20 * factor, seed=2))
    [pair] = diff(xpubench, sides)["pairs"]
    assert pair["next_token"]["ratio"] == pytest.approx(factor, rel=0.01)
    assert pair["next_token"]["low"] < factor < pair["next_token"]["high"]
    assert pair["memory"] == 1
    [row] = csv.DictReader(io.StringIO(xpubench("report", "--diff", *sides, "--format", "csv").out))
    assert row["verdict"] == verdict


def test_other_work_is_not_held_together(xpubench: CommandLine, sides: tuple[Path, Path]) -> None:
    a, b = sides
    write(a, latency_record(subject(LLAMA)))
    for other in (
        latency_record(subject(LLAMA), batch_size=2),
        latency_record(subject(LLAMA, dtype="bfloat16")),
        latency_record(subject(LLAMA, weights="dummy")),
        latency_record(subject("other")),
        accuracy_record(subject(LLAMA)),
    ):
        write(b, other)
    found = diff(xpubench, sides)
    assert (found["pairs"], len(found["only_a"]), len(found["only_b"])) == ([], 1, 5)


def test_a_stack_on_both_sides_is_held_against_itself(
    xpubench: CommandLine, sides: tuple[Path, Path]
) -> None:
    for side in sides:
        for runtime in ("ipex", "pytorch"):
            write(side, latency_record(subject(LLAMA, runtime=runtime)))
    pairs = diff(xpubench, sides)["pairs"]
    assert sorted((pair["a"]["runtime"], pair["b"]["runtime"]) for pair in pairs) == [
        ("ipex", "ipex"),
        ("pytorch", "pytorch"),
    ]


def test_accuracies_item_by_item(xpubench: CommandLine, sides: tuple[Path, Path]) -> None:
    a, b = sides
    write(a, accuracy_record(subject(LLAMA), acc=0.74, items=200))
    write(b, accuracy_record(subject(LLAMA, runtime="ipex"), acc=0.70, items=200))
    [pair] = diff(xpubench, sides)["pairs"]
    assert pair["accuracy_points"] == pytest.approx(-4)
    assert pair["p_value"] == pytest.approx(2 * 0.5**8)


def test_quantized_weights_are_the_same_work_wherever_they_lie(
    xpubench: CommandLine, sides: tuple[Path, Path]
) -> None:
    for side, checkpoint in zip(sides, (None, "/models/int4"), strict=True):
        write(side, latency_record(subject(LLAMA, quantization=Quantization(checkpoint=checkpoint))))
    write(sides[1], latency_record(subject(LLAMA, quantization=Quantization(group_size=128))))
    found = diff(xpubench, sides)
    assert (len(found["pairs"]), len(found["only_b"])) == (1, 1)


def test_a_failed_run_has_no_ratio(xpubench: CommandLine, sides: tuple[Path, Path]) -> None:
    a, b = sides
    write(a, latency_record(subject(LLAMA)))
    write(b, failed(latency_record(subject(LLAMA)), "oom", "no"))
    [pair] = diff(xpubench, sides)["pairs"]
    assert pair["next_token"] is None
    assert pair["b"]["status"] == "oom"


def test_what_differs_in_the_environments(xpubench: CommandLine, sides: tuple[Path, Path]) -> None:
    a, b = sides
    record = latency_record(subject(LLAMA))
    write(a, record)
    assert ENVIRONMENT.device is not None
    device = msgspec.structs.replace(ENVIRONMENT.device, driver="2.0", free_memory_bytes=1)
    environment = msgspec.structs.replace(ENVIRONMENT, device=device)
    write(b, msgspec.structs.replace(record, environment=environment))
    assert diff(xpubench, sides)["environment"] == [
        {"name": "device.driver", "a": ENVIRONMENT.device.driver, "b": "2.0"}
    ]


def months(directory: Path, *next_ms: float) -> None:
    """A run each month."""
    for month, one in enumerate(next_ms, 1):
        record = latency_record(
            subject(LLAMA), next_ms=one, seed=month, created=f"2026-{month:02}-01T00:00:00Z"
        )
        write(directory, record, f"run-{month}")


def test_history_marks_what_changed_by_more_than_noise(xpubench: CommandLine, tmp_path: Path) -> None:
    months(tmp_path, 20, 20, 22, 22, 20)
    done = xpubench("history", tmp_path, "--model", "llama-2-7b-hf", "--format", "json")
    changes = [point["change"] for point in json.loads(done.out)["points"]]
    assert changes == ["first", "same", "slower", "same", "faster"]


def test_history_of_accuracy_and_of_series_apart(xpubench: CommandLine, tmp_path: Path) -> None:
    for month, acc in enumerate((0.74, 0.745, 0.60), 1):
        record = accuracy_record(subject(LLAMA), acc=acc, items=2000, created=f"2026-{month:02}-01T00:00:00Z")
        write(tmp_path, record, f"accuracy-{month}")
    months(tmp_path, 20)
    write(tmp_path, latency_record(subject("other")))
    points = json.loads(xpubench("history", tmp_path, "--model", LLAMA, "--format", "json").out)["points"]
    by_kind = {"accuracy": [], "latency": []}  # type: dict[str, list[str]]
    for point in points:
        by_kind[point["run"]["kind"]].append(point["change"])
    assert by_kind == {"accuracy": ["first", "same", "worse"], "latency": ["first"]}


def test_history_prints_a_table_and_writes_a_page(xpubench: CommandLine, tmp_path: Path) -> None:
    results = tmp_path / "results"
    months(results, 20, 24)
    done = xpubench("history", results, "--model", LLAMA)
    assert done.code == 0
    assert "slower" in done.out
    out = tmp_path / "history.html"
    assert xpubench("history", results, "--model", LLAMA, "-o", out).code == 0
    assert f"History of {LLAMA}" in out.read_text()


def test_history_of_an_unknown_model_names_the_nearest(xpubench: CommandLine, tmp_path: Path) -> None:
    months(tmp_path, 20)
    done = xpubench("history", tmp_path, "--model", "meta-llama/Llama-2-7b")
    assert done.code == 2
    assert LLAMA in done.error_line
