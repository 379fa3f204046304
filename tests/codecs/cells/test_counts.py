import numpy as np
import pytest
import torch
from scipy import sparse

from tabdiff.codecs.cells.counts import SCALE_CELLS, CountModel


@pytest.mark.slow
def test_latents_of_more_cells_than_scales_are_taken_from_have_unit_variance():
    rng = np.random.default_rng(0)
    n, genes = SCALE_CELLS + 2000, 20
    state = rng.normal(size=(n, 1))
    counts = rng.poisson(np.exp(1 + state * rng.normal(size=(1, genes))) * rng.gamma(5, 0.2, (n, 1)))
    matrix = sparse.csr_matrix(counts.astype(np.float32))
    generator = torch.Generator().manual_seed(0)
    model = CountModel(n_latent=2).fit(matrix, None, [], generator=generator, device=torch.device("cpu"), max_time=5)
    latents = model.encode(matrix, None, generator)
    assert len(latents) == n and len(model.active) > 0
    assert latents.mean(dim=0).abs().max() < 0.1
    assert ((latents.std(dim=0) - 1).abs() < 0.1).all()


@pytest.mark.parametrize(("genes", "cells"), [(1000, 20_000), (20_000, 5000), (60_000, 4000)])
def test_fewer_cells_are_drawn_to_calibrate_more_genes(genes, cells):
    model = CountModel()
    model.n_genes = genes
    assert model.calibration_cells == cells
