import math

import pytest
import torch
from torch import nn

from tabdiff.diffusion import Denoiser, make_schedule
from tabdiff.diffusion.masks import DrawGiven
from tabdiff.diffusion.mixed_denoiser import MixedDenoiser
from tabdiff.evaluation.privacy import epsilon_lower_bound
from tabdiff.nn import ConditionEmbedding, ResidualMLP
from tabdiff.training import EMA, Batches, ClippedNoise, Run, TrainingOptions, train
from tabdiff.training.private_step import PrivateStep, clipped_gradients, gradient_norms

N = 40


def mixed_denoiser(network=None):
    """Two numbers, categories of 3 and 2 levels, a class and a number as conditions; told what is given."""
    torch.manual_seed(0)
    width = MixedDenoiser.width_of(2, 2, 4)
    given = width + 2 * 4
    if network is None:
        network = ResidualMLP(
            width, 7, 8, hidden_size=16, n_blocks=2, n_exact=2, n_waved=2, n_frequencies=3, given_size=given,
            embedding_size=12,
        )  # fmt: skip
    embedding = ConditionEmbedding([3, 0], 8)
    denoiser = MixedDenoiser(
        network,
        make_schedule("cosine"),
        [torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.6, 0.4])],
        2,
        condition_embedding=embedding,
        embedding_size=4,
        missing_levels=[-1, 1],
    )
    for name, p in denoiser.named_parameters():
        p.requires_grad_(name != "levels" and "null_values" not in name)
        p.data += 0.1 * torch.randn(p.shape)
    return denoiser


def mixed_rows(n=N):
    generator = torch.Generator().manual_seed(1)
    numbers = torch.randn(n, 2, generator=generator)
    numbers[::7, 0] = math.nan
    codes = [torch.randint(k, (n, 1), generator=generator).float() for k in (3, 2)]
    data = torch.cat([numbers, *codes], dim=1)
    condition = torch.cat(
        [torch.randint(3, (n, 1), generator=generator).float(), torch.randn(n, 1, generator=generator)], dim=1
    )
    condition[::5] = math.nan
    draw = DrawGiven(n_continuous=2, missing_levels=[-1, 1], presence=[-1, -1], share=0.5)
    return data, condition, draw


def a_batch(denoiser, n=N):
    data, condition, draw = mixed_rows(n)
    generator = torch.Generator().manual_seed(2)
    given = torch.cat([condition, draw(data, generator)], dim=1)
    t = torch.rand(n, generator=generator) * 0.9 + 0.05
    return data, given, t, torch.randn(n, denoiser.width, generator=generator)


def flat(denoiser):
    return torch.cat([p.grad.flatten() for p in denoiser.parameters() if p.requires_grad])


def one_by_one(denoiser, batch, max_norm):
    total, norms = 0.0, []
    for i in range(len(batch[0])):
        denoiser.zero_grad()
        x0, given, t, eps = (None if part is None else part[i : i + 1] for part in batch)
        denoiser.loss(x0, given, t=t, eps=eps).sum().backward()
        for p in denoiser.parameters():
            if p.requires_grad and p.grad is None:
                p.grad = torch.zeros_like(p)
        gradient = flat(denoiser).double()
        norms.append(float(gradient.norm()))
        total = total + gradient * min(1.0, max_norm / max(norms[-1], 1e-12))
    return total, torch.tensor(norms, dtype=torch.float64)


@pytest.mark.parametrize("short", [True, False])
def test_gradients_are_clipped_row_by_row(short):
    denoiser = mixed_denoiser()
    batch = a_batch(denoiser)
    wanted, norms = one_by_one(denoiser, batch, 0.7)
    found = clipped_gradients(denoiser, *batch, 0.7, short=short)
    assert (norms > 0.7).any()
    torch.testing.assert_close(found, norms, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(flat(denoiser).double(), wanted, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(gradient_norms(denoiser, *batch), norms, rtol=1e-4, atol=1e-6)


def test_no_row_moves_the_sum_by_more_than_the_norm():
    denoiser = mixed_denoiser()
    batch = a_batch(denoiser)
    clipped_gradients(denoiser, *batch, 0.3)
    whole = flat(denoiser)
    for i in range(5):
        kept = torch.arange(N) != i
        clipped_gradients(denoiser, *(part[kept] for part in batch), 0.3)
        assert float((whole - flat(denoiser)).norm()) <= 0.3 * 1.001


class Squared(nn.Module):
    """Weights that are in no layer that is known."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.eye(3))

    def forward(self, x, t, c=None):
        return x @ self.weight + (x * self.weight[0]).square()


def a_step(denoiser, data, condition=None, draw=None, **settings):
    plain = {"max_grad_norm": 1.0, "noise_multiplier": 1.0, "sample_rate": 0.5, "batch_rows": 20, "seed": 3}
    settings = plain | settings
    shape = (getattr(denoiser, "width", data.shape[1]),)
    return PrivateStep(
        denoiser,
        Batches(data, condition, size=8, event_shape=shape, draw_given=draw),
        TrainingOptions().make_optimizer([p for p in denoiser.parameters() if p.requires_grad], 1e-3),
        EMA(denoiser, 0.9),
        generator=torch.Generator().manual_seed(0),
        private=ClippedNoise(**settings),
    )


def test_networks_of_known_layers_go_the_short_way_and_others_the_long_one():
    denoiser = mixed_denoiser()
    before = [p.detach().clone() for p in denoiser.parameters()]
    data, condition, draw = mixed_rows()
    assert a_step(denoiser, data, condition, draw).is_short
    for old, new in zip(before, denoiser.parameters(), strict=True):
        torch.testing.assert_close(old, new, rtol=0, atol=0)
    other = Denoiser(Squared(), make_schedule("cosine"))
    step = a_step(other, torch.randn(20, 3, generator=torch.Generator().manual_seed(0)))
    assert not step.is_short
    step(1e-3)
    batch = (torch.randn(6, 3), None, torch.rand(6) * 0.9 + 0.05, torch.randn(6, 3))
    wanted = one_by_one(other, batch, 0.5)[0]
    clipped_gradients(other, *batch, 0.5, short=False)
    torch.testing.assert_close(flat(other).double(), wanted, rtol=1e-3, atol=1e-5)


def test_noise_is_added_of_the_deviation_that_was_asked_for():
    denoiser = mixed_denoiser()
    data, condition, draw = mixed_rows()
    step = a_step(denoiser, data, condition, draw, max_grad_norm=0.2, noise_multiplier=5.0)
    clipped_gradients(denoiser, *a_batch(denoiser), 0.2)
    plain = flat(denoiser).clone()
    step.add_noise()
    noise = flat(denoiser) * 20 - plain
    assert float(noise.std()) == pytest.approx(5.0 * 0.2, rel=0.05)
    assert abs(float(noise.mean())) < 0.1


def test_rows_come_in_poisson_samples():
    denoiser = mixed_denoiser()
    data, condition, draw = mixed_rows()
    step = a_step(denoiser, data, condition, draw, sample_rate=0.3)
    sizes = []
    make = step.batches.make
    object.__setattr__(step.batches, "make", lambda chosen, g: sizes.append(chosen.tolist()) or make(chosen, g))
    for _ in range(40):
        step(1e-3)
    lengths = torch.tensor([float(len(s)) for s in sizes])
    assert lengths.mean() == pytest.approx(0.3 * N, rel=0.15)
    assert lengths.var() == pytest.approx(N * 0.3 * 0.7, rel=0.5)
    assert all(len(set(s)) == len(s) for s in sizes)


def test_an_empty_batch_is_a_step_of_noise_alone():
    denoiser = mixed_denoiser()
    data, condition, draw = mixed_rows()
    step = a_step(denoiser, data, condition, draw, sample_rate=1e-9)
    before = [p.detach().clone() for p in denoiser.parameters() if p.requires_grad]
    step(1e-2)
    after = [p for p in denoiser.parameters() if p.requires_grad]
    moved = [float((a - b).detach().abs().max()) for a, b in zip(before, after, strict=True)]
    assert all(m > 0 for m in moved)
    assert all(math.isfinite(m) for m in moved)


def test_a_training_run_keeps_no_losses():
    denoiser = mixed_denoiser()
    data, condition, draw = mixed_rows()
    result = train(
        denoiser,
        Batches(data, condition, size=8, event_shape=(denoiser.width,), draw_given=draw),
        generator=torch.Generator().manual_seed(0),
        max_steps=3,
        run=Run(private=ClippedNoise(1.0, 1.0, 0.2, 8, 1)),
    )
    assert result.n_steps == 3
    assert set(result.history) == {"step", "learning_rate"}


def test_the_same_seeds_give_the_same_weights():
    def run(seed):
        denoiser = mixed_denoiser()
        data, condition, draw = mixed_rows()
        step = a_step(denoiser, data, condition, draw, seed=seed)
        for _ in range(3):
            step(1e-3)
        return torch.cat([p.detach().flatten() for p in denoiser.parameters()])

    torch.testing.assert_close(run(1), run(1), rtol=0, atol=0)
    assert not torch.equal(run(1), run(2))


def test_an_audit_does_not_break_the_bound():
    """Whoever sees a noised gradient, and knows all rows but one and that one, tells no better than ε allows."""
    from tabdiff.training.privacy import spent_epsilon

    pytest.importorskip("opacus")
    denoiser = mixed_denoiser()
    batch = a_batch(denoiser)
    clipped_gradients(denoiser, *batch, 0.5)
    whole = flat(denoiser).clone()
    norms = clipped_gradients(denoiser, *(part[1:] for part in batch), 0.5)
    without = flat(denoiser).clone()
    assert len(norms) == N - 1
    direction = whole - without
    generator = torch.Generator().manual_seed(0)
    noise = 1.0 * 0.5
    scores = []
    for centre in (whole, without):
        seen = [centre + noise * torch.randn(centre.shape, generator=generator) for _ in range(2000)]
        scores.append(torch.stack([(s - without) @ direction for s in seen]).numpy())
    allowed = spent_epsilon([(1.0, 1.0, 1)], 1e-5)
    found = epsilon_lower_bound(scores[0], scores[1])
    assert 0.2 < found < allowed
    # The same of gradients that were not clipped, from which the bound would not hold.
    far = 20 * direction
    scores = [
        torch.stack([((c + noise * torch.randn(far.shape, generator=generator)) @ far) for _ in range(1000)]).numpy()
        for c in (far, torch.zeros_like(far))
    ]
    assert epsilon_lower_bound(*scores) > allowed


def test_the_divisor_does_not_count_the_rows():
    def moved(n):
        denoiser = mixed_denoiser()
        data, condition, draw = mixed_rows(n)
        step = a_step(denoiser, data, condition, draw, sample_rate=1e-9)
        denoiser.zero_grad()
        for p in denoiser.parameters():
            p.grad = torch.zeros_like(p) if p.requires_grad else None
        step.add_noise()
        return flat(denoiser)

    torch.testing.assert_close(moved(40), moved(80), rtol=0, atol=0)
