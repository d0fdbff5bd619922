"""`generate` on real models that are odd, or cannot be run as asked: what is refused, and what the record
says."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.conftest import CommandLine

MODELING = """
import torch
from transformers import LlamaForCausalLM, StoppingCriteriaList


class Short(LlamaForCausalLM):
    def generate(self, *arguments, **named):
        return super().generate(*arguments, **named | {"max_new_tokens": 2, "min_new_tokens": 2})


class Deaf(LlamaForCausalLM):
    def generate(self, *arguments, stopping_criteria=None, **named):
        tokens = super().generate(*arguments, **named)
        for one in stopping_criteria or []:
            one(tokens, None)
        return tokens


class NormHead(torch.nn.Linear):
    first = True

    def forward(self, states):
        if self.first:
            self.first = False
            self.weight.data = torch.nn.functional.normalize(self.weight)
        return super().forward(states)


class Normalizing(LlamaForCausalLM):
    def __init__(self, config):
        super().__init__(config)
        self.lm_head = NormHead(config.hidden_size, config.vocab_size, bias=False)
"""


@pytest.fixture
def coded(tiny_llama: Path, tmp_path: Path) -> Callable[[str], Path]:
    """`coded(name)`: the tiny Llama with code of its own, that class of `MODELING`."""

    def made(name: str) -> Path:
        directory = tmp_path / name.lower()
        shutil.copytree(tiny_llama, directory)
        (directory / "modeling.py").write_text(MODELING)
        path = directory / "config.json"
        config = json.loads(path.read_text())
        path.write_text(json.dumps(config | {"auto_map": {"AutoModelForCausalLM": f"modeling.{name}"}}))
        return directory

    return made


def test_a_short_output_is_a_failure(generate: CommandLine, coded: Callable[[str], Path]) -> None:
    done = generate(coded("Short"), "--trust-remote-code", "--json")
    assert done.code == 1
    assert done.records[0]["status"] == "short_output"


def test_a_loop_that_does_not_call_the_clock_at_each_token_is_refused(
    generate: CommandLine, coded: Callable[[str], Path]
) -> None:
    done = generate(coded("Deaf"), "--trust-remote-code", "--json")
    assert done.code == 1
    assert done.records[0]["status"] == "unsupported"
    assert "called 1 times for 4 tokens" in done.error_line


def test_a_head_that_normalizes_its_weights_in_its_first_pass(
    generate: CommandLine, coded: Callable[[str], Path]
) -> None:
    """Baichuan2's does."""
    done = generate(coded("Normalizing"), "--trust-remote-code", "--loads", 2, "--num-iter", 3, "--json")
    assert done.code == 0, done.err
    assert done.records[0]["checks"]["tokens"]["weights_watched"] is True


def test_a_text_prompt_needs_a_tokenizer(generate: CommandLine, tiny_llama: Path) -> None:
    done = generate(tiny_llama, "--prompt", "Gravity is")
    assert done.code == 2
    assert "has no tokenizer that can be loaded" in done.error_line


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
