"""Continuous conditions between the values of training."""

import numpy as np
import pytest
import torch

from tabdiff import DiffusionGenerator
from tabdiff.nn import ConditionEmbedding
from tabdiff.training.vicinal import MOVED, Vicinity


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def test_moves_by_a_density_that_falls_to_zero_at_the_neighbour(generator):
    n = 200_000
    values = torch.tensor([[0.0], [2.0], [3.0]])
    moved = Vicinity(values, [0])(torch.full((n, 1), 2.0), generator)[:, 0].numpy()
    below, above = moved[moved < 2], moved[moved > 2]
    standard_error = np.sqrt(MOVED / 2 / n)
    assert abs(len(below) / n - MOVED / 2) < 4 * standard_error
    assert abs(len(above) / n - MOVED / 2) < 4 * standard_error
    # A triangle of height 2 / gap: a third of the gap on average, and 1 - (1 - x)² of the rows within a share x of it.
    for distance, gap in ((2 - below, 2.0), (above - 2, 1.0)):
        share = distance / gap
        assert share.max() < 1
        assert abs(share.mean() - 1 / 3) < 4 * np.sqrt(1 / 18 / len(share))
        for x in (0.25, 0.5, 0.75):
            expected = 1 - (1 - x) ** 2
            assert abs((share < x).mean() - expected) < 4 * np.sqrt(expected * (1 - expected) / len(share))


def test_rows_at_a_place_are_those_of_both_neighbours_in_proportion_to_nearness(generator):
    """As many rows of 0 and of 1: at a place p between them, the share of those of 1 is p."""
    n = 400_000
    condition = torch.arange(n).remainder(2).float()[:, None]
    moved = Vicinity(condition, [0])(condition, generator)[:, 0].numpy()
    own = condition[:, 0].numpy()
    for place in (0.2, 0.5, 0.8):
        near = abs(moved - place) < 0.02
        share = own[near].mean()
        assert abs(share - place) < 4 * np.sqrt(place * (1 - place) / near.sum())


def test_nothing_moves_outwards_and_null_stays_null(generator):
    condition = torch.tensor([[-1.0, 0.0], [5.0, 1.0], [float("nan"), 2.0]]).repeat(1000, 1)
    moved = Vicinity(condition, [0])(condition, generator)
    assert torch.equal(moved[:, 1], condition[:, 1])  # a class stays as it is
    assert moved[2::3, 0].isnan().all()
    assert moved[0::3, 0].min() == -1 and moved[1::3, 0].max() == 5
    assert (moved[0::3, 0] > -1).any() and (moved[1::3, 0] < 5).any()


def test_a_single_value_and_classes_are_left_alone(generator):
    before = generator.get_state()
    condition = torch.tensor([[2.0, 1.0], [2.0, 0.0]])
    assert torch.equal(Vicinity(condition, [0])(condition, generator), condition)
    assert torch.equal(Vicinity(condition, [])(condition, generator), condition)
    assert torch.equal(generator.get_state(), before)  # so that fits without such conditions are as they were


def test_a_fit_sees_values_between(monkeypatch):
    seen = []
    forward = ConditionEmbedding.forward

    def recorded(self, condition, batch_size=None):
        if self.training and condition is not None:
            seen.append(condition.detach().clone())
        return forward(self, condition, batch_size)

    monkeypatch.setattr(ConditionEmbedding, "forward", recorded)
    rng = np.random.default_rng(0)
    dose, batch = np.repeat([0.0, 1.0, 4.0], 40), np.tile(["a", "b"], 60)
    embedding = rng.normal(size=(2, 3))[np.arange(120) % 2]
    gen = DiffusionGenerator(max_steps=5, random_state=0).fit(
        rng.normal(size=(120, 2)), condition={"dose": dose, "batch": batch, "embedding": embedding}
    )
    codes = torch.cat(seen)
    known = np.unique(gen.conditions_.codes[:, 0])
    doses = codes[:, 0][~codes[:, 0].isnan()].numpy()
    assert len(np.setdiff1d(doses, known.astype(np.float32))) > 100
    assert doses.min() >= known.min() - 1e-6 and doses.max() <= known.max() + 1e-6
    assert set(codes[:, 1][~codes[:, 1].isnan()].tolist()) == {0.0, 1.0}
    vectors = codes[:, 2:][~codes[:, 2:].isnan().any(1)].numpy()
    assert len(np.unique(vectors, axis=0)) == 2  # vectors are no scale to move along
