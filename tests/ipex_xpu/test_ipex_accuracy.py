"""The guide's line of accuracy with IPEX: scores of the plain model, in batches and over two ranks.

`LAMBADA_PASSAGES` names a file with the passages of LAMBADA, one {"text": "..."} a line. Without it these are
the project's own.
"""

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.ipex_xpu.conftest import Command, ModelOf
from tests.ipex_xpu.models import save_tokenizer
from tests.ipex_xpu.source import ROOT
from tests.ipex_xpu.widened import widen
from xpubench.accuracy.tasks import SMOKE_FILE

PASSAGES = Path(os.environ.get("LAMBADA_PASSAGES", SMOKE_FILE))
ITEMS = 4
# What float16 may change of a log-likelihood, in nats.
TOLERANCE = 0.1
# The same of a random model that reads bytes.
BYTES_TOLERANCE = 0.5
GUIDE = "--ipex --dtype float16 --accuracy-only"
PLAIN = "python run_generation.py --device cpu --dtype float32 --accuracy-only"


@pytest.fixture(scope="module")
def model(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first third of SmolLM2-135M, with heads that two ranks can share in IPEX."""
    directory = tmp_path_factory.mktemp("accuracy") / "smollm2"
    widen(smollm2, directory, key_value_heads=4, inner=1536, layers=10)
    return directory


@pytest.fixture
def scores(command: Command, tmp_path: Path) -> Any:
    """`scores(line, model, source=..., **variables)`: the log-likelihoods of a command line of the guide, to
    which model and passages are added."""

    def run(line: str, model: Path, **options: Any) -> list[float]:
        line = line.replace("run_", f"{ROOT}/run_")
        line += f" -m {model} --acc-tasks lambada_standard --acc-data {PASSAGES} --acc-iter {ITEMS} --json"
        done = command("bash", "-c", f"cd {tmp_path} && {line}", **options)
        assert done.code == 0, done.err
        (record,) = done.records
        assert (record["spec"]["subject"]["device"] == "xpu") is ("--ipex" in line)
        assert record["accuracy"]["n"] == ITEMS
        return [item["loglikelihood"] for item in record["accuracy"]["items"]]

    return run


@pytest.mark.timeout(900)  # four commands with a trained model in float16, which CPUs compute slowly
def test_the_guides_lines_score_as_the_plain_model_does(scores: Any, source: Path, model: Path) -> None:
    expected = scores(PLAIN, model)
    near = pytest.approx(expected, abs=TOLERANCE)
    # Otherwise the scores of another passage of the batch could pass for these.
    assert max(expected) - min(expected) > 5 * TOLERANCE
    for batch_size in (1, 2):
        line = f"LLM_ACC_TEST=1 python -u run_generation.py {GUIDE} --batch-size {batch_size}"
        assert scores(line, model, source=source) == near
    ranks = f"LLM_ACC_TEST=1 mpirun -np 2 python -u run_generation_with_deepspeed.py {GUIDE} --batch-size 2"
    assert scores(ranks, model, source=source, XPU_EMULATION_DEVICES="2") == near


def test_models_of_which_ipex_takes_further_rows_for_beams(
    scores: Any, source: Path, model_of: ModelOf
) -> None:
    """A batch of GPT-J is scored a sequence at a time, and gives what batches of one give."""
    gptj = model_of("gptj")
    save_tokenizer(gptj)
    expected = scores(PLAIN, gptj)
    # A random model is sure of nothing, and each byte of a word adds the rounding of its logits.
    assert max(expected) - min(expected) > 5 * BYTES_TOLERANCE
    for batch_size in (1, 2):
        found = scores(f"python run_generation.py {GUIDE} --batch-size {batch_size}", gptj, source=source)
        assert found == pytest.approx(expected, abs=BYTES_TOLERANCE)


def test_accuracy_without_a_variable_from_the_shell(command: Command, source: Path, tmp_path: Path) -> None:
    """IPEX's output heads score the last position alone unless LLM_ACC_TEST is set before it is imported."""
    done = command(
        *(sys.executable, "run_generation.py", "-m", "smollm2-135m", "--device", "xpu", "--ipex"),
        *("--dtype", "float16", "--accuracy-only", "--acc-tasks", "lambada_smoke", "--acc-iter", 2),
        *("--results-dir", tmp_path, "--json"),
        source=source,
    )
    assert done.code == 0, done.err
    (record,) = done.records
    assert record["accuracy"]["n"] == 2
    assert all(item["loglikelihood"] < 0 for item in record["accuracy"]["items"])


def test_wrong_scores_of_ipex_are_found_before_the_scoring(
    command: Command, source: Path, tmp_path: Path
) -> None:
    done = command(
        *(sys.executable, "run_generation.py", "-m", "smollm2-135m", "--device", "xpu", "--ipex"),
        *("--dtype", "float16", "--accuracy-only", "--acc-tasks", "lambada_smoke", "--acc-iter", 2),
        *("--results-dir", tmp_path, "--json"),
        source=source,
        profile="arc",
    )
    assert done.code == 1
    assert "of whole texts" in done.error_line
