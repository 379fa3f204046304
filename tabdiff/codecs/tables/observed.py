"""Cells that relations between columns settle: in missing cells that are filled, and beside columns that are held."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from tabdiff.codecs.columns import NumericColumn
from tabdiff.codecs.columns.categorical import pick
from tabdiff.codecs.tables.dependencies import agree
from tabdiff.codecs.tables.layout import slots

__all__ = ["copies", "hold_determinants", "likeliest", "patch", "repeat", "settle"]


def patch(series: pd.Series, where: np.ndarray, values: pd.Series) -> pd.Series:
    """Return a copy of a Series (n,) with values in the place of some entries, of the values' dtype if that can be.

    Parameters
    ----------
    series : Series of shape (n,)
        The rest of it stays as it is.
    where : ndarray of shape (n,)
        Which entries.
    values : Series
        As many as `where` has True.
    """
    if series.dtype == values.dtype:
        if where.all():  # pandas cannot write into an Arrow dictionary that has no levels
            return pd.Series(values.array.copy(), series.index, dtype=series.dtype, name=series.name)
        out = series.copy()
        out.iloc[np.flatnonzero(where)] = values.array
        return out
    whole = series.astype(object).to_numpy(copy=True)
    whole[where] = values.astype(object).to_numpy()
    out = pd.Series(whole, series.index, dtype=object)
    try:
        cast = out.astype(values.dtype)
    except (TypeError, ValueError):
        return out.infer_objects()
    kept = cast.astype(object).to_numpy()[~where] == whole[~where]
    return cast if kept.all() else out.infer_objects()


def settle(codec: Any, filled: pd.DataFrame, own: pd.DataFrame, is_missing: np.ndarray, rng: Any) -> None:
    """Make what was filled into missing cells agree with the cells that are there, in place.

    A determinant that was drawn in contradiction with an observed column that it determines is drawn anew among the
    training rows that agree; determined columns are looked up.

    Parameters
    ----------
    codec : TableCodec
        Fitted.
    filled : DataFrame of shape (n, n_columns)
        Decoded rows, of which only what stands in missing cells is used.
    own : DataFrame of shape (n, n_columns)
        The rows as they came.
    is_missing : ndarray of shape (n, n_columns)
        Where they lack values.
    rng : numpy.random.Generator or RowStreams
        Source of the draws.
    """
    relations, columns = codec.dependencies_, codec.columns_
    rebuilt = {target.column for target in codec.constraints_.rebuilt_}
    rules = [r for r in relations.rules_ if r.source in relations.counts_ and r.target not in rebuilt]
    if not rules:
        return
    drawn, theirs = codec.storage_.read(filled), codec.storage_.read(own)

    def positions(j: int, frame: pd.DataFrame) -> np.ndarray:
        return columns[j].positions(frame.iloc[:, j])

    def write(j: int, where: np.ndarray, codes: np.ndarray) -> None:
        if where.any():
            series = filled.iloc[:, j]
            values = columns[j].at(codes[where]).astype(series.dtype)
            filled.isetitem(j, patch(series, where, values))

    for source in dict.fromkeys(rule.source for rule in rules):
        own_rules = [rule for rule in rules if rule.source == source]
        absent = is_missing[:, source]
        before = np.where(absent, positions(source, drawn), positions(source, theirs))
        codes = before.copy()
        demands = [(r.table, np.where(is_missing[:, r.target], -1, positions(r.target, theirs))) for r in own_rules]
        # A missing value that is filled is not missing, even if all training rows that agree are.
        counts = relations.counts_[source].copy()
        counts[_n_values(columns[source]) :] = 0
        agree(codes, absent, demands, counts, rng)
        write(source, absent & (codes != before), codes)
        for rule in own_rules:
            if relations.determinant_.get(rule.target) == source:
                found, target = rule.table[codes], columns[rule.target].inner
                # Where the rule says that it is always missing, nothing is known but how often each value occurs.
                known = pick(target.counts_, rng.random(len(found)))
                found = np.where(found == _n_values(target), known, found)
                write(rule.target, is_missing[:, rule.target] & (found >= 0), np.maximum(found, 0))


def copies(
    codec: Any, own: pd.DataFrame, is_missing: np.ndarray, draws: Sequence[Tensor]
) -> list[dict[int, np.ndarray]]:
    """Return the numbers that equal other columns or are equalled, with copies of known cells in missing ones.

    Parameters
    ----------
    codec, own, is_missing
        As in `settle`.
    draws : sequence of Tensor of shape (n, d)
        Encoded rows, whose codes say which cells are equal.

    Returns
    -------
    list of dict of ndarray of shape (n,)
        For each draw, by position of the column, NaN where missing.
    """
    relations, columns = codec.equalities_, codec.columns_
    if not relations.sources_:
        return [{} for _ in draws]
    involved = sorted({j for b, sources in relations.sources_.items() for j in (b, *sources)})
    standard, place = codec.storage_.read(own), slots(codec)
    there = {j: columns[j].read(standard.iloc[:, j]) for j in involved}
    out = []
    for data in draws:
        drawn = {j: columns[j].decode_values(data[:, place[j].values[0]].numpy()) for j in involved}
        values = {j: np.where(is_missing[:, j], drawn[j], there[j]) for j in involved}
        codes = [data[:, i].numpy().round() for i in codec.equality_positions_]
        relations.copy(values, codes, columns, ~is_missing)
        out.append(values)
    return out


def repeat(codec: Any, filled: pd.DataFrame, own: pd.DataFrame, is_missing: np.ndarray, data: Tensor) -> None:
    """Copy what equals another column from the cells that are there into missing cells of decoded rows, in place.

    Parameters
    ----------
    codec, filled, own, is_missing
        As in `settle`.
    data : Tensor of shape (n, d)
        What `filled` was decoded from.
    """
    copied = copies(codec, own, is_missing, [data])[0]
    if not copied:
        return
    drawn = codec.storage_.read(filled)
    for j, values in copied.items():
        column, series = codec.columns_[j], filled.iloc[:, j]
        changed = is_missing[:, j] & series.notna().to_numpy() & (values != column.read(drawn.iloc[:, j]))
        if changed.any():
            new = column.to_series(values[changed]).astype(series.dtype)
            filled.isetitem(j, patch(series, changed, new))


def likeliest(codec: Any, filled: pd.DataFrame, is_missing: np.ndarray, data: Tensor) -> None:
    """Put back, in place, the likeliest level where others say otherwise that are only estimates.

    Parameters
    ----------
    codec, filled, is_missing, data
        As in `repeat`.
    """
    for rule in codec.joint_rules_.rules_:
        j = codec.column_of(rule.target)
        inputs = {codec.column_of(i) for i in rule.inputs} - {None}
        unsure = is_missing[:, j] & is_missing[:, sorted(inputs)].any(axis=1)
        if unsure.any():
            series = filled.iloc[:, j]
            levels = codec.columns_[j].decode(data[:, rule.target].numpy()[unsure])
            filled.isetitem(j, patch(series, unsure, levels.astype(series.dtype)))


def _n_values(column: Any) -> int:
    """Return the number of values of a column, which is the position that stands for a missing one."""
    return len(column.values_ if isinstance(column, NumericColumn) else column.levels_)


def hold_determinants(codec: Any, frame: pd.DataFrame, is_missing: np.ndarray, rng: np.random.Generator) -> None:
    """Hold, in the place of held columns that another one determines, that other one, in place.

    Its value is drawn from the training rows that have the held one. Where it is held itself it stays.

    Parameters
    ----------
    codec : TableCodec
        Fitted.
    frame : DataFrame of shape (n, n_columns)
        Rows, of which only what is not missing is used.
    is_missing : ndarray of shape (n, n_columns)
        False where a cell is held.
    rng : numpy.random.Generator
        Source of the draws.

    Raises
    ------
    ValueError
        If a determined column and its determinant are held at values that contradict each other.
    """
    relations, columns = codec.dependencies_, codec.columns_
    standard = codec.storage_.read(frame)
    for source in sorted(set(relations.determinant_.values())):
        targets = [b for b, a in relations.determinant_.items() if a == source and not is_missing[:, b].all()]
        if not targets:
            continue
        tables = {r.target: r.table for r in relations.rules_ if r.source == source}
        demands = []
        for b in targets:
            wanted = np.where(is_missing[:, b], -1, columns[b].positions(standard.iloc[:, b]))
            # One code more, that nothing agrees with, stands for what is not held yet.
            demands.append((np.append(tables[b], -2), wanted))
        nothing = len(tables[targets[0]])
        codes = np.where(is_missing[:, source], nothing, columns[source].positions(standard.iloc[:, source]))
        for b, (table, wanted) in zip(targets, demands, strict=True):
            wrong = ~is_missing[:, source] & (wanted >= 0) & (table[codes] >= 0) & (table[codes] != wanted)
            if wrong.any():
                i = int(wrong.argmax())
                raise ValueError(
                    f"{columns[source].name!r} determines {columns[b].name!r}, and {frame.iloc[i, source]!r} does not "
                    f"go with {frame.iloc[i, b]!r}. Hold one of the two."
                )
        agree(codes, is_missing[:, source], demands, np.append(relations.counts_[source], 0), rng)
        chosen = is_missing[:, source] & (codes != nothing)
        if chosen.any():
            series = frame.iloc[:, source]
            frame.isetitem(source, patch(series, chosen, columns[source].at(codes[chosen]).astype(series.dtype)))
            is_missing[chosen, source] = False
