"""What the tests of OpenVINO share: a cache of their own, a model and its IR."""

from pathlib import Path
from typing import Any

import pytest

from tests.conftest import CommandLine
from tests.openvino.models import save_model


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The cache of exports in a directory of the tests; the embedded model is made again there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("llama"), "llama")


@pytest.fixture
def llama_ir(xpubench: CommandLine, llama: Path, tmp_path: Path) -> Path:
    out = tmp_path / "ir"
    assert xpubench("export", llama, out, "--weight-format", "fp32").code == 0
    return out
