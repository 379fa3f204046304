"""The classes of cells that a condition names: combinations of its class attributes, seen or not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


class CellClasses:
    """Rows of per-class tables for conditions, with rules for nulls and for unseen combinations.

    A class is a combination of the class attributes as it occurs in training. A null that occurs in training is
    a level of its own; any other null is drawn at `resolve` from the classes that fit the rest of the row.

    Parameters
    ----------
    condition : Tensor (n, k) or None
        Encoded condition of the training cells; NaN is null.
    levels : sequence of int
        Number of classes of each attribute, 0 for a continuous one.
    n_cells : int
        Number of training cells.

    Attributes
    ----------
    codes : int64 array (n_classes, n_class_attributes)
        Level of each attribute in each class; the number of levels stands for null.
    counts : int64 array (n_classes,)
        Training cells of each class.
    """

    def __init__(self, condition: Tensor | None, levels: Sequence[int], n_cells: int) -> None:
        self.levels = [int(n) for n in levels]
        self.columns = [j for j, n in enumerate(self.levels) if n > 0]
        codes = self._codes(condition, n_cells)
        self.codes, self.training, self.counts = np.unique(codes, axis=0, return_inverse=True, return_counts=True)
        self.training = self.training.reshape(-1)
        self.means: np.ndarray | None = None
        self.scales: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.codes)

    def _codes(self, condition: Tensor | None, n_cells: int) -> np.ndarray:
        if condition is None or not self.columns:
            null = np.array([self.levels[j] for j in self.columns], dtype=np.int64)
            return np.tile(null, (n_cells, 1))
        values = condition.detach().cpu().numpy()[:, self.columns]
        size = np.array([self.levels[j] for j in self.columns], dtype=np.float64)
        return np.where(np.isnan(values), size, values).astype(np.int64)

    def set_latents(self, data: np.ndarray) -> None:
        """Remember where each class lies in latent space, from encoded training cells (n, d)."""
        overall_mean, overall_var = data.mean(axis=0), data.var(axis=0)
        means, variances = [], []
        for c, n in enumerate(self.counts):
            own = data[self.training == c]
            means.append((own.sum(axis=0) + overall_mean) / (n + 1))
            variances.append((n * own.var(axis=0) + 5 * overall_var) / (n + 5))
        self.means, self.scales = np.stack(means), np.sqrt(np.maximum(np.stack(variances), 1e-6))

    def resolve(
        self, condition: Tensor | None, data: Tensor, generator: torch.Generator
    ) -> tuple[Tensor | None, np.ndarray, np.ndarray]:
        """Complete nulls and find each row's class.

        A null level that training never showed is drawn from the classes that agree with the row's other levels,
        with probabilities from a diagonal Gaussian per class at the row's latent.

        Returns
        -------
        condition : Tensor (n, k) or None
            With nulls filled where a class was drawn.
        index : int64 array (n,)
            Class of each row, -1 for a combination that training never showed.
        codes : int64 array (n, n_class_attributes)
            Levels of each row.
        """
        n = len(data)
        codes = self._codes(condition, n)
        table = {tuple(row): c for c, row in enumerate(self.codes)}
        keys, inverse = np.unique(codes, axis=0, return_inverse=True)
        inverse = inverse.reshape(-1)
        index = np.full(n, -1, dtype=np.int64)
        for k, key in enumerate(keys):
            rows = np.flatnonzero(inverse == k)
            if tuple(key) in table:
                index[rows] = table[tuple(key)]
                continue
            null = key == np.array([self.levels[j] for j in self.columns])
            if null.any():
                candidates = np.flatnonzero((self.codes[:, ~null] == key[~null]).all(axis=1))
                if len(candidates) == 0:
                    candidates = np.arange(len(self))
                index[rows] = self._draw(candidates, data[rows], generator)
                codes[rows] = np.where(null, self.codes[index[rows]], key)
                index[rows] = [table.get(tuple(row), -1) for row in codes[rows]]
        if condition is not None and self.columns:
            condition = condition.clone()
            filled = torch.as_tensor(codes, dtype=condition.dtype)
            size = torch.tensor([float(self.levels[j]) for j in self.columns], dtype=condition.dtype)
            condition[:, self.columns] = torch.where(filled == size, torch.full_like(filled, torch.nan), filled)
        return condition, index, codes

    def _draw(self, candidates: np.ndarray, data: Tensor, generator: torch.Generator) -> np.ndarray:
        log_p = np.tile(np.log(self.counts[candidates]), (len(data), 1)).astype(np.float64)
        if self.means is not None and self.scales is not None:
            x = data.detach().cpu().numpy().astype(np.float64)
            for j, c in enumerate(candidates):
                z = (x - self.means[c]) / self.scales[c]
                log_p[:, j] -= 0.5 * (z**2).sum(axis=1) + np.log(self.scales[c]).sum()
        p = torch.softmax(torch.as_tensor(log_p), dim=1)
        return candidates[torch.multinomial(p, 1, generator=generator)[:, 0].numpy()]

    def unseen(self, condition: Tensor | None) -> dict[tuple[int, ...], np.ndarray]:
        """Combinations of known levels that training never showed, each with its rows of a condition (n, k)."""
        if condition is None or not self.columns:
            return {}
        codes = self._codes(condition, len(condition))
        keys, inverse = np.unique(codes, axis=0, return_inverse=True)
        known, inverse = {tuple(row) for row in self.codes.tolist()}, inverse.reshape(-1)
        null = np.array([self.levels[j] for j in self.columns])
        new = [k for k, key in enumerate(keys) if tuple(key.tolist()) not in known and not (key == null).any()]
        return {tuple(keys[k].tolist()): np.flatnonzero(inverse == k) for k in new}

    def nearest(self, codes: np.ndarray) -> np.ndarray:
        """The training class that shares most levels with each row of `codes`, the largest of equals."""
        shared = (codes[:, None, :] == self.codes[None]).sum(axis=2)
        return np.argmax(shared + self.counts / (self.counts.sum() + 1.0), axis=1)

    def state(self) -> dict[str, Any]:
        """Plain description, for persistence."""
        return {
            "levels": self.levels,
            "codes": self.codes,
            "counts": self.counts,
            "means": self.means,
            "scales": self.scales,
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> CellClasses:
        """Inverse of :meth:`state`."""
        self = cls.__new__(cls)
        self.levels = [int(n) for n in state["levels"]]
        self.columns = [j for j, n in enumerate(self.levels) if n > 0]
        self.codes, self.counts = np.asarray(state["codes"]), np.asarray(state["counts"])
        self.training = np.empty(0, dtype=np.int64)
        self.means, self.scales = state["means"], state["scales"]
        return self
