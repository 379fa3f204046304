"""The negative binomial of each class of cells, where the model of counts starts: rates and dispersions."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from tabdiff.codecs._classes import CellClasses
from tabdiff.codecs._matrix import CHUNK

__all__ = ["ClassRates", "fit_dispersion", "overdispersed_genes"]

PSEUDO_CELLS = 1.0  # cells of prior for the rates of a class, at the rates of the level above it
JOINT_PSEUDO_CELLS = 10.0  # the same for a combination of attributes, at its additive rates
DISPERSION_CELLS = 20.0  # cells of prior for the dispersion of a class, at that of the gene


class ClassRates:
    """Shares of a cell's counts that fall on each gene, per class, shrunk to rates that add over attributes.

    Additive rates are fitted by iterative proportional fitting; a class's own counts then weigh against them.

    Parameters
    ----------
    matrix : CSR matrix or array of shape (n_cells, n_genes)
        Counts.
    classes : CellClasses
    library : float array of shape (n_cells,)
        Total counts of the cells.

    Attributes
    ----------
    base, effects : float32 arrays (n_genes,), (n_levels + nulls, n_genes)
        Additive log rates, for combinations that training never showed.
    effect_start : int array
        First row in `effects` of each attribute.
    class_log_rate : float32 array (n_classes, n_genes)
        Log of the share of a cell's counts that falls on a gene.
    """

    def __init__(self, matrix: Any, classes: CellClasses, library: np.ndarray) -> None:
        codes = classes.codes
        sums = group_sum(matrix, classes.training, len(classes))
        depth = np.bincount(classes.training, library, minlength=len(classes))
        cell = depth.sum() / classes.counts.sum()
        pooled = sums.sum(axis=0)
        n_genes = len(pooled)
        base = np.log((pooled + 0.05 / n_genes) / (pooled.sum() + 0.05))
        sizes = [classes.levels[j] + 1 for j in classes.columns]
        self.effect_start = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        effects = np.zeros((int(self.effect_start[-1]), n_genes))
        prior = PSEUDO_CELLS * cell * np.exp(base)
        for _ in range(1 if len(sizes) < 2 else 50):
            largest = 0.0
            for j, start in enumerate(self.effect_start[:-1]):
                fitted = depth[:, None] * np.exp(self._add(base, effects, codes))
                for level in np.unique(codes[:, j]):
                    own = codes[:, j] == level
                    expected = fitted[own].sum(axis=0)
                    step = np.log((sums[own].sum(axis=0) + prior) / (expected + prior))
                    effects[start + level] += step
                    largest = max(largest, float(np.abs(step).max()))
            if largest < 1e-3:
                break
        additive = self._add(base, effects, codes)
        joint = JOINT_PSEUDO_CELLS if len(sizes) > 1 else 0.0
        rate = (sums + joint * cell * np.exp(additive)) / (depth + joint * cell)[:, None]
        floor = np.exp(base) * PSEUDO_CELLS / (classes.counts[:, None] + PSEUDO_CELLS)
        rate = np.maximum(rate, np.minimum(floor, np.exp(additive)))
        self.base, self.effects = base.astype(np.float32), effects.astype(np.float32)
        self.class_log_rate = np.log(rate / rate.sum(axis=1, keepdims=True)).astype(np.float32)

    def _add(self, base: np.ndarray, effects: np.ndarray, codes: np.ndarray) -> np.ndarray:
        out = np.tile(base, (len(codes), 1))
        for j, start in enumerate(self.effect_start[:-1]):
            out += effects[start + codes[:, j]]
        return out

    def additive(self, codes: np.ndarray) -> np.ndarray:
        """Additive log rates (n, n_genes) at levels (n, n_class_attributes)."""
        return self._add(self.base, self.effects, codes)

    def state(self) -> dict[str, Any]:
        return {k: getattr(self, k) for k in ("base", "effects", "effect_start", "class_log_rate")}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> ClassRates:
        self = cls.__new__(cls)
        for key, value in state.items():
            setattr(self, key, np.asarray(value))
        return self


def fit_dispersion(matrix: Any, classes: CellClasses, library: np.ndarray, class_log_rate: np.ndarray) -> np.ndarray:
    """Log inverse dispersion (n_classes, n_genes) float32 by moments, pulled to the gene's own."""
    first = group_sum(matrix, classes.training, len(classes), library)
    second = group_sum(matrix, classes.training, len(classes), power=2)
    rate = np.exp(class_log_rate.astype(np.float64))
    s1 = np.bincount(classes.training, library, minlength=len(classes))[:, None]
    s2 = np.bincount(classes.training, library**2, minlength=len(classes))[:, None]
    n = classes.counts[:, None]
    excess = (second - 2 * rate * first + rate**2 * s2) * n / np.maximum(n - 1, 1) - rate * s1
    square = np.maximum(rate**2 * s2, 1e-12)
    pooled = np.maximum(excess.sum(axis=0), 0) / square.sum(axis=0)
    phi = (n * np.maximum(excess, 0) / square + DISPERSION_CELLS * pooled) / (n + DISPERSION_CELLS)
    return -np.log(np.clip(phi, 1e-3, 1e2)).astype(np.float32)


def overdispersed_genes(matrix: Any, limit: int) -> np.ndarray:
    """Positions of the at most `limit` genes with the largest share of variance beyond the mean, in order."""
    n_cells, n_genes = matrix.shape
    if n_genes <= limit:
        return np.arange(n_genes)
    one = np.zeros(n_cells, dtype=np.int64)
    mean = group_sum(matrix, one, 1)[0] / n_cells
    variance = group_sum(matrix, one, 1, power=2)[0] / n_cells - mean**2
    score = np.where(mean > 0, variance / np.maximum(mean, 1e-12), 0.0) * (mean > 0.01)
    return np.sort(np.argsort(-score, kind="stable")[:limit])


def group_sum(matrix: Any, index: np.ndarray, n: int, weight: np.ndarray | None = None, power: int = 1) -> np.ndarray:
    """Sums (n, n_genes) float64 of weighted powers of the rows of a CSR matrix or array by group.

    Some rows at a time, so that no copy of the matrix is made.
    """
    out = np.zeros((n, matrix.shape[1]))
    weight = np.ones(len(index)) if weight is None else weight
    for start in range(0, len(index), CHUNK):
        part = matrix[start : start + CHUNK].astype(np.float64)
        if power != 1:
            part = part.power(power) if sparse.issparse(part) else part**power
        own = index[start : start + CHUNK]
        selector = sparse.csr_matrix((weight[start : start + CHUNK], (own, np.arange(len(own)))), shape=(n, len(own)))
        block = selector @ part
        out += block.toarray() if sparse.issparse(block) else block
    return out
