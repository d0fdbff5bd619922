"""Faults in a real model: each ends the run as `numerics`, and none of its figures gets out."""

from pathlib import Path

import pytest

from tests.conftest import CommandLine
from tests.ipex_xpu.models import make
from xpubench.runtimes.fake.faults import FAULTS

# What a fault needs beside a batch of two, to show at all or, where it changes the model itself, to be seen.
NEEDED: dict[str, tuple[str, ...]] = {
    "wrong-static-cache": ("--use-static-cache",),
    "wrong-compiled": ("--use-static-cache", "--torch-compile", "--backend", "eager"),
    "dropped-rank": ("--reference", "cpu-float32"),
    "shifted-scales": ("--reference", "cpu-float32"),
    "middle-prompt": ("--num-iter", "6", "--num-warmup", "1"),
    "sixth-row": ("--batch-size", "8"),
    "stuck-last-token": ("--max-new-tokens", "12"),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("llama") / "llama3"
    make("llama3", directory)
    return directory


def shape(*flags: object) -> list[object]:
    return [
        *("--runtime", "faulty", "--input-tokens", 32, "--max-new-tokens", 10, "--num-iter", 5),
        *("--batch-size", 2, "--json", *flags),
    ]


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_found(generate: CommandLine, model: Path, fault: str) -> None:
    done = generate(model, *shape("--fault", fault, *NEEDED.get(fault, ())))
    assert done.code == 1
    (record,) = done.records
    assert (record["status"], record["summary"]) == ("numerics", None), record["failure"]


@pytest.mark.parametrize("fault", ["wrong-timed", "nan-row"])
def test_four_beams_are_looked_at_too(generate: CommandLine, model: Path, fault: str) -> None:
    """NaN also ends a search of four beams too early, which is not the cause."""
    flags = ("--num-beams", 4, "--batch-size", 1, "--max-new-tokens", 12)
    done = generate(model, *shape("--fault", fault, *flags))
    assert done.records[0]["status"] == "numerics"


@pytest.mark.parametrize("flags", [(), ("--num-beams", 4), ("--use-static-cache", "--dtype", "bfloat16")])
def test_the_same_model_without_a_fault(
    generate: CommandLine, model: Path, flags: tuple[object, ...]
) -> None:
    done = generate(model, *shape("--reference", "cpu-float32", *flags))
    assert done.code == 0, done.err
    (record,) = done.records
    assert record["divergence"]["verdict"] != "failure"
    assert record["checks"]["tokens"]["regret"] <= record["checks"]["tokens"]["regret_limit"]
    # Rows keep their bits beside other rows, also where each has the others for its beams.
    neighbours = record["checks"]["neighbours"]
    assert (neighbours["repeatable"], neighbours["difference"]) == (True, 0)
