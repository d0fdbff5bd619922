"""Medians of bootstrap samples that resample whole rows: by definition, and fast."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
# The sorted samples are cut into this many cells, in one of which each median is found.
CELLS = 128
# The most numbers in an array of a block of bootstrap samples, which then takes 8 MB.
BLOCK = 1 << 20

Floats = NDArray[np.float64]
Counts = NDArray[np.int32]
Places = NDArray[np.int64]
SampleRows = Sequence[Sequence[float]] | Floats


def medians_by_definition(rows: SampleRows, seed: int) -> Floats:
    """The median of each of RESAMPLES bootstrap samples, each of as many whole rows as there are, drawn with
    replacement. This is what `resampled_medians` must equal."""
    picks = np.random.default_rng(seed).integers(0, len(rows), size=(RESAMPLES, len(rows)))
    return np.array([np.median(np.concatenate([rows[one] for one in pick])) for pick in picks])


def resampled_medians(rows: SampleRows, seed: int) -> Floats:
    """As `medians_by_definition`, to the bit, without building a bootstrap sample: all samples are sorted
    once, and weighted by how often their row was drawn. Memory is linear in the number of samples and of
    rows. The rows may be of unequal length, and none may be empty. The same seed gives the same medians."""
    pooled = np.concatenate([np.asarray(row, dtype=np.float64) for row in rows])
    order = np.argsort(pooled, kind="stable")
    values = pooled[order]
    row_of = np.repeat(np.arange(len(rows)), [len(row) for row in rows])[order]
    cells = min(CELLS, len(values))
    width = -(-len(values) // cells)
    # [c, i]: how many of row i's samples lie before cell c.
    before = np.zeros((cells + 1, len(rows)), dtype=np.int32)
    counts = np.bincount(np.arange(len(values)) // width * len(rows) + row_of, minlength=cells * len(rows))
    np.cumsum(counts.reshape(cells, len(rows)), axis=0, out=before[1:])
    # The places after the last sample belong to a row that is never drawn.
    row_of = np.append(row_of, np.full(width * cells - len(values), len(rows))).reshape(cells, width)
    medians = []
    for draws in _draws(len(rows), seed, max(len(rows), width, cells)):
        # BLAS would spread a product of matrices over threads, which is slow on a busy processor.
        weights: Counts = np.einsum("ri,ci->rc", draws[:, :-1], before)
        total = weights[:, -1]
        # An even number of samples has two middle ones.
        lower, upper = (_ranked(row_of, draws, weights, rank) for rank in ((total + 1) // 2, total // 2 + 1))
        medians.append((values[lower] + values[upper]) / 2)
    return np.concatenate(medians)


def _draws(rows: int, seed: int, widest: int) -> Iterator[Counts]:
    """In blocks, [resample, row]: how often the row was drawn, and a last column of zeros. The blocks go on
    in one sequence of random numbers; `widest` is how many numbers a resample takes in the widest array."""
    source = np.random.default_rng(seed)
    block = max(1, BLOCK // widest)
    for start in range(0, RESAMPLES, block):
        count = min(block, RESAMPLES - start)
        picks = source.integers(0, rows, size=(count, rows)) + np.arange(count)[:, None] * (rows + 1)
        draws = np.bincount(picks.ravel(), minlength=count * (rows + 1))
        yield draws.reshape(count, rows + 1).astype(np.int32)


def _ranked(row_of: Places, draws: Counts, weights: Counts, rank: Counts) -> Places:
    """The place of the rank-th smallest value (from 1) of each bootstrap sample, among all samples sorted.
    `row_of` is [cell, place in it], `weights` [resample, cell] the number of drawn samples before a cell."""
    cell = np.count_nonzero(weights < rank[:, None], axis=1) - 1
    inside = np.take_along_axis(draws, row_of[cell], axis=1).cumsum(axis=1, dtype=np.int32)
    left = rank - np.take_along_axis(weights, cell[:, None], axis=1)[:, 0]
    place: Places = cell * row_of.shape[1] + np.count_nonzero(inside < left[:, None], axis=1)
    return place
