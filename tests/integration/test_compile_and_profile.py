"""torch.compile and the profiler around `generate`."""

import json
from pathlib import Path

import pytest
import transformers

from tests.conftest import CommandLine


@pytest.mark.parametrize("cache", [[], ["--use-static-cache"]], ids=["dynamic", "static"])
def test_compiled_tokens_equal_eager_ones(
    generate: CommandLine, tiny_llama: Path, backends: dict[str, int], cache: list[str]
) -> None:
    eager = generate(tiny_llama, *cache, "--json").records[0]
    backends["counting"] = 0
    compiled = generate(tiny_llama, *cache, "--torch-compile", "--backend", "counting", "--json").records[0]
    if not cache and transformers.__version__.startswith("4."):
        # Its dynamic cache counts in Python, which makes each step a graph of its own.
        assert compiled["status"] in ("ok", "unsupported")
        if compiled["status"] == "unsupported":
            assert "--use-static-cache" in compiled["failure"]["message"]
            return
    assert compiled["status"] == "ok"
    # Every step after the prompt's, of a checked, a warm-up and two measured generations.
    assert backends["counting"] >= 4 * 3
    assert compiled["runtime"]["compile"]["graphs"] >= 1
    assert compiled["output"] == eager["output"]
    assert compiled["id"] != eager["id"]


def test_a_compiler_that_errs_shows_in_the_divergence(
    generate: CommandLine, tiny_llama: Path, backends: dict[str, int]
) -> None:
    """Other tests see that a right one does not."""
    flags = ("--use-static-cache", "--torch-compile", "--reference", "cpu-float32", "--json")
    wrong = generate(tiny_llama, "--backend", "erring", *flags).records[0]["divergence"]
    assert wrong["mean_kl"] > 1e-3


def test_an_unknown_compiler_backend(generate: CommandLine, tiny_llama: Path) -> None:
    done = generate(tiny_llama, "--torch-compile", "--backend", "induktor")
    assert done.code == 2
    assert "did you mean inductor" in done.error_line


def test_a_profile_lies_beside_the_record_and_counts_in_no_figure(
    generate: CommandLine, tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROFILE", "1")
    (record,) = generate(tiny_llama, "--profile_name", "here", "--json").records
    assert record["status"] == "ok", record["failure"]
    trace = json.loads((tmp_path / "results" / f"{record['id']}.here.trace.json").read_text())
    assert any("aten::" in event.get("name", "") for event in trace["traceEvents"])
    assert "aten::" in (tmp_path / "results" / f"{record['id']}.here.operators.txt").read_text()
    assert len(record["samples"]["iterations"]) == 2
