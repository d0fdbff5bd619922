"""The one-click scripts and the guide's own lines on the emulated GPU, with only the model replaced.

No data of the hub is at hand, and the emulation is slow: the guide's line of accuracy has another task and
four items.
"""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.ipex_xpu.conftest import Command, ModelOf, ObservedOutcome
from tests.ipex_xpu.models import GROUP, save_tokenizer
from tests.ipex_xpu.source import ROOT

SMALL = {"input": "12", "out": "8", "iter": "2"}
SHAPE = "--num-beams 4 --num-iter 10 --batch-size 1 --input-tokens 1024 --max-new-tokens 128"


@pytest.fixture(scope="module")
def model(model_of: ModelOf, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama of 2,048 positions with a tokenizer of bytes."""
    directory = tmp_path_factory.mktemp("scripts") / "Llama-2-7b-hf"
    shutil.copytree(model_of("llama3"), directory)
    config = json.loads((directory / "config.json").read_text()) | {"max_position_embeddings": 2048}
    (directory / "config.json").write_text(json.dumps(config))
    save_tokenizer(directory)
    return directory


@pytest.fixture
def script(
    command: Command, model: Path, tmp_path: Path
) -> Callable[..., tuple[ObservedOutcome, dict[str, Any]]]:
    """`script(name, source=..., **variables)`: what a script gave, and its one record."""

    def run(name: str, **options: Any) -> tuple[ObservedOutcome, dict[str, Any]]:
        results = tmp_path / "results"
        own = {"models": str(model), "results": str(results), "VIRTUAL_ENV": sys.prefix}
        done = command("bash", ROOT / name, **own | options)
        assert done.code == 0, done.out + done.err
        (path,) = (one for one in results.glob("*.json"))
        return done, json.loads(path.read_text())

    return run


@pytest.mark.parametrize(
    ("name", "variables", "runtime"),
    [
        ("run_benchmark.sh", {}, "ipex"),
        ("run_benchmark_ds.sh", {"XPU_EMULATION_DEVICES": "2"}, "deepspeed-ipex"),
        ("run_benchmark_woq.sh", {"flags": f"--group_size {GROUP}"}, "ipex"),
    ],
)
def test_the_scripts_of_latency_run_the_guides_stack(
    script: Any, source: Path, name: str, variables: dict[str, str], runtime: str
) -> None:
    done, record = script(name, source=source, **SMALL, **variables)
    assert done.out.startswith("stack: ipex, because IPEX ")
    subject, workload = record["spec"]["subject"], record["spec"]["workload"]
    assert record["status"] == "ok"
    assert subject["options"]["runtime"] == runtime
    assert (subject["device"], subject["dtype"]) == ("xpu", "float16")
    assert (workload["num_beams"], workload["cache"]) == (4, "static")
    assert (workload["input_tokens"], workload["new_tokens"]) == (12, 8)
    assert subject.get("tp_size", 1) == (2 if "_ds" in name else 1)
    assert (subject.get("quantization") is not None) is ("woq" in name)
    assert record["runtime"]["ipex_optimized"] is True


@pytest.mark.parametrize(
    ("name", "variables", "runtime"),
    [
        ("run_accuracy.sh", {}, "ipex"),
        ("run_accuracy_ds.sh", {"XPU_EMULATION_DEVICES": "2"}, "deepspeed-ipex"),
    ],
)
def test_the_scripts_of_accuracy_run_the_guides_stack(
    script: Any, source: Path, name: str, variables: dict[str, str], runtime: str
) -> None:
    options = {"task": "lambada_smoke", "flags": "--acc-iter 4"}
    done, record = script(name, source=source, **options, **variables)
    assert done.out.startswith("stack: ipex, because IPEX ")
    assert record["spec"]["subject"]["options"]["runtime"] == runtime
    assert record["spec"]["subject"]["dtype"] == "float16"
    assert record["accuracy"]["n"] == 4
    assert all(item["loglikelihood"] < 0 for item in record["accuracy"]["items"])


def test_without_ipex_the_scripts_run_stock_pytorch(script: Any) -> None:
    done, record = script("run_benchmark.sh", **SMALL)
    assert done.out.startswith("stack: pytorch, because IPEX on xpu is missing: IPEX is not installed")
    assert record["spec"]["subject"]["device"] == "xpu"
    assert record["spec"]["subject"]["options"]["runtime"] == "pytorch"


def test_stack_chooses(script: Any, source: Path) -> None:
    done, record = script("run_benchmark.sh", source=source, stack="pytorch", **SMALL)
    assert done.out.startswith("stack: pytorch, because it was asked for; stack=ipex or openvino")
    assert record["spec"]["subject"]["options"]["runtime"] == "pytorch"


def pasted(line: str, model: object, results: Path) -> list[str]:
    """A line of the guide with another model, in a shell that is where its records shall be."""
    line = line.replace("meta-llama/Llama-2-7b-hf", str(model)).replace("run_", f"{ROOT}/run_")
    return ["bash", "-c", f"cd {results} && {line}"]


def record_in(directory: Path) -> dict[str, Any]:
    (path,) = (directory / "results").glob("*.json")
    return dict(json.loads(path.read_text()))


@pytest.mark.parametrize(
    ("launcher", "program", "ranks"),
    [
        ("", "run_generation.py", 1),
        ("mpirun -np 2 --prepend-rank ", "run_generation_with_deepspeed.py", 2),
    ],
    ids=["token-latency", "mpirun"],
)
def test_the_guides_lines_of_latency(
    command: Command, source: Path, model: Path, tmp_path: Path, launcher: str, program: str, ranks: int
) -> None:
    line = (
        f"{launcher}python -u {program} --benchmark -m meta-llama/Llama-2-7b-hf --sub-model-name llama2-7b "
        f"--use-static-cache {SHAPE} --device xpu --ipex --dtype float16 --token-latency"
    )
    done = command(*pasted(line, model, tmp_path), source=source, XPU_EMULATION_DEVICES=str(ranks))
    assert done.code == 0, done.err
    assert "time of each token of the median iteration, ms" in done.out
    record = record_in(tmp_path)
    assert record["status"] == "ok"
    assert record["spec"]["subject"].get("tp_size", 1) == ranks
    assert record["runtime"]["ipex_optimized"] is True
    stamped = [one for one in record["samples"]["iterations"] if one["sync_policy"] == "every_token"]
    assert [len(one["next_token_ns"]) for one in stamped] == [127] * 7
