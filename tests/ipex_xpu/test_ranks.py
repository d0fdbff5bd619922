"""IPEX on a model that two ranks share: the tokens and scores of one process, or a failure with its cause."""

import sys
from pathlib import Path

import pytest

from tests.ipex_xpu.conftest import SHAPE, Command, ErrorOf, ModelOf, ObservedOutcome

SCRIPT = "run_generation_with_deepspeed.py"


@pytest.fixture
def ranks(command: Command, source: Path, tmp_path: Path) -> Command:
    """`ranks(*arguments, program=(SCRIPT,))`: a script with `--ipex` in float16 over two ranks."""

    def run(*arguments: object, program: tuple[str, ...] = (SCRIPT,)) -> ObservedOutcome:
        return command(
            *("mpirun", "-np", 2, sys.executable, "-u", *program, "--device", "xpu", "--ipex"),
            *("--dtype", "float16", "--results-dir", tmp_path / "ranks", "--json", *arguments),
            source=source,
            XPU_EMULATION_DEVICES="2",
        )

    return run


@pytest.mark.parametrize(
    "search", [("--greedy",), ("--num-beams", 4, "--use-static-cache")], ids=["greedy", "beams"]
)
def test_the_tokens_are_those_of_one_process(
    ranks: Command, generate: Command, model_of: ModelOf, search: tuple[object, ...]
) -> None:
    alone = generate(model_of("llama3"), *search)
    shared = ranks("-m", model_of("llama3"), "--benchmark", *SHAPE, *search)
    assert (alone.code, shared.code) == (0, 0), alone.err + shared.err
    (one,), (two,) = alone.records, shared.records
    assert two["output"]["first_token_ids"] == one["output"]["first_token_ids"]
    assert two["runtime"]["optimized_blocks"] == two["runtime"]["decoder_blocks"] > 1
    # Each rank holds its part alone.
    assert two["runtime"]["weight_bytes"] < 0.6 * one["runtime"]["weight_bytes"]


@pytest.mark.parametrize("family", ["phi3", "qwen3"])
def test_a_sum_over_the_ranks_that_ipex_leaves_out(
    ranks: Command, model_of: ModelOf, error_of: ErrorOf, family: str
) -> None:
    """The failure names the cause: with the sum put into IPEX's MLP, the same run is right."""
    line = ("-m", model_of(family), "--benchmark", *SHAPE, "--greedy")
    found = ranks(*line)
    assert found.code == 1
    assert "numerics" in found.error_line
    assert "known: IPEX leaves out the sum over the ranks after this model's MLP" in found.error_line
    # What IPEX is compared with, the tokens of the sharded model before it, is right.
    assert error_of(family, found) <= 1
    mended = ranks(*line, program=("-m", "tests.ipex_xpu.mended", SCRIPT))
    assert mended.code == 0, mended.err
    assert error_of(family, mended) <= 1
