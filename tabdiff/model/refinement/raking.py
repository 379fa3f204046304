r"""Weights under which columns of drawn rows, and pairs of columns, are distributed as in the real rows.

Columns and pairs are cut into cells, and the log weight of a row is the sum of a factor for each cell that it lies in,

.. math:: w(x) \propto \exp \sum_c \theta_c\, 1[x \in c].

Of all weights under which every cell holds its share p of the real rows, those of this form change the drawn rows least
(Deming and Stephan, 1940, who fit them by raking one table after the other). Both shares are noisy, and thousands of
exact ones would be met by a few huge weights. So the factors maximise the likelihood of the real rows under a normal
prior, which leaves cells about as far apart as noise would put them (regularised maximum entropy: Dudik, Phillips and
Schapire, 2007, https://jmlr.org/papers/v8/dudik07a.html).
"""

from __future__ import annotations

from itertools import combinations
from typing import Any, Self

import numpy as np
from scipy.optimize import minimize

__all__ = ["Raking"]

Cells = dict[int, list[np.ndarray]]

# Cells of a column by itself, and of a column in a pair.
SINGLE_BINS, PAIR_BINS = 50, 10
# Levels with a cell of their own in a column by itself. On Diabetes130 with its 700 diagnoses, 50 left these columns
# with twice the shape error of a bootstrap.
SINGLE_LEVELS = 1000
# Standard deviations of the factors' prior, for cells of columns and of pairs; 0.1 for pairs is the same on Shoppers.
SINGLE_SD, PAIR_SD = 0.3, 0.05
# Of more pairs, those that differ most between real and drawn rows.
MAX_PAIRS = 400
COMPARED_ROWS = 10_000
MAX_ITERATIONS = 40


class Raking:
    """Factors for the cells of columns and of pairs of columns.

    Attributes
    ----------
    tables_ : list of tuple of int
        The columns and pairs.
    factors_ : list of ndarray
        Log factors of each one's cells.
    shares_ : list of ndarray
        Share of the real rows in each one's cells.
    log_scale_ : float
        Log of the mean weight of the drawn rows, which `log_weight` takes off.
    """

    def fit(
        self,
        real: np.ndarray,
        drawn: np.ndarray,
        n_levels: list[int],
        *,
        weight: np.ndarray | None = None,
        drawn_weight: np.ndarray | None = None,
    ) -> Self:
        """Learn the factors.

        Parameters
        ----------
        real, drawn : ndarray of shape (n, d) and (m, d)
            Numbers, NaN where missing, with columns of level codes.
        n_levels : list of int, length d
            Number of levels of each column, 0 for numbers.
        weight, drawn_weight : ndarray of shape (n,) and (m,), optional
            Weights of the rows.
        """
        own = np.ones(len(real)) if weight is None else np.asarray(weight, dtype=np.float64)
        base = np.ones(len(drawn)) if drawn_weight is None else np.asarray(drawn_weight, dtype=np.float64)
        own, base = own / own.sum(), base / base.sum()
        d = len(n_levels)
        self.bins_ = {
            size: [Bins.of(real[:, j], n_levels[j], own, size, most) for j in range(d)]
            for size, most in ((SINGLE_BINS, SINGLE_LEVELS), (PAIR_BINS, PAIR_BINS))
        }
        cells = self._cells(real), self._cells(drawn)
        pairs = list(combinations(range(d), 2))
        if len(pairs) > MAX_PAIRS:
            few = [(self._cells(rows[:COMPARED_ROWS]), w[:COMPARED_ROWS]) for rows, w in ((real, own), (drawn, base))]
            distance = [np.abs(np.subtract(*(self._share(c, p, w / w.sum()) for c, w in few))).sum() for p in pairs]
            pairs = [pairs[i] for i in sorted(np.argsort(distance)[::-1][:MAX_PAIRS])]
        self.tables_: list[tuple[int, ...]] = [*((j,) for j in range(d)), *pairs]
        target, current = (
            np.concatenate([self._share(c, table, w) for table in self.tables_])
            for c, w in zip(cells, (own, base), strict=True)
        )
        # How many rows the difference of two shares is worth.
        n_rows = 1 / (np.sum(own**2) + np.sum(base**2))
        self.shares_ = np.split(target, self._ends())
        self.factors_ = self._solve(cells[1], base, target, current, n_rows)
        self.log_scale_ = float(np.log(base @ np.exp(self._sum(cells[1]))))
        return self

    def _solve(
        self, cells: Cells, base: np.ndarray, target: np.ndarray, current: np.ndarray, n_rows: float
    ) -> list[np.ndarray]:
        """Minimise ``log mean exp(log weight) - theta @ target`` with the prior's share."""
        sizes = [self._size(table) for table in self.tables_]
        ends, codes = self._ends(), self._codes(cells)
        sd = np.repeat([SINGLE_SD if len(table) == 1 else PAIR_SD for table in self.tables_], sizes)
        ridge = 1 / (n_rows * sd**2)
        # The curvature of a factor is about the share of its cell.
        unit = 1 / np.sqrt(np.maximum(target, current) + ridge)

        def objective(scaled: np.ndarray) -> tuple[float, np.ndarray]:
            theta = scaled * unit
            log_weight = np.zeros(len(base))
            for factor, code in zip(np.split(theta, ends), codes, strict=True):
                log_weight += factor[code]
            top = log_weight.max()
            weight = base * np.exp(log_weight - top)
            total = weight.sum()
            weight /= total
            shares = np.concatenate(
                [np.bincount(code, weights=weight, minlength=k) for code, k in zip(codes, sizes, strict=True)]
            )
            value = top + np.log(total) - theta @ target + 0.5 * (ridge * theta * theta).sum()
            return value, unit * (shares - target + ridge * theta)

        solved = minimize(
            objective, np.zeros(len(unit)), jac=True, method="L-BFGS-B", options={"maxiter": MAX_ITERATIONS}
        )
        return [factor.astype(np.float32) for factor in np.split(solved.x * unit, ends)]

    def _size(self, table: tuple[int, ...]) -> int:
        bins = self.bins_[SINGLE_BINS if len(table) == 1 else PAIR_BINS]
        return int(np.prod([bins[j].n for j in table]))

    def _cells(self, rows: np.ndarray) -> Cells:
        """Return the cell of each value of each column, for columns by themselves and in pairs."""
        return {
            size: [bins(column).astype(np.int32) for bins, column in zip(of_size, rows.T, strict=True)]
            for size, of_size in self.bins_.items()
        }

    def _code(self, cells: Cells, table: tuple[int, ...]) -> np.ndarray:
        """Return the cell of each row in a table, shape (n,)."""
        if len(table) == 1:
            return cells[SINGLE_BINS][table[0]]
        a, b = table
        return cells[PAIR_BINS][a] * self.bins_[PAIR_BINS][b].n + cells[PAIR_BINS][b]

    def _codes(self, cells: Cells) -> list[np.ndarray]:
        return [self._code(cells, table) for table in self.tables_]

    def _ends(self) -> np.ndarray:
        """Return where the cells of each table but the last end, one table after the other."""
        return np.cumsum([self._size(table) for table in self.tables_])[:-1]

    def _share(self, cells: Cells, table: tuple[int, ...], weight: np.ndarray) -> np.ndarray:
        return np.bincount(self._code(cells, table), weights=weight, minlength=self._size(table))

    def _sum(self, cells: Cells) -> np.ndarray:
        total = np.zeros(len(cells[SINGLE_BINS][0]))
        for table, factor in zip(self.tables_, self.factors_, strict=True):
            total += factor[self._code(cells, table)]
        return total

    def codes(self, rows: np.ndarray) -> list[np.ndarray]:
        """Return for each table the cell of each row, shape (n,)."""
        return self._codes(self._cells(rows))

    def log_weight(self, rows: np.ndarray) -> np.ndarray:
        """Return the log of the weight of each row, of which the drawn rows have mean 1, shape (n,)."""
        return self._sum(self._cells(rows)) - self.log_scale_

    # -------------------------------------------------------------- state

    def state(self) -> dict[str, Any]:
        """Plain description, for persistence."""
        state = {
            "bins": {str(size): [b.state() for b in bins] for size, bins in self.bins_.items()},
            "tables": [list(table) for table in self.tables_],
            "factors": np.concatenate(self.factors_),
            "log_scale": self.log_scale_,
        }
        # A model of an earlier version has none, with which it is saved again.
        return {**state, "shares": np.concatenate(self.shares_)} if self.shares_ else state

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Inverse of :meth:`state`."""
        raking = cls()
        raking.bins_ = {int(size): [Bins.from_state(b) for b in bins] for size, bins in state["bins"].items()}
        raking.tables_ = [tuple(int(j) for j in table) for table in state["tables"]]
        ends = raking._ends()
        raking.factors_ = np.split(np.asarray(state["factors"]), ends)
        # Models of earlier versions do not have them, and their rows are not balanced.
        raking.shares_ = np.split(np.asarray(state["shares"]), ends) if "shares" in state else []
        raking.log_scale_ = float(state["log_scale"])
        return raking


class Bins:
    """From values of a column to a few cells, the last of which is for missing ones.

    Parameters
    ----------
    edges : ndarray
        Where the next cell of numbers begins, rising.
    places : ndarray
        Cell of each level; empty for numbers.
    """

    def __init__(self, edges: np.ndarray, places: np.ndarray) -> None:
        self.edges = edges
        self.places = places
        self.n = int(places.max()) + 2 if len(places) else len(edges) + 2

    @classmethod
    def of(cls, values: np.ndarray, n_levels: int, weight: np.ndarray, size: int, most: int) -> Bins:
        """Cut numbers into cells of about equal weight; give levels one each, up to `most`, the rarest one together."""
        seen = ~np.isnan(values)
        if n_levels:
            counts = np.bincount(values[seen].astype(np.int64), weights=weight[seen], minlength=n_levels)[:n_levels]
            places = np.empty(n_levels, dtype=np.int64)
            places[np.argsort(-counts, kind="stable")] = np.minimum(np.arange(n_levels), most - 1)
            return cls(np.empty(0), places)
        none = np.empty(0, dtype=np.int64)
        if not seen.any():
            return cls(np.empty(0), none)
        order = np.argsort(values[seen], kind="stable")
        below = np.cumsum(weight[seen][order])
        at = np.searchsorted(below, np.arange(1, size) / size * below[-1]).clip(max=len(order) - 1)
        edges, count = np.unique(values[seen][order][at], return_counts=True)
        # A value as heavy as a bin has one of its own.
        above = np.nextafter(edges[count > 1], np.inf)
        return cls(np.unique(np.concatenate([edges, above])), none)

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Return the cell of each value, shape (n,)."""
        missing = np.isnan(values)
        if len(self.places):
            codes = np.where(missing, 0, values).astype(np.int64)
            cells = self.places[np.clip(codes, 0, len(self.places) - 1)]
        else:
            cells = np.searchsorted(self.edges, np.where(missing, 0.0, values), side="right")
        return np.where(missing, self.n - 1, cells)

    def state(self) -> dict[str, Any]:
        """Plain description, for persistence."""
        return {"edges": self.edges, "places": self.places}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Bins:
        """Inverse of :meth:`state`."""
        return cls(np.asarray(state["edges"]), np.asarray(state["places"]))
