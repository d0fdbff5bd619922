"""The fake runtime: what its script says is what the record holds, and no stack is needed for it."""

import json
from pathlib import Path

import pytest

from tests.conftest import CommandLine, specs_of
from tests.unit.test_door import without
from tests.unit.test_imports import HEAVY


def test_the_record_holds_the_script_to_the_nanosecond(scripted: CommandLine) -> None:
    script = {
        "every_token": [
            {"first_token_ns": 7_000_003, "next_token_ns": [1_000_001, 1_000_002], "return_ns": 11},
            {"first_token_ns": 7_000_005, "next_token_ns": [999_999]},
        ],
        "end_to_end": [{"first_token_ns": 6_000_000, "next_token_ns": [1_000_000]}],
        "tokens": [5, 6, 7],
        "weight_bytes": 300,
        "step_weight_bytes": 200,
        "doubts": ["a scripted doubt"],
        "device": {
            "name": "Scripted",
            "peak_bytes": 123,
            "bandwidth_gb_per_s": 50,
            "free_memory_bytes": None,
        },
    }
    done = scripted(script, "--num-iter", 3, "--device", "xpu")
    assert done.code == 0, done.err
    (record,) = done.records
    looked_at, *warmup = record["samples"]["warmup"]
    assert looked_at["first_token_ns"] is None
    assert [one["first_token_ns"] for one in warmup] == [7_000_003]
    stamped, whole, whole_too, stamped_too = record["samples"]["iterations"]
    assert stamped["first_token_ns"] == 7_000_005
    assert stamped["next_token_ns"] == [999_999] * 3
    assert stamped["end_to_end_ns"] == 7_000_005 + 3 * 999_999
    assert stamped_too["next_token_ns"] == [1_000_001, 1_000_002, 1_000_001]
    assert stamped_too["end_to_end_ns"] == 7_000_003 + 3_000_004 + 11
    for one in (whole, whole_too):
        assert (one["first_token_ns"], one["next_token_ns"]) == (None, None)
        assert one["end_to_end_ns"] == 9_000_000
    assert record["output"]["first_token_ids"] == [5, 6, 7, 5]
    assert record["summary"]["peak_device_bytes"] == 123
    assert record["summary"]["bandwidth_measured_gb_per_s"] == 50
    assert record["runtime"] == {"name": "fake", "weight_bytes": 300, "step_weight_bytes": 200} | {
        "revision": None,
        "quantization": None,
    }
    assert record["environment"]["device"]["name"] == "Scripted"
    assert record["environment"]["device"]["kind"] == "xpu"
    assert "a scripted doubt" in record["warnings"]


FAULTS = [
    ({"failure": "oom", "message": "full"}, "oom", "full"),
    ({"error": "MemoryError", "message": "none left"}, "oom", "out of memory on cpu: none left"),
    ({"error": "AssertionError", "message": "surprise"}, "crash", "AssertionError: surprise"),
    ({"error": "KeyboardInterrupt"}, "interrupted", "interrupted by the user"),
]


@pytest.mark.parametrize(
    "stage", ["device", "check", "fetch", "load", "prepare", "trace", "verify", "generate"]
)
@pytest.mark.parametrize(("fault", "status", "message"), FAULTS)
def test_a_fault_at_a_stage_is_the_run_s_failure(
    scripted: CommandLine, stage: str, fault: dict[str, str], status: str, message: str
) -> None:
    done = scripted({"faults": [{"stage": stage, **fault}]})
    assert done.code == (130 if status == "interrupted" else 1)
    (record,) = done.records
    assert record["status"] == status
    assert record["failure"]["message"] == message


def test_an_interruption_of_the_load_costs_the_first_run_alone(scripted: CommandLine, tmp_path: Path) -> None:
    earlier = scripted({}, "--input-tokens", 9).records
    done = scripted({"faults": [{"stage": "load", "error": "KeyboardInterrupt"}]}, "--input-tokens", 8, 9)
    assert done.code == 130
    assert [record["status"] for record in done.records] == ["interrupted"]
    kept = json.loads((tmp_path / "results" / f"{earlier[0]['id']}.json").read_text())
    assert kept == earlier[0]


def test_a_user_error_is_one_line(scripted: CommandLine) -> None:
    done = scripted({"faults": [{"stage": "check", "message": "there is no such thing"}]})
    assert (done.code, done.error_line) == (2, "error: there is no such thing")


def test_a_script_that_cannot_be_read(scripted: CommandLine, xpubench: CommandLine) -> None:
    assert "is not a script of the fake runtime" in scripted({"tokens": []}).error_line
    done = xpubench("generate", "-m", "smollm2-135m", "--runtime", "fake", "--device", "cpu")
    assert (done.code, "needs --fake-script" in done.error_line) == (2, True)


def test_it_is_in_no_help_and_no_list(xpubench: CommandLine) -> None:
    assert "fake" not in xpubench("generate", "--help").out
    assert "fake" not in xpubench("generate", "-m", "m", "--runtime", "fak").error_line.replace("'fak'", "")


def test_a_latency_run_needs_neither_torch_nor_transformers(tmp_path: Path) -> None:
    (tmp_path / "script.json").write_text("{}")
    arguments = [
        *("generate", "-m", "smollm2-135m", "--device", "cpu", "--greedy", "--json"),
        *("--runtime", "fake", "--fake-script", str(tmp_path / "script.json")),
        *("--results-dir", str(tmp_path / "results")),
    ]
    done = without(HEAVY, *arguments)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["status"] == "ok"


def test_the_commands_to_continue_with_choose_the_runtime(
    scripted: CommandLine, xpubench: CommandLine, tmp_path: Path
) -> None:
    """Stock PyTorch could not load what another runtime runs, such as a GGUF."""
    scripted({})
    script = ("--fake-script", tmp_path / "script.json", "--results-dir", tmp_path)
    shape = ("--device", "cpu", "--greedy", "--num-iter", 2, "--max-new-tokens", 4)
    done = xpubench("generate", "-m", "smollm2-135m", "--runtime", "fake", *script, *shape)
    lines = [line for line in done.err.splitlines() if line.startswith("next, ")]
    specs = [specs_of(f"{line} --fake-script FILE") for line in lines]
    assert [len(one) for one in specs] == [3, 1]
    assert {spec.subject.runtime for one in specs for spec in one} == {"fake"}
