"""Frames to numbers: what every table metric reads, decided once by the real frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
import pandas as pd

from tabdiff.utils.array_likes import as_known

# What tables may come as, for messages.
TAKEN = "a data frame (pandas, polars or pyarrow)"

__all__ = ["Encoded", "check_frames", "draw_rows", "encode", "is_numeric", "stack"]


@dataclass(frozen=True)
class Encoded:
    """The columns of one frame as numbers.

    Attributes
    ----------
    numeric : ndarray of float64, shape (n_rows, n_numeric)
        NaN where missing.
    codes : ndarray of int64, shape (n_rows, n_categorical)
        Level codes shared by all frames encoded together; -1 where missing.
    numeric_names, categorical_names : list
        Column names, in the order of the columns above.
    n_levels : list of int, length n_categorical
    """

    numeric: np.ndarray
    codes: np.ndarray
    numeric_names: list[Any]
    categorical_names: list[Any]
    n_levels: list[int]

    def __len__(self) -> int:
        return len(self.numeric)

    def take(self, rows: np.ndarray) -> Encoded:
        """Return the given rows, by position."""
        return Encoded(self.numeric[rows], self.codes[rows], self.numeric_names, self.categorical_names, self.n_levels)


def is_numeric(column: pd.Series) -> bool:
    """Tell whether a column is compared by value (numbers, dates, durations) and not level by level."""
    types = pd.api.types
    if types.is_bool_dtype(column.dtype) or types.is_complex_dtype(column.dtype):
        return False
    return bool(
        types.is_numeric_dtype(column.dtype)
        or types.is_datetime64_any_dtype(column.dtype)
        or types.is_timedelta64_dtype(column.dtype)
    )


def _as_pandas(frame: Any, name: str) -> pd.DataFrame:
    if isinstance(as_known(frame, name, TAKEN), pd.DataFrame):
        return frame
    try:
        return nw.from_native(frame, eager_only=True).to_pandas()
    except (TypeError, AttributeError):
        raise TypeError(
            f"{name} is a {type(frame).__name__}; give a pandas DataFrame or another eager data frame "
            "(polars, pyarrow). For an array: pandas.DataFrame(array)."
        ) from None


def check_frames(*, real: Any, called: str = "real", **others: Any) -> list[pd.DataFrame]:
    """Return the frames as pandas frames with the columns of `real`, in its order; errors call it `called`.

    Raises
    ------
    TypeError
        If one of them is no data frame.
    ValueError
        If one is empty, or its columns are not those of `real`.
    """
    frames = {name: _as_pandas(frame, name) for name, frame in {called: real, **others}.items()}
    columns = frames[called].columns
    repeated = columns[columns.duplicated()].tolist()
    if repeated:
        raise ValueError(f"{called} has columns of the same name: {repeated}. Rename them.")
    for name, frame in frames.items():
        missing = [c for c in columns if c not in frame.columns]
        extra = [c for c in frame.columns if c not in columns]
        if missing or extra or len(frame.columns) != len(columns):
            raise ValueError(
                f"{name} must have the columns of {called}: missing {missing}, not in {called} {extra}. "
                "Pass the same columns in each frame."
            )
        if frame.empty:
            raise ValueError(f"{name} has shape {frame.shape}; at least one row and one column are needed.")
    return [frame[columns] for frame in frames.values()]


def _numbers(column: pd.Series, like: pd.Series) -> np.ndarray:
    """Float64 values, NaN where missing; dates in seconds since 1970, durations in seconds."""
    try:
        if pd.api.types.is_datetime64_any_dtype(like.dtype):
            column = pd.to_datetime(column, utc=True)
            column = (column - pd.Timestamp(0, tz="UTC")).dt.total_seconds()
        elif pd.api.types.is_timedelta64_dtype(like.dtype):
            column = pd.to_timedelta(column).dt.total_seconds()
        elif not pd.api.types.is_numeric_dtype(column.dtype):
            column = pd.to_numeric(column.astype(object).where(column.notna(), np.nan))
        values = column.to_numpy(dtype="float64", na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"Column {like.name!r} is {like.dtype} in real, but {column.dtype} elsewhere with values that "
            f"do not convert ({error}). Give it one dtype in all frames."
        ) from None
    if np.isinf(values).any():
        raise ValueError(f"Column {like.name!r} has infinite values. Replace them by finite ones or by missing.")
    return values


def encode(real: pd.DataFrame, *others: pd.DataFrame) -> list[Encoded]:
    """Encode frames of the same columns, level codes shared, kinds of columns decided by the first.

    Returns
    -------
    encoded : list of Encoded
        One for each frame, in order.
    """
    frames = [real, *others]
    numeric_names = [c for c in real.columns if is_numeric(real[c])]
    categorical_names = [c for c in real.columns if not is_numeric(real[c])]
    ends = np.cumsum([len(frame) for frame in frames])
    codes, n_levels = [], []
    for name in categorical_names:
        # As objects, so that "a" is "a" whether it came as category, string or object.
        pooled = np.concatenate([frame[name].astype(object).to_numpy() for frame in frames])
        column_codes, levels = pd.factorize(pooled, use_na_sentinel=True)
        codes.append(np.split(column_codes.astype(np.int64), ends[:-1]))
        n_levels.append(len(levels))
    encoded = []
    for i, frame in enumerate(frames):
        numeric = [_numbers(frame[name], real[name]) for name in numeric_names]
        encoded.append(
            Encoded(
                np.stack(numeric, axis=1) if numeric else np.empty((len(frame), 0)),
                np.stack([c[i] for c in codes], axis=1) if codes else np.empty((len(frame), 0), dtype=np.int64),
                numeric_names,
                categorical_names,
                n_levels,
            )
        )
    return encoded


def stack(*tables: Encoded) -> Encoded:
    """One table above the other; they must have been encoded together."""
    first = tables[0]
    return Encoded(
        np.concatenate([table.numeric for table in tables]),
        np.concatenate([table.codes for table in tables]),
        first.numeric_names,
        first.categorical_names,
        first.n_levels,
    )


def draw_rows(n_rows: int, n: int | None, rng: np.random.Generator) -> np.ndarray:
    """Positions of `n` rows drawn without replacement, in order; all where `n` is None or not smaller."""
    if n is None or n >= n_rows:
        return np.arange(n_rows)
    return np.sort(rng.choice(n_rows, size=n, replace=False))
