"""What the tests of llama.cpp share: the embedded model in float16."""

import os
from pathlib import Path

import pytest

from tests.llama_cpp.models import save_float16

os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(scope="session")
def float16(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model as a GGUF whose matrices are float16."""
    return save_float16(tmp_path_factory.mktemp("float16") / "smollm2-f16.gguf")
