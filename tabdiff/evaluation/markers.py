"""Markers, fold changes, curves of genes, recall of types and mixing, of log-normalised cells."""

from __future__ import annotations

import warnings

import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestNeighbors

from tabdiff.utils.processes import torch_threads

__all__ = [
    "dropout_error",
    "expression_scores",
    "fold_change_correlation",
    "fold_changes",
    "marker_direction",
    "marker_precision",
    "markers",
    "mean_variance_error",
    "mixing",
    "rank_genes",
    "type_recall",
]

TOP_MARKERS, DIRECTION_GENES, MIN_CELLS = 20, 50, 5
NEIGHBOURS = 15


def rank_genes(cells: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Wilcoxon's rank-sum statistic of each gene, each type against all other cells, by `scanpy.tl.rank_genes_groups`.

    Parameters
    ----------
    cells : ndarray of shape (n_cells, n_genes)
        Log-normalised.
    labels : ndarray of shape (n_cells,)

    Returns
    -------
    dict of str to ndarray of shape (n_genes,)
        z without correction for ties; types of fewer than five cells, or with fewer than five others, are left out.
    """
    import pandas as pd
    import scanpy
    from anndata import AnnData

    texts = np.asarray(labels).astype(str)
    types, counts = np.unique(texts, return_counts=True)
    groups = [str(t) for t, m in zip(types, counts) if min(m, len(texts) - m) >= MIN_CELLS]
    if not groups:
        return {}
    adata = AnnData(cells, obs=pd.DataFrame({"type": pd.Categorical(texts)}, index=[str(i) for i in range(len(texts))]))
    with warnings.catch_warnings(), np.errstate(all="ignore"), torch_threads():
        # Of fold changes, which are not used: where values are no logarithms of counts, they have none.
        warnings.simplefilter("ignore")
        scanpy.tl.rank_genes_groups(adata, "type", groups=groups, method="wilcoxon", use_raw=False)
    found = adata.uns["rank_genes_groups"]
    places = {name: i for i, name in enumerate(adata.var_names)}
    out = {}
    for label in groups:
        z = np.empty(len(places))
        z[[places[name] for name in found["names"][label]]] = found["scores"][label]
        out[label] = z
    return out


def markers(z: np.ndarray, n: int = TOP_MARKERS) -> np.ndarray:
    """Positions of the n genes that are highest in a type; no more than a fifth of the genes."""
    return np.argsort(-z, kind="stable")[: max(1, min(n, len(z) // 5))]


def fold_changes(cells: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Log2 fold change (n_genes,) of each type against all other cells, of mean counts per 10,000 plus 0.1."""
    out = {}
    counts = np.expm1(cells.astype(np.float64)) if cells.min(initial=0) >= 0 else None
    for label in np.unique(labels):
        own = labels == label
        if min(own.sum(), (~own).sum()) < MIN_CELLS:
            continue
        if counts is None:  # values that are no logarithms of counts: differences of means
            out[str(label)] = cells[own].mean(axis=0, dtype=np.float64) - cells[~own].mean(axis=0, dtype=np.float64)
        else:
            out[str(label)] = np.log2(counts[own].mean(axis=0) + 0.1) - np.log2(counts[~own].mean(axis=0) + 0.1)
    return out


def _mean_over_types(values: list[float]) -> float:
    return float(np.mean(values)) if values else float("nan")


def marker_precision(real: dict[str, np.ndarray], synthetic: dict[str, np.ndarray]) -> float:
    """Share of each type's top markers that are among its top markers in synthetic cells, a mean over types.

    Parameters
    ----------
    real, synthetic : dict
        Of `rank_genes`. A type that synthetic cells lack scores 0.
    """
    values = []
    for label, z in real.items():
        top = set(markers(z))
        values.append(len(top & set(markers(synthetic[label]))) / len(top) if label in synthetic else 0.0)
    return _mean_over_types(values)


def marker_direction(real: dict[str, np.ndarray], synthetic: dict[str, np.ndarray]) -> float:
    """Share of each type's 50 genes of the largest |z| that have the same sign in synthetic cells; ½ is chance."""
    values = []
    for label, z in real.items():
        top = np.argsort(-np.abs(z), kind="stable")[:DIRECTION_GENES]
        values.append(float((np.sign(z[top]) == np.sign(synthetic[label][top])).mean()) if label in synthetic else 0.5)
    return _mean_over_types(values)


def fold_change_correlation(real: dict[str, np.ndarray], synthetic: dict[str, np.ndarray]) -> float:
    """Pearson correlation over genes of log2 fold changes (of `fold_changes`), a mean over types."""
    values = []
    for label, change in real.items():
        other = synthetic.get(label)
        if other is None or min(change.std(), other.std()) == 0:
            values.append(0.0)
        else:
            values.append(float(np.corrcoef(change, other)[0, 1]))
    return _mean_over_types(values)


def mean_variance_error(real: np.ndarray, synthetic: np.ndarray) -> float:
    """Mean absolute difference over genes of log10 variances of log-normalised expression."""
    a, b = (np.log10(x.var(axis=0, dtype=np.float64) + 1e-3) for x in (real, synthetic))
    return float(np.abs(a - b).mean())


def dropout_error(real: np.ndarray, synthetic: np.ndarray) -> float:
    """Mean absolute difference over genes of the share of zeros, in percentage points."""
    return 100 * float(np.abs((real == 0).mean(axis=0) - (synthetic == 0).mean(axis=0)).mean())


def _components(real: np.ndarray, synthetic: np.ndarray, n: int = 30) -> tuple[np.ndarray, np.ndarray]:
    """Components fitted on both sides: those of one alone fit its noise, which sets the other apart."""
    both = np.concatenate([real, synthetic])
    places = PCA(min(n, *both.shape), svd_solver="randomized", random_state=0).fit_transform(both)
    return places[: len(real)], places[len(real) :]


def type_recall(real: np.ndarray, types: np.ndarray, synthetic: np.ndarray, other: np.ndarray) -> float:
    """Share of real cells of each type that a classifier finds which learned on synthetic cells, a mean over types.

    Logistic regression on 30 principal components of both.
    """
    if len(np.unique(other)) < 2:
        return float("nan")
    a, b = _components(real, synthetic)
    scale = a.std(axis=0)
    scale[scale == 0] = 1.0
    predicted = LogisticRegression(max_iter=200).fit(b / scale, other).predict(a / scale)
    return float(np.mean([(predicted[types == label] == label).mean() for label in np.unique(types)]))


def mixing(real: np.ndarray, synthetic: np.ndarray) -> float:
    """Real cells among the 15 nearest neighbours of synthetic cells, over what chance gives; 1 is ideal.

    In 30 principal components of both, as many cells of either side.
    """
    n = min(len(real), len(synthetic))
    a, b = _components(real[:n], synthetic[:n])
    k = min(NEIGHBOURS, 2 * n - 2)
    pooled = np.concatenate([a, b])
    near = NearestNeighbors(n_neighbors=k + 1).fit(pooled).kneighbors(b, return_distance=False)
    # A cell is no neighbour of itself; among duplicates it may come second, or not at all.
    own = near == np.arange(n, 2 * n)[:, None]
    own[:, -1] |= ~own.any(axis=1)
    others = near[~own].reshape(n, k)
    return float((others < n).mean() / (n / (2 * n - 1)))


def expression_scores(
    real: np.ndarray, synthetic: np.ndarray, types: np.ndarray | None, other: np.ndarray | None
) -> dict[str, float]:
    """Every figure of this module; those by type where types are given."""
    out = {
        "mean_variance_error": mean_variance_error(real, synthetic),
        "dropout_error": dropout_error(real, synthetic),
        "mixing": mixing(real, synthetic),
    }
    if types is not None and other is not None and len(np.unique(types)) > 1:
        ranks = rank_genes(real, types), rank_genes(synthetic, other)
        changes = fold_changes(real, types), fold_changes(synthetic, other)
        out |= {
            "marker_precision": marker_precision(*ranks),
            "marker_direction": marker_direction(*ranks),
            "fold_change_correlation": fold_change_correlation(*changes),
            "type_recall": type_recall(real, types, synthetic, other),
        }
    return out
