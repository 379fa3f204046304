"""Numbers that often equal another column to the last digit: found at fit, and equal again on output.

A payment settles the bill of the month before, a fee stays what it was: in some rows two columns hold the same number,
though neither determines the other. Drawn by a network the two come close and are never equal, which tells synthetic
rows from real ones at sight. So each column that repeats others gets a code that says which of them it equals, if any;
the network models this code with the columns, and decoding copies the value.
"""

from collections.abc import Collection, Sequence
from typing import Any, Self

import numpy as np

from tabdiff.codecs.columns.numeric import NumericColumn

__all__ = ["Equalities"]

# Share of the rows in which a column must equal another one, beyond what the sources before that explain.
MIN_SHARE = 0.01
# Values more frequent than this are spikes, which meet by chance and which a network learns by themselves.
SPIKE = 0.01
# Equal values must be so much more frequent than each distance of a few units is: two readings of one quantity are
# close to each other and sometimes equal, and that needs no code.
MIN_RATIO, NEAR_UNITS = 5.0, 10
MAX_SOURCES = 4
# Pairs of columns are ruled out by so many rows before all are compared.
FIRST_LOOK = 5000


class Equalities:
    """Which columns repeat the values of which others, and the code that says so.

    Attributes
    ----------
    sources_ : dict of int to list of int
        For each column that has a code, the columns before it whose values it repeats, in the order in which they are
        looked at: code k says that the value is that of the k-th (the first is 1), code 0 that it is none of theirs.
    shares_ : dict of int to list of float
        The share of the training rows with each of these codes.
    """

    def __init__(self) -> None:
        self.sources_: dict[int, list[int]] = {}
        self.shares_: dict[int, list[float]] = {}

    @classmethod
    def find(cls, values: dict[int, np.ndarray], columns: Sequence[Any], *, never: Collection[int] = ()) -> Self:
        """Find the columns that repeat others.

        Parameters
        ----------
        values : dict of int to ndarray of shape (n,)
            The numbers of columns, by position, NaN where missing.
        columns : sequence of columns
            How each is coded.
        never : collection of int
            Positions of columns that neither repeat nor are repeated.
        """
        self = cls()
        # Times are counted from an origin of each column's own, so only plain numbers are compared.
        plain = [j for j in values if j not in never and type(columns[j]) is NumericColumn]
        rows = next(iter(values.values())) if values else np.empty(0)
        some = np.linspace(0, len(rows) - 1, min(len(rows), FIRST_LOOK)).astype(int)
        few = {j: values[j][some] for j in plain}
        for i, b in enumerate(plain):
            like = [a for a in plain[:i] if columns[a].unit_ == columns[b].unit_]
            first = _without_spikes(columns[b], few[b])
            like = [a for a in like if (first == few[a]).mean() >= MIN_SHARE / 2]
            if not like:
                continue
            light = _without_spikes(columns[b], values[b])
            found: dict[int, np.ndarray] = {}
            for a in like:
                equal = light == values[a]
                if equal.mean() >= MIN_SHARE and _stands_out(light - values[a], columns[b].unit_):
                    found[a] = equal
            free = np.ones(len(rows), dtype=bool)
            while found and len(self.sources_.get(b, [])) < MAX_SOURCES:
                best = max(found, key=lambda a: (np.count_nonzero(found[a] & free), -a))
                share = float((found.pop(best) & free).mean())
                if share < MIN_SHARE:
                    break
                self.sources_.setdefault(b, []).append(best)
                free &= values[b] != values[best]
        for b in self.sources_:
            codes = self.codes(values, b)
            self.shares_[b] = [float((codes == k + 1).mean()) for k in range(len(self.sources_[b]))]
        return self

    @property
    def n_levels_(self) -> list[int]:
        """Number of codes of each column that has some, in order."""
        return [len(sources) + 1 for sources in self.sources_.values()]

    def codes(self, values: dict[int, np.ndarray], b: int) -> np.ndarray:
        """Codes (n,) of column b: the first of its sources that it equals, 0 where there is none."""
        codes = np.zeros(len(values[b]), dtype=np.int64)
        for k, a in reversed(list(enumerate(self.sources_[b], start=1))):
            codes[values[b] == values[a]] = k
        return codes

    def copy(
        self,
        values: dict[int, np.ndarray],
        codes: Sequence[np.ndarray],
        columns: Sequence[Any],
        fixed: np.ndarray | None = None,
    ) -> None:
        """Give columns the values that their codes say, in place.

        Where the other value is outside the observed range or off the grid of the column, its own stays as it was
        drawn, and so does a missing one.

        Parameters
        ----------
        values : dict of int to ndarray of shape (n,)
            The numbers of all columns, by position, NaN where missing.
        codes : sequence of ndarray of shape (n,)
            Of each column that has some, in order.
        columns : sequence of columns
            How each is coded.
        fixed : ndarray of bool, shape (n, n_columns), optional
            Cells that keep their values. The source of one is copied from it where it is not fixed itself.
        """
        if fixed is not None:
            for (b, sources), code in reversed(list(zip(self.sources_.items(), codes, strict=True))):
                for k, a in enumerate(sources, start=1):
                    _overwrite(values, a, b, (code == k) & fixed[:, b] & ~fixed[:, a], columns)
        # Sources stand before the columns that repeat them, so they have their values by then.
        for (b, sources), code in zip(self.sources_.items(), codes, strict=True):
            for k, a in enumerate(sources, start=1):
                where = code == k if fixed is None else (code == k) & ~fixed[:, b]
                _overwrite(values, b, a, where, columns)

    def state(self) -> dict:
        """Plain description, for persistence."""
        return {
            "sources": [[b, sources] for b, sources in self.sources_.items()],
            "shares": [[b, shares] for b, shares in self.shares_.items()],
        }

    @classmethod
    def from_state(cls, state: dict) -> Self:
        """Inverse of :meth:`state`."""
        self = cls()
        self.sources_ = {int(b): [int(a) for a in sources] for b, sources in state["sources"]}
        self.shares_ = {int(b): [float(p) for p in shares] for b, shares in state["shares"]}
        return self


def _overwrite(values: dict[int, np.ndarray], b: int, a: int, where: np.ndarray, columns: Sequence[Any]) -> None:
    """Give b the values of a in some rows (n,), but for missing ones and those outside the range of b."""
    low, high = columns[b].values_[[0, -1]]
    where = where & (values[a] >= low) & (values[a] <= high) & ~np.isnan(values[b])
    if columns[b].grid_ is not None:
        where = where & columns[b].grid_.contains(np.where(where, values[a], low))
    values[b] = np.where(where, values[a], values[b])


def _without_spikes(column: NumericColumn, values: np.ndarray) -> np.ndarray:
    """Observed values (n,), NaN for the frequent ones of their column."""
    counts = column.counts_[np.clip(np.searchsorted(column.values_, values), 0, len(column.values_) - 1)]
    return np.where(counts > SPIKE * column.n_observed_, np.nan, values)


def _stands_out(difference: np.ndarray, unit: tuple[int, int] | None) -> bool:
    """Whether differences (n,) of exactly zero are a spike among those near it."""
    if unit is None:
        return True
    step = unit[0] / 10.0 ** unit[1]
    distance = np.rint(np.abs(difference[~np.isnan(difference)]) / step)
    equal = np.count_nonzero(distance == 0)
    near = np.count_nonzero((distance > 0) & (distance <= NEAR_UNITS))
    return bool(equal >= MIN_RATIO * near / (2 * NEAR_UNITS))
