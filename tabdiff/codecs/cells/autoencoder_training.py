"""The training of the autoencoder of counts: where its loadings start, and batches of cells."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tabdiff.codecs.cells.blocks import Blocks
from tabdiff.codecs.cells.rates import group_sum
from tabdiff.io.expression import dense_rows
from tabdiff.nn.count_autoencoder import AutoencoderHistory, CountAutoencoder, train_autoencoder
from tabdiff.nn.pooled_features import pool_features, take_pooled
from tabdiff.utils.memory import tensor_of

__all__ = ["SVD_CELLS", "start_loadings", "train"]

SVD_CELLS, SVD_GENES = 4000, 800
# Standard deviation of log rates along the first of the loadings, over all counts, up to which they are not trained.
SMALL_EFFECT = 0.4
# Counts of a gene in all cells below which it says nothing by itself, and is trained as one with others of the kind.
RARE_COUNTS = 5
# Steps by the root of the number of cells, and fewest. Where loadings stay, half of them: what else there is to train
# takes up noise (on C. elegans neurons RF-AUC, RBF-MMD and the correlation within types are .655, .055 and .480 after
# 413 steps, .637, .044 and .513 after 207). Where effects are large, as of types without a condition, half are too few.
STEPS, KEPT_STEPS, MAX_STEPS = (8.0, 400), (4.0, 200), 2000


def start_loadings(
    model: CountAutoencoder,
    matrix: Any,
    training: np.ndarray,
    class_log_rate: np.ndarray,
    library: np.ndarray,
    blocks: Blocks,
    generator: torch.Generator,
) -> None:
    """Start at the singular vectors of the Pearson residuals, which are the loadings for small effects.

    Where effects are small, they stay there: a step of the optimiser is as long where the gradient is noise, and
    on PBMC3k training takes the correlation of gene-gene correlations within types with the true ones from .80 to
    .68. Large effects, such as those of cell types that no condition tells apart, want the likelihood.
    """
    from sklearn.utils.extmath import randomized_svd

    rows = np.sort(torch.randperm(matrix.shape[0], generator=generator)[:SVD_CELLS].numpy())
    classes, genes = training[rows], model.input_features.numpy()
    x = dense_rows(matrix, rows)[:, genes]
    depth = blocks.spread(library[rows]).astype(np.float32)
    depth = depth if len(blocks) == 1 else depth[:, genes]
    mean = depth * np.exp(class_log_rate[classes][:, genes])
    variance = mean + mean**2 * np.exp(-model.start_log_theta.numpy()[classes][:, genes]) + 1e-4
    residual = np.clip((x - mean) / np.sqrt(variance), -8, 8)
    # Directions from the genes that vary most, of which the noise of the many others is kept out.
    variable = np.argsort(-np.log1p(x * (1e4 / depth)).var(axis=0), kind="stable")[:SVD_GENES]
    rank = min(model.n_latent, len(variable), len(x))
    seed = int(torch.randint(2**31 - 1, (), generator=generator))
    scores, _, _ = randomized_svd(residual[:, variable], rank, random_state=seed)
    information = (mean**2 / variance).mean(axis=0) + 0.05
    loadings = residual.T @ scores / np.sqrt(len(x) * information)[:, None]
    effects = []
    for own in blocks.columns:
        part = slice(*np.searchsorted(genes, [own.start, own.stop])) if len(blocks) > 1 else own
        share = mean[:, part].sum(axis=0) / mean[:, part].sum()
        effects.append(float(np.sqrt(share @ loadings[part, 0] ** 2)))
    with torch.no_grad():
        model.loadings.weight.zero_()
        model.loadings.weight[model.input_features, :rank] = torch.as_tensor(loadings, dtype=torch.float32)
    model.loadings.requires_grad_(max(effects) > SMALL_EFFECT)


def train(
    model: CountAutoencoder,
    matrix: Any,
    training: np.ndarray,
    condition: Tensor | None,
    generator: torch.Generator,
    max_time: float | None,
    callback: Callable[[dict[str, float | int | str]], object] | None,
) -> AutoencoderHistory:
    """Train on a matrix of cells × genes with the class (n,) and condition (n, k) of each cell.

    Genes that are hardly counted are one in training: of some hundreds of cells with all genes, most are.
    """
    n_cells = matrix.shape[0]
    order = torch.randperm(n_cells, generator=generator)
    n_held_out = min(n_cells // 10, 1000)
    device = model.class_log_rate.device
    classes = torch.as_tensor(training, device=device)
    condition = None if condition is None else condition.to(device, torch.float32)
    rare = torch.as_tensor(group_sum(matrix, np.zeros(n_cells, dtype=np.int64), 1)[0] < RARE_COUNTS, device=device)
    rare[model.input_features] = False
    trained, place = pool_features(model, rare) if int(rare.sum()) > 1 else (model, None)
    places = None if place is None else place.cpu().numpy()

    def load(rows: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        # Whose noise is whose is of no matter, and the likelihood is faster where rows of a class follow each other.
        rows = rows[torch.from_numpy(training[rows.numpy()]).argsort(stable=True)]
        counts = tensor_of(dense_rows(matrix, rows.numpy(), places)).to(device)
        rows = rows.to(device)
        return counts, classes[rows], None if condition is None else condition[rows]

    by_root, fewest = STEPS if model.loadings.weight.requires_grad else KEPT_STEPS
    history = train_autoencoder(
        trained,
        load,
        order[n_held_out:],
        order[:n_held_out],
        max_steps=int(np.clip(by_root * n_cells**0.5, fewest, MAX_STEPS)),
        batch_size=64 if n_cells < 500 else 128,
        learning_rate=1e-2,
        generator=generator,
        max_time=max_time,
        callback=callback,
    )
    if place is not None:
        take_pooled(model, trained, place)
    return history
