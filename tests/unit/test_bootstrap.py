"""The fast bootstrap equals its definition, and needs memory for its samples alone."""

import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest

from xpubench.measure.bootstrap import CELLS, RESAMPLES, SampleRows, medians_by_definition, resampled_medians

LARGE = """
from pathlib import Path
import numpy as np
from xpubench.measure.bootstrap import resampled_medians

rows = np.random.default_rng(0).normal(size=(20_000, 128))
medians = resampled_medians(rows, seed=0)
assert len(set(medians)) > 1000
assert abs(np.median(medians) - np.median(rows)) < 1e-3
(peak,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
print(int(peak.split()[1]) * 1024)
"""


def continuous(source: np.random.Generator, lengths: list[int]) -> SampleRows:
    return [source.normal(size=length).tolist() for length in lengths]


def tied(source: np.random.Generator, lengths: list[int]) -> SampleRows:
    return [source.integers(1, 9, size=length).tolist() for length in lengths]


def drifting(source: np.random.Generator, lengths: list[int]) -> SampleRows:
    """Rows that do not overlap: the two middle samples of a bootstrap sample can lie far apart."""
    return [(source.random(length) + 10 * row).tolist() for row, length in enumerate(lengths)]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("made", [continuous, tied, drifting])
@pytest.mark.parametrize(
    "lengths",
    [
        [1],
        [1, 1],
        [2, 2],
        [1] * 5,
        [5] * 3,
        [4, 7, 1, 2],
        [31, 30, 2],
        [31] * 9,
        [1, 400],
        [1] * CELLS,
        [1] * (CELLS + 1),
        [7] * 60,
    ],
    ids=lambda lengths: f"{len(lengths)} rows of {sum(lengths)}",
)
def test_it_equals_its_definition(
    lengths: list[int], made: Callable[[np.random.Generator, list[int]], SampleRows], seed: int
) -> None:
    rows = made(np.random.default_rng(2), lengths)
    assert np.array_equal(resampled_medians(rows, seed), medians_by_definition(rows, seed))


def test_its_blocks_draw_one_sequence_of_random_numbers() -> None:
    rows = np.random.default_rng(3).normal(size=(1500, 1))
    found = resampled_medians(rows, seed=0)
    assert found.shape == (RESAMPLES,)
    assert np.array_equal(found, medians_by_definition(rows, seed=0))


def test_its_memory_is_linear_in_the_samples() -> None:
    """2.56 million samples are 20 MB; a table of rows by samples or of rows by rows would be gigabytes."""
    done = subprocess.run([sys.executable, "-c", LARGE], capture_output=True, text=True, check=True)
    assert 20_000 * 128 * 8 < int(done.stdout) < 500_000_000
