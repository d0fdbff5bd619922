"""Live comparisons: what is said of blocks that are looked at after each, and what is refused before."""

import random
from math import exp
from pathlib import Path

import pytest

from tests.conftest import CommandLine, interpreter_with_an_xpu
from tests.records import latency_record, subject
from xpubench.compare.live import compare_blocks
from xpubench.compare.processes import Limits
from xpubench.record import Record


def blocks(count: int, slow: float, noise: float) -> tuple[list[Record], list[Record]]:
    """Blocks whose new side is so much slower, as logarithms, with so much noise."""
    source = random.Random(3)
    base, new = [], []
    for number in range(count):
        factor = exp(slow + source.gauss(0, noise))
        made = [f"2026-11-20T10:{2 * number + side:02}:00Z" for side in (0, 1)]
        base.append(latency_record(subject(), seed=2 * number, created=made[0]))
        new.append(
            latency_record(
                subject(), next_ms=20 * factor, first_ms=200 * factor, seed=2 * number + 1, created=made[1]
            )
        )
    return base, new


def test_every_figure_is_judged_for_all_looks_together() -> None:
    """An interval of one look would call these six blocks slower, and beside an inconclusive verdict too."""
    base, new = blocks(6, 0.045, 0.035)
    for count in range(1, 7):
        found = compare_blocks(base[:count], new[:count], Limits(), "next_token")
        assert found.verdict == "inconclusive"
        assert found.primary == found.figures["next_token"]
        methods = {one.method for one in found.figures.values()}
        assert methods == ({None} if count < 5 else {"always-valid t"})
        assert {one.p_value for one in found.figures.values()} == {None}
        assert not [line for line in found.beyond if "slower" in line]


def test_other_figures_of_live_comparisons_are_named_beyond_their_limits() -> None:
    found = compare_blocks(*blocks(6, 0.5, 0.01), Limits(), "peak_device")
    assert (found.verdict, found.primary) == ("same", found.figures["peak_device"])
    assert any(line.startswith("next token slower, ratio 1.6") for line in found.beyond)


@pytest.mark.parametrize("named", ["", "--device cpu"])
def test_the_runtime_looks_for_its_device_in_the_environment_of_its_side(
    xpubench: CommandLine, tmp_path: Path, named: str
) -> None:
    """B's has an xpu and A's a CPU alone: the verdict would compare two devices."""
    python = interpreter_with_an_xpu(tmp_path / "stack")
    (tmp_path / "script.json").write_text("{}")
    side = f"-m smollm2-135m --greedy --num-iter 5 --runtime fake --fake-script {tmp_path}/script.json"
    flags = ("--b-python", python, "--budget", 1, "--results-dir", tmp_path / "live")
    done = xpubench("compare", "--live", f"{side} {named}", side, *flags)
    assert (done.code, "A would run on cpu and B on xpu" in done.error_line) == (2, True), done.err
    assert "--device" in done.error_line
    assert not (tmp_path / "live").exists()


def test_sides_of_other_numbers_of_generations_are_refused_before_they_run(
    xpubench: CommandLine, tmp_path: Path
) -> None:
    side = "-m smollm2-135m --device cpu --greedy --num-warmup 2 --num-iter"
    results = ("--results-dir", tmp_path / "live")
    done = xpubench("compare", "--live", f"{side} 5", f"{side} 10", *results)
    assert (done.code, "same number of measured iterations" in done.error_line) == (2, True)
    assert "not 3 and 8" in done.error_line
    assert not (tmp_path / "live").exists()
