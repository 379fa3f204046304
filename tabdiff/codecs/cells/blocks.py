"""Features in blocks, such as genes and surface proteins: a cell has a library size in each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["Blocks"]

# Features and counts of a block from which on its total says as well as anything how deep a cell was sequenced. Of few
# features some hold a large part of the counts, whose own noise would count as depth; so would that of few counts.
MANY_FEATURES, MANY_COUNTS = 200, 1000
MOST_FEATURES = 5000  # above which the total is taken all the same: what is more exact would take long


class Blocks:
    """Numbers of features that have a library size of their own each, in the order of the columns of a matrix.

    Parameters
    ----------
    sizes : sequence of int

    Attributes
    ----------
    sizes : list of int
    columns : list of slice
        The features of each block.
    uncertain : list of bool
        Whether the library size of a block is inferred from its counts, rather than their total; see `judge`.

    Examples
    --------
    >>> blocks = Blocks([3, 2])
    >>> blocks.totals(np.arange(10.0).reshape(2, 5)).tolist()
    [[3.0, 7.0], [18.0, 17.0]]
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = [int(n) for n in sizes]
        ends = np.cumsum(self.sizes).tolist()
        self.columns = [slice(end - n, end) for end, n in zip(ends, self.sizes, strict=True)]
        self.uncertain = [False] * len(self)

    def __len__(self) -> int:
        return len(self.sizes)

    def totals(self, matrix: Any) -> np.ndarray:
        """Total counts (n,) float64 of the rows of a matrix (n, n_features); (n, n_blocks) for several blocks."""
        if len(self) == 1:
            return np.asarray(matrix.sum(axis=1), dtype=np.float64).reshape(-1)
        parts = [np.asarray(matrix[:, own].sum(axis=1), dtype=np.float64).reshape(-1) for own in self.columns]
        return np.stack(parts, axis=1)

    def judge(self, totals: np.ndarray) -> None:
        """Set `uncertain` by the total counts (n, n_blocks) of cells; of a single block the total is taken."""
        if len(self) > 1:
            self.uncertain = [
                n < MANY_FEATURES or (n < MOST_FEATURES and float(np.median(own)) < MANY_COUNTS)
                for n, own in zip(self.sizes, self.each(totals), strict=True)
            ]

    def spread(self, values: np.ndarray) -> np.ndarray:
        """Give each feature the value of its block: (n, n_features), or (n, 1) of values (n,) of a single block."""
        return values.reshape(-1, 1) if len(self) == 1 else np.repeat(values, self.sizes, axis=1)

    def each(self, values: np.ndarray) -> list[np.ndarray]:
        """Values (n,) of each block, of what `totals` gives."""
        return [values] if len(self) == 1 else list(values.T)
