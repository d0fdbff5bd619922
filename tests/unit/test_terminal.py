"""Texts that models and libraries make do not steer the terminal, whichever command shows them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import CommandLine, Outcome
from xpubench.progress import log_line
from xpubench.runtimes.fake.runtime import ByteTokenizer

# A title of the window, and an empty screen.
STEERING = "\x1b]0;title\x07\x1b[2J"
SHOWN = r"\x1b]0;title\x07\x1b[2J"


@pytest.fixture
def shown(xpubench: CommandLine, tmp_path: Path) -> Callable[..., Outcome]:
    """`shown(**script)`: a run of the fake runtime on a terminal, none of whose characters steers it."""

    def run(**script: object) -> Outcome:
        (tmp_path / "script.json").write_text(json.dumps(script))
        done = xpubench(
            *("generate", "-m", "smollm2-135m", "--device", "cpu", "--greedy", "--num-iter", 2),
            *("--prompt", "a", "--max-new-tokens", len(STEERING), "--token-latency"),
            *("--runtime", "fake", "--fake-script", tmp_path / "script.json", "--results-dir", tmp_path),
        )
        assert {letter for letter in done.out + done.err if not letter.isprintable()} == {"\n"}
        return done

    return run


def test_a_generated_text_and_a_warning(shown: Callable[..., Outcome]) -> None:
    done = shown(tokens=ByteTokenizer().encode(STEERING), doubts=[f"a doubt\x9b2J{STEERING}"])
    assert done.code == 0, done.err
    rows = [line.split() for line in done.out.splitlines()]
    assert ["text", SHOWN] in rows
    assert ["warning", "a", rf"doubt\x9b2J{SHOWN}"] in rows


def test_a_failure(shown: Callable[..., Outcome]) -> None:
    done = shown(faults=[{"stage": "generate", "error": "RuntimeError", "message": STEERING}])
    assert done.code == 1
    assert f"RuntimeError: {SHOWN}" in done.error_line
    assert f"RuntimeError: {SHOWN}" in done.out


def test_lines_of_a_log(capfd: pytest.CaptureFixture[str]) -> None:
    log_line(f"{STEERING} of a worker")
    assert capfd.readouterr().err == f"{SHOWN} of a worker\n"


def test_wrong_use(xpubench: CommandLine) -> None:
    done = xpubench("plan", "-m", f"./{STEERING}")
    assert (done.code, f"no such directory: ./{SHOWN}" in done.error_line) == (2, True)
