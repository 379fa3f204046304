"""Expression of combinations of classes that training never showed: one type under what only others were given."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from tabdiff.codecs.cells.classes import CellClasses
from tabdiff.codecs.cells.rates import group_sum

__all__ = ["CombinationEffects"]

SCALE = 1e4  # shares are counts per ten thousand
POOLED = 0.02  # of the gene's mean over classes, in the noise of a class: a class without a count is not without noise
MAX_GENES = 4000  # those that differ most between classes; the others take additive rates
MAX_CLASSES = 20  # from which a combination is predicted
MIN_SHARED = 5  # cells of a class from which on levels are compared by it
LENGTH = 6.0  # of the similarity of levels, in median squared distances: nearly linear
MAIN, COMMON, OWN = 12.0, 0.1, 0.01  # variance of the first attribute, of an effect common to its levels, of a class
# Variances of effects that differ between levels of the first, by gene: large ones, unless small ones predict better or
# nothing can be tried.
INTERACTIONS = ((1.6, 6.4, 25.0, 100.0), (0.1, 0.4, 1.6, 6.4))
MARGIN = 0.9  # of the error with large variances, below which that of another rule has to be
VARIANCES = np.geomspace(5e-4, 4.0, 8)  # of a gene, by which all of these are multiplied
LEFT_OUT, LEFT_OUT_GENES = 12, 1000  # classes at most that are predicted without their own cells, and genes of it


class CombinationEffects:
    r"""Predicts the mean share of counts of each gene for a combination of classes, from those that were seen.

    On the scale :math:`y_{cg} = \log(1 + r_{cg})` of mean counts per ten thousand r, a gene's value in class c with the
    levels :math:`(a, b, \dots)` is a Gaussian process with the covariance

    .. math:: k(c, c') = v_g \Big[ m\,S(a, a') + \rho_g \frac{1}{n} \sum_b (e + S(a, a'))\,S_b(b, b')
        + o\,\delta_{cc'} \Big]

    and a free mean, observed with the sampling noise of the class. The first attribute a, in which classes differ most,
    is the type; S, close to linear in the squared distance between profiles, says how much alike two of its levels are
    where both were seen. So an effect is common to all types as far as nothing speaks against it, types that look alike
    share what deviates, and with :math:`\rho_g` and :math:`v_g`, integrated out with frequencies over genes (empirical
    Bayes), effects of genes that show none are shrunk away. It is kriging with a free mean (Rasmussen and Williams,
    2006, section 2.7).

    What is more than the mean shift, a type's own level and the mean of what others change, has to be earned: classes
    that were seen are left out in turn, which tells how large the variances of such deviations are to be, and where the
    mean shift predicts these classes better, it is what is used.

    Parameters
    ----------
    matrix : CSR matrix or array of shape (n_cells, n_genes)
        Counts.
    classes : CellClasses
        Of more than one attribute.
    library : float array of shape (n_cells,)
        Total counts of the cells.

    Attributes
    ----------
    share, noise : float32 arrays of shape (n_classes, n_genes)
        Mean counts per ten thousand, and the variance of their logarithm's estimate.
    """

    def __init__(self, matrix: Any, classes: CellClasses, library: np.ndarray) -> None:
        self.codes, self.counts = classes.codes, classes.counts
        n = classes.counts[:, None]
        weight = SCALE / library
        share = group_sum(matrix, classes.training, len(classes), weight) / n
        square = group_sum(matrix, classes.training, len(classes), weight**2, power=2) / n
        depth = np.bincount(classes.training, weight, minlength=len(classes))[:, None] / n
        pooled = POOLED * (n * share).sum(axis=0) / n.sum()
        # Half of it as measured, half as counting makes it at least: neither is known well from few cells.
        variance = (np.maximum(square - share**2, 0) + depth * (share + pooled)) / 2
        self.share = share.astype(np.float32)
        self.noise = (variance / n / (1 + share + pooled) ** 2 + 1e-6).astype(np.float32)
        self._known: dict[tuple[int, ...], np.ndarray] = {}
        self._rule: int | None = None

    @staticmethod
    def wanted(classes: CellClasses) -> bool:
        """Whether there are combinations to predict: levels of several attributes, not all of them seen together."""
        kinds = [len(np.unique(column)) for column in classes.codes.T]
        return len(kinds) > 1 and min(kinds) > 1 and len(classes) < math.prod(kinds)

    def __call__(self, codes: np.ndarray, additive: np.ndarray) -> np.ndarray:
        """Mean counts per ten thousand (n_genes,) of one combination.

        Parameters
        ----------
        codes : int array of shape (n_attributes,)
            Its levels.
        additive : float array of shape (n_genes,)
            Log rates by the sum of the effects of its levels, for genes that hardly differ between classes.
        """
        key = tuple(int(code) for code in codes)
        if key not in self._known:
            self._known[key] = self._predict(np.asarray(codes), additive)
        return self._known[key]

    def _predict(self, target: np.ndarray, additive: np.ndarray) -> np.ndarray:
        out = np.exp(additive - additive.max())
        out *= SCALE / out.sum()
        rows, genes = np.arange(len(self.codes)), self._variable_genes(MAX_GENES)
        found = self._shift(target, rows, genes) if self.rule == len(INTERACTIONS) else None
        if found is None:
            near = self._near(target, rows, genes)
            found = None if near is None else _krige(*near, INTERACTIONS[self.rule % len(INTERACTIONS)])
        if found is not None:
            out[genes] = np.maximum(np.expm1(found), 0.1 * out[genes])
        return out.astype(np.float32)

    @property
    def rule(self) -> int:
        """Which of INTERACTIONS predicts classes that are left out in turn; their number stands for the mean shift."""
        if self._rule is None:
            genes, errors = self._variable_genes(LEFT_OUT_GENES), np.zeros(len(INTERACTIONS) + 1)
            classes, tried = np.arange(len(self.codes)), 0
            for c in np.argsort(-self.counts, kind="stable"):
                rest = classes[classes != c]
                # The type has to be known, and what it is under, from another type.
                if tried == LEFT_OUT or not (self.codes[rest] == self.codes[c]).any(axis=0).all():
                    continue
                near, shifted = self._near(self.codes[c], rest, genes), self._shift(self.codes[c], rest, genes)
                if near is not None and shifted is not None:
                    found = [*(_krige(*near, variances) for variances in INTERACTIONS), shifted]
                    level = np.log1p(self.share[c, genes].astype(np.float64))
                    weight = 1 / (self.noise[c, genes] + 0.05)  # nothing is predicted better than to a fifth or so
                    errors += [float((weight * (one - level) ** 2).mean()) for one in found]
                    tried += 1
            errors[0] *= MARGIN
            # Where no class can be left out, nothing speaks for large deviations.
            self._rule = int(np.argmin(errors)) if tried else 1
        return self._rule

    def _variable_genes(self, limit: int) -> np.ndarray:
        """Those of the genes, in order, that differ most between classes for their noise."""
        level, weight = np.log1p(self.share.astype(np.float64)), 1 / self.noise.astype(np.float64)
        mean = (weight * level).sum(axis=0) / weight.sum(axis=0)
        spread = (weight * (level - mean) ** 2).sum(axis=0)
        genes = np.sort(np.argsort(-spread, kind="stable")[:limit])
        return genes[spread[genes] > 0]

    def _levels(self, rows: np.ndarray, genes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        both = np.ix_(rows, genes)
        return np.log1p(self.share[both].astype(np.float64)), self.noise[both].astype(np.float64)

    def _near(
        self, target: np.ndarray, rows: np.ndarray, genes: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]] | None:
        """What `_krige` is given of these classes and a combination, None where they say nothing of it."""
        level, noise = self._levels(rows, genes)
        codes, counts = self.codes[rows], self.counts[rows]
        both = np.concatenate([codes, target[None]])
        of = [s[np.ix_(both[:, j], both[:, j])] for j, s in self._similarities(rows, level, noise)]
        relevance = _covariance(of, 1.0)[-1, :-1] + 1e-3 * np.log(counts)
        # A type that was seen once says nothing of what a condition changes, but for the wanted type itself.
        for column, own in zip(codes.T, target, strict=True):
            relevance[(np.bincount(column)[column] < 2) & (column != own)] = -np.inf
        if not np.isfinite(relevance).sum() > 1:
            return None
        chosen = np.argsort(-relevance, kind="stable")[: min(MAX_CLASSES, int(np.isfinite(relevance).sum()))]
        chosen.sort()
        kept = np.append(chosen, len(both) - 1)
        return level[chosen], noise[chosen], [s[np.ix_(kept, kept)] for s in of]

    def _shift(self, target: np.ndarray, rows: np.ndarray, genes: np.ndarray) -> np.ndarray | None:
        """Levels (n_genes,) by the mean shift, None where no other type has both sides of one."""
        level, noise = self._levels(rows, genes)
        codes, counts = self.codes[rows], self.counts[rows]
        first = self._similarities(rows, level, noise)[0][0]
        place = {tuple(row): i for i, row in enumerate(codes.tolist())}
        found, weights = [], []
        for start in np.flatnonzero((codes != target).sum(axis=1) == 1):
            j = int(np.flatnonzero(codes[start] != target)[0])
            changes, sizes = [], []
            for before in np.flatnonzero(codes[:, j] == codes[start, j]):
                after = place.get((*codes[before, :j].tolist(), int(target[j]), *codes[before, j + 1 :].tolist()))
                if j != first and after is not None:
                    changes.append(level[after] - level[before])
                    sizes.append(min(counts[before], counts[after]))
            if changes:
                found.append(level[start] + np.average(changes, axis=0, weights=sizes))
                weights.append(counts[start])
        return np.maximum(np.average(found, axis=0, weights=weights), 0.0) if found else None

    def _similarities(self, rows: np.ndarray, level: np.ndarray, noise: np.ndarray) -> list[tuple[int, np.ndarray]]:
        """Number of each attribute and similarity (n_levels, n_levels) of its levels, the most different first."""
        codes, counts = self.codes[rows], self.counts[rows]
        found: list[tuple[float, int, np.ndarray]] = []
        for j in range(codes.shape[1]):
            n = int(self.codes[:, j].max()) + 1
            total, pairs = np.zeros((n, n)), np.zeros((n, n))
            rest = np.delete(codes, j, axis=1)
            for context in np.unique(rest, axis=0):
                own = np.flatnonzero((rest == context).all(axis=1) & (counts >= MIN_SHARED))
                for i, c in enumerate(own):
                    for d in own[i + 1 :]:
                        between = ((level[c] - level[d]) ** 2 - noise[c] - noise[d]).sum()
                        a, b = codes[c, j], codes[d, j]
                        total[[a, b], [b, a]] += max(float(between), 0.0)
                        pairs[[a, b], [b, a]] += 1
            known = pairs > 0
            middle = float(np.median(total[known] / pairs[known])) if known.any() else 1.0
            distance = np.where(known, total / np.maximum(pairs, 1), middle) / max(middle, 1e-12)
            alike = np.exp(-distance / LENGTH)
            np.fill_diagonal(alike, 1.0)
            found.append((middle, j, alike))
        found.sort(key=lambda one: -one[0])
        # With and without a stimulus are two levels of which neither is like the other.
        for _, j, alike in found[1:]:
            if len(np.unique(self.codes[:, j])) < 3:
                alike[:] = np.eye(len(alike))
        return [(j, alike) for _, j, alike in found]

    def state(self) -> dict[str, Any]:
        """Plain description, for persistence."""
        return {k: getattr(self, k) for k in ("codes", "counts", "share", "noise")}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> CombinationEffects:
        """Inverse of :meth:`state`."""
        self = cls.__new__(cls)
        for key, value in state.items():
            setattr(self, key, np.asarray(value))
        self._known, self._rule = {}, None
        return self


def _covariance(alike: list[np.ndarray], interaction: float) -> np.ndarray:
    """Covariance (n, n) of classes whose levels have these similarities (n, n), the first attribute's first."""
    first, others = alike[0], alike[1:]
    out = MAIN * first + interaction * (COMMON + first) * (sum(others) / len(others))
    out[np.diag_indices(len(out))] += OWN
    return out


def _krige(level: np.ndarray, noise: np.ndarray, alike: list[np.ndarray], interactions: Sequence[float]) -> np.ndarray:
    """Expected values (n_genes,) of the last of n + 1 classes, given n of them with their noise (n, n_genes)."""
    n = len(level)
    y = torch.from_numpy(level.T.copy())[:, :, None]
    sides = torch.cat([y, torch.ones_like(y)], dim=2)
    diagonal = torch.diag_embed(torch.from_numpy(noise.T.copy()))
    scores, values = [], []
    for interaction in interactions:
        covariance = torch.from_numpy(_covariance(alike, interaction))
        for variance in VARIANCES:
            cholesky = torch.linalg.cholesky(variance * covariance[:n, :n] + diagonal)
            solved = torch.cholesky_solve(sides, cholesky)
            information = solved[:, :, 1].sum(1)
            mean = solved[:, :, 0].sum(1) / information
            residual = solved[:, :, 0] - mean[:, None] * solved[:, :, 1]
            fit = (residual * (y[:, :, 0] - mean[:, None])).sum(1)
            log_determinant = 2 * torch.diagonal(cholesky, dim1=1, dim2=2).log().sum(1)
            scores.append(-0.5 * (log_determinant + fit + information.log()))
            values.append(mean + residual @ (variance * covariance[-1, :n]))
    likelihood = torch.softmax(torch.stack(scores), dim=0)
    frequency = torch.full((len(likelihood), 1), 1 / len(likelihood), dtype=likelihood.dtype)
    for _ in range(50):
        posterior = likelihood * frequency
        posterior = posterior / posterior.sum(0)
        frequency = posterior.mean(1, keepdim=True) + 1e-4
    return (posterior * torch.stack(values)).sum(0).numpy()
