"""What the tests of OpenVINO share: a model and its IR."""

import os
from pathlib import Path

import pytest

from tests.conftest import CommandLine
from tests.openvino.models import save_model

os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("llama"), "llama")


@pytest.fixture
def llama_ir(xpubench: CommandLine, llama: Path, tmp_path: Path) -> Path:
    out = tmp_path / "ir"
    assert xpubench("export", llama, out, "--weight-format", "fp32").code == 0
    return out
