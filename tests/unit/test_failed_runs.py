"""`generate` where something goes wrong while a model runs: what is kept, and what the record says."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import CommandLine, files_of_at_most
from xpubench import catalog
from xpubench.record import read_record

# A model that fits anywhere, of 128 positions.
CONFIG = {
    "model_type": "llama",
    **dict.fromkeys(("hidden_size", "intermediate_size", "vocab_size"), 64),
    **{"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2},
    "max_position_embeddings": 128,
}


def without_reader() -> int:
    """The end of a pipe that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing


def on_a_full_disk() -> int:
    return os.open("/dev/full", os.O_WRONLY)


@contextlib.contextmanager
def stderr_at(descriptor: int) -> Iterator[None]:
    """While it lasts, this process's standard error is that file."""
    kept = os.dup(2)
    os.dup2(descriptor, 2)
    try:
        with os.fdopen(descriptor, "w", buffering=1) as stream, contextlib.redirect_stderr(stream):
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@pytest.mark.parametrize("lost", [without_reader, on_a_full_disk])
def test_progress_that_cannot_be_written_costs_nothing(scripted: CommandLine, lost: Any) -> None:
    script = {"faults": [{"stage": "generate", "prints": "a library's words"}]}
    with stderr_at(lost()):
        done = scripted(script, "--num-iter", 4)
    assert (done.code, [one["status"] for one in done.records]) == (0, ["ok"])


def test_a_run_that_cannot_fit_says_so_before_it_loads(scripted: CommandLine) -> None:
    script = {
        "device": {"free_memory_bytes": 10**11},
        "faults": [{"stage": "load", "error": "AssertionError", "message": "it loads"}],
    }
    done = scripted(script, "-m", "bigscience/bloom", "--dtype", "float32")
    assert done.code == 1
    (record,) = done.records
    assert record["status"] == "oom"
    assert "not loaded: 704.99 GB of weights" in record["failure"]["message"]


def test_a_quantized_checkpoint_that_fits_is_loaded(scripted: CommandLine) -> None:
    config = catalog.model("meta-llama/Llama-2-7b-hf").config()
    quantized = {"quantization_config": {"quant_method": "gptq", "bits": 4}}
    statuses = []
    # An Arc B580, on which 13.48 GB would not fit, and a device on which no 4 bits do.
    for more, free in ((quantized, 12_880_000_000), ({}, 12_880_000_000), (quantized, 3_000_000_000)):
        script = {"config": config | more, "device": {"free_memory_bytes": free}}
        (record,) = scripted(script, "--dtype", "float16").records
        statuses.append(record["status"])
    assert statuses == ["ok", "oom", "oom"]


def test_one_shape_that_does_not_fit_does_not_stop_the_others(scripted: CommandLine) -> None:
    done = scripted({"device": {"free_memory_bytes": 10**10}}, "--batch-size", 10**6, 1)
    assert done.code == 1
    assert {one["status"] for one in done.records} == {"oom", "ok"}


def test_running_out_of_memory_while_generating(scripted: CommandLine) -> None:
    out = {"stage": "generate", "input_tokens": 9, "error": "MemoryError", "message": "bad alloc"}
    done = scripted({"faults": [out]}, "--input-tokens", 9, 8)
    assert done.code == 1
    assert [one["status"] for one in done.records] == ["oom", "ok"]
    assert "out of memory on cpu" in done.error_line


@pytest.mark.parametrize(
    "times",
    [
        {"first_token_ns": -5},
        {"next_token_ns": [1_000_000, -1, 1_000_000]},
        {"return_ns": -1_000_000_000},
        {"first_token_ns": 0, "next_token_ns": [0]},
    ],
)
def test_a_clock_that_goes_back_or_stands_still_times_nothing(
    scripted: CommandLine, times: dict[str, Any]
) -> None:
    done = scripted({"every_token": [times]})
    (record,) = done.records
    assert (done.code, record["status"], record["summary"]) == (1, "unsupported", None)
    assert "clock went back or stood still" in done.error_line


def test_an_unexpected_error_is_a_crash_with_its_traceback(scripted: CommandLine) -> None:
    done = scripted({"faults": [{"stage": "generate", "error": "AssertionError", "message": "surprise"}]})
    assert done.code == 1
    (record,) = done.records
    assert record["status"] == "crash"
    assert record["failure"]["message"] == "AssertionError: surprise"
    tail = record["failure"]["log_tail"]
    assert ", in happen\n" in tail
    assert tail.endswith("AssertionError: surprise")


@pytest.mark.parametrize("stage", ["device", "check", "fetch", "load"])
def test_an_error_that_ends_all_shapes_tells_each_of_them_where(scripted: CommandLine, stage: str) -> None:
    fault = {"stage": stage, "error": "AssertionError", "message": "surprise"}
    done = scripted({"faults": [fault]}, "--batch-size", 1, 2)
    assert [one["status"] for one in done.records] == ["crash", "crash"]
    assert all(one["failure"]["log_tail"].endswith("AssertionError: surprise") for one in done.records)
    assert all(", in happen\n" in one["failure"]["log_tail"] for one in done.records)


def test_an_interrupted_run_keeps_its_samples(scripted: CommandLine) -> None:
    # One warm-up, two measured.
    script = {"faults": [{"stage": "generate", "call": 4, "error": "KeyboardInterrupt"}]}
    done = scripted(script, "--num-iter", 4, "--input-tokens", 8, 9)
    assert done.code == 130
    (record,) = done.records
    assert record["status"] == "interrupted"
    assert len(record["samples"]["iterations"]) == 2


@pytest.mark.parametrize("stage", ["check", "load"])
def test_an_interruption_before_the_first_measurement_is_at_most_one_record(
    scripted: CommandLine, tmp_path: Path, stage: str
) -> None:
    assert scripted({}, "--input-tokens", 8, 9).code == 0
    script = {"faults": [{"stage": stage, "error": "KeyboardInterrupt"}]}
    done = scripted(script, "--input-tokens", 8, 9)
    assert (done.code, done.out) == (130, "")
    done = scripted(script, "--input-tokens", 10, 11)
    assert (done.code, [one["status"] for one in done.records]) == (130, ["interrupted"])
    kept = [read_record(path).status for path in (tmp_path / "results").glob("*.json")]
    assert sorted(kept) == ["interrupted", "ok", "ok"]


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ({"logits": [[0.0] * 299 + [None]]}, "on the check prompts"),
        ({"logits_finite": False}, "while generating"),
    ],
)
def test_logits_that_are_no_numbers_fail_the_run(
    scripted: CommandLine, script: dict[str, object], message: str
) -> None:
    done = scripted(script)
    assert done.code == 1
    (record,) = done.records
    assert record["status"] == "numerics"
    assert record["failure"]["message"].endswith(message)
    assert record["summary"] is None


def test_an_interruption_while_profiling_keeps_the_record(scripted: CommandLine, tmp_path: Path) -> None:
    done = scripted({"faults": [{"stage": "profile", "error": "KeyboardInterrupt"}]}, "--profile")
    assert done.code == 130
    (path,) = (tmp_path / "results").glob("*.json")
    assert read_record(path).status == "ok"


def test_a_profile_that_fails_is_a_warning(scripted: CommandLine) -> None:
    done = scripted({"faults": [{"stage": "profile", "error": "RuntimeError", "message": "no"}]}, "--profile")
    (record,) = done.records
    assert (done.code, record["status"]) == (0, "ok")
    assert "not profiled: RuntimeError: no" in record["warnings"]


def test_a_record_that_cannot_be_written_is_shown(
    scripted: CommandLine, xpubench: CommandLine, tmp_path: Path
) -> None:
    (record,) = scripted({}).records
    (path,) = (tmp_path / "results").glob("*.json")
    path.unlink()
    path.mkdir()
    done = scripted({})
    assert (done.code, f"cannot write {path}: Is a directory" in done.error_line) == (2, True)
    assert [one["summary"]["next_token_ms"] for one in done.records] == [record["summary"]["next_token_ms"]]
    fake = ("--runtime", "fake", "--fake-script", tmp_path / "script.json", "--device", "cpu", "--greedy")
    shape = ("--input-tokens", 8, "--max-new-tokens", 4, "--num-iter", 2, "--num-warmup", 1)
    done = xpubench("generate", "-m", "smollm2-135m", *fake, *shape, "--results-dir", tmp_path / "results")
    assert (done.code, f"cannot write {path}" in done.error_line) == (2, True)
    assert "next token" in done.out
    assert ["record", "not", "written"] in [line.split() for line in done.out.splitlines()]


def test_files_beside_a_record_that_cannot_be_written_are_warnings(
    scripted: CommandLine, tmp_path: Path
) -> None:
    (record,) = scripted({}, "--profile").records
    results = tmp_path / "results"
    names = [f"{record['id']}.{kind}" for kind in ("check.npz", "profile.trace.json")]
    for name in names:
        (results / name).unlink()
        (results / name).mkdir()
    done = scripted({}, "--profile")
    (record,) = done.records
    assert (done.code, record["status"]) == (0, "ok")
    assert read_record(results / f"{record['id']}.json").warnings == record["warnings"]
    for name in names:
        assert any(f"cannot write {results / name}" in one for one in record["warnings"])


def test_answers_of_an_earlier_run_are_not_those_of_one_whose_answers_cannot_be_written(
    scripted: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (record,) = scripted({}).records
    path = tmp_path / "results" / f"{record['id']}.check.npz"
    assert path.exists()
    monkeypatch.setattr("xpubench.accuracy.divergence.save", lambda answers: bytes(10**6))
    with files_of_at_most(10**5):
        (record,) = scripted({}).records
    assert (record["status"], path.exists()) == ("ok", False)


def test_more_beams_than_tokens_are_refused_before_the_load(xpubench: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "script.json").write_text("{}")
    fake = ("--runtime", "fake", "--fake-script", tmp_path / "script.json", "--device", "cpu")
    shape = ("--input-tokens", 8, "--num-beams", 100_000, "--results-dir", tmp_path / "results")
    done = xpubench("generate", "-m", "smollm2-135m", *fake, *shape)
    assert (done.code, done.out) == (2, "")
    assert "100000 beams are more than the model's 49152 tokens" in done.error_line
    assert not list((tmp_path / "results").glob("*.json"))


def test_too_many_positions_are_refused_before_the_load(scripted: CommandLine, tmp_path: Path) -> None:
    loads = {"stage": "load", "error": "AssertionError", "message": "it loads"}
    script = {"config": CONFIG, "faults": [loads]}
    done = scripted(script, "--input-tokens", 120, "--max-new-tokens", 9)
    assert done.code == 2
    assert "128 positions" in done.error_line
    assert not list((tmp_path / "results").glob("*.json"))


def test_a_prompt_that_is_too_long(xpubench: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "script.json").write_text("{}")
    done = xpubench(
        *("generate", "-m", "smollm2-135m", "--device", "cpu", "--greedy", "--prompt", "word " * 1700),
        *("--runtime", "fake", "--fake-script", tmp_path / "script.json", "--results-dir", tmp_path),
    )
    assert done.code == 2
    assert "8192 positions" in done.error_line


def test_several_shapes_load_the_model_once(scripted: CommandLine) -> None:
    done = scripted(
        {"faults": [{"stage": "load", "prints": "the model is loaded"}]},
        *("--input-tokens", 40, 8, "--batch-size", 1, 2),
    )
    assert done.code == 0
    assert done.err.count("the model is loaded") == 1
    shapes = [one["spec"]["workload"] for one in done.records]
    assert [(one["input_tokens"], one.get("batch_size", 1)) for one in shapes] == [
        *((40, 1), (8, 1), (40, 2), (8, 2))
    ]
