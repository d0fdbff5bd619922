"""Two directories side by side."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.conftest import CommandLine
from tests.records import ENVIRONMENT, accuracy_record, failed, latency_record, round_of, subject, write
from xpubench.record import WeightsFingerprint
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
    for number in (1, 2, 3):
        round_of(sides[0], number, of=subject(LLAMA, runtime="ipex"))
        round_of(sides[1], number, of=subject(LLAMA, device="cuda"), slow=factor, second=True)
    [pair] = diff(xpubench, sides)["pairs"]
    figures = pair["comparison"]["figures"]
    assert figures["next_token"]["change"] == pytest.approx(factor, rel=0.01)
    assert figures["next_token"]["low"] < factor < figures["next_token"]["high"]
    assert figures["peak_device"]["change"] == 1
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
    assert pair["comparison"]["verdict"] == "worse"
    judged = pair["comparison"]["accuracy"]["accuracy"]
    assert judged["change"] == pytest.approx(-4)
    assert judged["p_value"] == pytest.approx(2 * 0.5**8)


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
    assert (pair["comparison"]["verdict"], pair["comparison"]["figures"]) == ("newly failing", {})
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


def test_another_checkpoint_of_a_model_is_named(xpubench: CommandLine, sides: tuple[Path, Path]) -> None:
    """Models that one side alone has are no difference of checkpoints."""
    for directory, digest in zip(sides, ("a", "b"), strict=True):
        known = WeightsFingerprint(config="c" * 64, weights=digest * 64)
        write(directory, latency_record(subject(), fingerprint=known))
    write(sides[1], latency_record(subject("another/model"), fingerprint=known))
    assert diff(xpubench, sides)["environment"] == [
        {"name": "weights of llama-2-7b-hf", "a": 12 * "a", "b": 12 * "b"}
    ]


def test_compare_and_diff_say_the_same_of_the_same_records(
    xpubench: CommandLine, sides: tuple[Path, Path]
) -> None:
    """A ratio whose interval is inside the limit is the same for both."""
    for number in (1, 2, 3):
        round_of(sides[0], number)
        round_of(sides[1], number, slow=1.03, second=True)
    [pair] = diff(xpubench, sides)["pairs"]
    [run] = json.loads(xpubench("compare", *sides, "--json").out)["runs"]
    assert pair["comparison"] == run
    assert run["verdict"] == "same"
