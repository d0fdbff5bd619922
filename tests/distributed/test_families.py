"""Each family's tokens on 2 and 4 ranks are one process's, and each rank reads what AutoTP would cut."""

import gc
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.distributed.conftest import OverRanks
from tests.distributed.families import FAMILIES, answers, long_answer, save_model, subject
from xpubench.catalog import SMOLLM2
from xpubench.runtimes.registry import loader
from xpubench.weights.embedded import smollm2_directory


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("families")
    for name in FAMILIES:
        save_model(name, directory / name)
    return directory


@pytest.fixture(scope="module")
def alone(models: Path) -> dict[str, dict[str, Any]]:
    """The answers of one process."""
    gc.freeze()
    found: dict[str, dict[str, Any]] = {}
    for name in FAMILIES:
        runtime = loader("pytorch").load(subject(models / name, 1))
        found[name] = answers(runtime)
        runtime.close()
    runtime = loader("pytorch").load(subject(smollm2_directory(), 1))
    found[SMOLLM2] = {"tokens": long_answer(runtime)}
    runtime.close()
    gc.unfreeze()
    return found


@pytest.mark.parametrize("size", [2, 4])
def test_ranks_answer_as_one_process(
    size: int, models: Path, alone: dict[str, dict[str, Any]], mpirun: OverRanks, tmp_path: Path
) -> None:
    done = mpirun(size, "-m", "tests.distributed.worker", models, tmp_path / "out.json")
    assert done.code == 0, done.err
    out = json.loads((tmp_path / "out.json").read_text())
    assert out["same_part"] == {name: [True] * size for name in FAMILIES}
    for name in FAMILIES:
        found, expected = out["generations"][name], dict(alone[name])
        assert "error" not in found, (name, found)
        assert found.pop("reads_slices")
        np.testing.assert_allclose(found.pop("logprobs"), expected.pop("logprobs"), atol=1e-4)
        assert found == expected, name
    if size == 2:
        assert out["generations"][SMOLLM2] == alone[SMOLLM2]
