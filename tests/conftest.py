"""Fixtures that several layers share: real small models, and the command line in this process."""

import json
import os
import resource
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from xpubench.catalog import SMOLLM2
from xpubench.cli import main as cli
from xpubench.cli.generation import add_flags
from xpubench.cli.options import specs_from
from xpubench.files import cache_directory
from xpubench.spec import RunSpec

os.environ["HF_HUB_OFFLINE"] = "1"

ROOT = Path(__file__).parent.parent


def pytest_configure(config: pytest.Config) -> None:
    """Gives the tests a cache directory of their own, so that none writes to the user's. The processes that
    they start inherit it, as do pytest-xdist's workers.

    Where the user's cache has the embedded model, the tests read it there, because making it takes
    seconds.
    """
    if "PYTEST_XDIST_WORKER" in os.environ:
        return
    made = list(cache_directory().glob(f"{SMOLLM2}-*-v*"))
    cache = tempfile.TemporaryDirectory(prefix="xpubench-tests-cache-")
    os.environ["XDG_CACHE_HOME"] = cache.name
    config.add_cleanup(cache.cleanup)
    cache_directory().mkdir()
    for model in made:
        (cache_directory() / model.name).symlink_to(model)


@dataclass(frozen=True)
class Outcome:
    """What a command line gave."""

    code: int
    out: str
    err: str

    @property
    def error_line(self) -> str:
        """The one line that an error is; fails when there are others like a traceback."""
        lines = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, self.err
        assert "Traceback" not in self.err
        return lines[0]

    @property
    def records(self) -> list[dict[str, Any]]:
        """The records of `--json`."""
        return [json.loads(line) for line in self.out.splitlines()]


CommandLine = Callable[..., Outcome]


def interpreter_with_an_xpu(directory: Path) -> Path:
    """A command that runs this Python where the fake runtime's first device is an xpu."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "sitecustomize.py").write_text(
        "from xpubench.runtimes.fake.runtime import FakeRuntime\n"
        "FakeRuntime.first_device = classmethod(lambda cls: 'xpu')\n"
    )
    python = directory / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{directory}:$PYTHONPATH" exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return python


def specs_of(line: str) -> list[RunSpec]:
    """What a command line of the script run_generation.py that was printed runs, on the CPU where it names no
    device; fails where its flags are refused."""
    parser = cli.Parser()
    add_flags(parser)
    _, _, flags = line.partition("run_generation.py ")
    return specs_from(parser.parse_args(shlex.split(flags)), "cpu")


@pytest.fixture
def xpubench(capfd: pytest.CaptureFixture[str]) -> CommandLine:
    """`xpubench(*arguments)` as typed in a shell."""

    def run(*arguments: object) -> Outcome:
        capfd.readouterr()
        try:
            code = cli.main(list(map(str, arguments)))
        except SystemExit as leaving:  # argparse's --help and --version
            code = int(leaving.code or 0)
        out, err = capfd.readouterr()
        return Outcome(code, out, err)

    return run


@pytest.fixture
def generate(xpubench: CommandLine, tmp_path: Path) -> CommandLine:
    """`generate(model, *flags)`: a short greedy run on the CPU in float32, or with `--accuracy-only` one of
    tasks; its results in a directory of the test's own; later flags win."""

    def run(model: object, *flags: object) -> Outcome:
        greedy = [] if "--num-beams" in flags else ["--greedy"]
        length = [] if "--prompt" in flags else ["--input-tokens", 8]
        shape = [*greedy, *length, "--max-new-tokens", 4, "--num-iter", 2, "--num-warmup", 1]
        return xpubench(
            *("generate", "-m", model, "--device", "cpu", "--dtype", "float32"),
            *([] if "--accuracy-only" in flags else shape),
            *("--results-dir", tmp_path / "results", *flags),
        )

    return run


@pytest.fixture
def scripted(xpubench: CommandLine, tmp_path: Path) -> CommandLine:
    """`scripted(script, *flags)`: a short greedy run of the fake runtime, which does what the script says
    (see `xpubench.runtimes.fake.script.Script`); its results in a directory of the test's own; later flags
    win."""

    def run(script: dict[str, Any], *flags: object) -> Outcome:
        path = tmp_path / "script.json"
        path.write_text(json.dumps(script))
        length = [] if "--prompt" in flags else ["--input-tokens", 8]
        shape = ["--greedy", *length, "--max-new-tokens", 4, "--num-iter", 2, "--num-warmup", 1]
        return xpubench(
            *(
                "generate",
                "-m",
                "smollm2-135m",
                "--runtime",
                "fake",
                "--fake-script",
                path,
                "--device",
                "cpu",
            ),
            *([] if "--accuracy-only" in flags else shape),
            *("--results-dir", tmp_path / "results", "--json", *flags),
        )

    return run


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """While it lasts, this process can write no file beyond that many bytes, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The checkpoint directory of the embedded model."""
    from xpubench.weights.embedded import smollm2_directory

    return smollm2_directory()


@pytest.fixture(scope="session")
def short_smollm2(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the first six of the embedded model's thirty layers, and its tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    directory = tmp_path_factory.mktemp("short-smollm2")
    AutoTokenizer.from_pretrained(smollm2).save_pretrained(directory)
    model = AutoModelForCausalLM.from_pretrained(smollm2, num_hidden_layers=6)
    model.save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a random two-layer Llama of 128 positions and 256 tokens, without a tokenizer. Half
    of its ids end a sequence, so that only a run that ignores the end reaches its length."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=256,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        bos_token_id=1,
        eos_token_id=list(range(128, 256)),
    )
    directory = tmp_path_factory.mktemp("tiny-llama")
    LlamaForCausalLM(config).save_pretrained(directory, safe_serialization=True)
    return directory


@pytest.fixture(scope="session")
def tiny_llama_of_bytes(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That Llama with a tokenizer of bytes, which has no token that begins or ends a text."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    directory = tmp_path_factory.mktemp("bytes") / "tiny-llama-of-bytes"
    shutil.copytree(tiny_llama, directory)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: token for token, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(directory)
    return directory
