"""Where a random forest finds the difference between drawn and real cells: which genes, and what of them.

The forest is that of the RF-AUC: log-normalised genes, half of the cells to fit and half to score. Of each of the genes
that it splits by most, that of these statistics is named in which drawn and real cells differ most in standard errors:
mean, share of zeros, variance, correlation with the cell's total count; "none alone" where none differs by three. A
second forest sees the genes shuffled within types, by which only their marginal distributions are left.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from harness import markdown
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score

from tabdiff.evaluation.cells import log_normalize

GENES, SIGNIFICANT = 10, 3.0


def _forest(real: np.ndarray, drawn: np.ndarray, seed: int, threads: int) -> tuple[float, np.ndarray]:
    """Area under the ROC curve on the half not fitted on, and importance of each gene."""
    rng = np.random.default_rng(seed)
    n = min(len(real), len(drawn))
    x = np.concatenate([some[rng.permutation(len(some))[:n]] for some in (real, drawn)])
    y = np.repeat([0, 1], n)
    fitted = np.tile(np.arange(n) % 2 == 0, 2)
    forest = RandomForestClassifier(100, random_state=seed, n_jobs=threads).fit(x[fitted], y[fitted])
    return float(roc_auc_score(y[~fitted], forest.predict_proba(x[~fitted])[:, 1])), forest.feature_importances_


def _shuffled(x: np.ndarray, types: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each gene's values in another order, within types."""
    out = x.copy()
    for label in np.unique(types):
        rows = np.flatnonzero(types == label)
        out[rows] = rng.permuted(x[rows], axis=0)
    return out


def _correlation(x: np.ndarray, depth: np.ndarray) -> np.ndarray:
    x, depth = x - x.mean(axis=0), depth - depth.mean()
    return (depth @ x) / np.maximum(np.sqrt((depth**2).sum() * (x**2).sum(axis=0)), 1e-12)


def statistics(real: np.ndarray, drawn: np.ndarray, depths: tuple[np.ndarray, np.ndarray]) -> dict[str, np.ndarray]:
    """By how many standard errors each statistic of each gene differs, drawn less real."""
    n = len(real), len(drawn)
    variance = real.var(axis=0), drawn.var(axis=0)
    fourth = [np.mean((x - x.mean(axis=0)) ** 4, axis=0) for x in (real, drawn)]
    zeros = [(x == 0).mean(axis=0) for x in (real, drawn)]
    pooled = np.average(zeros, axis=0, weights=n)
    tiny = 1e-12
    r = [np.arctanh(np.clip(_correlation(x, d), -0.999, 0.999)) for x, d in zip((real, drawn), depths, strict=True)]
    return {
        "mean": (drawn.mean(axis=0) - real.mean(axis=0)) / np.sqrt(variance[0] / n[0] + variance[1] / n[1] + tiny),
        "zeros": (zeros[1] - zeros[0]) / np.sqrt(pooled * (1 - pooled) * (1 / n[0] + 1 / n[1]) + tiny),
        "variance": (variance[1] - variance[0])
        / np.sqrt((fourth[0] - variance[0] ** 2) / n[0] + (fourth[1] - variance[1] ** 2) / n[1] + tiny),
        "correlation with depth": (r[1] - r[0]) / np.sqrt(1 / max(n[0] - 3, 1) + 1 / max(n[1] - 3, 1)),
    }


def find_tells(
    real: Any,
    drawn: Any,
    real_types: np.ndarray,
    drawn_types: np.ndarray,
    genes: list[str],
    seed: int,
    threads: int = 1,
) -> dict[str, Any]:
    """What tells drawn counts (n, g) from real ones (m, g).

    Returns
    -------
    dict
        "auc", "auc_marginals", and in "genes" for each of the most telling: its name, importance, statistic and by how
        many standard errors this differs.
    """
    rng = np.random.default_rng(seed)
    depths = tuple(np.log(np.maximum(np.asarray(x.sum(axis=1), dtype=float).ravel(), 1)) for x in (real, drawn))
    x, z = log_normalize(real), log_normalize(drawn)
    auc, importance = _forest(x, z, seed, threads)
    marginals, _ = _forest(_shuffled(x, real_types, rng), _shuffled(z, drawn_types, rng), seed, threads)
    differences = statistics(x, z, depths)
    found = []
    for g in np.argsort(-importance, kind="stable")[:GENES]:
        name, value = max(((k, float(v[g])) for k, v in differences.items()), key=lambda kv: abs(kv[1]))
        name = name if abs(value) >= SIGNIFICANT else "none alone"
        found.append([genes[g], round(float(importance[g]), 4), name, round(value, 1)])
    return {"auc": auc, "auc_marginals": marginals, "genes": found}


def tells_table(rows: list[dict[str, Any]]) -> str:
    """Markdown: a line a run."""
    lines = []
    for row in sorted(rows, key=lambda row: (row["task"], row["system"], row["seed"])):
        counted: dict[str, int] = {}
        for _, _, name, _ in row["genes"]:
            counted[name] = counted.get(name, 0) + 1
        share = sum(importance for _, importance, _, _ in row["genes"])
        what = ", ".join(f"{n} by {name}" for name, n in sorted(counted.items(), key=lambda kv: -kv[1]))
        which = ", ".join(f"{gene} ({name} {value:+.1f})" for gene, _, name, value in row["genes"][:3])
        auc = f"{row['auc']:.3f}", f"{row['auc_marginals']:.3f}"
        lines.append([row["task"], row["system"], str(row["seed"]), *auc, f"{share:.0%}", what, which])
    head = ["set", "system", "seed", "RF-AUC", "of marginals alone", f"importance of {GENES} genes", "differ", "first"]
    return (
        "\n".join(["### where a random forest finds the difference", "", *markdown(head, lines), ""]) if lines else ""
    )
