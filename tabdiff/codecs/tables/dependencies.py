r"""Functional dependencies: columns whose value another column determines, found at fit and exact on output.

Column A determines column B when no two rows agree in A and differ in B. A network breaks such a rule in a few percent
of its rows; here B is left out of the network and looked up, so that no row breaks it. Missing counts as a value.

Near-unique columns determine everything, and near-constant ones are determined by everything. So a rule needs support:
values of A that repeat, and repeats that agree more often than chance would have it. If a share :math:`p` of the rows
has the commonest value of B, then :math:`n` rows with :math:`u` values of A would agree by chance with a probability of
at most :math:`p^{n-u}`.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
from torch import Tensor

from tabdiff.codecs.columns import COLUMN_TYPES, Column, ConstantColumn, NumericColumn
from tabdiff.codecs.columns.categorical import pick
from tabdiff.utils.random import RowStreams

__all__ = ["Dependencies", "DependentColumn", "Rule", "agree"]

# Rows for each value of a determinant, on average.
MIN_REPEATS = 5
# The same among the rows that do not have the commonest value of the dependent column.
MIN_REPEATS_MINORITY = 2
# Largest log-probability of agreement by chance, over all rows and over those without the commonest value.
MAX_LOG_CHANCE, MAX_LOG_CHANCE_MINORITY = -20.0, -7.0
# Repeats looked at before all rows are: nearly every pair of columns is ruled out by these.
FIRST_LOOK = 2000


@dataclass
class Rule:
    """A determines B: the code of B for each code of A.

    Attributes
    ----------
    source, target : int
        Position of a column; the number of columns plus k stands for attribute k of the condition.
    table : ndarray of int64, shape (n_codes_of_source,)
        -1 where nothing is known.
    """

    source: int
    target: int
    table: np.ndarray


class DependentColumn(Column):
    """A column that another one determines, and that is not in the network.

    Attributes
    ----------
    column : NumericColumn or LevelColumn
        How its values are read and written.
    has_missing_ : bool
        Whether missing values were seen.
    """

    def __init__(self, column: Column, has_missing: bool) -> None:
        self.column, self.has_missing_ = column, has_missing
        self.name, self.dtype = column.name, column.dtype

    @property
    def inner(self) -> Column:
        """How its values are read and written."""
        return self.column

    def positions(self, series: pd.Series) -> np.ndarray:
        """Return the position of each value of a Series (n,) among the observed ones."""
        return self.column.positions(series)

    def at(self, positions: np.ndarray) -> pd.Series:
        """Return a Series (n,) of the values at positions among the observed ones."""
        return self.column.at(positions)

    def state(self) -> dict:
        """Plain description, for persistence."""
        return {"type": "dependent", "column": self.column.state(), "has_missing": self.has_missing_}

    @classmethod
    def from_state(cls, state: dict) -> Self:
        """Inverse of :meth:`state`."""
        return cls(COLUMN_TYPES[state["column"]["type"]].from_state(state["column"]), bool(state["has_missing"]))


class Dependencies:
    """The dependencies of a table, and those between it and the classes of a condition.

    Attributes
    ----------
    determinant_ : dict of int to int
        The column that determines each dependent column; dependent columns are not in the network.
    conditioned_ : list of int
        Columns that the condition determines.

    Notes
    -----
    A column that depends on the condition stays in the network, where the unconditional model needs it, and is looked
    up where the condition is known. So does a column whose determinant says little to the network: a number whose
    order has nothing to do with what it determines, such as a product code, or a category with levels too rare to have
    codes of their own. The determinant then gets a value that agrees.

    Where two columns of the network determine a third, or a column determines the condition, they can contradict each
    other. The condition counts first, then columns by ascending number of distinct values. A column that disagrees with
    one before gets a value that agrees, drawn from the training rows that have one.
    """

    def __init__(self) -> None:
        self.determinant_: dict[int, int] = {}
        self.conditioned_: list[int] = []
        # What every attribute of the condition and every column of the network determines, and in which order they
        # are fixed; and how many training rows have each value of these columns.
        self.rules_: list[Rule] = []
        self._order: list[int] = []
        self.counts_: dict[int, np.ndarray] = {}

    # ------------------------------------------------------------------ fit

    @classmethod
    def find(
        cls,
        frame: pd.DataFrame,
        columns: Sequence[Any],
        condition: Tensor | None = None,
        condition_levels: Sequence[int] = (),
        *,
        never: Collection[int] = (),
    ) -> Self:
        """Find the dependencies of a frame (n, d).

        Parameters
        ----------
        frame : DataFrame of shape (n, d)
            The training rows, standardised.
        columns : sequence of d columns
            How each is coded.
        condition : Tensor of shape (n, k), optional
            Codes of class attributes; NaN is the null token, which says nothing.
        condition_levels : sequence of k ints
            Number of classes of each attribute, 0 for continuous ones.
        never : collection of int
            Positions of columns that may not be determinants.
        """
        d = len(columns)
        codes = {j: c.positions(frame.iloc[:, j]) for j, c in enumerate(columns) if not isinstance(c, ConstantColumn)}
        if condition is not None:
            codes |= {d + k: _classes(condition, k) for k, n_classes in enumerate(condition_levels) if n_classes}
        distinct = {j: int(np.count_nonzero(np.bincount(c[c >= 0]))) for j, c in codes.items()}
        numeric = {j for j in codes if j < d and isinstance(columns[j], NumericColumn)}
        pooled = {j for j in codes if j < d and j not in numeric and columns[j].n_rare_}
        rank = sorted(codes, key=lambda j: (-distinct[j], j in pooled, j in numeric, j))
        found = _search(codes, distinct, rank, d, set(never))
        _close(found, d)

        self = cls()
        for i, b in enumerate(rank):
            if b >= d:
                continue
            roots = set()
            for a in rank[:i]:
                if a < d and b in found.get(a, {}) and _tells(columns[a], found[a][b]):
                    roots.add(self.determinant_.get(a, a))
            if roots:
                self.determinant_[b] = min(roots, key=lambda a: (distinct[a], a))
        self.rules_ = [
            Rule(a, b, table)
            for a, tables in found.items()
            if a not in self.determinant_
            for b, table in tables.items()
        ]
        self.conditioned_ = sorted({r.target for r in self.rules_ if r.source >= d})
        involved = {j for r in self.rules_ for j in (r.source, r.target)} - self.determinant_.keys()
        self._order = sorted(involved, key=lambda j: (j < d, distinct[j], j))
        self.counts_ = {
            r.source: np.bincount(codes[r.source], minlength=len(r.table)) for r in self.rules_ if r.source < d
        }
        return self

    # --------------------------------------------------------------- decode

    def complete(
        self,
        series: Sequence[pd.Series | None],
        columns: Sequence[Any],
        condition: Tensor | None = None,
        rng: np.random.Generator | RowStreams | None = None,
    ) -> list[Any]:
        """Look up dependent columns, and make their determinants agree with each other and with the condition.

        Parameters
        ----------
        series : sequence of d Series of shape (n,)
            Decoded columns, None for dependent ones.
        columns : sequence of d columns
            How each is coded.
        condition : Tensor of shape (n, k), optional
            NaN, the null token, fixes nothing.
        rng : numpy.random.Generator or RowStreams, optional
            Draws values for rows that contradict themselves; None takes a fixed seed.

        Returns
        -------
        list of d Series of shape (n,)
        """
        rng = np.random.default_rng(0) if rng is None else rng
        d, out = len(columns), list(series)
        known: dict[int, np.ndarray] = {}
        for source in self._order:
            rules = [rule for rule in self.rules_ if rule.source == source]
            if source >= d:
                if condition is None:
                    continue
                codes = _classes(condition, source - d)
            else:
                drawn = columns[source].positions(out[source])
                asked = known.get(source, np.full(len(drawn), -1))
                codes = np.where(asked >= 0, asked, drawn)
                demands = [(rule.table, known[rule.target]) for rule in rules if rule.target in known]
                if demands:
                    agree(codes, asked < 0, demands, self.counts_[source], rng)
                out[source] = _write(columns[source], out[source], codes, codes != drawn, rules)
            known[source] = codes
            for rule in rules:
                found = np.where(codes >= 0, rule.table[codes], -1)
                before = known.get(rule.target, np.full(len(codes), -1))
                known[rule.target] = np.where(before >= 0, before, found)
        for j in self.determinant_:
            out[j] = columns[j].at(known[j])
        return out

    # ---------------------------------------------------------------- state

    def state(self) -> dict:
        """Plain description, for persistence."""
        return {
            "determinant": [[b, a] for b, a in self.determinant_.items()],
            "conditioned": self.conditioned_,
            "rules": [{"source": r.source, "target": r.target, "table": r.table} for r in self.rules_],
            "order": self._order,
            "counts": [{"column": j, "counts": counts} for j, counts in self.counts_.items()],
        }

    @classmethod
    def from_state(cls, state: dict) -> Self:
        """Inverse of :meth:`state`."""
        self = cls()
        self.determinant_ = {int(b): int(a) for b, a in state["determinant"]}
        self.conditioned_ = [int(j) for j in state["conditioned"]]
        self.rules_ = [Rule(int(r["source"]), int(r["target"]), np.asarray(r["table"])) for r in state["rules"]]
        self._order = [int(j) for j in state["order"]]
        self.counts_ = {int(c["column"]): np.asarray(c["counts"]) for c in state["counts"]}
        return self


def _classes(condition: Tensor, k: int) -> np.ndarray:
    """Classes (n,) of attribute k, -1 for the null token."""
    values = condition[:, k].double().cpu().numpy()
    return np.where(np.isnan(values), -1, values).astype(np.int64)


def _search(
    codes: dict[int, np.ndarray], distinct: dict[int, int], rank: list[int], d: int, never: set[int]
) -> dict[int, dict[int, np.ndarray]]:
    """Tables of all supported dependencies, by source and target."""
    found: dict[int, dict[int, np.ndarray]] = {}
    twins: set[int] = set()
    for a in rank:
        # What is equivalent to a column before it determines nothing that this one does not.
        if a in never or a in twins or distinct[a] < 2:
            continue
        valid = codes[a] >= 0
        source = codes[a] if valid.all() else codes[a][valid]
        n, size = len(source), int(source.max()) + 2
        counts = np.bincount(source)
        if n < MIN_REPEATS * distinct[a] or (counts > 1).sum() < distinct[a] / 2:
            continue
        first = np.empty(size, dtype=np.int64)
        first[source[::-1]] = np.arange(n)[::-1]
        repeats = np.flatnonzero(first[source] != np.arange(n))
        repeats = repeats[:: -(-len(repeats) // FIRST_LOOK)]
        partners = first[source[repeats]]
        for b in rank:
            if b == a or not 1 < distinct[b] <= distinct[a] or (a >= d and b >= d):
                continue
            target = codes[b] if valid.all() else codes[b][valid]
            x, y = target[repeats], target[partners]
            if ((x != y) & (x >= 0) & (y >= 0)).any():
                continue
            table = _table(source, target, size)
            if table is not None:
                found.setdefault(a, {})[b] = table
                if distinct[a] == distinct[b] and a < d and b < d:
                    twins.add(b)
    return found


def _table(source: np.ndarray, target: np.ndarray, size: int) -> np.ndarray | None:
    """Code of the target for each code of the source, or None where it is not determined or not well supported."""
    if (target < 0).any():
        source, target = source[target >= 0], target[target >= 0]
    table = np.full(size, -1, dtype=np.int64)
    table[source] = target
    if not (table[source] == target).all():
        return None
    commonest = np.bincount(target).argmax()
    minority = target != commonest
    log_chance, _ = _repeats_by_chance(source, target)
    log_chance_minority, repeats = _repeats_by_chance(source[minority], target[minority])
    single = len(np.unique(table[table >= 0])) == 2
    supported = (
        log_chance < MAX_LOG_CHANCE
        and repeats >= MIN_REPEATS_MINORITY
        and (single or log_chance_minority < MAX_LOG_CHANCE_MINORITY)
    )
    return table if supported else None


def _repeats_by_chance(source: np.ndarray, target: np.ndarray) -> tuple[float, float]:
    """Bound on the log-probability that all repeats of the source agree by chance, and the mean number of repeats."""
    n, u = len(source), int(np.count_nonzero(np.bincount(source)))
    if n == 0:
        return 0.0, 0.0
    return (n - u) * float(np.log(np.bincount(target).max() / n)), n / u


def _close(found: dict[int, dict[int, np.ndarray]], d: int) -> None:
    """Add what follows from two dependencies in a row, in place."""
    changed = True
    while changed:
        changed = False
        for a, tables in found.items():
            for b in [b for b in tables if b < d and b in found]:
                middle = tables[b]
                for c in found[b].keys() - tables.keys() - {a}:
                    if a >= d and c >= d:
                        continue
                    tables[c] = np.where(middle >= 0, found[b][c][middle], -1)
                    changed = True


def _tells(column: Any, table: np.ndarray) -> bool:
    """Whether a determinant can stand in the network for what it determines.

    The levels of a category have a code each, and a number's order says something: sorted by it, there are few runs of
    equal values for each value of the dependent column.
    """
    if not isinstance(column, NumericColumn):
        return column.n_rare_ == 0
    values = table[table >= 0]
    return int(np.count_nonzero(np.diff(values))) + 1 <= 2 * len(np.unique(values))


def agree(
    codes: np.ndarray,
    free: np.ndarray,
    demands: list[tuple[np.ndarray, np.ndarray]],
    counts: np.ndarray,
    rng: np.random.Generator | RowStreams,
) -> None:
    """Redraw, in place, the free codes (n,) that contradict what is known of the columns that they determine.

    Parameters
    ----------
    codes : ndarray of int64, shape (n,)
        Of the determinant.
    free : ndarray of bool, shape (n,)
        Which of them may change.
    demands : list of (table, known)
        For each determined column its `Rule.table`, and its codes, shape (n,), -1 where they are not known.
    counts : ndarray of shape (n_codes,)
        Training rows with each code.
    rng : numpy.random.Generator or RowStreams
        Source of the draws.
    """
    # A number for every row: what a row gets must not depend on how many rows before it are redrawn.
    uniform = rng.random(len(codes))
    wanted = np.stack([known for _, known in demands], axis=1)
    given = np.stack([table for table, _ in demands], axis=1)
    wrong = np.flatnonzero(free & ((given[codes] != wanted) & (wanted >= 0)).any(axis=1))
    keys, inverse = np.unique(wanted[wrong], axis=0, return_inverse=True)
    inverse = inverse.reshape(-1)
    for i, key in enumerate(keys):
        fits = counts * ((given == key) | (key < 0)).all(axis=1)
        if fits.sum() > 0:
            rows = wrong[inverse == i]
            codes[rows] = pick(fits, uniform[rows])


def _write(column: Any, series: Any, codes: np.ndarray, changed: np.ndarray, rules: list[Rule]) -> pd.Series:
    """Series (n,) with the values of `codes` where changed.

    A number that was never seen, between two that determine different things, becomes the nearer of them.
    """
    if not isinstance(column, NumericColumn):
        return column.at(codes)
    values = column.read(series)
    missing, last = np.isnan(values), len(column.values_)
    filled = np.where(missing, column.values_[0], values)
    right = np.clip(np.searchsorted(column.values_, filled), 0, last - 1)
    left = np.where(column.values_[right] == filled, right, np.maximum(right - 1, 0))
    for rule in rules:
        changed = changed | (~missing & (rule.table[left] != rule.table[right]))
    if not changed.any():
        return series
    values = np.where(changed, column.values_[np.minimum(codes, last - 1)], values)
    return column.to_series(values, np.where(changed, codes == last, missing))
