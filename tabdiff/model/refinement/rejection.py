"""Rejection: candidates are drawn for places until each has one that is kept."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

__all__ = ["Kept", "best", "keep_rows", "pair"]

# A place whose candidates were all turned down so often takes one of them.
MAX_ROUNDS = 32
FEW_ROWS = 4096


@dataclass
class Kept:
    """Rows that were kept for n places, and m candidates that were not, or not needed.

    Attributes
    ----------
    rows, spare : Tensor of shape (n, d) and (m, d)
        Encoded rows.
    score, spare_score : ndarray of shape (n,) and (m,)
        Log chance of a row less the log of a uniform number: above 0 for what is kept at the first go.
    group, spare_group : ndarray of int, shape (n,) and (m,)
        From 0 on; any row of a group may stand in any place of it.
    """

    rows: Tensor
    spare: Tensor
    score: np.ndarray
    spare_score: np.ndarray
    group: np.ndarray
    spare_group: np.ndarray

    @property
    def scores(self) -> np.ndarray:
        """Scores (n + m,) of all rows, those that were kept first."""
        return np.concatenate([self.score, self.spare_score])

    @property
    def groups(self) -> np.ndarray:
        """Groups (n + m,) of all rows, those that were kept first."""
        return np.concatenate([self.group, self.spare_group])

    def candidates(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """Return all rows (n + m, d), and a place (n + m,) of the group of each."""
        first = np.unique(self.group, return_index=True)[1]
        return torch.cat([self.rows, self.spare]), torch.cat([places, places[first[self.spare_group]]])

    def take(self, chosen: np.ndarray) -> None:
        """Exchange rows for spare ones so that those are there that are chosen (n + m,), as many as before by group."""
        n = len(self.rows)
        free, taken = np.flatnonzero(~chosen[:n]), np.flatnonzero(chosen[n:])
        filled, by = pair(self.group[free], self.spare_group[taken])
        self.rows[free[filled]] = self.spare[taken[by]]


def keep_rows(
    places: Tensor,
    group: np.ndarray,
    propose: Callable[[Tensor], tuple[Tensor, np.ndarray]],
    log_chance: Callable[[Tensor, Tensor], np.ndarray],
    generator: torch.Generator,
    *,
    copies: float,
    progress: Callable[[int], None] | None = None,
) -> Kept:
    """Draw candidates until each place has a row that is kept.

    Parameters
    ----------
    places : Tensor of int, shape (n,)
    group : ndarray of int, shape (n,)
        Places of one group take candidates of each other.
    propose : callable
        From places (m,), which may repeat, to an encoded row for each, (m, d), and the log of the chance (m,) with
        which it has been kept before.
    log_chance : callable
        From rows (m, d) and their places (m,) to the log of the chance of each to be kept, (m,).
    generator : torch.Generator
        Decides which are kept.
    copies : float
        Candidates at a time for each place, at least 1, once places are few.
    progress : callable, optional
        Called with the number of places that have got a row.

    Returns
    -------
    Kept
        As many spare candidates of each group as it has places, or all that there are.
    """
    _, group, size = np.unique(group, return_inverse=True, return_counts=True)
    rows: Tensor | None = None
    row_score = np.empty(len(places))
    pending = np.arange(len(places))
    for _ in range(MAX_ROUNDS):
        # A candidate at a time where rows are many, all that will be needed at once where they are few.
        each = 1.0 if len(pending) > FEW_ROWS else copies
        slot = np.sort(np.resize(pending, math.ceil(each * len(pending))))
        candidates, before = propose(places[slot])
        # Kept where a uniform number is below the chance: where the log of their ratio, the score, is positive.
        u = torch.rand(len(slot), generator=generator, dtype=torch.float64).numpy()
        new = log_chance(candidates, places[slot]) - before - np.log(np.maximum(u, 1e-300))
        if rows is None:
            rows = candidates.new_empty((len(places), candidates.shape[1]))
            spare, score, of = candidates[:0], np.empty(0), np.empty(0, dtype=group.dtype)
        accepted = np.flatnonzero(new > 0)
        filled, by = pair(group[pending], group[slot[accepted]])
        used = accepted[by]
        rows[pending[filled]], row_score[pending[filled]] = candidates[used], new[used]
        pending = np.delete(pending, filled)
        if progress is not None:
            progress(len(filled))
        # The others stand by for places that no round fills, as many as there are places, the largest scores first:
        # what a rejection with all chances multiplied by one factor would have kept.
        rest = np.delete(np.arange(len(slot)), used)
        spare, of = torch.cat([spare, candidates[rest]]), np.concatenate([of, group[slot[rest]]])
        score = np.concatenate([score, new[rest]])
        order = best(score, of, size)
        spare, score, of = spare[order], score[order], of[order]
        if not len(pending):
            break
    assert rows is not None
    if len(pending):
        filled, by = pair(group[pending], of)
        rows[pending[filled]], row_score[pending[filled]] = spare[by], score[by]
        if progress is not None:
            progress(len(filled))
        left = np.delete(np.arange(len(of)), by)
        spare, score, of = spare[left], score[left], of[left]
        # Places were filled from the first on, and these differ a little: mixed, every part is like the whole.
        mixed = torch.randperm(len(places), generator=generator).numpy()
        mixed, ordered = mixed[np.argsort(group[mixed], kind="stable")], np.argsort(group, kind="stable")
        rows[ordered], row_score[ordered] = rows[mixed], row_score[mixed]
    return Kept(rows, spare, row_score, score, group, of)


def best(score: np.ndarray, group: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Positions of the largest scores (n,) of each group, as many as its size, by group and the largest first."""
    order = np.lexsort((-score, group))
    return order[_rank(group[order]) < size[group[order]]]


def _rank(sorted_groups: np.ndarray) -> np.ndarray:
    """Return how many of the same group stand before each entry of sorted groups (n,)."""
    return np.arange(len(sorted_groups)) - np.searchsorted(sorted_groups, sorted_groups)


def pair(wanting: np.ndarray, offered: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pair entries of the same group, each once, earlier ones first; their positions, (k,) and (k,)."""
    a, b = np.argsort(wanting, kind="stable"), np.argsort(offered, kind="stable")
    most = len(wanting) + len(offered) + 1
    keys = wanting[a].astype(np.int64) * most + _rank(wanting[a])
    others = offered[b].astype(np.int64) * most + _rank(offered[b])
    _, first, second = np.intersect1d(keys, others, assume_unique=True, return_indices=True)
    return a[first], b[second]
