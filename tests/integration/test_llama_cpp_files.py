"""GGUF files where llama.cpp's library need not be."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
import transformers

from tests.conftest import CommandLine
from tests.unit.test_llama_cpp_options import HIDDEN, write_gguf
from xpubench.catalog.architecture import Architecture
from xpubench.runtimes.llama_cpp.gguf_file import config_of_gguf, read_gguf


@pytest.mark.skipif(
    transformers.__version__.startswith("4."),
    reason="transformers 4.48 tells no sizes of this header, and llama.cpp's own environment has a later one",
)
def test_the_config_of_the_header(tmp_path: Path) -> None:
    config = config_of_gguf(read_gguf(str(write_gguf(tmp_path / "model.gguf"))))
    assert config["model_type"] == "llama"
    sizes = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_key_value_heads")
    assert [config[name] for name in sizes] == [HIDDEN, 128, 1, 2]
    json.dumps(config)
    # Of a mixture, the planner knows the experts.
    mixture = config_of_gguf(read_gguf(str(write_gguf(tmp_path / "mixture.gguf", experts=8))))
    found = Architecture.from_config(mixture | {"vocab_size": 96})
    assert (found.model_type, found.experts, found.experts_per_token) == ("mixtral", 8, 2)
    assert found.step_share(1) < found.step_share(8) < 1


@pytest.mark.skipif(find_spec("llama_cpp") is not None, reason="llama-cpp-python is installed here")
def test_without_the_package(generate: CommandLine, tmp_path: Path) -> None:
    done = generate(write_gguf(tmp_path / "model.gguf"), "--runtime", "llama-cpp")
    assert done.code == 2
    assert "llama-cpp-python is not installed" in done.error_line
    assert "requirements-llama-cpp.txt" in done.error_line
    assert not list((tmp_path / "results").glob("*.json"))
