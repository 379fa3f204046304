"""Columns that `sample` holds at given values without their having been declared as conditions."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from tabdiff.codecs import container_name
from tabdiff.codecs.columns import (
    LevelColumn,
    LevelLookup,
    NumericColumn,
    Storage,
    TimeColumn,
    is_time,
    plain,
    standardise,
    time_text,
    unknown_level_message,
)
from tabdiff.codecs.conditions.conditions import expand_counts
from tabdiff.codecs.tables.observed import hold_determinants, patch, repeat
from tabdiff.generation.imputation import check_masks, encode_given
from tabdiff.io.frames import to_pandas
from tabdiff.utils.array_likes import as_values
from tabdiff.utils.validation import did_you_mean

if TYPE_CHECKING:
    from tabdiff.model.fitted import FittedModel

__all__ = ["Held", "split_condition"]


def split_condition(model: FittedModel, condition: Any) -> tuple[Any, dict]:
    """Take what `sample` was given apart: what is declared, and columns to hold.

    Returns
    -------
    condition : object
        For `Conditions.resolve`; None where all of it is columns.
    held : dict
        Values by column.

    Raises
    ------
    ValueError
        For a name that is neither a condition nor a column, and for columns without the declared conditions.
    """
    condition = to_pandas(as_values(condition, "condition"))
    if not isinstance(condition, Mapping | pd.DataFrame) or container_name(model.codec) not in ("array", "table"):
        return condition, {}
    columns = list(model.codec.index_)
    declared = model.conditions.names if model.conditions is not None else []
    held = {name: condition[name] for name in condition if name in columns and name not in declared}
    rest = {name: condition[name] for name in condition if name not in held}
    unknown = [name for name in rest if name not in declared]
    if unknown and (held or model.conditions is None):
        raise ValueError(
            f"unknown condition name {unknown[0]!r}.{did_you_mean(unknown[0], declared + columns)} Conditions: "
            f"{declared}. Columns that can be held: {columns}."
        )
    left_out = [name for name in declared if name not in rest]
    if held and left_out:
        raise ValueError(
            f"the columns {list(held)} are held, but the declared conditions {left_out} were left out, and nothing "
            "says which values of theirs go with these columns. Give them too, or fit without declaring them: every "
            "column can be held."
        )
    return rest or None, held


@dataclass
class Held:
    """Values at which columns are held, checked.

    Attributes
    ----------
    columns : dict of Series
        By position of the column; a missing value is drawn.
    n : int or None
        Number of rows that the values imply, None where all of them are scalars.
    """

    columns: dict[int, pd.Series]
    n: int | None

    @classmethod
    def read(cls, model: FittedModel, held: dict) -> Held:
        """Check values by column: scalars, arrays, or counts for one of them.

        Raises
        ------
        ValueError
            For unknown levels (the nearest is named), text for numbers, values that the dtype cannot hold, lengths
            that differ, and models that cannot hold columns.

        Warns
        -----
        UserWarning
            For numbers outside the range of the fit.
        """
        check_masks(model, "holding columns that were not declared as conditions")
        counts = [name for name, value in held.items() if isinstance(value, Mapping)]
        if len(counts) > 1:
            raise ValueError(f"only one column can be given as counts; got {counts}.")
        columns: dict[int, pd.Series] = {}
        lengths: dict[Any, int] = {}
        example = pd.DataFrame(_example(model.codec))
        # What a constraint rebuilds is coded by its difference from others, whose values are none of its own.
        rebuilt = {target.column for target in model.codec.constraints_.rebuilt_}
        for name, value in held.items():
            if isinstance(value, Mapping):
                value = expand_counts(name, value)
            j = list(model.codec.index_).index(name)
            column, storage = model.codec.columns_[j], model.codec.storage_.columns[j]
            column = None if j in rebuilt else column.inner
            levels = (
                storage.write(column.at(np.arange(len(column.levels_)))).tolist()
                if isinstance(column, LevelColumn)
                else None
            )
            if not _is_level(levels, value):
                value = to_pandas(as_values(value, f"condition[{name!r}]"))
            scalar = isinstance(value, str | bytes) or np.ndim(value) == 0 or _is_level(levels, value)
            series = (pd.Series([value]) if scalar else _series(value)).reset_index(drop=True)
            if len(series) == 0:
                raise ValueError(f"condition {name!r} has no rows.")
            columns[j] = _check(column, storage, levels, name, series, example.iloc[:, j].dtype)
            if not scalar:
                lengths[name] = len(series)
        if len(set(lengths.values())) > 1:
            raise ValueError(f"conditions have different numbers of rows: {lengths}.")
        return cls(columns, next(iter(lengths.values()), None))

    def n_rows(self, n_samples: int | None) -> int | None:
        """Return the number of rows that values and `n_samples` imply, None where neither says.

        Raises
        ------
        ValueError
            If they differ.
        """
        if n_samples is not None and self.n is not None and n_samples != self.n:
            raise ValueError(
                f"the condition has {self.n} rows, but n_samples={n_samples}. Leave n_samples out, or give one value "
                "for all rows."
            )
        return n_samples if self.n is None else self.n

    def encode(self, codec: Any, n: int, generator: torch.Generator) -> Tensor:
        """Return what is given of n rows, in the form of `tabdiff.diffusion.masks`, shape (n, d)."""
        frame = pd.DataFrame(_example(codec)).iloc[np.zeros(n, dtype=int)].reset_index(drop=True)
        is_missing = np.ones(frame.shape, dtype=bool)
        for j, series in self.columns.items():
            values = self._rows(series, n)
            is_missing[:, j] = values.isna().to_numpy()
            frame[frame.columns[j]] = values
        hold_determinants(
            codec, frame, is_missing, np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
        )
        return encode_given(codec, frame, is_missing, generator, filling=False)

    def put_in(self, codec: Any, rows: Any, data: Tensor) -> Any:
        """Put the values into rows decoded from `data`, exactly as they were given."""
        is_missing = np.ones(rows.shape, dtype=bool)
        for j, series in self.columns.items():
            values = self._rows(series, len(rows))
            known = values.notna().to_numpy()
            is_missing[:, j] = ~known
            if isinstance(rows, np.ndarray):
                rows[known, j] = values[known]
            else:
                name = rows.columns[j]
                rows[name] = patch(rows[name], known, values[known].astype(rows[name].dtype)).array
        if isinstance(rows, pd.DataFrame):
            repeat(codec, rows, rows, is_missing, data)
        return rows

    def rows(self, start: int, stop: int) -> Held:
        """Return what is held of the rows from `start` to `stop` alone."""
        if self.n is None:
            return self
        columns = {
            j: series.iloc[start:stop].reset_index(drop=True) if len(series) == self.n else series
            for j, series in self.columns.items()
        }
        return Held(columns, stop - start)

    @staticmethod
    def _rows(series: pd.Series, n: int) -> pd.Series:
        return series if len(series) == n else series.iloc[np.zeros(n, dtype=int)].reset_index(drop=True)


def _example(codec: Any) -> Any:
    """Return one decoded row."""
    return codec.decode(torch.zeros(1, codec.n_continuous_ + len(codec.n_levels_)))


def _is_level(levels: list | None, value: Any) -> bool:
    """Whether a tuple is one level, and not a value for each row."""
    return isinstance(value, tuple) and levels is not None and LevelLookup(levels).find(value) >= 0


def _series(values: Any) -> pd.Series:
    """Return values (n,) as a Series; an entry may be a tuple."""
    several = isinstance(values, list) and any(isinstance(v, tuple) for v in values)
    return pd.Series(values, dtype=object) if several else pd.Series(values)


def _stored_times(column: TimeColumn, storage: Storage, name: Any, values: pd.Series) -> pd.Series:
    """Return times (n,), or text that says some, as the objects that the column holds."""
    convert: Any = pd.to_timedelta if pd.api.types.is_timedelta64_dtype(column.dtype) else pd.to_datetime
    try:
        times = standardise(storage.read_text(values), name)
        return storage.write(convert(times).astype(column.dtype) if times.dtype == object else times)
    except (TypeError, ValueError) as error:
        kind = storage.python or column.dtype
        raise ValueError(f"condition {name!r}: {values.iloc[0]!r} is no value of a {kind} column. {error}") from error


def _check(column: Any, storage: Storage, levels: list | None, name: Any, series: pd.Series, dtype: Any) -> pd.Series:
    """Return values (n,) as the dtype of the column, or as objects where some are missing.

    `levels` are those of a column that has them, as they are stored.
    """
    known = series.notna().to_numpy()
    if not known.any():
        raise ValueError(f"condition {name!r} has no value but missing ones; leave it out to have it drawn.")
    observed = series[known]
    if is_time(dtype) and any(isinstance(value, int | float | np.number) for value in observed):
        # Libraries take numbers for nanoseconds.
        raise ValueError(
            f"condition {name!r}: {plain(observed.iloc[0])!r} is no value of a {dtype} column, but a number."
        )
    if levels is not None and not pd.api.types.is_datetime64_any_dtype(dtype):
        lookup, values = LevelLookup(levels), observed.astype(object).tolist()
        found = [lookup.find(value) for value in values]
        if min(found) < 0:
            raise ValueError(unknown_level_message(f"condition {name!r}", values[found.index(-1)], levels))
        observed = pd.Series([levels[i] for i in found], observed.index, dtype=object)
    elif isinstance(column, TimeColumn) and (storage.times_of_day or pd.api.types.is_object_dtype(dtype)):
        observed = _stored_times(column, storage, name, observed)
    try:
        cast = observed.astype(dtype)
        exact = not pd.api.types.is_numeric_dtype(dtype) or (cast.astype(object) == observed.astype(object)).all()
    except (TypeError, ValueError) as error:
        message = f"condition {name!r}: {plain(observed.iloc[0])!r} is no value of a {dtype} column. {error}"
        raise ValueError(message) from error
    if not exact and not pd.api.types.is_float_dtype(dtype):
        raise ValueError(f"condition {name!r}: {plain(observed.iloc[0])!r} is no value of a {dtype} column.")
    if isinstance(column, LevelColumn) and pd.api.types.is_datetime64_any_dtype(dtype):
        unknown = column.is_unknown(cast)
        if unknown.any():
            times = [str(level) for level in column.levels_]
            raise ValueError(unknown_level_message(f"condition {name!r}", str(cast[unknown].iloc[0]), times))
    if isinstance(column, NumericColumn):
        numbers = column.read(standardise(cast, name))
        if np.isinf(numbers).any():
            raise ValueError(f"condition {name!r} contains infinite values (inf).")
        outside = (numbers < column.values_[0]) | (numbers > column.values_[-1])
        if outside.any():
            ends = column.at(np.array([0, len(column.values_) - 1]))
            low, high = (time_text(end) if isinstance(column, TimeColumn) else f"{end:g}" for end in ends)
            warnings.warn(
                f"condition {name!r}: {observed[outside].iloc[0]!s} lies outside the fitted range [{low}, {high}]; "
                "the other columns are drawn as for the end of the range.",
                UserWarning,
                stacklevel=5,
            )
    return cast if known.all() else series.astype(object).where(known, None)
