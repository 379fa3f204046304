"""Marginal calibration of simulated counts by the randomised probability integral transform."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from scipy import sparse

# Weights of the model's distribution that are tried, in cells, and bins of a gene in which they are compared.
WEIGHT_BINS = 8
WEIGHTS = (2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 5000.0)


def count_bins(maximum: int) -> np.ndarray:
    """Lower edges of count bins: every count to 31, then widths that grow by an eighth.

    The last edge lies above `maximum`.
    """
    edges = list(range(32))
    while edges[-1] <= maximum:
        edges.append(max(edges[-1] + 1, int(edges[-1] * 1.125)))
    return np.array(edges, dtype=np.int64)


class CountCalibration:
    """Maps a simulated count to the quantile that real counts have at its rank, per class and gene.

    A count x of the model is sent to a uniform draw inside its step of the model's distribution function, and that
    through the inverse of the data's, so that ranks, and with them dependence between genes, stay. The data's
    distribution in a class is mixed with the model's own, the latter weighing as `shrinkage` cells: where a
    class has few cells, or the model is right, little is changed.

    Parameters
    ----------
    n_classes : int
        Number of classes.
    gene_maxima : int array (n_genes,)
        Largest real count of each gene; simulated ones above it rank as the largest.
    shrinkage : float, optional
        Weight of the model's own distribution, in cells; by default that of each gene under which its cells, left out
        one by one, are likeliest.
    """

    def __init__(self, n_classes: int, gene_maxima: np.ndarray, *, shrinkage: float | None = None) -> None:
        self.shrinkage = shrinkage
        self.n_classes = n_classes
        self.edges = count_bins(int(gene_maxima.max(initial=1)))
        # A gene's table has bins up to its own largest count, so that silent genes take little memory.
        self.n_bins = np.searchsorted(self.edges, gene_maxima, side="right").astype(np.int64) + 1
        self.n_bins = np.minimum(self.n_bins, len(self.edges) - 1)
        self.start = np.concatenate([[0], np.cumsum(self.n_bins)])
        self.observed: np.ndarray | None = np.zeros((n_classes, self.start[-1]), dtype=np.float32)
        self.model = self.data = np.zeros((n_classes, 0), dtype=np.float32)
        self.usable = np.zeros(n_classes, dtype=bool)

    def _bin(self, counts: np.ndarray) -> np.ndarray:
        return np.searchsorted(self.edges, counts, side="right") - 1

    def observe(self, counts: Any, classes: np.ndarray) -> None:
        """Add a block (n, n_genes) of real counts, dense or a CSR matrix."""
        if self.observed is None:
            raise RuntimeError("A calibration read from a file no longer holds the real counts; fit again.")
        self._add(self.observed, counts, classes)

    def fit(self, simulated: Iterable[tuple[np.ndarray, np.ndarray]]) -> CountCalibration:
        """Compare the observed counts with blocks of simulated ones, (counts (n, n_genes), classes (n,)) each."""
        if self.observed is None:
            raise RuntimeError("A calibration read from a file no longer holds the real counts; fit again.")
        table = np.zeros(self.observed.shape, dtype=np.float32)
        for counts, classes in simulated:
            self._add(table, counts, classes)
        self._finish(table, self.observed)
        return self

    def _add(self, table: np.ndarray, counts: Any, classes: np.ndarray) -> None:
        # Most counts are zero: these are what the others leave over.
        if sparse.issparse(counts):
            counts.sum_duplicates()
            genes, x = counts.indices, counts.data
            own = np.repeat(classes, np.diff(counts.indptr))
        else:
            rows, genes = np.nonzero(counts)
            x, own = counts[rows, genes], classes[rows]
        bins = np.minimum(self._bin(x), self.n_bins[genes] - 1) + self.start[genes]
        for c in np.unique(classes):
            member = own == c
            table[c] += np.bincount(bins[member], minlength=table.shape[1])
            there = np.bincount(genes[member], minlength=len(self.n_bins))
            table[c, self.start[:-1]] += (classes == c).sum() - there

    def _finish(self, simulated: np.ndarray, observed: np.ndarray) -> None:
        gene = np.repeat(np.arange(len(self.n_bins)), self.n_bins)
        first, last = self.start[:-1], self.start[1:] - 1

        def distribution_function(histogram: np.ndarray) -> np.ndarray:
            total = np.cumsum(histogram, axis=1, dtype=np.float64)
            out = total - np.where(first > 0, total[:, first - 1], 0.0)[:, gene]
            out[:, last] = 1.0
            return out.astype(np.float32)

        n_simulated = np.add.reduceat(simulated, first, axis=1)[:, :1]
        n_observed = np.add.reduceat(observed, first, axis=1)[:, :1]
        model = simulated / np.maximum(n_simulated, 1)
        weight: Any = self.shrinkage
        if weight is None:
            weight = self._weights(observed, n_observed, model, n_simulated, gene)[gene]
        mixed = (observed + weight * model) / (n_observed + weight)
        self.model, self.data = distribution_function(model), distribution_function(mixed)
        self.usable = (n_simulated[:, 0] > 0) & (n_observed[:, 0] > 0)

    def _weights(
        self, observed: np.ndarray, n_observed: np.ndarray, model: np.ndarray, n_simulated: np.ndarray, gene: np.ndarray
    ) -> np.ndarray:
        """Weight of the model's distribution for each gene, in cells: the likeliest for cells left out one by one."""
        # Between bins of about equal shares of the cells: single counts of a wide distribution occur once each, and
        # nothing but the model would seem to explain them.
        pooled = observed.sum(axis=0, dtype=np.float64)
        total = np.add.reduceat(pooled, self.start[:-1])[gene]
        before = np.cumsum(pooled) - pooled
        before -= before[self.start[:-1]][gene]
        share = (before + 0.5 * pooled) / np.maximum(total, 1)
        part = gene * WEIGHT_BINS + np.minimum((share * WEIGHT_BINS).astype(np.int64), WEIGHT_BINS - 1)
        n_parts = len(self.n_bins) * WEIGHT_BINS
        score = np.zeros((len(WEIGHTS), len(self.n_bins)))
        for c in np.flatnonzero((n_observed[:, 0] > 1) & (n_simulated[:, 0] > 0)):
            n = np.bincount(part, observed[c], minlength=n_parts).reshape(-1, WEIGHT_BINS)
            m = np.bincount(part, model[c], minlength=n_parts).reshape(-1, WEIGHT_BINS)
            # Counts that the simulation missed are not impossible.
            m = np.maximum(m, 0.5 / n_simulated[c, 0])
            for k, weight in enumerate(WEIGHTS):
                left = np.where(n > 0, n - 1, 0) + weight * m
                score[k] += (n * np.log(left / (n_observed[c, 0] - 1 + weight))).sum(axis=1)
        return np.array(WEIGHTS, dtype=np.float32)[np.argmax(score, axis=0)]

    def __call__(self, counts: np.ndarray, classes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Calibrated copy of a dense block (n, n_genes) of integer counts; ``classes`` < 0 leaves a row as it is."""
        out = counts.copy()
        for c in np.unique(classes):
            if c < 0 or not self.usable[c]:
                continue
            rows = np.flatnonzero(classes == c)
            out[rows] = self._map(counts[rows], self.model[c], self.data[c], rng)
        return out

    def _map(self, counts: np.ndarray, model: np.ndarray, data: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        n_genes = len(self.n_bins)
        first = self.start[:-1]
        rows, genes = np.nonzero(counts)
        x = counts[rows, genes].astype(np.int64)
        bins = np.minimum(self._bin(x), self.n_bins[genes] - 1)
        at = first[genes] + bins
        below = np.where(bins > 0, model[at - 1], 0.0).astype(np.float64)
        width = (self.edges[bins + 1] - self.edges[bins]).astype(np.float64)
        inside = (x - self.edges[bins] + rng.random(len(x))) / width
        # The last bin holds every larger count too: those are spread over its whole step.
        inside = np.where(inside < 1.0, inside, rng.random(len(x)))
        u = below + inside * (model[at] - below)
        # Zeros are most of the matrix, and most of them stay: only those whose draw lies above the data's zeros go on.
        gaining = np.flatnonzero(data[first] < model[first])
        draws = rng.random((len(counts), len(gaining)))
        draws *= model[first[gaining]]
        risen, which = np.nonzero((draws >= data[first[gaining]]) & (counts[:, gaining] == 0))
        rows, genes = np.concatenate([rows, risen]), np.concatenate([genes, gaining[which]])
        # Distribution functions are single precision: stay below the rounding of their ends at one.
        u = np.minimum(np.concatenate([u, draws[risen, which]]), 1.0 - 1e-6)
        # One sorted array for all genes: gene number + distribution function.
        keys = (np.repeat(np.arange(n_genes), self.n_bins) + np.minimum(data, 1.0 - 1e-7)).astype(np.float64)
        keys[self.start[1:] - 1] = np.arange(n_genes) + 1.0
        found = np.searchsorted(keys, genes + u, side="right")
        found = np.minimum(found, self.start[1:][genes] - 1)
        target = found - first[genes]
        low = np.where(target > 0, data[found - 1], 0.0)
        fraction = np.clip((u - low) / np.maximum(data[found] - low, 1e-12), 0.0, 1.0 - 1e-9)
        value = self.edges[target] + np.floor(fraction * (self.edges[target + 1] - self.edges[target]))
        out = counts.copy()
        out[rows, genes] = value.astype(counts.dtype)
        return out

    def state(self) -> dict[str, Any]:
        """Plain description, for persistence."""
        return {
            "shrinkage": self.shrinkage,
            "n_bins": self.n_bins,
            "edges": self.edges,
            "model": self.model,
            "data": self.data,
            "usable": self.usable,
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> CountCalibration:
        """Inverse of :meth:`state`."""
        self = cls.__new__(cls)
        self.shrinkage = state["shrinkage"]
        self.n_bins, self.edges = np.asarray(state["n_bins"]), np.asarray(state["edges"])
        self.start = np.concatenate([[0], np.cumsum(self.n_bins)])
        self.model, self.data, self.usable = (np.asarray(state[k]) for k in ("model", "data", "usable"))
        self.n_classes, self.observed = len(self.model), None
        return self
