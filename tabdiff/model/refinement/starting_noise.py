r"""Which starting noise is worth walking from: rows that will be rejected are often known before the first step.

A deterministic sampler maps noise z to a row, which the refinement keeps with a chance c. How likely that is from z
alone, a logistic regression on z says, :math:`p(z) = E[c \mid z]`. So noise is kept with probability

.. math:: a(z) = \min\{1, \max\{p(z) / \kappa, a_\text{min}\}\},

no network being asked, and the row that it leads to with :math:`\min\{1, c / a(z)\}`. Together that is c wherever
:math:`c \le a(z)`, as if nothing had been rejected ahead: rejection in two stages, of which the first costs nothing.
κ is as large as leaves all but a two-hundredth of the rows' mass as it was.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

__all__ = ["NOISE_ROWS", "StartingNoise"]

# Rows whose noise is remembered to learn from at most, and at least; half of them decide on κ.
NOISE_ROWS, MIN_NOISE_ROWS = 20_000, 500
# What κ may change of the kept rows' distribution, in total variation, and how often noise is kept at least.
MAX_SHIFT, LEAST = 0.005, 0.3
# With less to gain all noise is walked from.
MIN_GAIN = 1.05


class StartingNoise:
    """Rejection of noise ahead of the first step of a sampler.

    Parameters
    ----------
    weight : ndarray of shape (width,)
        Of the logistic regression.
    intercept : float
        The same.
    log_kappa : float
        The log of κ.

    Attributes
    ----------
    gain_ : float
        How many times as many rows are kept, of those that are walked to.
    """

    def __init__(self, weight: np.ndarray, intercept: float, log_kappa: float, gain: float) -> None:
        self.weight, self.intercept, self.log_kappa, self.gain_ = weight, intercept, log_kappa, gain

    @classmethod
    def fit(cls, noise: Tensor, chance: np.ndarray) -> Self | None:
        """Learn from rows (n,) that were drawn with all noise; None where nothing is to be gained.

        Parameters
        ----------
        noise : Tensor of shape (n, width)
            What each was walked to from.
        chance : ndarray of shape (n,)
            The probability of each to be kept.
        """
        half = len(noise) // 2
        if half < MIN_NOISE_ROWS or not 0 < chance[half:].sum():
            return None
        z = noise.double().numpy()
        twice, kept = np.concatenate([z[:half], z[:half]]), np.repeat([1, 0], half)
        weight = np.concatenate([chance[:half], 1 - chance[:half]])
        model = LogisticRegression(C=0.1, max_iter=200).fit(twice, kept, sample_weight=weight)
        found = cls(model.coef_[0], float(model.intercept_[0]), 0.0, 1.0)
        log_p, seen = found._log_p(z[half:]), chance[half:]
        # Part of that keeping all rows more often by one factor would bring too, and more of them alike.
        _, plain = _largest(np.full(len(seen), np.log(seen.mean())), seen)
        found.log_kappa, found.gain_ = _largest(log_p, seen)
        return found if found.gain_ >= MIN_GAIN * plain else None

    def _log_p(self, noise: np.ndarray) -> np.ndarray:
        return -np.logaddexp(0.0, -(noise @ self.weight + self.intercept))

    def draw(self, n: int, generator: torch.Generator) -> tuple[Tensor, np.ndarray]:
        """Draw noise (n, width) that is kept, and the log of the chance (n,) with which each was."""
        noise = torch.empty((0, len(self.weight)))
        log_chance = np.empty(0)
        while len(noise) < n:
            more = torch.randn((2 * (n - len(noise)) + 16, len(self.weight)), generator=generator)
            u = torch.rand(len(more), generator=generator, dtype=torch.float64).numpy()
            log_a = _log_kept(self._log_p(more.double().numpy()), self.log_kappa)
            kept = u < np.exp(log_a)
            noise, log_chance = torch.cat([noise, more[kept]]), np.concatenate([log_chance, log_a[kept]])
        return noise[:n], log_chance[:n]

    # -------------------------------------------------------------- state

    def state(self) -> dict[str, Any]:
        """Plain description, for persistence."""
        return {
            "weight": self.weight,
            "intercept": self.intercept,
            "log_kappa": self.log_kappa,
            "gain": self.gain_,
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Inverse of :meth:`state`."""
        weight = np.asarray(state["weight"], dtype=np.float64)
        return cls(weight, float(state["intercept"]), float(state["log_kappa"]), float(state["gain"]))


def _log_kept(log_p: np.ndarray, log_kappa: float) -> np.ndarray:
    """Return the log of the chance a (n,) of noise to be walked from."""
    return np.clip(log_p - log_kappa, np.log(LEAST), 0.0)


def _largest(log_p: np.ndarray, chance: np.ndarray) -> tuple[float, float]:
    """Return the log of the largest κ that moves no more than it may, and how many times as many rows are kept."""
    low, high = -30.0, 0.0
    for _ in range(40):
        middle = 0.5 * (low + high)
        cut = 1 - np.minimum(chance, np.exp(_log_kept(log_p, middle))).sum() / chance.sum()
        low, high = (middle, high) if cut <= MAX_SHIFT else (low, middle)
    a = np.exp(_log_kept(log_p, low))
    return low, float(np.minimum(chance, a).sum() / chance.sum() / a.mean())
