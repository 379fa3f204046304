r"""What a codec needs to know of a table too large for memory, from one pass over its rows.

A sample of stated size, drawn without replacement, stands for the rows wherever columns are looked at together. Each
column's own distribution is known better: values are counted exactly while there are at most `MAX_DISTINCT` of them,
or fewer in tables of more than 60 columns. Beyond, the commonest are counted with `COUNTERS` counters (Misra and Gries,
1982; merged as in Agarwal et al., 2012, https://doi.org/10.1145/2213556.2213562), which miss at most a share of
:math:`1 / (C + 1)` of the rows of any value, and what is left is told from the sample: by the inequality of Dvoretzky,
Kiefer and Wolfowitz with Massart's constant the distribution function of a sample of m rows is nowhere further than
:math:`\sqrt{\ln(2 / \delta) / 2m}` from that of all rows, but for a chance of :math:`\delta` (`TableSurvey.cdf_error`).
The range is exact.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from tabdiff.codecs.columns import (
    ConstantColumn,
    FrameStorage,
    LevelColumn,
    NumericColumn,
    TimeColumn,
    in_one_piece,
    is_numeric,
    is_time,
    text_codes,
    to_float,
)
from tabdiff.utils.dtypes import times_from_integers
from tabdiff.utils.random import RowStreams

__all__ = ["ColumnSurvey", "TableSurvey", "sample_size"]

MAX_DISTINCT, COUNTERS = 65_536, 4_096
# Of all columns together, so that wide tables have fewer in each.
COUNTED_VALUES = 4_000_000
# A count that counters may have missed no more of than this is taken for exact.
MISSED = 0.1
SAMPLE_ROWS, SAMPLE_VALUES, MIN_SAMPLE = 200_000, 10_000_000, 20_000
# Frames that they lie in, at most.
MAX_PARTS = 64
# Rows that a column's values are written out as, of which each may stand for many.
WRITTEN_ROWS = 500_000
# As often at least as what is told from a continuous stretch.
SPIKE_ROWS = 5
# Levels of a condition of which the first row is kept.
MAX_WITNESSES = 1_000


def sample_size(n_columns: int) -> int:
    """Return how many rows of a table with so many columns are kept as a sample."""
    return int(np.clip(SAMPLE_VALUES // max(n_columns, 1), MIN_SAMPLE, SAMPLE_ROWS))


class _Counts:
    """How often each value of a column occurs: exactly, or the commonest of them."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.dtype: Any = None
        self.n_missing = self.n_known = 0
        self.exact, self.lost = True, 0
        self.low: Any = None
        self.high: Any = None
        self._values: Any = np.empty(0)
        self._counts = np.empty(0, dtype=np.int64)
        self._levels: dict[Any, int] = {}

    def add(self, series: pd.Series, name: Any, missing: np.ndarray) -> None:
        """Count the values of a standardised Series (n,), of which some are missing (n,)."""
        n_missing = int(missing.sum())
        known = series[~missing] if n_missing else series
        if is_numeric(series.dtype) or is_time(series.dtype):
            if self._note(series.dtype, len(known), n_missing):
                values = to_float(known, name) if is_numeric(series.dtype) else known.array.asi8
                self._merge(*np.unique(values, return_counts=True))
        else:
            codes, levels = pd.factorize(known)
            self.add_levels(levels, np.bincount(codes, minlength=len(levels)), series.dtype, n_missing)

    def add_levels(self, levels: Iterable, counts: np.ndarray, dtype: Any, n_missing: int) -> None:
        """Count levels that occur so often (k,), none of them twice."""
        if not self._note(dtype, int(counts.sum()), n_missing):
            return
        for level, count in zip(levels, counts.tolist(), strict=True):
            self._levels[level] = self._levels.get(level, 0) + count
        if len(self._levels) > (self.limit if self.exact else 2 * COUNTERS):
            self._prune_levels()

    def _note(self, dtype: Any, n_known: int, n_missing: int) -> bool:
        """Count rows, and return whether there is a value in one of them."""
        self.n_missing += n_missing
        self.n_known += n_known
        if n_known and self.dtype is None:
            self.dtype = dtype
        return n_known > 0

    def _merge(self, values: np.ndarray, counts: np.ndarray) -> None:
        self.low = values[0] if self.low is None else min(self.low, values[0])
        self.high = values[-1] if self.high is None else max(self.high, values[-1])
        if len(self._counts):
            # Both are sorted: no third sort, which would take longer than all the rest.
            place = np.searchsorted(values, self._values)
            known = values[np.minimum(place, len(values) - 1)] == self._values
            counts[place[known]] += self._counts[known]
            place = place[~known]
            values = np.insert(values, place, self._values[~known])
            counts = np.insert(counts, place, self._counts[~known])
        if len(values) > (self.limit if self.exact else COUNTERS):
            self.exact = False
            least = int(np.partition(counts, -COUNTERS - 1)[-COUNTERS - 1])
            self.lost += least
            values, counts = values[counts > least], counts[counts > least] - least
        self._values, self._counts = values, counts

    def _prune_levels(self) -> None:
        self.exact = False
        counts = np.fromiter(self._levels.values(), dtype=np.int64)
        least = int(np.partition(counts, -COUNTERS - 1)[-COUNTERS - 1])
        self.lost += least
        self._levels = {level: count - least for level, count in self._levels.items() if count > least}

    def found(self) -> tuple[pd.Series, np.ndarray]:
        """Return the values that were counted, and how often each occurs; of many, what the counters are sure of."""
        if self._levels or self.dtype is None:
            counts = np.fromiter(self._levels.values(), dtype=np.int64, count=len(self._levels))
            values: Any = pd.Series(list(self._levels), dtype=object if self.dtype is None else self.dtype)
        else:
            counts, values = self._counts, self._as_series(self._values)
        if self.exact:
            return values, counts
        sure = np.flatnonzero(counts * MISSED > self.lost)
        return values.iloc[sure].reset_index(drop=True), counts[sure] + self.lost // 2

    def ends(self) -> pd.Series:
        """Return the smallest and the largest value, none of levels."""
        if self.low is None:
            return pd.Series([], dtype=object)
        return self._as_series(np.array([self.low, self.high]))

    def _as_series(self, values: np.ndarray) -> pd.Series:
        if is_time(self.dtype):
            return pd.Series(times_from_integers(np.ascontiguousarray(values, dtype=np.int64), self.dtype))
        return pd.Series(values)


@dataclass
class ColumnSurvey:
    """What is known of one column of all rows.

    Attributes
    ----------
    values : Series of shape (k,)
        Values, standardised: each once, or where there are too many, the commonest and then those of the sample.
    counts : ndarray of shape (k,)
        Rows that each stands for.
    dtype : dtype
        Of the standardised column.
    n_rows, n_missing : int
    n_counted : int
        How many of the values, the first, were counted.
    exact : bool
        Whether all values are there, with exact counts.
    """

    values: pd.Series
    counts: np.ndarray
    dtype: Any
    n_rows: int
    n_missing: int
    n_counted: int
    exact: bool

    @property
    def n_distinct(self) -> int:
        """Number of different values, at least."""
        return len(self.values) if self.exact else MAX_DISTINCT

    def written_out(self) -> tuple[pd.Series, np.ndarray]:
        """Return values as rows that repeat them, fewer than there are, and the weight of each row.

        How often a value comes still tells a rare one from a spike.
        """
        share = min(1.0, WRITTEN_ROWS / max(self.counts.sum(), 1))
        repeats = np.maximum(np.ceil(self.counts * share), np.minimum(self.counts, SPIKE_ROWS)).astype(np.int64)
        repeats = np.maximum(repeats, 1)
        repeats[self.n_counted :] = 1  # rows of the sample
        rows = np.repeat(np.arange(len(self.counts)), repeats)
        return self.values.iloc[rows].reset_index(drop=True), np.repeat(self.counts / repeats, repeats)

    def make_column(
        self, name: Any, *, as_levels: bool, few_values: int, max_codes: int
    ) -> NumericColumn | LevelColumn:
        """Return the column of a codec.

        Parameters
        ----------
        name : hashable
        as_levels : bool
            Whether numbers are levels in any case.
        few_values : int
            Up to so many values, each seen ten times on average, numbers are levels too.
        max_codes : int
            See `LevelColumn`.
        """
        number = is_numeric(self.dtype) or is_time(self.dtype)
        few = self.n_distinct <= few_values and self.n_distinct * 10 <= self.n_rows
        if as_levels or not number or self.n_distinct == 1 or few:
            values = self.values.astype(self.dtype) if number else self.values
            kind = ConstantColumn if self.n_distinct == 1 and not self.n_missing else LevelColumn
            # What was not counted is one of the rare, of which there must be some.
            most = max_codes if self.exact else min(max_codes, len(values) - 1)
            return kind.of_counts(values, self.counts, name, has_missing=self.n_missing > 0, max_codes=most)
        values, weight = self.written_out()
        if is_time(self.dtype):
            return TimeColumn(values, name, weight)
        return NumericColumn(to_float(values, name), self.dtype, name, weight)


class TableSurvey:
    """One pass over the rows of a table, chunk by chunk.

    Parameters
    ----------
    names : sequence
        Of the columns.
    conditions : sequence
        Those of them that are the condition, whose levels must all be in the sample.
    seed : int
        Decides which rows are sampled, whatever the chunks.

    Attributes
    ----------
    n_rows : int
        Rows seen so far.
    """

    def __init__(self, names: Sequence[Any], conditions: Sequence[Any], seed: int) -> None:
        self.names, self.conditions, self.seed = list(names), list(conditions), seed
        self.size = sample_size(len(self.names))
        self.n_rows = 0
        limit = int(np.clip(COUNTED_VALUES // max(len(self.names), 1), COUNTERS, MAX_DISTINCT))
        self._counts = {name: _Counts(limit) for name in self.names if name not in self.conditions}
        self._parts: list[pd.DataFrame] = []
        self._keys: list[np.ndarray] = []
        self._threshold = 1.0
        self._witnesses: list[pd.DataFrame] = []
        # Columns that were missing in the same rows so far; at the start, in none.
        self._patterns: list[list[Any]] = [list(self._counts)]
        self._seen: dict[Any, set] = {name: set() for name in self.conditions}

    def add(self, chunk: pd.DataFrame) -> None:
        """Look at the next rows, as they came.

        Raises
        ------
        ValueError, TypeError
            For values that cannot be modelled; the column is named.
        """
        n = len(chunk)
        numbers = np.arange(self.n_rows, self.n_rows + n)
        keys = RowStreams(torch.from_numpy(numbers + (self.seed << 20))).uniform(1)[:, 0].numpy()
        chosen = np.flatnonzero(keys < self._threshold)
        if len(chosen):
            self._parts.append(chunk.iloc[chosen].set_axis(numbers[chosen], axis=0))
            self._keys.append(keys[chosen])
            if sum(map(len, self._keys)) > 2 * self.size:
                self._thin()
            elif len(self._parts) > MAX_PARTS:
                self._gather()
        texts = {name: text for name in self._counts if (text := text_codes(chunk[name])) is not None}
        read = FrameStorage.read(chunk[[name for name in self._counts if name not in texts]])
        missing = {}
        for name, counts in self._counts.items():
            if name in texts:
                codes, words = texts[name]
                missing[name] = codes < 0
                how_often = np.bincount(codes[~missing[name]], minlength=len(words))
                counts.add_levels(words, how_often, np.dtype(object), int(missing[name].sum()))
            else:
                missing[name] = read[name].isna().to_numpy()
                counts.add(read[name], name, missing[name])
        self._witness(chunk, missing, numbers)
        self.n_rows += n

    def _thin(self) -> None:
        """Keep the rows of the smallest keys."""
        self._gather()
        keys, rows = self._keys[0], self._parts[0]
        if len(keys) > self.size:
            kept = np.sort(np.argpartition(keys, self.size)[: self.size])
            keys, rows = keys[kept], rows.iloc[kept]
            self._threshold = float(keys.max())
        self._keys, self._parts = [keys], [rows]

    def _gather(self) -> None:
        """Put the sampled rows into one frame: one for each chunk that gave some would take more than they do."""
        rows = pd.concat(self._parts)
        self._keys, self._parts = [np.concatenate(self._keys)], [in_one_piece(rows)]

    def _witness(self, chunk: pd.DataFrame, missing: dict[Any, np.ndarray], numbers: np.ndarray) -> None:
        """Keep a row that shows what a sample might not: which columns are missing together, every class."""
        rows: set[int] = set()
        patterns = []
        for group in self._patterns:
            alike: dict[bytes, list[Any]] = {}
            for name in group:
                alike.setdefault(missing[name].tobytes(), []).append(name)
            parts = list(alike.values())
            patterns += parts
            rows |= {int(np.argmax(missing[parts[0][0]] != missing[other[0]])) for other in parts[1:]}
        # Of columns that are missing together, one row must show it.
        for group in patterns:
            first = group[0]
            if missing[first].any() and self._counts[first].n_missing == int(missing[first].sum()):
                rows.add(int(np.argmax(missing[first])))
        self._patterns = patterns
        for name in self.conditions:
            column, seen = chunk[name], self._seen[name]
            if len(seen) < MAX_WITNESSES:
                codes, levels = pd.factorize(column)
                for code, level in enumerate(levels):
                    if level not in seen and len(seen) < MAX_WITNESSES:
                        seen.add(level)
                        rows.add(int(np.argmax(codes == code)))
                if (codes < 0).any() and None not in seen:
                    seen.add(None)
                    rows.add(int(np.argmax(codes < 0)))
        if rows:
            chosen = np.array(sorted(rows))
            self._witnesses.append(chunk.iloc[chosen].set_axis(numbers[chosen], axis=0))

    @property
    def cdf_error(self) -> float:
        """Bound on the error of a distribution function told from the sample, which 1 of 1,000 samples breaks."""
        return math.sqrt(math.log(2 / 1e-3) / (2 * min(self.n_rows, self.size)))

    def is_exact(self, name: Any) -> bool:
        """Whether every value of a column was counted."""
        return self._counts[name].exact

    def sample(self) -> tuple[pd.DataFrame, int]:
        """Return the sampled rows in order, and behind them those that show what they do not; and how many they are.

        Where the table has no more rows than the sample, they are all of them.
        """
        self._thin()
        rows = self._parts[0].sort_index()
        others = pd.concat(self._witnesses) if self._witnesses else rows.iloc[:0]
        others = others[~others.index.isin(rows.index) & ~others.index.duplicated()]
        return pd.concat([rows, others]).reset_index(drop=True), len(rows)

    def column(self, name: Any, sampled: pd.Series) -> ColumnSurvey:
        """Return what is known of a column, with its standardised values in the sample (m,)."""
        found = self._counts[name]
        values, counts = found.found()
        n_counted = len(values)
        dtype = sampled.dtype if found.dtype is None else found.dtype
        if getattr(dtype, "numpy_dtype", None) == sampled.dtype:  # nothing is missing
            dtype = sampled.dtype
            values = values.astype(dtype) if dtype.kind == "b" else values
        if not found.exact:
            rest = sampled[sampled.notna()].reset_index(drop=True)
            rest = rest[~rest.isin(values)]
            if is_numeric(dtype) or is_time(dtype):
                rest = pd.concat([found.ends().astype(rest.dtype), rest])
                each = np.full(len(rest), (found.n_known - counts.sum()) / max(len(rest), 1))
            else:
                tally = rest.value_counts()
                rest = pd.Series(tally.index, dtype=dtype)
                each = tally.to_numpy() * ((found.n_known - counts.sum()) / max(tally.sum(), 1))
            values = pd.concat([values.astype(rest.dtype), rest], ignore_index=True)
            counts = np.concatenate([counts, np.maximum(each, 0.0)])
        return ColumnSurvey(values, counts, dtype, self.n_rows, found.n_missing, n_counted, found.exact)
