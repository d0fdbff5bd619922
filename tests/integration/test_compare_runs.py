"""`compare` on real runs: the same work twice, and with a clock that waits at each token."""

import json
from pathlib import Path
from time import sleep
from typing import Any

import pytest

from tests.conftest import CommandLine
from xpubench.measure.clock import TokenClock

# Far beyond what a busy machine does to a tiny model, and far below the wait.
LIMITS = ("--latency-limit", 300, "--memory-limit", 1000)
WAIT_S = 0.05


def test_the_same_twice_and_a_slower_one(
    generate: CommandLine,
    xpubench: CommandLine,
    tiny_llama: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("base", "again"):
        assert generate(tiny_llama, "--num-iter", 4, "--results-dir", tmp_path / name).code == 0
    same = xpubench("compare", tmp_path / "base", tmp_path / "again", *LIMITS)
    assert (same.code, "same: " in same.out) == (0, True)

    plain = TokenClock.__call__

    def slower(self: TokenClock, *arguments: Any, **named: Any) -> Any:
        sleep(WAIT_S)
        return plain(self, *arguments, **named)

    monkeypatch.setattr(TokenClock, "__call__", slower)
    assert generate(tiny_llama, "--num-iter", 4, "--results-dir", tmp_path / "slow").code == 0
    slow = xpubench("compare", tmp_path / "base", tmp_path / "slow", *LIMITS, "--json")
    (run,) = json.loads(slow.out)["runs"]
    assert (slow.code, run["verdict"]) == (1, "slower")
    assert "next token slower" in run["reason"]
