"""Metrics on distances between rows of mixed type: typicality, coverage and copying."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.spatial.distance import cdist
from sklearn.neighbors import NearestNeighbors

from tabdiff.evaluation.frames import Encoded, check_frames, draw_rows, encode
from tabdiff.evaluation.intervals import bootstrap

__all__ = [
    "Coverage",
    "alpha_precision",
    "beta_recall",
    "coverage",
    "dcr_share",
    "gower_blocks",
    "gower_nearest",
    "nearer_share",
    "nearest_by_group",
    "nearest_neighbour_ratio",
]

# Above this width, one-hot codes are sparse or not made at all: never a dense array of rows × levels.
_MAX_DENSE_WIDTH = 512
# Entries of one block of the distance matrix (float64: 64 MiB).
_BLOCK_ENTRIES = 2**23


def _scaled_numbers(reference: Encoded, *others: Encoded) -> list[np.ndarray]:
    """Numbers in units of the reference's range, the median where missing; then a 0/1 flag for being missing.

    A constant column has no range: a departure from the constant counts in the column's own unit.
    """
    tables = [reference, *others]
    centers, ranges = [], []
    for column in reference.numeric.T:
        observed = column[~np.isnan(column)]
        centers.append(np.median(observed) if len(observed) else 0.0)
        ranges.append(np.ptp(observed) if len(observed) and np.ptp(observed) > 0 else 1.0)
    absent = [np.isnan(table.numeric) for table in tables]
    flagged = np.any([flags.any(axis=0) for flags in absent], axis=0)
    return [
        np.hstack([np.where(flags, 0.0, (table.numeric - centers) / ranges), flags[:, flagged]])
        for table, flags in zip(tables, absent, strict=True)
    ]


def _one_hot(table: Encoded) -> sparse.csr_matrix:
    """One column a level, a missing value being a level of its own; float32, shape (n_rows, sum of levels)."""
    n_rows, n_columns = table.codes.shape
    widths = np.asarray(table.n_levels, dtype=np.int64) + 1
    columns = (table.codes + 1 + np.cumsum(widths) - widths).ravel()
    ones = np.ones(columns.size, dtype=np.float32)
    return sparse.csr_matrix((ones, columns, np.arange(n_rows + 1) * n_columns), shape=(n_rows, int(widths.sum())))


def _is_wide(table: Encoded) -> bool:
    return sum(table.n_levels) + len(table.n_levels) > _MAX_DENSE_WIDTH


def gower_nearest(reference: Encoded, queries: Encoded, points: Encoded, *, exclude_self: bool = False) -> np.ndarray:
    """Distance of each query row to its nearest point, in bounded memory.

    The distance is Gower's, unnormalised: the sum over columns of the absolute difference in units of the
    reference's range for numbers, and of 1 for categories that differ (missing is a level). A missing number
    stands at the reference's median and 1 farther away from the numbers that are not missing.
    Gower, *A General Coefficient of Similarity and Some of Its Properties*, Biometrics 1971.

    Parameters
    ----------
    reference, queries, points : Encoded
        Encoded together.
    exclude_self : bool
        Leave-one-out: the queries are the points, and a row is no neighbour of itself (its duplicates are).

    Returns
    -------
    distances : ndarray of float64, shape (n_queries,)
    """
    nearest = np.empty(len(queries))
    start = 0
    for block in gower_blocks(reference, queries, points):
        if exclude_self:
            inside = np.arange(len(block))
            block[inside, start + inside] = np.inf
        nearest[start : start + len(block)] = block.min(axis=1)
        start += len(block)
    return nearest


def gower_blocks(reference: Encoded, queries: Encoded, points: Encoded) -> Iterator[np.ndarray]:
    """Yield the distances of `gower_nearest` from all queries to all points, some queries at a time."""
    _, a, b = _scaled_numbers(reference, queries, points)
    n_categorical = points.codes.shape[1]
    one_hot = None if _is_wide(points) else (_one_hot(queries), _one_hot(points).toarray().T)
    step = max(1, _BLOCK_ENTRIES // len(points))
    for start in range(0, len(queries), step):
        rows = slice(start, start + step)
        block = cdist(a[rows], b, "cityblock") if b.shape[1] else np.zeros((len(a[rows]), len(b)))
        if n_categorical and one_hot is None:
            block += n_categorical * cdist(queries.codes[rows], points.codes, "hamming")
        elif one_hot is not None:
            block += n_categorical - one_hot[0][rows].toarray() @ one_hot[1]
        yield block


def nearest_by_group(
    reference: Encoded, queries: Encoded, points: Encoded, group: np.ndarray, n_groups: int
) -> np.ndarray:
    """Distances (n_queries, n_groups) as of `gower_nearest`, to the nearest point of each group."""
    out = np.full((len(queries), n_groups), np.inf)
    for g in range(n_groups):
        own = np.flatnonzero(group == g)
        if len(own):
            out[:, g] = gower_nearest(reference, queries, points.take(own))
    return out


def nearer_share(to_real: np.ndarray, to_holdout: np.ndarray) -> float:
    """Share of rows nearer to real than to holdout rows, from distances (n,) of each: percent, ties counted half."""
    return 100 * float(np.mean((to_real < to_holdout) + 0.5 * (to_real == to_holdout)))


def _euclidean_nearest(queries: Any, points: Any, *, exclude_self: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Euclidean distance to the nearest point, and which one it is."""
    found = NearestNeighbors(n_neighbors=2 if exclude_self else 1).fit(points)
    candidates = found.kneighbors(queries, return_distance=False)
    nearest = candidates[:, 0]
    if exclude_self:
        # Among duplicates the row itself can come second, or not at all.
        nearest = np.where(nearest == np.arange(len(nearest)), candidates[:, 1], nearest)
    # From the differences: the search expands the square, which leaves noise where copies should have exactly 0.
    difference = queries - points[nearest]
    squares = difference.multiply(difference) if sparse.issparse(difference) else difference**2
    return np.sqrt(np.asarray(squares.sum(axis=1, dtype=np.float64)).ravel()), nearest


def _equal_embeddings(real: pd.DataFrame, synthetic: pd.DataFrame, random_state: int | None) -> tuple[Any, Any]:
    """As many real as synthetic rows, numbers on the real range, categories one-hot."""
    real, synthetic = check_frames(real=real, synthetic=synthetic)
    n = min(len(real), len(synthetic))
    if n < 2:
        raise ValueError(f"At least 2 rows are needed in each frame; the smaller has {n}.")
    rng = np.random.default_rng(random_state)
    tables = encode(real, synthetic)
    embedded = [
        sparse.hstack([numbers, _one_hot(table)], format="csr", dtype=np.float32)
        for numbers, table in zip(_scaled_numbers(*tables), tables, strict=True)
    ]
    if not _is_wide(tables[0]):
        embedded = [rows.toarray() for rows in embedded]
    a, b = embedded
    return a[draw_rows(a.shape[0], n, rng)], b[draw_rows(b.shape[0], n, rng)]


def _center_distances(rows: Any, center: np.ndarray) -> np.ndarray:
    """Distance of each row, dense or sparse, to one dense point."""
    squares = rows.multiply(rows) if hasattr(rows, "multiply") else rows**2
    squared = np.asarray(squares.sum(axis=1)).ravel() - 2 * np.asarray(rows @ center).ravel() + center @ center
    return np.sqrt(np.maximum(squared, 0))


def _mean_row(rows: Any) -> np.ndarray:
    return np.asarray(rows.mean(axis=0, dtype=np.float64)).ravel()


def alpha_precision(real: pd.DataFrame, synthetic: pd.DataFrame, *, random_state: int | None = 0) -> float:
    r"""Do synthetic rows lie where real rows are typical.

    For each α, the share of synthetic rows inside the smallest ball about the real mean that holds a share
    α of the real rows; it should be α. The score is :math:`1 - \sum|α - \hat{α}| / \sum α` over 30 levels
    of α, on numbers scaled by the real range and one-hot categories: the "naive" form that published tables
    report. Alaa et al., *How Faithful is your Synthetic Data?*, ICML 2022.

    Parameters
    ----------
    real, synthetic : DataFrame
        Rows of the same columns.
    random_state : int or None, default=0
        Seed of what is drawn.

    Returns
    -------
    score : float
        1 is best. A table of few distinct rows scores low even against itself: compare with real rows.

    Examples
    --------
    >>> from tabdiff.datasets import load_penguins
    >>> from tabdiff.evaluation import alpha_precision
    >>> penguins = load_penguins().sample(frac=1, random_state=0)
    >>> real, other = penguins[:170], penguins[170:340]
    >>> 0 <= alpha_precision(real, other) <= 1
    True
    """
    a, b = _equal_embeddings(real, synthetic, random_state)
    center = _mean_row(a)
    return precision_of(_center_distances(a, center), _center_distances(b, center))


def precision_of(of_real: np.ndarray, of_synthetic: np.ndarray) -> float:
    """`alpha_precision` from the distances of real and of synthetic rows to the real mean."""
    alphas = np.linspace(0, 1, 30)
    radii = np.quantile(of_real, alphas)
    inside = np.searchsorted(np.sort(of_synthetic), radii, side="right") / len(of_synthetic)
    return 1 - float(np.abs(alphas - inside).sum() / alphas.sum())


def beta_recall(real: pd.DataFrame, synthetic: pd.DataFrame, *, random_state: int | None = 0) -> float:
    r"""Do synthetic rows cover the variety of real rows.

    A real row is covered when its nearest synthetic row is no farther than its nearest other real row. For
    each β, the share of real rows covered by the synthetic rows of the smallest ball about the synthetic
    mean that holds a share β of the covering rows; the score is :math:`1 - \sum|β - \hat{β}| / \sum β` over
    30 levels of β, scaled as in `alpha_precision`. Alaa et al., *How Faithful is your Synthetic Data?*,
    ICML 2022.

    Parameters
    ----------
    real, synthetic : DataFrame
        Rows of the same columns.
    random_state : int or None, default=0
        Seed of what is drawn.

    Returns
    -------
    score : float
        Higher is better, yet fresh real rows score about 0.5; far above that, rows were copied.

    Examples
    --------
    >>> from tabdiff.datasets import load_penguins
    >>> from tabdiff.evaluation import beta_recall
    >>> penguins = load_penguins().sample(frac=1, random_state=0)
    >>> real, other = penguins[:170], penguins[170:340]
    >>> 0 <= beta_recall(real, other) <= 1
    True
    """
    return recall_of(*coverage_distances(*_equal_embeddings(real, synthetic, random_state)))


def coverage_distances(a: Any, b: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What `beta_recall` counts, of embedded real rows a and synthetic rows b: an array (n_real,) each.

    Distances to the nearest other real row and to the nearest synthetic row, and of the latter from the synthetic mean.
    """
    to_real, _ = _euclidean_nearest(a, a, exclude_self=True)
    to_synthetic, nearest = _euclidean_nearest(a, b)
    return to_real, to_synthetic, _center_distances(b, _mean_row(b))[nearest]


def recall_of(to_real: np.ndarray, to_synthetic: np.ndarray, from_center: np.ndarray) -> float:
    """`beta_recall` from what `coverage_distances` returns."""
    betas = np.linspace(0, 1, 30)
    radii = np.quantile(from_center, betas)
    covered = np.sort(from_center[to_synthetic <= to_real])
    share = np.searchsorted(covered, radii, side="right") / len(to_real)
    return 1 - float(np.abs(betas - share).sum() / betas.sum())


@dataclass(frozen=True)
class Coverage:
    """`alpha_precision` and `beta_recall` of the same rows, with what each row adds."""

    centers: tuple[np.ndarray, np.ndarray]
    neighbours: tuple[np.ndarray, np.ndarray, np.ndarray]

    @property
    def precision(self) -> float:
        """As `alpha_precision`."""
        return precision_of(*self.centers)

    @property
    def recall(self) -> float:
        """As `beta_recall`."""
        return recall_of(*self.neighbours)

    def intervals(self, rng: np.random.Generator, n: int = 100) -> dict[str, tuple[float, float]]:
        """95 % intervals of both over resamples of the rows."""
        rows = np.arange(len(self.neighbours[0]))
        recall = bootstrap(lambda i: recall_of(*(x[i] for x in self.neighbours)), rows, rng=rng, n=n)
        return {"alpha_precision": bootstrap(precision_of, *self.centers, rng=rng, n=n), "beta_recall": recall}


def coverage(real: pd.DataFrame, synthetic: pd.DataFrame, *, random_state: int | None = 0) -> Coverage:
    """Compute both metrics of coverage at once; see `alpha_precision` and `beta_recall`."""
    a, b = _equal_embeddings(real, synthetic, random_state)
    center = _mean_row(a)
    return Coverage((_center_distances(a, center), _center_distances(b, center)), coverage_distances(a, b))


def dcr_share(
    real: pd.DataFrame, synthetic: pd.DataFrame, holdout: pd.DataFrame, *, random_state: int | None = 0
) -> float:
    """Distance to the closest record: the share of synthetic rows nearer to training rows than to a holdout.

    Parameters
    ----------
    real, synthetic, holdout : DataFrame
        `real` trained the generator and `holdout` did not, both from one population. The larger of the two is
        subsampled to the size of the other, so that neither is nearer for being denser.
    random_state : int, optional
        Of the subsample; None draws afresh.

    Returns
    -------
    share : float
        Percent, ties counted half. About 50 is right; above 52 the synthetic rows follow the training rows.

    Examples
    --------
    >>> from tabdiff.datasets import load_penguins
    >>> from tabdiff.evaluation import dcr_share
    >>> penguins = load_penguins().sample(frac=1, random_state=0)
    >>> real, holdout = penguins[:170], penguins[170:340]
    >>> dcr_share(real, real, holdout) > 90  # copies of the training rows
    True
    """
    real, synthetic, holdout = check_frames(real=real, synthetic=synthetic, holdout=holdout)
    rng = np.random.default_rng(random_state)
    a, b, c = encode(real, synthetic, holdout)
    n = min(len(a), len(c))
    to_real = gower_nearest(a, b, a.take(draw_rows(len(a), n, rng)))
    to_holdout = gower_nearest(a, b, c.take(draw_rows(len(c), n, rng)))
    return nearer_share(to_real, to_holdout)


def nearest_neighbour_ratio(real: pd.DataFrame, synthetic: pd.DataFrame, holdout: pd.DataFrame | None = None) -> float:
    """Median distance to the nearest of *all* training rows: synthetic rows' over fresh real rows'.

    Distances are Gower's: numbers in units of the real range, 1 for each category that differs, summed.

    Parameters
    ----------
    real, synthetic : DataFrame
        `real` trained the generator.
    holdout : DataFrame, optional
        Rows that did not train it. Without one, each real row's distance to its nearest other row stands in.

    Returns
    -------
    ratio : float
        1 is right, under 0.9 the rows are copied or interpolated, well above 1 they lie where no real rows
        are. Where more than half of the fresh real rows have an exact duplicate, it is 1 if that holds of the
        synthetic rows too, else inf.

    Examples
    --------
    >>> from tabdiff.datasets import load_penguins
    >>> from tabdiff.evaluation import nearest_neighbour_ratio
    >>> penguins = load_penguins().sample(frac=1, random_state=0)
    >>> real, other = penguins[:170], penguins[170:340]
    >>> nearest_neighbour_ratio(real, real)
    0.0
    """
    frames = {"real": real, "synthetic": synthetic} | ({} if holdout is None else {"holdout": holdout})
    a, b, *c = encode(*check_frames(**frames))
    if not c and len(a) < 2:
        raise ValueError("One real row has no other for a neighbour. Pass holdout=, or more rows.")
    fresh = float(np.median(gower_nearest(a, c[0], a) if c else gower_nearest(a, a, a, exclude_self=True)))
    ours = float(np.median(gower_nearest(a, b, a)))
    if fresh == 0:
        return 1.0 if ours == 0 else float("inf")
    return ours / fresh
