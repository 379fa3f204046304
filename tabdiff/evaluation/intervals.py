"""Intervals over resamples: how far a figure would move with other rows of the same kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

__all__ = ["Z", "bootstrap", "clopper_pearson", "jackknife", "jackknife_error"]

# Half width of a 95 % interval in standard errors.
Z = 1.959964


def jackknife_error(values: np.ndarray) -> np.ndarray:
    """Standard error (k,) from figures (groups, k) that each leave one of equally large groups of rows out.

    Efron and Tibshirani, *An Introduction to the Bootstrap*, 1993, chapter 11, by groups of rows.
    """
    values = np.asarray(values, dtype="float64")
    n = len(values)
    with np.errstate(invalid="ignore"):
        return np.sqrt((n - 1) / n * ((values - values.mean(axis=0)) ** 2).sum(axis=0))


def jackknife(
    metrics: Callable[..., dict[str, float]],
    sizes: Sequence[int],
    rng: np.random.Generator,
    *,
    groups: int = 10,
    max_rows: int = 10_000,
) -> dict[str, float]:
    """Standard errors of metrics by leaving a tenth of the rows of every frame out, ten times.

    Other than a bootstrap it repeats no row, which metrics of copying and of shape would see.

    Parameters
    ----------
    metrics : callable
        Takes positions of rows, an array a frame, and returns figures by name.
    sizes : sequence of int
        Rows of each frame.
    rng : numpy.random.Generator
    groups : int, default=10
    max_rows : int, default=10000
        Of larger frames so many rows are used, and the errors are scaled by the root of the share.

    Returns
    -------
    errors : dict of str to float
        By name; NaN where a figure is.
    """
    groups = max(2, min(groups, *sizes))
    chosen = [rng.permutation(n)[:max_rows] for n in sizes]
    parts = [np.arange(len(rows)) % groups for rows in chosen]
    found = []
    for g in range(groups):
        found.append(metrics(*(np.sort(rows[part != g]) for rows, part in zip(chosen, parts, strict=True))))
    scale = np.sqrt(min(len(rows) / n for rows, n in zip(chosen, sizes, strict=True)))
    names = list(found[0])
    errors = jackknife_error(np.array([[f[name] for name in names] for f in found]))
    return dict(zip(names, (scale * errors).tolist(), strict=True))


def bootstrap(
    statistic: Callable[..., float], *samples: np.ndarray, rng: np.random.Generator, n: int = 200
) -> tuple[float, float]:
    """95 % interval of a statistic of independent samples, by its spread over `n` resamples of each.

    About the statistic itself, for many are biased in resamples, which repeat values.
    """
    values = [statistic(*(s[rng.integers(len(s), size=len(s))] for s in samples)) for _ in range(n)]
    half = Z * float(np.std(np.asarray(values, dtype="float64")))
    center = float(statistic(*samples))
    return center - half, center + half


def clopper_pearson(successes: Any, n: Any, confidence: float = 0.95) -> tuple[Any, Any]:
    """Exact interval of a probability, from so many successes among n tries; arrays or numbers.

    Clopper and Pearson, *The Use of Confidence or Fiducial Limits Illustrated in the Case of the Binomial*, 1934.
    """
    from scipy.stats import beta

    k, n = np.asarray(successes, dtype="float64"), np.asarray(n, dtype="float64")
    tail = (1 - confidence) / 2
    with np.errstate(invalid="ignore"):
        low = np.where(k > 0, beta.ppf(tail, k, n - k + 1), 0.0)
        high = np.where(k < n, beta.ppf(1 - tail, k + 1, n - k), 1.0)
    return (float(low), float(high)) if low.ndim == 0 else (low, high)
