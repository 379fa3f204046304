"""Sample weights: checked, and turned into a population of rows where a part of the model takes none."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.utils.validation import _check_sample_weight

from tabdiff.codecs import Images, is_anndata
from tabdiff.codecs.inputs import FitInputs
from tabdiff.io.frames import to_pandas
from tabdiff.io.modalities import Modalities
from tabdiff.training.batches import in_proportion
from tabdiff.utils.array_likes import as_values, check_labels, read_array

__all__ = ["population", "take_rows", "weigh"]

# A population has at most so many rows for each that there is.
MAX_COPIES = 4


def weigh(inputs: FitInputs, sample_weight: Any) -> tuple[FitInputs, np.ndarray | None]:
    """Check weights and leave out the rows that weigh nothing.

    Parameters
    ----------
    inputs : FitInputs
        All n rows.
    sample_weight : array-like of shape (n,), number or None
        As `fit` was given them.

    Returns
    -------
    inputs : FitInputs
        The m rows with a positive weight.
    weight : ndarray of shape (m,) or None
        float64; None where all are equal, so that such a fit is one without weights.

    Raises
    ------
    ValueError
        For weights of another length, that are negative, not finite, or positive for fewer than two rows.
    """
    if sample_weight is None:
        return inputs, None
    n = inputs.features.shape[0]
    if isinstance(sample_weight, str):
        raise TypeError(
            f"sample_weight must be a number for each row; got the text {sample_weight!r}. Pass the column, "
            f"sample_weight=X[{sample_weight!r}] (X.obs[{sample_weight!r}] for AnnData)."
        )
    known = to_pandas(as_values(sample_weight, "sample_weight"))
    check_labels(known, "sample_weight", _row_labels(inputs.features))
    if not isinstance(known, int | float | np.number):
        known = read_array(known, "sample_weight", taken="a number for each row")
    weight = np.array(_check_sample_weight(known, np.empty((n, 1)), dtype=np.float64))
    if (weight < 0).any():
        raise ValueError(
            f"sample_weight must not be negative; got {weight.min():g} at row {int(weight.argmin())}. "
            "Give a row the weight 0 to leave it out."
        )
    counts = weight > 0
    if counts.sum() < 2:
        raise ValueError(
            f"sample_weight is zero for {n - int(counts.sum())} of {n} rows; at least two rows need a positive weight."
        )
    if not counts.all():
        rows = np.flatnonzero(counts)
        condition = inputs.condition
        condition = None if condition is None else condition.iloc[rows].reset_index(drop=True)
        inputs, weight = replace(inputs, features=take_rows(inputs.features, rows), condition=condition), weight[rows]
    return inputs, None if (weight == weight[0]).all() else weight


def _row_labels(features: Any) -> pd.Index | None:
    if is_anndata(features) or isinstance(features, Modalities):
        return features.obs_names
    return features.index if isinstance(features, pd.DataFrame | pd.Series) else None


def take_rows(features: Any, rows: np.ndarray) -> Any:
    """Return rows of an array, a DataFrame, cells or images by their numbers (k,), which may repeat."""
    if isinstance(features, Modalities):
        obs = features.obs.iloc[rows].set_axis([str(i) for i in range(len(rows))])
        obsm = {key: getattr(value, "iloc", value)[rows] for key, value in features.obsm.items()}
        return Modalities({key: take_rows(adata, rows) for key, adata in features.mod.items()}, obs, obsm, features.uns)
    if is_anndata(features):
        # Files give rows only in order, and each once.
        features = features.to_memory() if features.isbacked else features
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Observation names are not unique", UserWarning)
            taken = features[rows].copy()
        taken.obs_names = [str(i) for i in range(len(rows))]
        return taken
    if isinstance(features, Images):
        return features.take(rows)
    return features[rows] if isinstance(features, np.ndarray) else features.iloc[rows]


def population(weight: np.ndarray) -> np.ndarray:
    """Return row numbers that repeat each row in proportion to its weight.

    There are enough of them for the row of the smallest weight to stand there once, so that integer weights of which
    the smallest is 1 give as many copies of each row; but no more than four times as many as there are rows, and then
    rows of small weight may be missing.

    Parameters
    ----------
    weight : ndarray of shape (n,)
        Positive.

    Returns
    -------
    ndarray of shape (m,)
        In order, with n <= m <= 4 n.

    Examples
    --------
    >>> import numpy as np
    >>> population(np.array([1.0, 3.0, 2.0]))
    array([0, 1, 1, 1, 2, 2])
    """
    n = len(weight)
    m = int(np.clip(np.rint(min(weight.sum() / weight.min(), MAX_COPIES * n)), n, MAX_COPIES * n))
    # Always the same order, but not that of the data, in which weights may come in a rhythm.
    order = np.random.default_rng(0).permutation(n)
    return np.sort(order[in_proportion(torch.from_numpy(weight[order]), m).numpy()])
