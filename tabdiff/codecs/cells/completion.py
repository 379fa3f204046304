"""Genes that cells lack, drawn given those that they have."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from tabdiff.codecs.cells.counts import CountModel, Offsets
from tabdiff.codecs.cells.expression import ExpressionModel
from tabdiff.io.expression import block_rows, dense_rows
from tabdiff.nn.negative_binomial import nb_sample
from tabdiff.utils.array_likes import MAX_EXACT

__all__ = ["complete_counts", "complete_expression"]

MIN_INPUT_GENES = 50  # of those that the encoder reads; where fewer are there, it reads all that are
MIN_NOISE = 0.05  # standard deviations of a gene that its components leave over, at least


@torch.no_grad()
def complete_counts(
    model: CountModel,
    matrix: Any,
    present: np.ndarray,
    condition: Tensor | None,
    generator: torch.Generator,
    offsets: Offsets | None = None,
) -> sparse.csr_matrix:
    """Counts (n, n_genes) of all genes given those (n, n_present) of some.

    Latents are drawn from their posterior given the genes that are there, library sizes given these and the latents,
    and counts given both, calibrated as those of other drawn cells. What is drawn of the genes that are there is of no
    use.
    """
    n = matrix.shape[0]
    condition, index, codes = model.classes.resolve(condition, torch.zeros(n, model.n_features), generator)
    rows = np.where(index < 0, model.classes.nearest(codes), index) if (index < 0).any() else index
    read = np.intersect1d(model.model.input_features.numpy(), present)
    genes = torch.from_numpy(read if len(read) >= min(MIN_INPUT_GENES, len(present)) else present)
    rng = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
    parts = []
    size = block_rows(model.n_genes)
    for start in range(0, n, size):
        part = slice(start, start + size)
        counts = torch.zeros(len(index[part]), model.n_genes)
        counts[:, present] = torch.from_numpy(dense_rows(matrix, part).copy())
        y = None if condition is None else condition[part].to(torch.float32)
        mean, cholesky = model.model.posterior(counts, torch.from_numpy(rows[part]), y, genes=genes)
        eps = torch.randn(mean.shape, generator=generator)
        z = mean + torch.linalg.solve_triangular(cholesky.mT, eps[:, :, None], upper=True)[:, :, 0]
        log_rate, log_theta = model._rates(z, y, index[part], codes[part], offsets)
        depth = _log_library(model, counts, log_rate, present, generator)
        expected = torch.exp(log_rate + depth[:, None]).clamp(max=MAX_EXACT)
        drawn = nb_sample(expected, log_theta, generator).clamp(max=MAX_EXACT).numpy().astype(np.int64)
        drawn = model.calibration(drawn, rows[part], rng)
        drawn[:, model.silent] = 0
        parts.append(sparse.csr_matrix(drawn))
    return sparse.vstack(parts, format="csr")


def _log_library(
    model: CountModel, counts: Tensor, log_rate: Tensor, present: np.ndarray, generator: torch.Generator
) -> Tensor:
    """Log library sizes (n,) over all genes, drawn given the counts of those that are there.

    With the share s of a cell's counts that falls on these, their total is Poisson distributed with the mean s L, and
    log L is normal over the training cells; its posterior is drawn from in the normal approximation around the mode.
    """
    total = counts.sum(dim=1, dtype=torch.float64)
    share = log_rate[:, present].exp().sum(dim=1, dtype=torch.float64).clamp_min(1e-12)
    centre, precision = float(model.center[-1]), float(model.scale[-1]) ** -2
    at = torch.log((total + 0.5) / share).clamp_min(centre)
    for _ in range(30):  # from above, Newton's steps do not leave the side that they come from
        mean = at.exp() * share
        at = at + (total - mean - precision * (at - centre)) / (mean + precision)
    spread = (at.exp() * share + precision).rsqrt()
    return (at + spread * torch.randn(at.shape, generator=generator, dtype=torch.float64)).float()


def complete_expression(
    model: ExpressionModel, matrix: Any, present: np.ndarray, condition: Tensor | None, generator: torch.Generator
) -> np.ndarray:
    """Values (n, n_genes) float32 of all genes given those (n, n_present) of some.

    Components are drawn from their normal posterior given the genes that are there, and values given them.
    """
    n = matrix.shape[0]
    condition, index, codes = model.classes.resolve(condition, torch.zeros(n, model.n_features), generator)
    smooth = model._smooth(condition, n)
    offset = model._offset(index, codes, smooth)[:, present]
    residual = (dense_rows(matrix, slice(None)) - model.mean[present]) / model.scale[present] - offset
    # Per gene: what it says of the whitened components.
    loadings = (model.axes * model.spread[:, None])[:, present].astype(np.float64)
    scaled = loadings / np.maximum(model.noise[present], MIN_NOISE) ** 2
    cholesky = np.linalg.cholesky(scaled @ loadings.T + np.eye(len(loadings)))
    mean = np.linalg.solve(cholesky.T, np.linalg.solve(cholesky, scaled @ residual.T))
    eps = torch.randn((n, len(loadings)), generator=generator).numpy()
    data = torch.from_numpy((mean + np.linalg.solve(cholesky.T, eps.T)).T.astype(np.float32))
    return model.decode(data, condition, generator)
