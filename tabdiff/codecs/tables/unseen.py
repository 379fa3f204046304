r"""Cells of a table that were never seen at fit, and what they say of how likely a row is.

Such a cell is a level that its column did not have, a missing value in a column that had none, a number outside the
range of a column of few values or other than a constant, a value off a column's grid, and one that breaks a dependency
or a sum that held in every row. (Of a column of many values, a number outside its range has a density of its own.)

A row with such cells counts as less likely than any with values that were seen in their place,

.. math:: \log p(\text{row}) = \min_v \log p(\text{row with } v \text{ there}) - \log(n + 1)

for each of them, with v the levels of the column or the ends of its range, and n the number of training rows: what was
not there in n rows is taken to be there in one of n + 1. Where rare levels share a code, an unknown one is another of
them, a little rarer than any.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from scipy.special import ndtri
from torch import Tensor

from tabdiff.codecs.columns import LevelColumn, NumericColumn, is_numeric, to_float

if TYPE_CHECKING:
    from tabdiff.codecs.tables.codec import TableCodec

__all__ = ["Rows", "hide_unknown", "least_likely", "log_jacobian", "read_rows"]

# Levels that are put in the place of an unknown one: the rarest, where there are more.
MAX_TRIED = 32
# By how much numbers that are equal may differ, relative to their size.
TOLERANCE = 1e-9


@dataclass
class Rows:
    """Rows of a table, coded, with values that were seen in the place of others.

    Attributes
    ----------
    frame : DataFrame of shape (n, d)
        As `TableCodec.read` returns it.
    cells : bool array (n, d)
        Which cells of it were never seen.
    surprise : ndarray of shape (n,)
        What they take from the log-likelihood.
    data : Tensor of shape (n, k)
        The rows encoded.
    hidden : bool Tensor of shape (n, k)
        Where it holds what was put in the place of others: the nearest for a number, any for the rest.
    unknown : bool Tensor of shape (n, k)
        The rest.
    """

    frame: pd.DataFrame
    cells: np.ndarray
    surprise: np.ndarray
    data: Tensor
    hidden: Tensor
    unknown: Tensor


def read_rows(
    codec: TableCodec, frame: pd.DataFrame, n_fit: int, condition: Tensor | None = None, generator: Any = None
) -> Rows:
    """Code rows of which some cells may never have been seen at fit.

    Parameters
    ----------
    codec : TableCodec
        Fitted.
    frame : DataFrame of shape (n, d)
        Rows.
    n_fit : int
        Number of training rows.
    condition : Tensor of shape (n, k), optional
        Encoded condition, for what it determines.
    generator : torch.Generator or RowStreams, optional
        As in `TableCodec.encode`.
    """
    read = codec.read(frame)
    cells, stands_in, unknown = (np.zeros(read.shape, dtype=bool) for _ in range(3))
    surprise, outside = np.zeros(len(read)), np.zeros(read.shape)
    columns = []
    for j, entry in enumerate(codec.columns_):
        series, column = read.iloc[:, j], entry.inner
        if isinstance(column, NumericColumn):
            values = column.read(series)
            absent = np.isnan(values) & ~_may_miss(codec, read, j, entry)
            if absent.any():
                series = series.mask(absent, column.at(np.array([len(column.values_) // 2])).iloc[0])
            if column.grid_ is not None:
                # Outside the range a number has a density of its own already.
                inside = (values >= column.values_[0]) & (values <= column.values_[-1])
                cells[:, j] = inside & ~column.grid_.contains(np.where(inside, values, column.values_[0]))
        else:
            assert isinstance(column, LevelColumn)
            series, absent, unknown[:, j], extra = _known_levels(column, series)
            surprise += extra
            outside[:, j] = column.distance(read.iloc[:, j])
        cells[:, j] |= absent | (outside[:, j] > 0)
        stands_in[:, j] = absent
        unknown[:, j] |= absent | (outside[:, j] > 0)
        columns.append(series)
    # Values that stand for others are numbered from 0: rows go together by place, whatever the frame's index is.
    seen = pd.concat([series.set_axis(read.index) for series in columns], axis=1)
    seen.columns = read.columns
    cells |= _broken(codec, seen, unknown, condition)
    surprise += cells.sum(axis=1) * np.log(n_fit + 1.0) + outside.sum(axis=1)
    data = codec.encode_read(seen, generator)
    absent_data = torch.zeros(data.shape, dtype=torch.bool)
    hidden = absent_data.clone()
    for i, j in enumerate(codec.value_positions_):
        absent_data[:, i] = torch.from_numpy(stands_in[:, j])
        hidden[:, i] = torch.from_numpy(stands_in[:, j] | (outside[:, j] > 0))
    return Rows(seen, cells, surprise, data, hidden, absent_data)


def _may_miss(codec: TableCodec, read: pd.DataFrame, j: int, entry: Any) -> np.ndarray:
    """Whether a number may be missing in each row (n,): columns that always were together are so."""
    if j in codec.mask_of_:
        return codec.masked(read, codec.mask_of_[j])
    return np.full(len(read), not isinstance(entry, NumericColumn) and entry.has_missing_)


def _known_levels(column: LevelColumn, series: pd.Series) -> tuple[pd.Series, np.ndarray, np.ndarray, np.ndarray]:
    """Return a Series (n,) with seen levels only.

    Also, each (n,): where one stands in for a level that nothing is known of, where one stands for an unknown level at
    all, and what one more rare level costs.
    """
    missing = series.isna().to_numpy() & (not column.has_missing_)
    unknown = column.is_unknown(series)
    extra = np.zeros(len(series))
    if not (missing | unknown).any():
        return series, missing, unknown, extra
    if not column.levels_:
        return series.mask(unknown), unknown, unknown, extra
    positions = np.full(len(series), int(column.counts_.argmax()))
    known = ~(missing | unknown)
    positions[known] = column.positions(series[known])
    if column.n_rare_:
        rarest, cost = column.one_more_rare()
        positions[unknown], extra[unknown] = rarest, cost
        return column.at(positions), missing, unknown, extra
    return column.at(positions), missing | unknown, unknown, extra


def _broken(codec: TableCodec, seen: pd.DataFrame, unknown: np.ndarray, condition: Tensor | None) -> np.ndarray:
    """Which cells (n, d) break a dependency of the training rows, those that are unknown apart."""
    d = len(codec.columns_)
    broken = np.zeros(seen.shape, dtype=bool)
    for rule in codec.dependencies_.rules_:
        if rule.target >= d:  # of the condition, not of the row
            continue
        target: Any = codec.columns_[rule.target].inner
        found = target.positions(seen.iloc[:, rule.target])
        if rule.source >= d:
            if condition is None:
                continue
            codes = condition[:, rule.source - d].double().numpy()
            known = ~np.isnan(codes)
            allowed = [rule.table[np.where(known, codes, 0).astype(np.int64)]]
        else:
            source = codec.columns_[rule.source]
            known = ~unknown[:, rule.source]
            allowed = [rule.table[at] for at in _around(source, seen.iloc[:, rule.source])]
        if is_numeric(target.dtype):
            # `positions` are those of the nearest values, and another value is none that goes with the source.
            values = to_float(seen.iloc[:, rule.target], target.name, exact=False)
            known_values = target.values_ if isinstance(target, NumericColumn) else target.levels_
            nearest = np.append(np.asarray(known_values, dtype=np.float64), np.nan)[found]
            found = np.where(np.abs(values - nearest) > TOLERANCE * np.abs(nearest), -2, found)
        # Nothing is known of a source that never went with a value of the target.
        says = known & ~unknown[:, rule.target] & np.all([positions >= 0 for positions in allowed], axis=0)
        broken[:, rule.target] |= says & np.all([positions != found for positions in allowed], axis=0)
    return broken


def _around(column: Any, series: pd.Series) -> list[np.ndarray]:
    """Positions (n,) of the values of a determinant; of numbers never seen, those of both neighbours."""
    if not isinstance(column, NumericColumn):
        return [column.positions(series)]
    values, last = column.read(series), len(column.values_)
    missing = np.isnan(values)
    right = np.clip(np.searchsorted(column.values_, np.where(missing, column.values_[0], values)), 0, last - 1)
    left = np.where(column.values_[right] == values, right, np.maximum(right - 1, 0))
    return [np.where(missing, last, left), np.where(missing, last, right)]


def least_likely(codec: TableCodec, rows: Rows, bound: Callable[[Tensor, np.ndarray], np.ndarray]) -> np.ndarray:
    """Return the log-likelihood of rows, (n,), without what their columns' densities contribute.

    Parameters
    ----------
    codec : TableCodec
        Fitted.
    rows : Rows
        Their `data` are changed, where they are hidden, to what is least likely there.
    bound : callable
        From encoded rows (m, k) and their places (m,) among the rows to log-likelihoods (m,).
    """
    total = bound(rows.data, np.arange(len(rows.data)))
    for i in np.flatnonzero(rows.hidden.numpy().any(axis=0)):
        where = np.flatnonzero(rows.hidden[:, i].numpy())
        values = torch.tensor(_values(codec.columns_[codec.value_positions_[i]]), dtype=rows.data.dtype)
        tried = rows.data[where].repeat(len(values), 1)
        tried[:, i] = values.repeat_interleave(len(where))
        scores = bound(tried, np.tile(where, len(values))).reshape(len(values), len(where))
        rows.data[where, i] = values[scores.argmin(axis=0)]
        total[where] = scores.min(axis=0)
    return total - rows.surprise


def log_jacobian(codec: TableCodec, rows: Rows, marginals: Mapping[int, Any] | None = None) -> np.ndarray:
    """Return the log of the factor of the columns' own densities, (n,), hidden cells left out.

    `marginals` are as in `TableCodec.log_jacobian_read`.
    """
    return codec.log_jacobian_read(rows.frame, torch.where(rows.hidden, torch.nan, rows.data), marginals)


def _values(column: Any) -> list[float]:
    """Return the codes or numbers that stand for what may be in a cell."""
    if isinstance(column, NumericColumn):
        end = float(ndtri(0.25 / column.n_observed_))
        return [end, -end]
    return [float(code) for code in column.rarest_codes(MAX_TRIED)]


def hide_unknown(codec: TableCodec, frame: pd.DataFrame) -> tuple[pd.DataFrame, dict[Any, Any]]:
    """Return a frame (n, d) with missing values for levels that were not seen, and an example of these by column."""
    read, out, examples = codec.read(frame), frame.copy(deep=False), {}
    # A difference from other columns that was never seen is no level, and hidden where it is coded.
    rebuilt = {target.column for target in codec.constraints_.rebuilt_}
    for j, entry in enumerate(codec.columns_):
        if j in rebuilt:
            continue
        column = entry.inner
        unknown = column.is_unknown(read.iloc[:, j]) if isinstance(column, LevelColumn) else np.zeros(1, dtype=bool)
        if unknown.any():
            series = frame.iloc[:, j]
            examples[column.name] = series[unknown].iloc[0]
            out.isetitem(j, series.mask(unknown))
    return out, examples
