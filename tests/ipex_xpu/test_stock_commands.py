"""Stock PyTorch on the emulated xpu, without IPEX: latency, accuracy, ranks and what `doctor` says."""

import json
import sys
from pathlib import Path

import pytest

from tests.ipex_xpu.conftest import SHAPE, Command, ErrorOf, ModelOf, ObservedOutcome
from tests.ipex_xpu.source import HOW, find_source


@pytest.fixture
def stock(command: Command, tmp_path: Path) -> Command:
    """`stock(model, *flags, **variables)`: the script on xpu in float16."""

    def run(model: object, *flags: object, **options: str) -> ObservedOutcome:
        return command(
            *(sys.executable, "run_generation.py", "-m", model, "--benchmark", "--device", "xpu"),
            *("--dtype", "float16", *SHAPE, "--results-dir", tmp_path / "results", "--json", *flags),
            **options,
        )

    return run


@pytest.mark.parametrize(
    "flags",
    [("--greedy", "--use-static-cache"), ("--num-beams", 4, "--batch-size", 2)],
    ids=["greedy", "beams"],
)
def test_tokens_and_record(
    stock: Command, model_of: ModelOf, error_of: ErrorOf, flags: tuple[object, ...]
) -> None:
    done = stock(model_of("qwen2"), *flags)
    assert done.code == 0, done.err
    assert error_of("qwen2", done) <= 1
    (record,) = done.records
    assert record["spec"]["subject"]["options"]["runtime"] == "pytorch"
    device = record["environment"]["device"]
    assert (device["kind"], device["name"]) == ("xpu", "Emulated Data Center GPU Max")
    assert device["driver"] == "0.0.0+emulated"
    assert 0 < device["free_memory_bytes"] <= device["total_memory_bytes"]
    assert record["summary"]["peak_device_bytes"] > record["runtime"]["weight_bytes"]


def test_stamps_are_taken_when_the_device_is_done(stock: Command, model_of: ModelOf) -> None:
    """Between two waits the device takes 20 ms, which shows only in a time that ends with a wait."""
    lag_ns = 20e6
    done = stock(model_of("qwen2"), "--greedy", XPU_EMULATION_LAG_MS="20")
    assert done.code == 0, done.err
    (record,) = done.records
    iterations = {one["sync_policy"]: one for one in record["samples"]["iterations"]}
    stamped, bare = iterations["every_token"], iterations["end_to_end"]
    assert min([stamped["first_token_ns"], *stamped["next_token_ns"]]) > lag_ns
    assert bare["end_to_end_ns"] > lag_ns
    # Of its eight tokens only the last one is waited for.
    assert stamped["end_to_end_ns"] - bare["end_to_end_ns"] > 4 * lag_ns
    for kind in ("copy_ns", "read_ns", "matvec_ns"):
        assert min(record["bandwidth"][kind]) > lag_ns
    assert min(record["peak"]["times_ns"]) > lag_ns


def test_accuracy(command: Command, tmp_path: Path) -> None:
    done = command(
        *(sys.executable, "run_generation.py", "-m", "smollm2-135m", "--device", "xpu", "--dtype", "float16"),
        *("--accuracy-only", "--acc-tasks", "lambada_smoke", "--acc-iter", 4, "--results-dir", tmp_path),
        "--json",
    )
    assert done.code == 0, done.err
    (record,) = done.records
    on_cpu = command(
        *(sys.executable, "run_generation.py", "-m", "smollm2-135m", "--device", "cpu", "--dtype", "float32"),
        *("--accuracy-only", "--acc-tasks", "lambada_smoke", "--acc-iter", 4, "--results-dir", tmp_path),
        "--json",
    )
    for one, other in zip(record["accuracy"]["items"], on_cpu.records[0]["accuracy"]["items"], strict=True):
        assert one["loglikelihood"] == pytest.approx(other["loglikelihood"], abs=0.1)


def test_a_gpu_that_does_not_know_its_free_memory(stock: Command, model_of: ModelOf) -> None:
    done = stock(model_of("qwen2"), "--greedy", profile="mtl")
    assert done.code == 0, done.err
    assert done.records[0]["environment"]["device"]["free_memory_bytes"] is None


def test_a_model_that_does_not_fit(stock: Command, model_of: ModelOf) -> None:
    done = stock(model_of("qwen2"), "--greedy", XPU_EMULATION_MIB="1")
    assert (done.code, done.records[0]["status"]) == (1, "oom")


@pytest.mark.parametrize(
    ("fault", "operator", "rows"),
    [
        ("linear-float16-zero", "linear", {1, 2, 8, 1024}),
        ("attention-two-sequences", "attention", {2}),
    ],
)
def test_a_wrong_operator_of_the_gpu_fails_a_run_and_the_doctor(
    stock: Command,
    command: Command,
    model_of: ModelOf,
    tmp_path: Path,
    fault: str,
    operator: str,
    rows: set[int],
) -> None:
    variables = {"XPU_EMULATION_FAULT": fault, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = stock(model_of("qwen2"), "--greedy", **variables)
    assert (done.code, done.records[0]["status"]) == (1, "numerics"), done.err
    assert done.calls == []
    wrong = [one for one in done.records[0]["checks"]["operators"]["others"] if one["state"] == "wrong"]
    assert {one["operator"].partition(",")[0] for one in wrong} == {operator}
    assert {one["rows"] for one in wrong} == rows
    program = Path(sys.executable).parent / "xpubench"
    doctor = command(
        program, "doctor", "--operators", "--device", "xpu", "-m", model_of("qwen2"), **variables
    )
    assert doctor.code == 1
    assert f"wrong: {operator} at " in doctor.out
    # The same run on the same stack without the fault goes through, as nothing wrong was kept.
    variables.pop("XPU_EMULATION_FAULT")
    assert stock(model_of("qwen2"), "--greedy", **variables).code == 0


def test_ranks_over_the_emulated_collectives(
    command: Command, model_of: ModelOf, error_of: ErrorOf, tmp_path: Path
) -> None:
    """DeepSpeed 0.16.9 takes no xpu without IPEX when DS_ACCELERATOR names xpu."""
    done = command(
        *("mpirun", "-np", 2, sys.executable, "run_generation_with_deepspeed.py", "-m", model_of("llama3")),
        *("--benchmark", "--device", "xpu", "--dtype", "float16", *SHAPE, "--greedy"),
        *("--results-dir", tmp_path / "results", "--json"),
        XPU_EMULATION_DEVICES="2",
    )
    assert done.code == 0, done.err
    assert error_of("llama3", done) <= 1
    (record,) = done.records
    assert record["runtime"]["backend"] == "xccl"
    assert [rank["device"] for rank in record["runtime"]["ranks"]] == ["xpu:0", "xpu:1"]


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({}, "shows 1 xpu devices: start fewer ranks a host"),
        ({"ZE_AFFINITY_MASK": "0"}, "ranks 0 and 1 share one xpu device: ZE_AFFINITY_MASK is 0 for both"),
    ],
    ids=["one-device", "one-mask"],
)
def test_ranks_that_lack_a_device_of_their_own(
    command: Command, tmp_path: Path, variables: dict[str, str], words: str
) -> None:
    done = command(
        *("mpirun", "-np", 2, sys.executable, "run_generation_with_deepspeed.py", "-m", "smollm2-135m"),
        *("--dummy-weights", "--device", "xpu", *SHAPE, "--greedy", "--results-dir", tmp_path),
        **variables,
    )
    assert (done.code, words in done.error_line) == (2, True), done.err
    assert list(tmp_path.glob("*.json")) == []


@pytest.mark.parametrize(
    ("name", "statuses"), [("barrier", ["timeout"]), ("destroy_process_group", ["ok"])], ids=["load", "leave"]
)
def test_ranks_that_hang_outside_of_a_generation_end(
    command: Command, model_of: ModelOf, tmp_path: Path, name: str, statuses: list[str]
) -> None:
    """xccl waits for ever."""
    done = command(
        *("mpirun", "-np", 2, sys.executable, "-m", "tests.distributed.broken", f"hang-{name}"),
        *("-m", model_of("llama3"), "--device", "xpu", *SHAPE, "--greedy", "--timeout", 30),
        *("--results-dir", tmp_path),
        XPU_EMULATION_DEVICES="2",
    )
    assert "timeout: the ranks did not finish their step within 30 s" in done.err
    assert done.code != 0
    assert [json.loads(path.read_text())["status"] for path in tmp_path.glob("*.json")] == statuses


@pytest.mark.parametrize("with_ipex", [False, True], ids=["stock", "ipex"])
def test_doctor_sees_the_device(command: Command, with_ipex: bool) -> None:
    source = find_source() if with_ipex else None
    if with_ipex and source is None:
        pytest.skip(HOW)
    done = command(Path(sys.executable).parent / "xpubench", "doctor", "--json", source=source)
    found = {one["capability"]: one["state"] for one in json.loads(done.out.strip().splitlines()[-1])}
    assert found["PyTorch on xpu"] == "ready"
    assert (found["IPEX on xpu"] == "ready") is with_ipex
