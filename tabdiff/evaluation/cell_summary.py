"""All figures of drawn cells beside real ones at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tabdiff.evaluation.expression import (
    type_labels,
)

if TYPE_CHECKING:
    from anndata import AnnData

from tabdiff.evaluation.cells import (
    gene_correlation_agreement,
    gene_mean_correlation,
    log_fold_change_error,
    nb_baseline,
    rbf_mmd,
    rf_auc,
    wasserstein2,
    within_type_correlation,
    zero_fraction_gap,
)

__all__ = ["cell_scorecard", "cell_scores"]

_TITLES = {
    "rf_auc": "RF-AUC",
    "rbf_mmd": "RBF-MMD",
    "wasserstein2": "Wasserstein-2 per type",
    "within_type_correlation": "within-type correlation",
    "gene_correlation_agreement": "gene-gene correlation",
    "gene_mean_correlation": "gene-mean correlation",
    "zero_fraction_gap": "zero-fraction gap (points)",
    "log_fold_change_error": "log2 fold-change error",
}


def cell_scores(
    real: Any,
    synthetic: Any,
    *,
    real_labels: Any = None,
    synthetic_labels: Any = None,
    seed: int = 0,
    n_jobs: int | None = None,
    forest: bool = True,
) -> dict[str, float]:
    """Every metric of this module, by the name of its function.

    Parameters
    ----------
    real, synthetic : AnnData or matrix
        Cells × genes.
    real_labels, synthetic_labels : str, list of str or array, optional
        Types of the cells: obs columns or an array. Without them `within_type_correlation` is left out.
    seed : int
        Seed of the subsamples and forests.
    n_jobs : int, optional
        Processes of `rf_auc`, as in scikit-learn.
    forest : bool, default=True
        Whether to compute `rf_auc`, which takes the longest.

    Returns
    -------
    dict of str to float
        `log_fold_change_error` is NaN where fewer than two types are on both sides.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> rate = rng.gamma(2.0, 1.0, 30) * rng.gamma(2.0, 1.0, (200, 1))
    >>> scores = cell_scores(rng.poisson(rate), rng.poisson(rate), forest=False)
    >>> list(scores)[:3], bool(scores["gene_mean_correlation"] > 0.9)
    (['rbf_mmd', 'wasserstein2', 'gene_correlation_agreement'], True)
    """
    labels: dict[str, Any] = {}
    if real_labels is not None:
        labels = {
            "real_labels": type_labels(real, real_labels),
            "synthetic_labels": type_labels(synthetic, synthetic_labels),
        }
    scores = {"rf_auc": rf_auc(real, synthetic, seed=seed, n_jobs=n_jobs)} if forest else {}
    scores |= {
        "rbf_mmd": rbf_mmd(real, synthetic, seed=seed),
        "wasserstein2": wasserstein2(real, synthetic, seed=seed, **labels),
    }
    if labels:
        scores["within_type_correlation"] = within_type_correlation(real, synthetic, **labels)
    scores |= {
        "gene_correlation_agreement": gene_correlation_agreement(real, synthetic),
        "gene_mean_correlation": gene_mean_correlation(real, synthetic),
        "zero_fraction_gap": zero_fraction_gap(real, synthetic),
    }
    if labels:
        shared = len(set(labels["real_labels"]) & set(labels["synthetic_labels"])) > 1
        scores["log_fold_change_error"] = log_fold_change_error(real, synthetic, **labels) if shared else np.nan
    return scores


def cell_scorecard(
    real: AnnData,
    synthetic: AnnData,
    *,
    by: str | Sequence[str],
    floor: AnnData | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Every metric of this module, for the synthetic cells beside the real half and the NB baseline.

    Parameters
    ----------
    real : AnnData
        Real cells that the generator did not see.
    synthetic : AnnData
        Generated cells, same genes in the same order.
    by : str or list of str
        The obs columns that name the type, in all objects.
    floor : AnnData, optional
        Real cells from the same source as `real`, best those that the generator was fitted on: they give the
        columns "real half" and, drawn with the composition of `synthetic`, "NB baseline".
    seed : int
        Seed of the subsamples, forests and baseline.

    Returns
    -------
    DataFrame
        A row per metric, columns "ideal", "synthetic" and, with `floor`, "real half" and "NB baseline".

    See Also
    --------
    tabdiff.evaluate : The same figures with one call, halves and baseline made for you.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> from anndata import AnnData
    >>> from tabdiff.evaluation import cell_scorecard
    >>> rng = np.random.default_rng(0)
    >>> obs = pd.DataFrame({"kind": ["a", "b"] * 60}, index=[str(i) for i in range(120)])
    >>> real, other = (AnnData(rng.poisson(2.0, (120, 20)), obs=obs) for _ in range(2))
    >>> cell_scorecard(real, other, by="kind", floor=other).columns[0]
    'ideal'
    """
    by = by if isinstance(by, str) else list(by)
    real_types = type_labels(real, by)
    columns: dict[str, tuple[Any, np.ndarray]] = {"synthetic": (synthetic, type_labels(synthetic, by))}
    if floor is not None:
        columns["real half"] = (floor, type_labels(floor, by))
        known = np.isin(columns["synthetic"][1], columns["real half"][1])
        labels = columns["synthetic"][1][known]
        columns["NB baseline"] = (nb_baseline(floor, by, labels=labels, seed=seed), labels)

    table = pd.DataFrame(
        {
            name: cell_scores(real, cells, real_labels=real_types, synthetic_labels=types, seed=seed)
            for name, (cells, types) in columns.items()
        }
    ).rename(index=_TITLES)
    ideal = {"RF-AUC": 0.5, **dict.fromkeys((title for title in _TITLES.values() if "correlation" in title), 1.0)}
    table.insert(0, "ideal", [ideal.get(str(metric), 0.0) for metric in table.index])
    table.index.name = "metric"
    return table
