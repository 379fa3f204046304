"""Genes that cells lack, drawn given those that they have."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from tabdiff.codecs.cells.counts import CountModel, Offsets
from tabdiff.codecs.cells.depth import draw_log_library
from tabdiff.codecs.cells.expression import ExpressionModel
from tabdiff.io.expression import block_rows, dense_rows
from tabdiff.nn.negative_binomial import nb_sample
from tabdiff.utils.array_likes import MAX_EXACT

__all__ = ["complete_counts", "complete_expression", "modelled_part", "put_together"]

MIN_INPUT_GENES = 50  # of those that the encoder reads; where fewer are there, it reads all that are
MIN_NOISE = 0.05  # standard deviations of a gene that its components leave over, at least


def put_together(given: Any, there: np.ndarray, drawn: Any) -> sparse.csr_matrix:
    """All genes (n, n_genes): those `there` (n_genes,) from a matrix of these alone, the others from one of all."""
    drawn = sparse.csc_matrix(drawn)[:, np.flatnonzero(~there)]
    both = sparse.hstack([sparse.csc_matrix(given), drawn], format="csr")
    return both[:, np.argsort(np.concatenate([np.flatnonzero(there), np.flatnonzero(~there)]))]


def modelled_part(
    given: sparse.csc_matrix, there: np.ndarray, expressed: np.ndarray | None
) -> tuple[sparse.csr_matrix, np.ndarray]:
    """What a model reads of the genes that are given (n, n_given), and their places (n_read,) among those it models.

    Genes that are given, but had no count in the fit, say nothing that the model could use.
    """
    modelled = np.arange(len(there)) if expressed is None else expressed
    present = np.flatnonzero(there[modelled])
    return sparse.csr_matrix(given[:, (np.cumsum(there) - 1)[modelled[present]]]), present


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
        depth = torch.full((len(z), len(model.blocks)), torch.nan, dtype=torch.float64)
        for b, own in enumerate(model.blocks.columns):
            there = present[(present >= own.start) & (present < own.stop)]
            if len(there) or len(model.blocks) == 1:
                known = counts[:, there], log_rate[:, there], log_theta[:, there]
                depth[:, b] = draw_log_library(*known, *model.depth_prior(b), generator)
        if depth.isnan().any():
            depth = _fill_depths(model, z, depth, rows[part], generator)
        depth = depth.float().repeat_interleave(torch.tensor(model.blocks.sizes), dim=1)
        expected = torch.exp(log_rate + depth).clamp(max=MAX_EXACT)
        drawn = nb_sample(expected, log_theta, generator).clamp(max=MAX_EXACT).numpy().astype(np.int64)
        drawn = model.calibration(drawn, rows[part], rng)
        drawn[:, model.silent] = 0
        parts.append(sparse.csr_matrix(drawn))
    return sparse.vstack(parts, format="csr")


def _fill_depths(model: CountModel, z: Tensor, depth: Tensor, rows: np.ndarray, generator: torch.Generator) -> Tensor:
    """Draw log library sizes (n, n_blocks) that are NaN given the others, all latents, and the class (n,)."""
    assert model.spread is not None and model.classes.means is not None
    scale, center = (torch.from_numpy(v).double() for v in (model.scale, model.center))
    mean, spread = torch.from_numpy(model.classes.means[rows]).double(), torch.from_numpy(model.spread).double()
    data = (torch.cat([z[:, model.active].double(), depth], dim=1) - center) / scale - mean
    hidden = data[0].isnan()
    weight = torch.linalg.solve(spread[~hidden][:, ~hidden], spread[~hidden][:, hidden])
    left = spread[hidden][:, hidden] - spread[hidden][:, ~hidden] @ weight
    eps = torch.randn((len(data), int(hidden.sum())), generator=generator, dtype=torch.float64)
    data[:, hidden] = data[:, ~hidden] @ weight + eps @ torch.linalg.cholesky(left).mT
    return ((data + mean) * scale + center)[:, len(model.active) :]


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
