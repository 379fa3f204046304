"""Counts of the same cells at other depths: what sequencing less or more would have counted.

With a negative binomial for each gene, the rate of a gene in a cell is gamma distributed. Counting less keeps a random
part of the reads. Counting more adds reads from the rates that agree with the counts there are.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

__all__ = ["at_depth", "deepen", "draw_log_library", "match_ranks", "thin"]

# NumPy draws without replacement from fewer.
MAX_READS = 1_000_000_000
LIBRARY_STEPS = 12


def thin(counts: np.ndarray, totals: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw `totals` reads of each cell without replacement.

    Parameters
    ----------
    counts : int64 array of shape (n, n_genes)
    totals : int64 array of shape (n,)
        Reads to keep; a cell that has no more is left as it is.
    rng : numpy.random.Generator

    Returns
    -------
    int64 array of shape (n, n_genes)
    """
    out = counts.copy()
    deep = counts.sum(axis=1)
    if (deep[deep > totals] >= MAX_READS).any():
        raise ValueError(
            f"library_size must be at least what a cell has where that is {MAX_READS:,} reads or more; got "
            f"{int(totals[deep >= MAX_READS].min()):,}. Leave library_size out."
        )
    for i in np.flatnonzero(deep > totals):
        genes = np.flatnonzero(counts[i])
        out[i, genes] = rng.multivariate_hypergeometric(counts[i, genes], totals[i], method="marginals")
    return out


def deepen(
    counts: np.ndarray,
    totals: np.ndarray,
    mean: Tensor,
    log_theta: Tensor,
    silent: np.ndarray,
    rng: np.random.Generator,
    generator: torch.Generator,
) -> np.ndarray:
    r"""Add reads to cells until each has `totals`.

    A count x with :math:`x \sim \mathrm{Poisson}(\lambda)` and :math:`\lambda \sim \mathrm{Gamma}(\theta)` of mean
    :math:`\mu` leaves :math:`\lambda \mid x \sim \mathrm{Gamma}(\theta + x)` with rate :math:`\theta / \mu + 1`;
    further reads fall on genes in proportion to it.

    Parameters
    ----------
    counts : int64 array of shape (n, n_genes)
    totals : int64 array of shape (n,)
        Reads to reach; a cell that has no fewer is left as it is.
    mean, log_theta : Tensor of shape (n, n_genes)
        Expected counts of the cells, and log inverse dispersions.
    silent : int or bool array
        Genes that get no reads.
    rng : numpy.random.Generator
    generator : torch.Generator

    Returns
    -------
    int64 array of shape (n, n_genes)
    """
    missing = totals - counts.sum(axis=1)
    short = np.flatnonzero(missing > 0)
    if len(short) == 0:
        return counts
    rows = torch.from_numpy(short)
    theta = log_theta[rows].exp().double()
    shape = theta + torch.from_numpy(counts[short]).double()
    rate = torch._standard_gamma(shape, generator=generator) / (theta / mean[rows].double().clamp_min(1e-12) + 1)
    share = rate.numpy()
    share[:, silent] = 0
    total = share.sum(axis=1, keepdims=True)
    out = counts.copy()
    for i, p in zip(short, np.divide(share, total, out=np.zeros_like(share), where=total > 0), strict=True):
        if p.any():
            out[i] += rng.multinomial(missing[i], p / p.sum())
    return out


def at_depth(
    counts: np.ndarray,
    totals: np.ndarray,
    mean: Tensor,
    log_theta: Tensor,
    silent: np.ndarray,
    rng: np.random.Generator,
    generator: torch.Generator,
) -> np.ndarray:
    """Take reads from cells, or add them, until each has `totals` (n,); -1 leaves one as it is. See `deepen`."""
    totals = np.where(totals < 0, counts.sum(axis=1), totals)
    return deepen(thin(counts, totals, rng), totals, mean, log_theta, silent, rng, generator)


def draw_log_library(
    counts: Tensor, log_rate: Tensor, log_theta: Tensor, centre: float, scale: float, generator: torch.Generator
) -> Tensor:
    r"""Draw log library sizes given the counts of some genes.

    A count is negative binomial with mean :math:`L r_g` and inverse dispersion :math:`\theta_g`, and log L is normal.
    A gene says the less of L the more it varies by itself, however many counts it has: its total would take that noise
    for depth. Of the posterior this draws from the normal approximation around its mode.

    Parameters
    ----------
    counts : Tensor of shape (n, n_genes)
    log_rate, log_theta : Tensor of shape (n, n_genes)
        Log shares of all counts, and log inverse dispersions.
    centre, scale : float
        Mean and standard deviation of log L.
    generator : torch.Generator

    Returns
    -------
    Tensor of shape (n,)
        float64.
    """
    counts, rate, theta = counts.double(), log_rate.double().exp(), log_theta.double().exp()
    total, share = counts.sum(dim=1), rate.sum(dim=1).clamp_min(1e-12)
    at = torch.log((total + 0.5) / share).clamp(centre - 20 * scale, centre + 20 * scale)
    for _ in range(LIBRARY_STEPS):
        mean = at.exp()[:, None] * rate
        shrink = 1 / (1 + mean / theta)
        information = (mean * shrink).sum(dim=1) + scale**-2
        step = (((counts - mean) * shrink).sum(dim=1) - (at - centre) * scale**-2) / information
        at = at + step.clamp(-1, 1)
    return at + information.rsqrt() * torch.randn(at.shape, generator=generator, dtype=torch.float64)


def match_ranks(values: np.ndarray, keys: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Hand out `values` within each group in the order of `keys`, so that the largest key gets the largest value."""
    out = np.empty_like(values)
    by_key = np.lexsort((keys, groups))
    by_value = np.lexsort((values, groups))
    out[by_key] = values[by_value]
    return out
