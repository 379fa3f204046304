"""A 2-D mixture that every sampler has to reproduce, generators, and the distance between samples."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tabdiff.diffusion import MixtureDenoiser, Schedule

WEIGHTS = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
MEANS = torch.tensor([[-1.2, -0.3], [0.8, 0.9], [0.6, -1.1]], dtype=torch.float64)
COVS = torch.tensor(
    [[[0.04, 0.02], [0.02, 0.05]], [[0.01, 0.0], [0.0, 0.09]], [[0.02, 0.0], [0.0, 0.02]]], dtype=torch.float64
)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def mixture() -> Callable[[Schedule], MixtureDenoiser]:
    """Builds the exact denoiser of the mixture on a schedule."""
    return lambda schedule: MixtureDenoiser(WEIGHTS, MEANS, COVS, schedule)


@pytest.fixture
def sliced_wasserstein() -> Callable[[Tensor, Tensor], float]:
    """Mean over 50 directions of the 1-D Wasserstein-1 distance between samples of equal size, shape (n, 2)."""
    angles = torch.linspace(0, torch.pi, 51, dtype=torch.float64)[:-1]
    directions = torch.stack([angles.cos(), angles.sin()])

    def distance(a: Tensor, b: Tensor) -> float:
        sorted_a, sorted_b = ((rows.double() @ directions).sort(0).values for rows in (a, b))
        return (sorted_a - sorted_b).abs().mean().item()

    return distance
