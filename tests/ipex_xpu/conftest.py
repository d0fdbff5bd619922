"""Fixtures: IPEX's source, the tiny models, and command lines on the emulated device."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Outcome
from tests.ipex_xpu import models
from tests.ipex_xpu.environment import command_environment
from tests.ipex_xpu.observation import TOKENS_VARIABLE
from tests.ipex_xpu.reference import PlainReference
from tests.ipex_xpu.source import HOW, ROOT, find_source
from tests.ipex_xpu.zygote import Zygote

SHAPE = ("--input-tokens", "12", "--max-new-tokens", "8", "--num-iter", "2", "--num-warmup", "1")


@dataclass(frozen=True)
class ObservedOutcome(Outcome):
    """What a command gave, and what each call of `generate` in it returned (`tests.ipex_xpu.observation`)."""

    calls: list[dict[str, Any]]


Command = Callable[..., ObservedOutcome]
ModelOf = Callable[[str], Path]
ErrorOf = Callable[[str, ObservedOutcome], float]


@pytest.fixture(scope="session")
def source() -> Path:
    """IPEX's source; tests that need it skip without."""
    found = find_source()
    if found is None:
        pytest.skip(HOW)
    return found


@pytest.fixture(scope="session")
def model_of(tmp_path_factory: pytest.TempPathFactory) -> ModelOf:
    """The directory of a family's tiny model, made when it is first asked for."""
    directory = tmp_path_factory.mktemp("families")

    def made(family: str) -> Path:
        if not (directory / family).exists():
            models.make(family, directory / family)
        return directory / family

    return made


@pytest.fixture(scope="session")
def error_of(model_of: ModelOf) -> ErrorOf:
    """How wrong the worst call of a command is, in tolerances of `tests.ipex_xpu.reference`."""
    references: dict[str, PlainReference] = {}

    def error(family: str, outcome: ObservedOutcome) -> float:
        reference = references.setdefault(family, PlainReference(model_of(family)))
        # The models by which a device card is measured have a smaller vocabulary.
        on_xpu = [
            call
            for call in outcome.calls
            if (call["device"], call["vocabulary"]) == ("xpu", reference.model.config.vocab_size)
        ]
        assert on_xpu, outcome.err
        return max(reference.error(call) for call in on_xpu)

    return error


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """`command(*arguments, source=..., profile="pvc", **variables)`: a new process's outcome."""

    def run(
        *arguments: object, source: Path | None = None, profile: str = "pvc", **variables: str
    ) -> ObservedOutcome:
        tokens = tmp_path / "tokens.jsonl"
        tokens.unlink(missing_ok=True)
        environment = command_environment(source, profile, **{TOKENS_VARIABLE: str(tokens)}, **variables)
        # The environment's own programs, mpirun among them.
        environment["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), environment["PATH"]))
        done = subprocess.run(
            [str(argument) for argument in arguments],
            env=environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=600,
        )
        return ObservedOutcome(done.returncode, done.stdout, done.stderr, _calls(tokens))

    return run


@pytest.fixture(scope="session")
def zygote(source: Path) -> Iterator[Callable[[str], Zygote]]:
    """The process that forks commands on a profile's GPU with IPEX, started when it is first asked for."""
    started: dict[str, Zygote] = {}

    def of(profile: str) -> Zygote:
        if profile not in started:
            environment = command_environment(source, profile, **{TOKENS_VARIABLE: os.devnull})
            started[profile] = Zygote(sys.executable, environment)
        return started[profile]

    yield of
    for one in started.values():
        one.close()


@pytest.fixture
def generate(zygote: Callable[[str], Zygote], tmp_path: Path) -> Command:
    """`generate(model, *flags, profile="pvc", **variables)`: the guide's script with `--ipex` in float16 on
    the emulated device."""

    def run(model: object, *flags: object, profile: str = "pvc", **variables: str) -> ObservedOutcome:
        tokens = tmp_path / "tokens.jsonl"
        tokens.unlink(missing_ok=True)
        arguments = [
            *("run_generation.py", "-m", str(model), "--benchmark", "--device", "xpu", "--ipex"),
            *("--dtype", "float16", *SHAPE, "--results-dir", str(tmp_path / "results"), "--json"),
            *map(str, flags),
        ]
        code, out, err = zygote(profile).run(arguments, {TOKENS_VARIABLE: str(tokens), **variables}, tmp_path)
        return ObservedOutcome(code, out, err, _calls(tokens))

    return run


def _calls(tokens: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in tokens.read_text().splitlines()] if tokens.exists() else []
