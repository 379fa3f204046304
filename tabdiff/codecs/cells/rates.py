"""The negative binomial of each class of cells, where the model of counts starts: rates and dispersions."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from tabdiff.codecs.cells.classes import CellClasses
from tabdiff.io.expression import CHUNK

__all__ = ["ClassRates", "fit_dispersion", "overdispersed_genes"]

DEVIATIONS = np.geomspace(0.01, 30, 18)  # standard deviations of a class's rate, relative to the gene's
MIN_PRIOR, MAX_PRIOR = 0.05, 1e9  # counts of prior: a group without any must not have a rate of zero
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
        square = np.bincount(classes.training, library**2, minlength=len(classes))
        pooled = sums.sum(axis=0)
        n_genes = len(pooled)
        base = np.log((pooled + 0.05 / n_genes) / (pooled.sum() + 0.05))
        raw = (sums + np.exp(base) * depth.sum() / classes.counts.sum()) / (depth * (1 + 1 / classes.counts))[:, None]
        phi = np.exp(-fit_dispersion(matrix, classes, library, np.log(raw)))
        # Variance of a class's total over that of a Poisson's.
        inflation = 1 + phi * np.exp(base) * (square / depth)[:, None]

        sizes = [classes.levels[j] + 1 for j in classes.columns]
        self.effect_start = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        effects = np.zeros((int(self.effect_start[-1]), n_genes))
        members = [[(level, codes[:, j] == level) for level in np.unique(codes[:, j])] for j in range(len(sizes))]
        start_fit = depth[:, None] * np.exp(base)
        priors = []
        for own in members:
            rows = np.stack([m for _, m in own]).astype(float)
            noise = rows @ (inflation * start_fit) / (rows @ start_fit)
            priors.append(prior_counts(rows @ sums, rows @ start_fit, noise))
        for _ in range(1 if len(sizes) < 2 else 50):
            largest = 0.0
            for j, start in enumerate(self.effect_start[:-1]):
                fitted = depth[:, None] * np.exp(self._add(base, effects, codes))
                for (level, own), prior in zip(members[j], priors[j], strict=True):
                    # The prior pulls to no effect, so it stands at what the level would have without its own.
                    without = fitted[own].sum(axis=0) * np.exp(-effects[start + level])
                    step = np.log((sums[own].sum(axis=0) + prior) / (without + prior)) - effects[start + level]
                    effects[start + level] += step
                    largest = max(largest, float(np.abs(step).max()))
            if largest < 1e-3:
                break
        rate = np.exp(self._add(base, effects, codes))
        if len(sizes) > 1:
            expected = depth[:, None] * rate
            prior = prior_counts(sums, expected, inflation)
            rate = rate * (sums + prior) / (expected + prior)
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

    @classmethod
    def joined(cls, parts: list[ClassRates]) -> ClassRates:
        """The rates of the genes of several matrices of the same cells, one after the other."""
        if len(parts) == 1:
            return parts[0]
        self = cls.__new__(cls)
        self.effect_start = parts[0].effect_start
        for name in ("base", "effects", "class_log_rate"):
            setattr(self, name, np.concatenate([getattr(part, name) for part in parts], axis=-1))
        return self

    def state(self) -> dict[str, Any]:
        """Plain description, for persistence."""
        return {k: getattr(self, k) for k in ("base", "effects", "effect_start", "class_log_rate")}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> ClassRates:
        """Inverse of :meth:`state`."""
        self = cls.__new__(cls)
        for key, value in state.items():
            setattr(self, key, np.asarray(value))
        return self


def prior_counts(sums: np.ndarray, expected: np.ndarray, inflation: np.ndarray) -> np.ndarray:
    r"""Counts of prior at the expected rate that each group's count deserves, by empirical Bayes.

    The relative deviation of group c's count of gene g from what is expected of it has a sampling variance
    :math:`v_{cg}`; true deviations are normal with a variance :math:`\tau_g^2` of the gene, one of a grid of which the
    frequencies are learned over genes (Stephens, 2017, False discovery rates: a new deal). A gene that differs between
    groups keeps its counts; the noise of one that does not is shrunk away.

    Parameters
    ----------
    sums, expected : float arrays of shape (n_groups, n_genes)
    inflation : float array of shape (n_groups, n_genes)
        Sampling variance of `sums` over `expected`, at least 1.

    Returns
    -------
    float array of shape (n_groups, n_genes)
        a in ``(sums + a) / (expected + a)``.
    """
    expected = np.maximum(expected, 1e-9)
    noise = inflation / expected
    square = (sums / expected - 1) ** 2
    log_p = np.stack([-0.5 * (np.log(noise + t**2) + square / (noise + t**2)).sum(axis=0) for t in DEVIATIONS], axis=1)
    log_p -= log_p.max(axis=1, keepdims=True)
    p = np.exp(log_p)
    share = np.full(len(DEVIATIONS), 1 / len(DEVIATIONS))
    for _ in range(100):
        of_gene = p * share
        of_gene /= of_gene.sum(axis=1, keepdims=True)
        share = of_gene.mean(axis=0) + 1e-6
    keep = sum(of_gene[:, k] * t**2 / (t**2 + noise) for k, t in enumerate(DEVIATIONS))
    return np.clip(expected * (1 / np.maximum(keep, 1e-12) - 1), MIN_PRIOR, MAX_PRIOR)


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
