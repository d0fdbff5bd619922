"""What the tests of llama.cpp share: a cache of their own, and the embedded model in float16."""

from pathlib import Path
from typing import Any

import pytest

from tests.llama_cpp.models import save_float16


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The cache in a directory of the tests; the embedded model is made again there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="session")
def float16(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model as a GGUF whose matrices are float16."""
    return save_float16(tmp_path_factory.mktemp("float16") / "smollm2-f16.gguf")
