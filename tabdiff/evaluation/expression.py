"""What the metrics of cells share: matrices, one scale for all, labels, principal components, distances."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from tabdiff.utils.array_likes import read_array

__all__ = ["as_matrix", "check_pair", "log_normalize", "principal_components", "squared_distances", "type_labels"]


def as_matrix(cells: Any) -> Any:
    """The matrix of an AnnData (X in memory), or the matrix itself; float32, CSR or dense."""
    if hasattr(cells, "obs") and hasattr(cells, "X"):
        cells = cells.X
        if hasattr(cells, "to_memory"):
            cells = cells.to_memory()
    if sparse.issparse(cells):
        return sparse.csr_matrix(cells).astype(np.float32)
    return read_array(cells, "cells", np.float32, taken="an AnnData, a sparse matrix or an array")


def check_pair(real: Any, synthetic: Any) -> tuple[Any, Any]:
    """Both matrices, float32; ValueError unless they have the same number of genes and at least 2 cells each."""
    real, synthetic = as_matrix(real), as_matrix(synthetic)
    if real.shape[1] != synthetic.shape[1]:
        raise ValueError(
            f"real has {real.shape[1]} genes and synthetic {synthetic.shape[1]}; give both the same genes in order."
        )
    if min(real.shape[0], synthetic.shape[0]) < 2:
        raise ValueError("Each of real and synthetic needs at least 2 cells.")
    return real, synthetic


def log_normalize(cells: Any, *, target: float = 1e4) -> np.ndarray:
    """Return log1p of counts scaled to `target` per cell, dense (n_cells, n_genes) float32.

    A matrix with a negative or fractional value is taken as normalised already and returned as it is.

    Parameters
    ----------
    cells : AnnData, array or sparse matrix of shape (n_cells, n_genes)
        Counts.
    target : float, default=10000.0
        Total of a cell after scaling.

    Returns
    -------
    ndarray of shape (n_cells, n_genes)
        float32.

    Examples
    --------
    >>> import numpy as np
    >>> from tabdiff.evaluation import log_normalize
    >>> rng = np.random.default_rng(0)
    >>> rate = rng.gamma(2.0, 1.0, 30) * rng.gamma(2.0, 1.0, (200, 1))
    >>> real, other = rng.poisson(rate), rng.poisson(rate)
    >>> log_normalize(real).shape
    (200, 30)
    """
    x = as_matrix(cells)
    values = x.data if sparse.issparse(x) else x
    if values.size and (values.min() < 0 or np.any(values != np.rint(values))):
        return x.toarray() if sparse.issparse(x) else x
    total = np.asarray(x.sum(axis=1), dtype=np.float64).reshape(-1, 1)
    dense = x.toarray() if sparse.issparse(x) else x
    return np.log1p(dense * (target / np.maximum(total, 1.0))).astype(np.float32)


def type_labels(cells: Any, by: Any) -> np.ndarray:
    """Labels of each cell: an obs column, several joined by " / ", or an array as given."""
    if isinstance(by, str):
        return np.asarray(cells.obs[by].astype(str))
    if isinstance(by, (list, tuple)) and by and all(isinstance(b, str) for b in by) and hasattr(cells, "obs"):
        return np.asarray(cells.obs[list(by)].astype(str).agg(" / ".join, axis=1))
    return read_array(by, "labels")


def principal_components(real: np.ndarray, synthetic: np.ndarray, n_components: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores (n_cells, k) of both in the components fitted on the real cells, k at most `n_components`."""
    from sklearn.decomposition import PCA

    pca = PCA(
        min(n_components, *real.shape),
        svd_solver="full" if min(real.shape) < 500 else "randomized",
        random_state=0,
    )
    return pca.fit_transform(real), pca.transform(synthetic)


def squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Squared Euclidean distances (n, m) float64 between rows of a (n, k) and b (m, k)."""
    from sklearn.metrics import pairwise_distances

    return pairwise_distances(a.astype(np.float64), b.astype(np.float64), metric="sqeuclidean")
