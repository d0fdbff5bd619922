"""run_generation_with_deepspeed.py as typed: what it records, and that rank 0 alone speaks."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.conftest import ROOT, CommandLine, Outcome
from tests.distributed.conftest import SCRIPT, OverRanks, environment, job
from tests.distributed.families import save_model
from xpubench.weights.embedded import smollm2_directory

ON_CPU = ("--device", "cpu", "--dtype", "float32")
SMOLLM2 = ("-m", "smollm2-135m", *ON_CPU)
SHORT = ("--greedy", "--input-tokens", 16, "--max-new-tokens", 4, "--num-iter", 2)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[object, ...]:
    """The flags of a run of a small random model."""
    directory = tmp_path_factory.mktemp("models") / "tiny"
    save_model("llama", directory)
    return ("-m", directory, *ON_CPU)


def only_record(directory: Path) -> dict[str, Any]:
    (path,) = directory.glob("*.json")
    record: dict[str, Any] = json.loads(path.read_text())
    return record


def error_line(done: Outcome) -> str:
    """The one error line of a job, which rank 0 alone writes."""
    lines = [line for line in done.err.splitlines() if "error: " in line]
    assert len(lines) == 1, done.err
    assert lines[0].startswith("[0] error: ")
    assert "Traceback" not in done.err
    return lines[0]


def test_record_of_two_ranks(mpirun: OverRanks, tiny: tuple[object, ...], tmp_path: Path) -> None:
    allowed = os.sched_getaffinity(0)
    try:
        # The ranks inherit it.
        os.sched_setaffinity(0, {min(allowed)})
        done = mpirun(2, SCRIPT, *tiny, *SHORT, "--token-latency", "--results-dir", tmp_path)
    finally:
        os.sched_setaffinity(0, allowed)
    assert done.code == 0, done.err
    assert all(line.startswith("[0] ") for line in done.out.splitlines() if line)
    record = only_record(tmp_path)
    iteration = next(one for one in record["samples"]["iterations"] if one["sync_policy"] == "every_token")
    assert len(iteration["ranks_ns"]) == 2
    first, *_, end = (max(stamps) for stamps in zip(*iteration["ranks_ns"], strict=True))
    assert (iteration["first_token_ns"], iteration["end_to_end_ns"]) == (first, end)
    assert record["summary"]["imbalance"] >= 1
    for rank in record["checks"]["collectives"]:
        # Two sums a layer and one in the head.
        assert rank["collectives"] == 4 * (2 * 2 + 1)
        assert 0 < rank["collectives_ns"] < rank["generation_ns"]
    ranks = record["runtime"]["ranks"]
    assert [rank["rank"] for rank in ranks] == [0, 1]
    # Two layers. The expected latency has the sums as they were measured.
    found = record["expectation"]
    assert found["sums_ms"] == pytest.approx(5 * found["device_card"]["sum_ns"]["middle"] / 1e6)
    assert 0 < found["device_card"]["sum_ns"]["middle"] != 5e4
    (crowded,) = (one for one in record["warnings"] if "threads of 2 ranks" in one)
    assert crowded.endswith("; start fewer ranks")
    # The plan is of the rank with the most.
    assert record["plan"]["weight_bytes"] == max(rank["weight_bytes"] for rank in ranks)


def test_a_tokens_wait_for_a_late_rank_is_told_apart(
    mpirun: OverRanks, tiny: tuple[object, ...], tmp_path: Path
) -> None:
    flags = ("--greedy", "--input-tokens", 16, "--max-new-tokens", 6, "--num-iter", 2, "--explain")
    done = mpirun(2, "-m", "benchmarks.slowed_ranks", "late-rank", *tiny, *flags, "--results-dir", tmp_path)
    assert done.code == 0, done.err
    parts = {one["name"]: one["ns"] for one in only_record(tmp_path)["explanation"]["next"]["parts"]}
    assert max(parts, key=parts.__getitem__) == "waiting"
    # DeepSpeed's own layers are known ones.
    assert "unknown_kernels" not in parts


def test_accuracy_is_that_of_one_process(mpirun: OverRanks, generate: CommandLine, tmp_path: Path) -> None:
    flags = ("--accuracy-only", "--acc-tasks", "lambada_smoke", "--acc-iter", 6)
    done = mpirun(2, SCRIPT, *SMOLLM2, *flags, "--results-dir", tmp_path / "two")
    assert done.code == 0, done.err
    two = only_record(tmp_path / "two")["accuracy"]
    one = generate("smollm2-135m", *flags, "--json").records[0]["accuracy"]
    assert two["acc"] == one["acc"]
    assert two["perplexity"] == pytest.approx(one["perplexity"], rel=1e-4)


def started(
    launcher: list[str], *flags: object, pairs: int = 10000
) -> tuple[subprocess.Popen[str], list[int]]:
    """A long job that measures, and the process of each rank."""
    long = ("--greedy", "--input-tokens", 16, "--max-new-tokens", 48, "--num-iter", pairs)
    process = subprocess.Popen(
        [*launcher, *map(str, (SCRIPT, *flags, *long))],
        cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:
        if "16 in, 48 out" in line:
            break
    ranks = {}
    for one in psutil.Process(process.pid).children(recursive=True):
        if SCRIPT in one.cmdline()[1:3]:
            variables = one.environ()
            ranks[int(variables.get("PMI_RANK") or variables["RANK"])] = one.pid
    assert sorted(ranks) == [0, 1]
    return process, [ranks[0], ranks[1]]


TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]


@pytest.mark.parametrize(
    ("launcher", "victim"),
    [(job(2), 0), (job(2), 1), (TORCHRUN, 1)],
    ids=["mpirun-0", "mpirun-1", "torchrun-1"],
)
def test_killed_rank_ends_the_job_and_is_named(
    launcher: list[str], victim: int, tiny: tuple[object, ...], tmp_path: Path
) -> None:
    process, ranks = started(launcher, *tiny, "--results-dir", tmp_path)
    for rank in ranks:
        # Nothing stays behind in memory: MPICH's files have no name any more.
        shared = [line for line in Path(f"/proc/{rank}/maps").read_text().splitlines() if "mpich_shm" in line]
        assert all(line.endswith("(deleted)") for line in shared)
    os.kill(ranks[victim], signal.SIGKILL)
    assert process.wait(timeout=30) != 0
    record = failed_record(tmp_path)
    assert record["status"] == "crash"
    assert record["failure"]["message"].startswith(f"rank {victim} on ")
    assert "without a word" in record["failure"]["message"]


@pytest.mark.parametrize("to", ["mpirun", "rank-0"])
def test_an_interruption_keeps_what_was_measured(to: str, tiny: tuple[object, ...], tmp_path: Path) -> None:
    shapes = ("--batch-size", 1, 2)
    process, ranks = started(job(2), *tiny, *shapes, "--results-dir", tmp_path, pairs=200)
    assert process.stderr is not None
    for line in process.stderr:
        if "every_token: " in line or "end_to_end: " in line:
            break
    # Most likely this is in the middle of the next generation.
    time.sleep(0.05)
    os.kill(process.pid if to == "mpirun" else ranks[0], signal.SIGINT)
    assert process.wait(timeout=30) == 128 + signal.SIGINT
    record = failed_record(tmp_path)
    assert record["status"] == "interrupted"
    assert record["samples"]["iterations"]


SHM = pytest.param("--shm", marks=pytest.mark.skipif(shutil.which("g++") is None, reason="--shm needs g++"))


@pytest.mark.parametrize("sums", ["--greedy", SHM])
def test_hanging_rank_ends_the_job_at_the_timeout(
    sums: str, tiny: tuple[object, ...], tmp_path: Path
) -> None:
    process, ranks = started(job(2), *tiny, "--results-dir", tmp_path, "--timeout", 5, sums)
    os.kill(ranks[1], signal.SIGSTOP)
    assert process.wait(timeout=40) != 0
    assert failed_record(tmp_path)["status"] == "timeout"


def test_failing_rank_ends_the_job_and_is_named(tiny: tuple[object, ...], tmp_path: Path) -> None:
    failures = {
        "raise": ("crash", "ZeroDivisionError: TORCH_LLM_ALLREDUCE is None"),
        "memory": ("oom", "out of memory on cpu"),
    }
    # The second shape does not start, so that it has no record. Both jobs run at once, as each waits for its
    # other rank most of the time.
    shapes = (*SHORT, "--batch-size", 2, 1)
    processes = {
        what: subprocess.Popen(
            job(2, "-m", "tests.distributed.broken", what, *tiny, *shapes, "--results-dir", tmp_path / what),
            cwd=ROOT, env=environment() | {"TORCH_LLM_ALLREDUCE": "1"},
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )
        for what in failures
    }  # fmt: skip
    for what, (failure, words) in failures.items():
        _, err = processes[what].communicate(timeout=120)
        assert processes[what].returncode == 1
        assert words in error_line(Outcome(1, "", err))
        record = failed_record(tmp_path / what)
        assert record["status"] == failure
        assert record["failure"]["message"].startswith("rank 1 on ")
        assert words in record["failure"]["message"]


def test_without_mpi4py(mpirun: OverRanks) -> None:
    done = mpirun(1, "-m", "tests.distributed.broken", "no-mpi4py", *SMOLLM2, *SHORT)
    assert "mpi4py is not installed; pip install" in error_line(done)
    assert done.code == 2


def test_results_that_cannot_be_written(mpirun: OverRanks) -> None:
    done = mpirun(1, SCRIPT, *SMOLLM2, *SHORT, "--results-dir", "/proc/nowhere")
    assert "cannot write to the results directory" in error_line(done)
    assert done.code == 2


def test_quantized_checkpoint(mpirun: OverRanks, tmp_path: Path) -> None:
    config = smollm2_directory().joinpath("config.json").read_text()
    fields = json.loads(config) | {"quantization_config": {"quant_method": "fp8"}}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    done = mpirun(2, SCRIPT, "-m", tmp_path, *SHORT, "--device", "cpu", "--results-dir", tmp_path / "results")
    assert "one device, not over ranks" in error_line(done)
    assert done.code == 2


def test_checkpoint_that_lacks_a_weight(mpirun: OverRanks, tiny: tuple[object, ...], tmp_path: Path) -> None:
    shutil.copytree(str(tiny[1]), tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    tensors = load_file(weights)
    del tensors["model.layers.1.mlp.down_proj.weight"]
    save_file(tensors, weights, {"format": "pt"})
    flags = ("-m", tmp_path / "model", *ON_CPU, *SHORT, "--results-dir", tmp_path / "results")
    assert mpirun(2, SCRIPT, *flags).code == 1
    record = only_record(tmp_path / "results")
    assert record["status"] == "bad_model"
    assert "model.layers.1.mlp.down_proj.weight" in record["failure"]["message"]


def test_adapter_is_merged_or_refused(mpirun: OverRanks, tiny: tuple[object, ...], tmp_path: Path) -> None:
    """It was left out without a word once, where each rank read slices of the base model alone."""
    layer = "base_model.model.model.layers.0.self_attn.q_proj.lora_"
    adapter = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["q_proj"]}
    (tmp_path / "adapter_config.json").write_text(json.dumps(adapter))
    save_file(
        {f"{layer}A.weight": torch.ones(2, 64), f"{layer}B.weight": torch.ones(64, 2)},
        tmp_path / "adapter_model.safetensors",
    )
    done = mpirun(2, SCRIPT, *tiny, *SHORT, "--lora", tmp_path, "--results-dir", tmp_path / "results")
    if find_spec("peft") is None:
        assert "--lora needs peft" in error_line(done)
        assert done.code == 2
    else:
        assert done.code == 0, done.err
        assert only_record(tmp_path / "results")["runtime"]["reads_slices"] is False


def test_doctor_of_ranks(mpirun: OverRanks) -> None:
    done = mpirun(2, "-m", "xpubench", "doctor", "--distributed", "--device", "cpu", "--json")
    assert done.code == 0, done.err
    (line,) = done.out.splitlines()
    found = json.loads(line.removeprefix("[0] "))
    assert [(rank["rank"], rank["device"]) for rank in found["ranks"]] == [(0, "cpu"), (1, "cpu")]
    assert {rank["host"] for rank in found["ranks"]} == {socket.gethostname()}
    assert (found["launcher"], found["backend"]) == ("Intel MPI or MPICH", "gloo")
    sizes = [sums["size_bytes"] for sums in found["all_reduce"]]
    assert sizes == sorted(sizes)
    for sums in found["all_reduce"]:
        # A sum over 2 ranks moves each byte once.
        moved = sums["bus_gb_per_s"] * 1e9 * sums["latency_us"] / 1e6
        assert moved == pytest.approx(sums["size_bytes"])


def test_doctor_gives_up_on_ranks_that_hang(mpirun: OverRanks) -> None:
    done = mpirun(
        2, "-m", "tests.distributed.broken", "hang-barrier", "doctor", "--distributed", "--device", "cpu"
    )
    assert "did not sum their tensors within 5 s" in error_line(done)
    assert done.code == 1


def failed_record(results: Path) -> dict[str, Any]:
    """The record, which the watchdog may still be writing when the job has ended."""
    for _ in range(50):
        if any(results.glob("*.json")):
            return only_record(results)
        time.sleep(0.1)
    raise AssertionError("no record")


def test_more_ranks_than_heads(mpirun: OverRanks, tmp_path: Path) -> None:
    fields = json.loads(smollm2_directory().joinpath("config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(fields | {"num_key_value_heads": 1}))
    results = tmp_path / "results"
    done = mpirun(2, SCRIPT, "-m", tmp_path, *SHORT, *ON_CPU, "--results-dir", results)
    assert "at most 1 ranks" in error_line(done)
    assert done.code == 2
    assert not list(results.glob("*.json"))


def test_wrong_number_of_ranks(mpirun: OverRanks) -> None:
    done = mpirun(1, SCRIPT, *SMOLLM2, *SHORT, "--tp-size", 3)
    assert "--tp-size 3" in error_line(done)
    assert done.code == 2


def test_no_such_device(mpirun: OverRanks) -> None:
    done = mpirun(2, SCRIPT, "-m", "smollm2-135m", *SHORT, "--device", "xpu")
    assert "no xpu device" in error_line(done)
    assert done.code == 2


def test_wrong_flag(mpirun: OverRanks) -> None:
    done = mpirun(2, SCRIPT, *SMOLLM2, "--num-iter", "many")
    assert "--num-iter" in error_line(done)
    assert done.code == 2


def unlike(first: Sequence[object], second: Sequence[object]) -> Outcome:
    """A job of two ranks that are not started alike; each list begins with mpirun's own flags."""
    mpirun, *_ = job(1)
    line = [mpirun, "--prepend-rank", "-np", "1", *map(str, first), ":", "-np", "1", *map(str, second)]
    done = subprocess.run(line, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=60)
    return Outcome(done.returncode, done.stdout, done.stderr)


def test_ranks_that_are_asked_for_different_models() -> None:
    run = [sys.executable, SCRIPT, *SMOLLM2, *SHORT]
    done = unlike(run, [*run, "-m", "another"])
    assert "another model" in error_line(done)
    assert done.code == 2


def test_ranks_that_see_different_weights(tiny: tuple[object, ...], tmp_path: Path) -> None:
    """As hosts do of which one holds a tuned model under the same path: names and shapes are the same."""
    for rank in range(2):
        shutil.copytree(str(tiny[1]), tmp_path / str(rank) / "model")
    weights = tmp_path / "1" / "model" / "model.safetensors"
    tensors = load_file(weights)
    save_file({name: tensor * 1.01 for name, tensor in tensors.items()}, weights, {"format": "pt"})
    run = [sys.executable, SCRIPT, "-m", "~/model", *ON_CPU, *SHORT, "--results-dir", tmp_path / "results"]
    done = unlike(*(["-env", "HOME", tmp_path / str(rank), *run] for rank in range(2)))
    assert "sees another ~/model than rank 0" in error_line(done)
    assert done.code == 2


def test_taken_port(mpirun: OverRanks, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("", 0)) as taken:
        monkeypatch.setenv("MASTER_PORT", str(taken.getsockname()[1]))
        assert "unset MASTER_PORT" in error_line(mpirun(1, SCRIPT, *SMOLLM2, *SHORT))


def test_port_that_is_none(mpirun: OverRanks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASTER_PORT", "abc")
    assert "MASTER_PORT is 'abc'" in error_line(mpirun(1, SCRIPT, *SMOLLM2, *SHORT))


def test_help_ends_all_ranks(mpirun: OverRanks) -> None:
    done = mpirun(2, SCRIPT, "--help")
    assert (done.code, done.err) == (0, "")
    assert "--tp-size" in done.out


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({}, "mpirun -np 2"),
        ({"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "2"}, "mpi4py takes MPICH"),
        ({"RANK": "0", "WORLD_SIZE": "4", "LOCAL_RANK": "0"}, "MASTER_ADDR and MASTER_PORT are not both"),
    ],
)
def test_without_a_launcher_of_this_mpi(variables: dict[str, str], words: str) -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, *map(str, (*SMOLLM2, *SHORT))],
        cwd=ROOT, env=environment() | variables, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, words in done.stderr) == (2, True), done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_suite_takes_the_ranks_of_the_catalog(
    xpubench: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", environment()["PATH"])
    models = ("--models", "llama-2-70b-hf", "llama-2-7b-hf", "--results-dir", tmp_path)
    plan = xpubench("suite", "benchmark-ds", *models, "--flags=--device cpu", "--dry-run").out
    assert [plan.count(f"{ranks} ranks ·") for ranks in (4, 2)] == [1, 1]
    plan = xpubench("suite", "benchmark-ds", *models, "--flags=--device cpu", "--dry-run", "--ranks", 3).out
    assert plan.count("3 ranks ·") == 2
