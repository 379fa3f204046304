r"""How real does a synthetic table look, what does it cover, is it useful, and does it copy.

Every metric takes data frames with the same columns. Numbers, dates and durations are compared by value,
everything else level by level (so cast integer codes to ``category``), as the *real* frame's dtypes say.
Missing values may stand anywhere. Errors and shares are in percent, scores in [0, 1].

Read no metric alone. Column shapes are matched by independent columns already; the classifier test is
fooled by copies of the training rows, which `dcr_share` and `nearest_neighbour_ratio` give away. `evaluate`
puts them side by side with what real rows score (the floor) and what independent columns score.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from tabdiff.evaluation.classifiers import c2st, lr_c2st
from tabdiff.evaluation.distances import alpha_precision, beta_recall, dcr_share, nearest_neighbour_ratio
from tabdiff.evaluation.frames import check_frames, encode
from tabdiff.evaluation.prediction import downstream_score

__all__ = [
    "alpha_precision",
    "beta_recall",
    "c2st",
    "column_shape_errors",
    "dcr_share",
    "downstream_score",
    "independent_columns",
    "lr_c2st",
    "missingness_error",
    "nearest_neighbour_ratio",
    "pair_trend_errors",
    "shape_error",
    "trend_error",
]

_N_BINS = 10
# Codes that span more than this are numbered anew before they are counted.
_MAX_TABLE = 2**16


def column_shape_errors(real: pd.DataFrame, synthetic: pd.DataFrame) -> pd.Series:
    """Compare the distribution of each column.

    Kolmogorov-Smirnov distance of the observed values for numbers; total variation distance for categories,
    a missing category counting as a level. A numeric column that is all missing in one frame only has error
    100.

    Parameters
    ----------
    real, synthetic : DataFrame
        Same columns, any number of rows.

    Returns
    -------
    errors : Series of float, index the column names
        Percent; 0 is best, 100 means that nothing overlaps.

    Examples
    --------
    >>> from tabdiff.datasets import load_penguins
    >>> from tabdiff.evaluation import column_shape_errors
    >>> penguins = load_penguins().sample(frac=1, random_state=0)
    >>> real, other = penguins[:170], penguins[170:340]
    >>> column_shape_errors(real, other).index[0]
    'species'
    """
    real, synthetic = check_frames(real=real, synthetic=synthetic)
    a, b = encode(real, synthetic)
    errors: dict[Any, float] = {}
    for j, name in enumerate(a.numeric_names):
        x, y = a.numeric[:, j], b.numeric[:, j]
        x, y = x[~np.isnan(x)], y[~np.isnan(y)]
        if len(x) and len(y):
            errors[name] = 100 * _kolmogorov_smirnov(x, y)
        else:
            errors[name] = 0.0 if len(x) == len(y) else 100.0
    for j, name in enumerate(a.categorical_names):
        errors[name] = 100 * _total_variation(a.codes[:, j], b.codes[:, j])
    return pd.Series([errors[name] for name in real.columns], index=real.columns, dtype="float64", name="shape_error")


def shape_error(real: pd.DataFrame, synthetic: pd.DataFrame) -> float:
    """Return the mean of `column_shape_errors`: percent, lower is better.

    Parameters
    ----------
    real, synthetic : DataFrame
        Rows of the same columns.

    Returns
    -------
    float
        In percent; 0 is best.

    Examples
    --------
    >>> from tabdiff.datasets import load_penguins
    >>> from tabdiff.evaluation import shape_error
    >>> penguins = load_penguins()
    >>> shape_error(penguins, penguins)
    0.0
    """
    return float(column_shape_errors(real, synthetic).mean())


def _kolmogorov_smirnov(x: np.ndarray, y: np.ndarray) -> float:
    """Largest difference between the distribution functions of two samples."""
    values = np.concatenate([x, y])
    below_x, below_y = (np.searchsorted(np.sort(z), values, side="right") / len(z) for z in (x, y))
    return float(np.abs(below_x - below_y).max())


def _total_variation(a: np.ndarray, b: np.ndarray) -> float:
    """Total variation distance between the distributions of two samples of codes."""
    low, high = min(a.min(), b.min()), max(a.max(), b.max())
    if high - low > _MAX_TABLE:
        levels, inverse = np.unique(np.concatenate([a, b]), return_inverse=True)
        a, b, low, high = inverse[: len(a)], inverse[len(a) :], 0, len(levels) - 1
    p, q = (np.bincount(codes - low, minlength=high - low + 1) / len(codes) for codes in (a, b))
    return float(np.abs(p - q).sum() / 2)


def _binned(real: np.ndarray, *columns: np.ndarray) -> list[np.ndarray]:
    """Codes of equal-width bins over the real column's range; beyond it the end bins, -1 where missing."""
    observed = real[~np.isnan(real)]
    inner = np.empty(0)
    if len(observed):
        inner = np.linspace(observed.min(), observed.max(), _N_BINS + 1)[1:-1]
    return [np.where(np.isnan(x), -1, np.searchsorted(inner, x, side="right")) for x in columns]


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Pearson correlation over complete pairs; 0 where it is not defined."""
    complete = ~(np.isnan(x) | np.isnan(y))
    x, y = x[complete], y[complete]
    if len(x) < 2:
        return 0.0
    x, y = x - x.mean(), y - y.mean()
    norm = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / norm) if norm > 0 else 0.0


def pair_trend_errors(real: pd.DataFrame, synthetic: pd.DataFrame) -> pd.DataFrame:
    """Compare the dependence within each pair of columns.

    For two numeric columns, half the difference of their Pearson correlations (over rows where both are
    observed; a constant column has correlation 0). For any other pair, the total variation distance of the
    contingency tables, a numeric column cut into ten bins of equal width over the range of the *real*
    column, missing values a bin of their own. No pair is left out for being weak, and outliers in
    `synthetic` do not move the bins.

    Parameters
    ----------
    real, synthetic : DataFrame
        Rows of the same columns.

    Returns
    -------
    errors : DataFrame of float, shape (n_columns, n_columns)
        Percent, symmetric, NaN on the diagonal.

    Examples
    --------
    >>> from tabdiff.datasets import load_penguins
    >>> from tabdiff.evaluation import pair_trend_errors
    >>> penguins = load_penguins().sample(frac=1, random_state=0)
    >>> real, other = penguins[:170], penguins[170:340]
    >>> len(pair_trend_errors(real, other))
    8
    """
    real, synthetic = check_frames(real=real, synthetic=synthetic)
    a, b = encode(real, synthetic)
    numeric = {name: (a.numeric[:, j], b.numeric[:, j]) for j, name in enumerate(a.numeric_names)}
    codes = {name: (a.codes[:, j], b.codes[:, j]) for j, name in enumerate(a.categorical_names)}
    codes |= {name: tuple(_binned(x, x, y)) for name, (x, y) in numeric.items()}
    n = len(real.columns)
    errors = np.full((n, n), np.nan)
    for i, j in combinations(range(n), 2):
        first, second = real.columns[i], real.columns[j]
        if first in numeric and second in numeric:
            of_real, of_synthetic = (_correlation(numeric[first][k], numeric[second][k]) for k in (0, 1))
            error = abs(of_real - of_synthetic) / 2
        else:
            n_second = 1 + max(int(c.max()) for c in codes[second])
            joint = [(codes[first][k] + 1) * (n_second + 1) + codes[second][k] + 1 for k in (0, 1)]
            error = _total_variation(*joint)
        errors[i, j] = errors[j, i] = 100 * error
    return pd.DataFrame(errors, index=real.columns, columns=real.columns)


def trend_error(real: pd.DataFrame, synthetic: pd.DataFrame) -> float:
    """Return the mean of `pair_trend_errors`: percent, lower is better; NaN for a single column.

    Parameters
    ----------
    real, synthetic : DataFrame
        Rows of the same columns.

    Returns
    -------
    float
        In percent; 0 is best.

    Examples
    --------
    >>> from tabdiff.datasets import load_penguins
    >>> from tabdiff.evaluation import trend_error
    >>> penguins = load_penguins().sample(frac=1, random_state=0)
    >>> real, other = penguins[:170], penguins[170:340]
    >>> 0 < trend_error(real, other) < 30
    True
    """
    errors = pair_trend_errors(real, synthetic).to_numpy()
    pairs = errors[np.triu_indices(len(errors), k=1)]
    return float(pairs.mean()) if len(pairs) else float("nan")


def missingness_error(real: pd.DataFrame, synthetic: pd.DataFrame) -> float:
    """Compare how often cells are missing: alone, and together with another column's.

    The mean absolute difference between the two frames in P(a missing) and P(a and b missing), over all
    columns a and pairs a, b that have a missing value in either frame.

    Parameters
    ----------
    real, synthetic : DataFrame
        Rows of the same columns.

    Returns
    -------
    error : float
        Percent, lower is better; 0 where neither frame has a missing value.

    Examples
    --------
    >>> from tabdiff.datasets import load_penguins
    >>> from tabdiff.evaluation import missingness_error
    >>> penguins = load_penguins().sample(frac=1, random_state=0)
    >>> real, other = penguins[:170], penguins[170:340]
    >>> missingness_error(real, other) < 5
    True
    """
    real, synthetic = check_frames(real=real, synthetic=synthetic)
    is_missing = [frame.isna().to_numpy(dtype="float64") for frame in (real, synthetic)]
    some = np.vstack(is_missing).any(axis=0)
    if not some.any():
        return 0.0
    both = [h[:, some].T @ h[:, some] / len(h) for h in is_missing]
    return 100 * float(np.abs(both[0] - both[1])[np.triu_indices(int(some.sum()))].mean())


def independent_columns(df: pd.DataFrame, n: int | None = None, *, random_state: int | None = 0) -> pd.DataFrame:
    """Draw each column from its own values, independently of the others: right marginals, no dependence.

    The baseline that a generator has to beat.

    Parameters
    ----------
    df : DataFrame of shape (n_rows, n_columns)
        The real rows.
    n : int, optional
        Rows to draw, with replacement. Default: as many as `df` has.
    random_state : int, optional
        Of the rows that are drawn; None draws afresh.

    Returns
    -------
    drawn : DataFrame, shape (n, n_columns)
        Same columns and dtypes, fresh index.

    Raises
    ------
    TypeError
        If `df` is no data frame.
    ValueError
        If `df` is empty, or `n` is negative.

    Examples
    --------
    >>> from tabdiff.datasets import load_penguins
    >>> from tabdiff.evaluation import independent_columns
    >>> penguins = load_penguins().sample(frac=1, random_state=0)
    >>> real, other = penguins[:170], penguins[170:340]
    >>> independent_columns(real, random_state=0).shape
    (170, 8)
    """
    (df,) = check_frames(real=df)
    n = len(df) if n is None else n
    if n < 0:
        raise ValueError(f"n={n} is negative; give the number of rows to draw.")
    rng = np.random.default_rng(random_state)
    columns = [df[c].iloc[rng.integers(len(df), size=n)].reset_index(drop=True) for c in df.columns]
    return pd.concat(columns, axis=1)
