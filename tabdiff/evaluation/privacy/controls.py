"""Data of which the answer is known: a bootstrap and SMOTE must fail an audit, fresh real rows must pass."""

from __future__ import annotations

import numpy as np
import pandas as pd

from tabdiff.evaluation.frames import check_frames, encode
from tabdiff.evaluation.privacy.search import neighbours

__all__ = ["bootstrap_rows", "smote_rows"]

NEIGHBOURS = 5


def bootstrap_rows(train: pd.DataFrame, n: int, rng: np.random.Generator) -> pd.DataFrame:
    """Draw rows with replacement."""
    return train.iloc[rng.integers(len(train), size=n)].reset_index(drop=True)


def smote_rows(train: pd.DataFrame, n: int, *, random_state: int | None = 0, max_rows: int = 20_000) -> pd.DataFrame:
    """Draw rows between a row and one of its five nearest neighbours.

    Numbers lie on the way at random, rounded where the column holds whole numbers; everything else is the row's own or
    the neighbour's. Chawla et al., *SMOTE: Synthetic Minority Over-sampling Technique*, JAIR 2002.

    Parameters
    ----------
    train : DataFrame
        At least two rows.
    n : int
    random_state : int, optional
    max_rows : int, default=20000
        Of a larger frame so many rows are drawn from, for the search grows with the square.

    Returns
    -------
    rows : DataFrame of shape (n, n_columns)
    """
    (train,) = check_frames(real=train)
    rng = np.random.default_rng(random_state)
    if len(train) < 2:
        raise ValueError(f"train must have at least two rows; got {len(train)}.")
    if len(train) > max_rows:
        train = train.iloc[np.sort(rng.choice(len(train), max_rows, replace=False))]
    (encoded,) = encode(train)
    base = rng.integers(len(train), size=n)
    origins, inverse = np.unique(base, return_inverse=True)
    k = min(NEIGHBOURS, len(train) - 1)
    near = neighbours(encoded, encoded.take(origins), encoded, k, own=origins)
    other = near[inverse, rng.integers(k, size=n)]
    way = rng.random(n)
    columns = {}
    for name in train.columns:
        first, second = train[name].iloc[base].reset_index(drop=True), train[name].iloc[other].reset_index(drop=True)
        if name in encoded.numeric_names and pd.api.types.is_numeric_dtype(train[name].dtype):
            a, b = (v.to_numpy(dtype="float64", na_value=np.nan) for v in (first, second))
            values = a + way * (b - a)
            values = np.where(np.isnan(values), a, values)
            if pd.api.types.is_integer_dtype(train[name].dtype):
                values = np.rint(values)
            columns[name] = pd.Series(values).astype(train[name].dtype)
        else:
            columns[name] = first.where(way < 0.5, second)
    return pd.DataFrame(columns, columns=train.columns)
