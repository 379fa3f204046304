"""How real do synthetic cells look: metrics, a hard baseline and a scorecard.

Every metric takes real and synthetic cells as AnnData or matrices (cells × genes, sparse or dense).
Counts are put on one scale first: normalised to 10,000 a cell, then log1p. Read no metric alone: the real
other half of the data is the floor that a perfect model reaches, and independent negative binomials per type
(`nb_baseline`) are a baseline that many deep models lose to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from tabdiff.evaluation.expression import (
    as_matrix,
    check_pair,
    log_normalize,
    principal_components,
    squared_distances,
    type_labels,
)
from tabdiff.utils.array_likes import read_array

if TYPE_CHECKING:
    from anndata import AnnData

__all__ = [
    "forest_aucs",
    "gene_correlation_agreement",
    "gene_mean_correlation",
    "log_fold_change_error",
    "log_normalize",
    "nb_baseline",
    "rbf_mmd",
    "rf_auc",
    "wasserstein2",
    "within_type_correlation",
    "zero_fraction_gap",
]


def rf_auc(real: Any, synthetic: Any, *, seed: int = 0, n_repeats: int = 3, n_jobs: int | None = None) -> float:
    """Area under the ROC curve of a random forest that tells real from synthetic cells; ½ is ideal.

    100 trees on log-normalised genes, half of the cells for training and half for scoring, each half in turn;
    the larger set is subsampled so that both are equally many.

    Parameters
    ----------
    real, synthetic : AnnData or matrix
        Cells × genes.
    seed, n_repeats : int
        Seed of the splits and trees, and how many splits are averaged.
    n_jobs : int, optional
        Processes, as in scikit-learn.

    Returns
    -------
    float
        Mean AUC over ``2 * n_repeats`` fits.

    Examples
    --------
    >>> import numpy as np
    >>> from tabdiff.evaluation import rf_auc
    >>> rng = np.random.default_rng(0)
    >>> rate = rng.gamma(2.0, 1.0, 30) * rng.gamma(2.0, 1.0, (200, 1))
    >>> real, other = rng.poisson(rate), rng.poisson(rate)
    >>> 0.3 < rf_auc(real, other) < 0.7
    True
    """
    return float(np.mean(forest_aucs(real, synthetic, seed=seed, n_repeats=n_repeats, n_jobs=n_jobs)))


def forest_aucs(
    real: Any,
    synthetic: Any,
    *,
    seed: int = 0,
    n_repeats: int = 3,
    n_jobs: int | None = None,
    n_trees: int = 100,
    max_cells: int | None = None,
) -> list[float]:
    """AUC of each forest of `rf_auc`, two a repeat, on at most `max_cells` cells of each side."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold

    a, b = (log_normalize(x) for x in check_pair(real, synthetic))
    rng = np.random.default_rng(seed)
    n = min(len(a), len(b), max_cells or len(a))
    a, b = (x[rng.permutation(len(x))[:n]] for x in (a, b))
    x, y = np.concatenate([a, b]), np.repeat([0, 1], n)
    scores = []
    for repeat in range(n_repeats):
        folds = StratifiedKFold(2, shuffle=True, random_state=seed + repeat)
        for train, test in folds.split(x, y):
            forest = RandomForestClassifier(n_trees, random_state=seed + repeat, n_jobs=n_jobs).fit(x[train], y[train])
            scores.append(float(roc_auc_score(y[test], forest.predict_proba(x[test])[:, 1])))
    return scores


def rbf_mmd(real: Any, synthetic: Any, *, n_components: int = 30, max_cells: int = 4000, seed: int = 0) -> float:
    """Maximum mean discrepancy with an RBF kernel in principal components of the real cells.

    The bandwidth is the median distance between the pooled cells; the estimate is the biased one, so that even
    two halves of one set score above 0 (Gretton et al., 2012, A kernel two-sample test).

    Parameters
    ----------
    real, synthetic : array or sparse matrix of shape (n_cells, n_genes)
        Counts, or normalised values, of the same genes.
    n_components : int, default=30
        How many principal components of the real cells.
    max_cells : int, default=4000
        Cells of each set at most; more are drawn from.
    seed : int, default=0
        Of the cells and components that are drawn.

    Returns
    -------
    float
        The square root of MMD², >= 0; 0 is ideal.

    Examples
    --------
    >>> import numpy as np
    >>> from tabdiff.evaluation import rbf_mmd
    >>> rng = np.random.default_rng(0)
    >>> rate = rng.gamma(2.0, 1.0, 30) * rng.gamma(2.0, 1.0, (200, 1))
    >>> real, other = rng.poisson(rate), rng.poisson(rate)
    >>> rbf_mmd(real, other) < 0.1
    True
    """
    x, y = check_pair(real, synthetic)
    a, b = principal_components(log_normalize(x), log_normalize(y), n_components)
    rng = np.random.default_rng(seed)
    a, b = (z[rng.permutation(len(z))[:max_cells]] for z in (a, b))
    d = squared_distances(np.concatenate([a, b]), np.concatenate([a, b]))
    k = np.exp(-d / (2 * max(float(np.median(d[np.triu_indices_from(d, 1)])), 1e-12)))
    n = len(a)
    return float(np.sqrt(max(k[:n, :n].mean() + k[n:, n:].mean() - 2 * k[:n, n:].mean(), 0.0)))


def wasserstein2(
    real: Any,
    synthetic: Any,
    *,
    real_labels: Any = None,
    synthetic_labels: Any = None,
    n_components: int = 30,
    max_cells: int = 1000,
    seed: int = 0,
) -> float:
    """Exact 2-Wasserstein distance per type, averaged over types by their number of real cells.

    Computed in principal components of the real cells, on equally many cells of each side (a random subsample of
    the larger), where the optimal transport plan is an assignment.

    Parameters
    ----------
    real, synthetic : AnnData, array or sparse matrix of shape (n_cells, n_genes)
        Counts, or normalised values, of the same genes.
    real_labels, synthetic_labels : str, list of str or array, optional
        Types of the cells: an obs column or an array. None compares all cells at once.
    n_components : int, default=30
        How many principal components of the real cells.
    max_cells : int, default=1000
        Most cells per type and side.
    seed : int, default=0
        Of the cells that are drawn.

    Returns
    -------
    float
        Distance in units of log-normalised expression, >= 0.

    Raises
    ------
    ValueError
        If the numbers of genes differ, or no type has at least two cells on both sides.

    Examples
    --------
    >>> import numpy as np
    >>> from tabdiff.evaluation import wasserstein2
    >>> rng = np.random.default_rng(0)
    >>> rate = rng.gamma(2.0, 1.0, 30) * rng.gamma(2.0, 1.0, (200, 1))
    >>> real, other = rng.poisson(rate), rng.poisson(rate)
    >>> wasserstein2(real, other) > 0
    True
    """
    from scipy.optimize import linear_sum_assignment

    x, y = check_pair(real, synthetic)
    types = np.zeros(x.shape[0]) if real_labels is None else type_labels(real, real_labels)
    other = np.zeros(y.shape[0]) if synthetic_labels is None else type_labels(synthetic, synthetic_labels)
    a, b = principal_components(log_normalize(x), log_normalize(y), n_components)
    rng = np.random.default_rng(seed)
    total, weight = 0.0, 0
    for label in np.unique(types):
        one, two = a[types == label], b[other == label]
        n = min(len(one), len(two), max_cells)
        if n < 2:
            continue
        cost = squared_distances(one[rng.permutation(len(one))[:n]], two[rng.permutation(len(two))[:n]])
        rows, columns = linear_sum_assignment(cost)
        total += len(one) * float(np.sqrt(cost[rows, columns].mean()))
        weight += len(one)
    if weight == 0:
        raise ValueError("No type has at least 2 cells on both sides.")
    return total / weight


def within_type_correlation(
    real: Any, synthetic: Any, *, real_labels: Any = None, synthetic_labels: Any = None, n_genes: int = 200
) -> float:
    """Agreement of gene-gene correlations once each type's mean is taken away.

    Pearson correlation between the upper triangles of the two correlation matrices, of the `n_genes` genes with the
    largest variance over real cells (log-normalised). Independent genes score near 0.

    Parameters
    ----------
    real, synthetic : array or sparse matrix of shape (n_cells, n_genes)
        Counts, or normalised values, of the same genes.
    real_labels, synthetic_labels : array-like of shape (n_cells,)
        The type of each cell.
    n_genes : int
        How many of the most variable genes are compared.

    Returns
    -------
    float
        In [-1, 1]; the real other half is the ceiling, because correlations are estimated with noise.

    Examples
    --------
    >>> import numpy as np
    >>> from tabdiff.evaluation import within_type_correlation
    >>> rng = np.random.default_rng(0)
    >>> rate = rng.gamma(2.0, 1.0, 30) * rng.gamma(2.0, 1.0, (200, 1))
    >>> real, other = rng.poisson(rate), rng.poisson(rate)
    >>> kinds = np.repeat(["a", "b"], 100)
    >>> within_type_correlation(real, other, real_labels=kinds, synthetic_labels=kinds) > 0
    True
    """
    x, y = check_pair(real, synthetic)
    types = np.zeros(x.shape[0]) if real_labels is None else type_labels(real, real_labels)
    other = np.zeros(y.shape[0]) if synthetic_labels is None else type_labels(synthetic, synthetic_labels)
    a, b = log_normalize(x), log_normalize(y)
    genes = np.sort(np.argsort(-a.var(axis=0))[:n_genes])
    triangle = np.triu_indices(len(genes), 1)
    correlations = []
    for cells, label in ((a[:, genes].astype(np.float64), types), (b[:, genes].astype(np.float64), other)):
        for one in np.unique(label):
            cells[label == one] -= cells[label == one].mean(axis=0)
        scale = np.sqrt(cells.var(axis=0))
        cells = cells / np.where(scale > 0, scale, 1.0)
        correlations.append((cells.T @ cells / len(cells))[triangle])
    if min(c.std() for c in correlations) == 0:
        return 0.0
    return float(np.corrcoef(correlations[0], correlations[1])[0, 1])


def gene_correlation_agreement(real: Any, synthetic: Any, *, n_genes: int = 200) -> float:
    """Agreement of gene-gene correlations over all cells, differences between types included.

    Pearson correlation between the upper triangles of the two correlation matrices, of the `n_genes` genes with the
    largest variance over real cells (log-normalised). Types alone make genes correlate, so even genes that are
    independent inside each type score high: read it beside `within_type_correlation`.

    Parameters
    ----------
    real, synthetic : array or sparse matrix of shape (n_cells, n_genes)
        Counts, or normalised values, of the same genes.
    n_genes : int
        How many of the most variable genes are compared.

    Returns
    -------
    float
        In [-1, 1]; the real other half is the ceiling, because correlations are estimated with noise.

    Examples
    --------
    >>> import numpy as np
    >>> from tabdiff.evaluation import gene_correlation_agreement
    >>> rng = np.random.default_rng(0)
    >>> rate = rng.gamma(2.0, 1.0, 30) * rng.gamma(2.0, 1.0, (200, 1))
    >>> real, other = rng.poisson(rate), rng.poisson(rate)
    >>> -1 <= gene_correlation_agreement(real, other) <= 1
    True
    """
    return within_type_correlation(real, synthetic, n_genes=n_genes)


def gene_mean_correlation(real: Any, synthetic: Any) -> float:
    """Pearson correlation over genes of the mean log-normalised expression; 1 is ideal.

    Parameters
    ----------
    real, synthetic : array or sparse matrix of shape (n_cells, n_genes)
        Counts, or normalised values, of the same genes.

    Returns
    -------
    float
        In [-1, 1]; 1 is best.

    Examples
    --------
    >>> import numpy as np
    >>> from tabdiff.evaluation import gene_mean_correlation
    >>> rng = np.random.default_rng(0)
    >>> rate = rng.gamma(2.0, 1.0, 30) * rng.gamma(2.0, 1.0, (200, 1))
    >>> real, other = rng.poisson(rate), rng.poisson(rate)
    >>> gene_mean_correlation(real, other) > 0.9
    True
    """
    a, b = (log_normalize(x).mean(axis=0, dtype=np.float64) for x in check_pair(real, synthetic))
    return float(np.corrcoef(a, b)[0, 1])


def zero_fraction_gap(real: Any, synthetic: Any) -> float:
    """Share of zero entries, synthetic minus real, in percentage points; 0 is ideal.

    Parameters
    ----------
    real, synthetic : array or sparse matrix of shape (n_cells, n_genes)
        Counts, or normalised values, of the same genes.

    Returns
    -------
    float
        In percentage points; 0 is best.

    Examples
    --------
    >>> import numpy as np
    >>> from tabdiff.evaluation import zero_fraction_gap
    >>> rng = np.random.default_rng(0)
    >>> rate = rng.gamma(2.0, 1.0, 30) * rng.gamma(2.0, 1.0, (200, 1))
    >>> real, other = rng.poisson(rate), rng.poisson(rate)
    >>> abs(zero_fraction_gap(real, other)) < 5
    np.True_
    """

    def zeros(x: Any) -> float:
        stored = x.count_nonzero() if sparse.issparse(x) else np.count_nonzero(x)
        return 1.0 - stored / (x.shape[0] * x.shape[1])

    a, b = check_pair(real, synthetic)
    return 100.0 * (zeros(b) - zeros(a))


def log_fold_change_error(real: Any, synthetic: Any, *, real_labels: Any, synthetic_labels: Any) -> float:
    """Mean absolute error over genes of the log2 fold change between the two largest real types.

    A fold change is that of mean counts per 10,000, with a pseudo-count of 0.1.

    Parameters
    ----------
    real, synthetic : array or sparse matrix of shape (n_cells, n_genes)
        Counts, or normalised values, of the same genes.
    real_labels, synthetic_labels : array-like of shape (n_cells,)
        The type of each cell.

    Returns
    -------
    float
        In log2 units, >= 0; the real other half's own error is the floor.

    Examples
    --------
    >>> import numpy as np
    >>> from tabdiff.evaluation import log_fold_change_error
    >>> rng = np.random.default_rng(0)
    >>> rate = rng.gamma(2.0, 1.0, 30) * rng.gamma(2.0, 1.0, (200, 1))
    >>> real, other = rng.poisson(rate), rng.poisson(rate)
    >>> kinds = np.repeat(["a", "b"], 100)
    >>> log_fold_change_error(real, other, real_labels=kinds, synthetic_labels=kinds) < 1
    True
    """
    types, other = type_labels(real, real_labels), type_labels(synthetic, synthetic_labels)
    x, y = check_pair(real, synthetic)
    shared = [t for t in pd.Series(types).value_counts().index if np.any(other == t)][:2]
    if len(shared) < 2:
        raise ValueError("Log-fold changes need two types that are present in real and synthetic cells.")
    changes = []
    for cells, label in ((log_normalize(x), types), (log_normalize(y), other)):
        means = [np.log2(np.expm1(cells[label == t]).mean(axis=0, dtype=np.float64) + 0.1) for t in shared]
        changes.append(means[0] - means[1])
    return float(np.abs(changes[0] - changes[1]).mean())


def nb_baseline(train: AnnData, by: str | Sequence[str], *, labels: Any = None, seed: int = 0) -> AnnData:
    """Cells with independent negative-binomial genes per type and library sizes drawn from the type's own.

    Rates are the type's total counts over its total library; the dispersion of each gene and type comes from
    moments, pulled to that of the whole gene with the weight of 20 cells.

    Parameters
    ----------
    train : AnnData
        Counts in X.
    by : str or list of str
        The obs columns that name the type.
    labels : array of str, optional
        Type of each cell to draw; by default the training cells' own.
    seed : int
        Seed of the draws.

    Returns
    -------
    AnnData
        CSR int32 counts and the type in ``obs["type"]``; also in ``obs[by]`` where `by` is one column.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> from anndata import AnnData
    >>> from tabdiff.evaluation import nb_baseline
    >>> rng = np.random.default_rng(0)
    >>> obs = pd.DataFrame({"kind": ["a", "b"] * 60}, index=[str(i) for i in range(120)])
    >>> real, other = (AnnData(rng.poisson(2.0, (120, 20)), obs=obs) for _ in range(2))
    >>> nb_baseline(real, "kind").shape
    (120, 20)
    """
    from anndata import AnnData

    types = type_labels(train, by if isinstance(by, str) else list(by))
    wanted = types if labels is None else read_array(labels, "labels").astype(str)
    unknown = sorted(str(t) for t in set(wanted) - set(types))
    if unknown:
        raise ValueError(f"labels holds {unknown}, but the types in train are {sorted(str(t) for t in set(types))}.")
    rng = np.random.default_rng(seed)
    x = as_matrix(train)
    x = x.toarray() if sparse.issparse(x) else x
    library = np.maximum(x.sum(axis=1, dtype=np.float64), 1.0)
    names, code = np.unique(types, return_inverse=True)
    rate = np.stack([x[code == c].sum(axis=0) / library[code == c].sum() for c in range(len(names))])
    excess, square = (np.zeros_like(rate, dtype=np.float64) for _ in range(2))
    for c in range(len(names)):
        mean = library[code == c, None] * rate[c]
        excess[c] = ((x[code == c] - mean) ** 2 - mean).sum(axis=0)
        square[c] = (mean**2).sum(axis=0)
    pooled = np.maximum(excess.sum(axis=0), 0) / np.maximum(square.sum(axis=0), 1e-12)
    n = np.bincount(code)[:, None]
    per_type = np.maximum(excess, 0) / np.maximum(square, 1e-12)
    inverse_theta = np.clip((n * per_type + 20 * pooled) / (n + 20), 1e-3, 1e3)
    rows = []
    index = np.searchsorted(names, wanted)
    for start in range(0, len(index), 1024):
        chosen = index[start : start + 1024]
        size = np.array([rng.choice(library[code == c]) for c in chosen])
        mean = size[:, None] * rate[chosen]
        counts = rng.poisson(rng.gamma(1 / inverse_theta[chosen], mean * inverse_theta[chosen]))
        fits = counts.max(initial=0) <= np.iinfo(np.int32).max
        rows.append(sparse.csr_matrix(counts, dtype=np.int32 if fits else np.int64))
    obs = pd.DataFrame({"type": pd.Categorical(wanted)}, index=[f"baseline-{i}" for i in range(len(index))])
    if isinstance(by, str):
        obs[by] = obs["type"].to_numpy()
    return AnnData(sparse.vstack(rows, format="csr"), obs=obs, var=train.var.copy())
