"""`--depths` on the fake runtime, whose next token grows with the context as a script tells."""

import random
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import CommandLine
from xpubench.measure.depth import curve_of, depth_point
from xpubench.plan import DEPTH_TOKENS
from xpubench.run.depth import COUNTED
from xpubench.runtimes.fake.options import FakeOptions
from xpubench.runtimes.fake.runtime import FakeRuntime
from xpubench.spec import Workload

BLOCKS = 30  # SmolLM2-135M's
# 3 key-value heads of 64 values, keys and values in bfloat16, at 1000 GB/s
BYTES_NS = 2 * 3 * 64 * 2 / 1000


def curve(scripted: CommandLine, *flags: object, depths: tuple[int, ...] = (0, 1024), **script: Any) -> Any:
    done = scripted(script, "--depths", *depths, *flags)
    assert done.code == 0, done.err
    return done.records[0]["explanation"]["depth"]


def test_the_slope_is_by_position_and_block(scripted: CommandLine) -> None:
    found = curve(scripted, depths=(0, 1024, 4096), position_ns=60.0 * BLOCKS)
    assert found["slope_ns"] == pytest.approx(60.0)
    assert found["slope_ci95"] == pytest.approx([60.0, 60.0])
    assert found["bytes_ns"] == pytest.approx(BYTES_NS)
    assert [point["depth"] for point in found["points"]] == [0, 1024, 4096]
    # The script's 1 ms and 1,025 positions with the prompt's last token.
    assert found["points"][1]["next_token_ms"] == pytest.approx(1 + 1025 * 60 * BLOCKS / 1e6)
    assert {len(row) for point in found["points"] for row in point["next_token_ns"]} == {8}
    assert found["method"] == "caches of random values"
    assert "attention pays latency rather than bytes" in found["message"]


def test_a_batch_has_more_bytes_a_position(scripted: CommandLine) -> None:
    assert curve(scripted, "--batch-size", 4)["bytes_ns"] == pytest.approx(4 * BYTES_NS)


def test_a_stack_that_takes_no_cache_runs_the_prompts(scripted: CommandLine) -> None:
    found = curve(scripted, position_ns=60.0 * BLOCKS, random_cache=False)
    assert found["method"] == "prompts of random tokens"
    assert found["slope_ns"] == pytest.approx(60.0)


@pytest.mark.parametrize(
    ("slope", "copied", "words"),
    [
        (24.0, False, "latency rather than bytes"),
        (6.8, False, "pays for its bytes"),
        (12.0, False, "cannot be told apart"),
        (19.0, True, "pays for its bytes"),
        (60.0, True, "latency rather than bytes"),
        (0.0, False, "no growth"),
    ],
)
def test_what_a_slope_says(slope: float, copied: bool, words: str) -> None:
    """A position of 4 KiB at 608 GB/s takes 6.7 ns."""
    draw = random.Random(0)
    points = [
        depth_point(
            depth, [[10**7 + round(32 * slope * depth * draw.gauss(1, 0.01)) + draw.randint(0, 9)] * 8] * 3
        )
        for depth in (0, 1024, 4096, 16384)
    ]
    found = curve_of(points, blocks=32, bytes_ns=4096 / 608, copied=copied, method="")
    assert words in found.message
    assert found.slope_ns == pytest.approx(slope, rel=0.05, abs=1e-3)


def test_noise_widens_the_interval() -> None:
    """As the machine's noise hides a slope, its interval reaches beyond 0."""
    draw = random.Random(1)
    points = [
        depth_point(depth, [[round(draw.gauss(1e7, 1e6))] * 8 for _ in range(6)]) for depth in (0, 512, 1024)
    ]
    found = curve_of(points, blocks=32, bytes_ns=1.0, copied=False, method="")
    assert found.slope_ci95 is not None
    assert found.slope_ci95[0] < 0 < found.slope_ci95[1]
    assert "no growth" in found.message


@pytest.mark.parametrize(
    ("compiles", "order"),
    [(False, [0, 64, 128, 256, 128, 64, 0]), (True, [0, 128, 256, 64])],
)
def test_a_depth_is_compiled_once(
    scripted: CommandLine, monkeypatch: pytest.MonkeyPatch, compiles: bool, order: list[int]
) -> None:
    """Whatever the order, each depth has the same number of generations."""
    depths, prepared = (0, 64, 128, 256), []
    original = FakeRuntime.prepare

    def watched(self: FakeRuntime, workload: Workload) -> None:
        if workload.new_tokens == DEPTH_TOKENS:
            prepared.append((workload.input_tokens or 0) - 1)
        original(self, workload)

    monkeypatch.setattr(FakeRuntime, "prepare", watched)
    monkeypatch.setattr(FakeOptions, "compiles", compiles)
    found = curve(scripted, "--max-new-tokens", 4, depths=depths, position_ns=60.0 * BLOCKS)
    assert prepared == order
    assert {len(point["next_token_ns"]) for point in found["points"]} == {2 * COUNTED}
    assert [point["depth"] for point in found["points"]] == list(depths)
    assert found["slope_ns"] == pytest.approx(60.0)


def test_one_depth_has_no_slope(scripted: CommandLine) -> None:
    found = curve(scripted, depths=(16,))
    assert (found["slope_ns"], found["slope_ci95"]) == (None, None)
    assert "two depths" in found["message"]


def test_a_depth_beyond_the_models_positions_is_refused(scripted: CommandLine) -> None:
    done = scripted({}, "--depths", 0, 8192)
    assert done.code == 2
    assert "--depths 8192" in done.error_line
    assert "the model's 8192 positions; lower --depths" in done.error_line
    assert scripted({}, "--depths", 8192 - 10).code == 0


def test_a_cache_beyond_the_memory_is_not_tried(scripted: CommandLine) -> None:
    # 4,096 positions of 30 blocks take 94 MB; the run itself needs less.
    device = {"free_memory_bytes": 300_000_000}
    (record,) = scripted({"device": device}, "--depths", 0, 4096, "--batch-size", 8).records
    assert record["status"] == "ok"
    assert any("lower --depths" in line for line in record["warnings"])
    assert record["explanation"] is None


def test_a_generation_that_fails_leaves_the_run_as_it_was(scripted: CommandLine) -> None:
    faults = [{"stage": "generate", "input_tokens": 1025, "failure": "numerics", "message": "NaN"}]
    (record,) = scripted({"faults": faults}, "--depths", 0, 1024).records
    assert record["explanation"] is None
    assert any("no curve over depths" in line for line in record["warnings"])


def test_the_terminal_shows_the_curve(scripted: CommandLine, xpubench: CommandLine, tmp_path: Path) -> None:
    curve(scripted, position_ns=60.0 * BLOCKS)
    flags = ("--runtime", "fake", "--fake-script", tmp_path / "script.json", "--device", "cpu", "--greedy")
    shape = ("--input-tokens", 8, "--max-new-tokens", 4, "--num-iter", 2, "--results-dir", tmp_path / "other")
    done = xpubench("generate", "-m", "smollm2-135m", *flags, *shape, "--depths", 0, 1024)
    told = " ".join(done.out.split())
    assert "depths by caches of random values" in told
    assert "60.0 ns a position and block (60.0 to 60.0), its bytes at the bandwidth take 0.8" in told
