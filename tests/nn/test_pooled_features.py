"""Features that are trained as one."""

import math

import pytest
import torch

from tabdiff.nn.count_autoencoder import CountAutoencoder
from tabdiff.nn.pooled_features import pool_features, take_pooled


@pytest.mark.parametrize("blocks", [[12], [8, 4]])
def test_pooled_features_move_together_and_the_others_are_as_they_were(blocks: list[int]) -> None:
    theta, generator = torch.full((2, 12), math.log(20.0)), torch.Generator().manual_seed(0)
    rates = torch.randn(2, 12, generator=generator).split(blocks, dim=1)
    own = torch.cat([torch.log_softmax(part, dim=1) for part in rates], dim=1)
    read, rare = torch.tensor([0, 3, 9]), torch.zeros(12, dtype=torch.bool)
    rare[[1, 2, 10, 11]] = True
    model = CountAutoencoder(own, theta, (), read, n_latent=2, generator=generator, blocks=blocks)
    torch.nn.init.zeros_(model.loadings.weight)
    torch.nn.init.normal_(model.loadings.weight[read], generator=generator)
    small, place = pool_features(model, rare)
    assert small.blocks == ([9] if len(blocks) == 1 else [7, 3]) and len(place.unique()) == sum(small.blocks)
    z, classes = torch.randn(2, 2, generator=generator), torch.tensor([0, 1])

    def check() -> None:
        rate = model.log_rate(z, model.offset(classes), None).exp()
        together = torch.zeros(2, sum(small.blocks)).index_add(1, place, rate)
        torch.testing.assert_close(small.log_rate(z, small.offset(classes), None).exp(), together)

    check()
    torch.testing.assert_close(small.log_theta(classes)[:, place[~rare]], model.log_theta(classes)[:, ~rare])
    # What is one varies less than its parts do for their means.
    assert (small.log_theta(classes)[:, place[rare]] > model.log_theta(classes)[:, rare]).all()
    for weight in small.parameters():
        torch.nn.init.normal_(weight, std=0.3, generator=generator)
    before = model.log_theta(classes)
    take_pooled(model, small, place)
    check()
    torch.testing.assert_close(small.log_theta(classes)[:, place[~rare]], model.log_theta(classes)[:, ~rare])
    torch.testing.assert_close(model.log_theta(classes)[:, rare], before[:, rare])
