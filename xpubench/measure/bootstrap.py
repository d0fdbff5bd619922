"""Medians of bootstrap samples that resample whole rows, or groups of them: by definition, and fast."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
# The sorted samples are cut into this many cells, in one of which each median is found.
CELLS = 128
# The largest number of elements in an array of a block of bootstrap samples, which then takes 8 MB.
BLOCK = 1 << 20

Floats = NDArray[np.float64]
Counts = NDArray[np.int32]
Places = NDArray[np.int64]
SampleRows = Sequence[Sequence[float]] | Floats


class RowPicks:
    """Draws the rows of one bootstrap sample after the other with replacement. A sample has as many rows as
    the data. Where each row has a group, it has as many groups as the data, and each drawn group gives as
    many of its rows as it has. Drawing in blocks gives the same rows as drawing all at once."""

    def __init__(self, rows: int, seed: int, groups: Sequence[int] | None) -> None:
        self._rows = rows
        self._source = np.random.default_rng(seed)
        self._members: list[Places] = []
        if groups is not None and len(set(groups)) > 1:
            self._members = [np.flatnonzero(np.asarray(groups) == one) for one in dict.fromkeys(groups)]
            self._within = np.random.default_rng([seed, 1])

    @property
    def width(self) -> int:
        """The largest number of rows in a bootstrap sample."""
        return len(self._members) * max(map(len, self._members)) if self._members else self._rows

    def draw(self, count: int) -> Places:
        """The rows of `count` bootstrap samples, of shape (count, width). Where a sample has fewer rows than
        `width`, the places left over hold the number of rows, which is no row's index."""
        if not self._members:
            return self._source.integers(0, self._rows, size=(count, self._rows))
        sizes: Places = np.array([len(one) for one in self._members])
        rows, starts = np.concatenate(self._members), np.cumsum(sizes) - sizes
        chosen = self._source.integers(0, len(sizes), size=(count, len(sizes)))[..., None]
        most = int(sizes.max())
        shares = self._within.random((count, len(sizes), most))
        places: Places = starts[chosen] + (shares * sizes[chosen]).astype(np.int64)
        found: Places = np.where(np.arange(most) < sizes[chosen], rows[places], self._rows)
        return found.reshape(count, -1)


def medians_by_definition(rows: SampleRows, seed: int, groups: Sequence[int] | None = None) -> Floats:
    """The median of each of RESAMPLES bootstrap samples of whole rows, drawn as `RowPicks` does. This is what
    `resampled_medians` must equal."""
    picks = RowPicks(len(rows), seed, groups).draw(RESAMPLES)
    return np.array(
        [np.median(np.concatenate([rows[one] for one in pick if one < len(rows)])) for pick in picks]
    )


def resampled_medians(rows: SampleRows, seed: int, groups: Sequence[int] | None = None) -> Floats:
    """As `medians_by_definition`, to the bit, without building a bootstrap sample: all samples are sorted
    once, and weighted by how often their row was drawn. Memory is linear in the number of samples and of
    rows. The rows may be of unequal length, and none may be empty; `groups` has the group of each. The same
    seed gives the same medians."""
    pooled = np.concatenate([np.asarray(row, dtype=np.float64) for row in rows])
    order = np.argsort(pooled, kind="stable")
    values = pooled[order]
    row_of = np.repeat(np.arange(len(rows)), [len(row) for row in rows])[order]
    cells = min(CELLS, len(values))
    width = -(-len(values) // cells)
    # Element [c, i] is the number of row i's samples that lie before cell c.
    before = np.zeros((cells + 1, len(rows)), dtype=np.int32)
    counts = np.bincount(np.arange(len(values)) // width * len(rows) + row_of, minlength=cells * len(rows))
    np.cumsum(counts.reshape(cells, len(rows)), axis=0, out=before[1:])
    # The places after the last sample belong to a row that is never drawn.
    row_of = np.append(row_of, np.full(width * cells - len(values), len(rows))).reshape(cells, width)
    medians = []
    picks = RowPicks(len(rows), seed, groups)
    for draws in _draws(picks, len(rows), max(len(rows), picks.width, width, cells)):
        # BLAS would spread a product of matrices over threads, which is slow on a busy processor.
        weights: Counts = np.einsum("ri,ci->rc", draws[:, :-1], before)
        total = weights[:, -1]
        # An even number of samples has two middle ones.
        lower, upper = (_ranked(row_of, draws, weights, rank) for rank in ((total + 1) // 2, total // 2 + 1))
        medians.append((values[lower] + values[upper]) / 2)
    return np.concatenate(medians)


def _draws(picks: RowPicks, rows: int, widest: int) -> Iterator[Counts]:
    """Yields blocks of shape (samples, rows + 1): how often each bootstrap sample drew each row, and a last
    column of zeros. `widest` is the number of elements that one sample takes in the widest array."""
    block = max(1, BLOCK // widest)
    for start in range(0, RESAMPLES, block):
        count = min(block, RESAMPLES - start)
        places = picks.draw(count) + np.arange(count)[:, None] * (rows + 1)
        draws = np.bincount(places.ravel(), minlength=count * (rows + 1)).reshape(count, rows + 1)
        draws[:, -1] = 0
        yield draws.astype(np.int32)


def _ranked(row_of: Places, draws: Counts, weights: Counts, rank: Counts) -> Places:
    """The place of the rank-th smallest value (from 1) of each bootstrap sample among all values sorted.
    `row_of` has the shape (cells, places in a cell). `weights`, of shape (samples, cells), is the number of
    drawn values before each cell."""
    cell = np.count_nonzero(weights < rank[:, None], axis=1) - 1
    inside = np.take_along_axis(draws, row_of[cell], axis=1).cumsum(axis=1, dtype=np.int32)
    left = rank - np.take_along_axis(weights, cell[:, None], axis=1)[:, 0]
    place: Places = cell * row_of.shape[1] + np.count_nonzero(inside < left[:, None], axis=1)
    return place
