"""`generate` where something goes wrong: what is refused, what is kept, and what the record says."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import CommandLine
from xpubench.measure.clock import TokenClock
from xpubench.record import read_record
from xpubench.spec import Workload


def test_a_run_that_cannot_fit_says_so_before_it_loads(generate: CommandLine) -> None:
    done = generate("bigscience/bloom", "--dummy-weights", "--json")
    assert done.code == 1
    (record,) = done.records
    assert record["status"] == "oom"
    assert "not loaded: 704.99 GB of weights" in record["failure"]["message"]


def test_one_shape_that_does_not_fit_does_not_stop_the_others(
    generate: CommandLine, tiny_llama: Path
) -> None:
    done = generate(tiny_llama, "--batch-size", 10**9, 1, "--json")
    assert done.code == 1
    assert {one["status"] for one in done.records} == {"oom", "ok"}


def test_running_out_of_memory_while_generating(
    generate: CommandLine, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from xpubench.runtimes.pytorch.runtime import PyTorchRuntime

    plain = PyTorchRuntime.generate

    def greedy_for_memory(self: PyTorchRuntime, ids: Any, workload: Workload, policy: Any) -> Any:
        if workload.input_tokens == 9:
            torch.empty(2**60)
        return plain(self, ids, workload, policy)

    monkeypatch.setattr(PyTorchRuntime, "generate", greedy_for_memory)
    done = generate(tiny_llama, "--input-tokens", 9, 8, "--json")
    assert done.code == 1
    assert [one["status"] for one in done.records] == ["oom", "ok"]
    assert "out of memory on cpu" in done.error_line


def test_an_unexpected_error_is_a_crash_with_its_traceback(
    generate: CommandLine, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from xpubench.runtimes.pytorch.runtime import PyTorchRuntime

    def broken(*_: Any) -> None:
        raise AssertionError("surprise")

    monkeypatch.setattr(PyTorchRuntime, "generate", broken)
    done = generate(tiny_llama, "--json")
    assert done.code == 1
    (record,) = done.records
    assert record["status"] == "crash"
    assert record["failure"]["message"] == "AssertionError: surprise"
    assert "Traceback" in record["failure"]["log_tail"]


def test_an_error_that_ends_all_shapes_tells_each_of_them_where(
    generate: CommandLine, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise AssertionError("surprise")

    monkeypatch.setattr("xpubench.weights.load.load_pretrained", broken)
    done = generate(tiny_llama, "--batch-size", 1, 2, "--json")
    assert [one["status"] for one in done.records] == ["crash", "crash"]
    assert all("in broken" in one["failure"]["log_tail"] for one in done.records)


def test_a_short_output_is_a_failure(
    generate: CommandLine, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from xpubench.runtimes.pytorch.runtime import PyTorchRuntime

    plain = PyTorchRuntime._arguments

    def shorter(self: PyTorchRuntime, ids: Any, workload: Workload, **more: Any) -> dict[str, Any]:
        return plain(self, ids, workload, **more) | {"max_new_tokens": 2, "min_new_tokens": 2}

    monkeypatch.setattr(PyTorchRuntime, "_arguments", shorter)
    done = generate(tiny_llama, "--json")
    assert done.code == 1
    assert done.records[0]["status"] == "short_output"


def test_an_interrupted_run_keeps_its_samples(
    generate: CommandLine, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from xpubench.runtimes.pytorch.runtime import PyTorchRuntime

    plain, calls = PyTorchRuntime.generate, []

    def interrupted(self: PyTorchRuntime, ids: Any, workload: Workload, policy: Any) -> Any:
        calls.append(policy)
        # One warm-up, two measured.
        if len(calls) == 4:
            raise KeyboardInterrupt
        return plain(self, ids, workload, policy)

    monkeypatch.setattr(PyTorchRuntime, "generate", interrupted)
    done = generate(tiny_llama, "--num-iter", 4, "--input-tokens", 8, 9, "--json")
    assert done.code == 130
    (record,) = done.records
    assert record["status"] == "interrupted"
    assert len(record["samples"]["iterations"]) == 2


def test_a_loop_that_does_not_call_the_clock_at_each_token_is_refused(
    generate: CommandLine, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = TokenClock.__call__

    def skipping(self: TokenClock, input_ids: torch.Tensor, scores: Any, **named: Any) -> torch.Tensor:
        going_on = plain(self, input_ids, scores, **named)
        if len(self.stamps_ns) == 2:
            self.stamps_ns.pop()
        return going_on

    monkeypatch.setattr(TokenClock, "__call__", skipping)
    done = generate(tiny_llama, "--json")
    assert done.code == 1
    assert done.records[0]["status"] == "unsupported"
    assert "called 1 times for 4 tokens" in done.error_line


def test_an_interruption_while_profiling_keeps_the_record(
    generate: CommandLine, tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("xpubench.measure.profile.profile", interrupted)
    generate(tiny_llama, "--profile")
    (path,) = (tmp_path / "results").glob("*.json")
    assert read_record(path).status == "ok"


def test_too_many_positions_are_refused_before_the_load(
    generate: CommandLine, tiny_llama: Path, smollm2: Path, tmp_path: Path
) -> None:
    done = generate(tiny_llama, "--input-tokens", 120, "--max-new-tokens", 9)
    assert done.code == 2
    assert "128 positions" in done.error_line
    assert list((tmp_path / "results").iterdir()) == []
    long = generate(smollm2, "--prompt", "word " * 8200)
    assert long.code == 2
    assert "8192 positions" in long.error_line


def test_a_text_prompt_needs_a_tokenizer(generate: CommandLine, tiny_llama: Path) -> None:
    done = generate(tiny_llama, "--prompt", "Gravity is")
    assert done.code == 2
    assert "without a tokenizer" in done.error_line


@pytest.mark.skipif(torch.cuda.is_available(), reason="the machine has the device")
def test_a_device_that_is_not_there(generate: CommandLine, tiny_llama: Path) -> None:
    done = generate(tiny_llama, "--device", "cuda")
    assert done.code == 2
    assert "no cuda device here (there is: cpu)" in done.error_line


def test_ipex_that_is_not_there(generate: CommandLine, tiny_llama: Path) -> None:
    done = generate(tiny_llama, "--ipex")
    assert done.code == 2
    assert "requirements-ipex-xpu.txt" in done.error_line


def test_a_results_directory_below_a_file(generate: CommandLine, tiny_llama: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = generate(tiny_llama, "--results-dir", tmp_path / "file" / "results")
    assert done.code == 2
    assert "--results-dir" in done.error_line
