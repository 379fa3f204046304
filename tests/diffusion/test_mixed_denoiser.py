import math

import pytest
import torch
from torch import nn

from tabdiff.diffusion import Denoiser, make_schedule
from tabdiff.diffusion.mixed_denoiser import MixedDenoiser


class Constant(nn.Module):
    def __init__(self, output):
        super().__init__()
        self.output = nn.Parameter(output)

    def forward(self, x, t, c=None):
        return self.output.expand(len(x), -1)


def make(output, n_continuous=1):
    shares = [torch.tensor([0.7, 0.3]), torch.tensor([0.2, 0.3, 0.5])]
    return MixedDenoiser(Constant(output), make_schedule("cosine"), shares, n_continuous).double()


def test_zero_logits_give_the_marginals():
    denoiser = make(torch.zeros(6))
    x = torch.randn(4, denoiser.width, dtype=torch.float64)
    p = denoiser.log_probabilities(x, torch.tensor(0.5)).exp()
    torch.testing.assert_close(
        p, torch.tensor([0.7, 0.3, 0.2, 0.3, 0.5], dtype=torch.float64).expand(4, 5), rtol=1e-6, atol=0
    )


def test_the_estimate_of_a_category_is_the_expected_embedding():
    denoiser = make(torch.zeros(6))
    x0 = denoiser(torch.randn(4, denoiser.width, dtype=torch.float64), torch.tensor(0.5))
    e = denoiser.embeddings()
    torch.testing.assert_close(x0[0, 1:9], 0.7 * e[0] + 0.3 * e[1], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(x0[0, 9:], 0.2 * e[2] + 0.3 * e[3] + 0.5 * e[4], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(e.norm(dim=1), torch.full((5,), math.sqrt(8), dtype=torch.float64))


def test_loss_is_the_mean_over_columns_of_squared_error_and_scaled_cross_entropy():
    output = torch.tensor([0.3, 1.0, -1.0, 0.5, 0.0, -0.5], dtype=torch.float64)
    denoiser = make(output)
    data = torch.tensor([[0.8, 1.0, 2.0]], dtype=torch.float64)
    t, eps = torch.tensor([0.4], dtype=torch.float64), torch.randn(1, denoiser.width, dtype=torch.float64)
    alpha, sigma = math.cos(0.2 * math.pi), math.sin(0.2 * math.pi)
    number = (0.3 - (alpha * eps[0, 0] - sigma * 0.8)) ** 2
    shares = [torch.tensor([0.7, 0.3]).double(), torch.tensor([0.2, 0.3, 0.5]).double()]
    surprises = []
    for share, logits, code in zip(shares, (output[1:3], output[3:]), (1, 2), strict=True):
        bent = 30 * torch.tanh(logits / 30) + share.log()
        surprises.append(-bent.log_softmax(0)[code] / -(share * share.log()).sum())
    expected = (number + sum(surprises)) / 3
    torch.testing.assert_close(denoiser.loss(data, t=t, eps=eps)[0], expected, rtol=1e-5, atol=0)


def test_a_missing_number_costs_nothing_and_shows_nothing():
    class Echo(nn.Module):
        def forward(self, x, t, c=None):
            self.seen = x
            return torch.cat([x[:, :1], torch.zeros(len(x), 5)], 1)

    shares = [torch.tensor([0.7, 0.3]), torch.tensor([0.2, 0.3, 0.5])]
    denoiser = MixedDenoiser(Echo(), make_schedule("cosine"), shares, 1)
    t, eps = torch.full((1,), 0.2), torch.randn(1, denoiser.width, generator=torch.Generator().manual_seed(0))
    missing = denoiser.loss(torch.tensor([[float("nan"), 1.0, 2.0]]), t=t, eps=eps)
    torch.testing.assert_close(denoiser.network.seen[0, 0], eps[0, 0])
    codes_only = make(torch.zeros(6)).float()
    total = codes_only.loss(torch.tensor([[0.0, 1.0, 2.0]]), t=t, eps=eps)
    own = (0 - (math.cos(0.1 * math.pi) * eps[0, 0])) ** 2 / 3
    torch.testing.assert_close(missing, total - own, rtol=1e-5, atol=1e-6)


def test_without_categories_it_is_the_plain_denoiser():
    network = Constant(torch.tensor([0.3, -0.2]))
    schedule = make_schedule("cosine")
    x, t = torch.randn(5, 2), torch.full((5,), 0.3)
    plain = Denoiser(network, schedule)
    mixed = MixedDenoiser(network, schedule, [torch.ones(1)], 1)
    torch.testing.assert_close(mixed.log_probabilities(torch.randn(2, 9), torch.tensor(0.5)), torch.zeros(2, 1))
    assert plain(x, t).shape == x.shape


def test_drawn_levels_follow_the_probabilities():
    denoiser = make(torch.zeros(6))
    n = 20_000
    data = denoiser.to_data(
        torch.zeros(n, denoiser.width, dtype=torch.float64), torch.tensor(0.001), None, torch.Generator().manual_seed(0)
    )
    for column, shares in ((1, [0.7, 0.3]), (2, [0.2, 0.3, 0.5])):
        for code, share in enumerate(shares):
            assert abs((data[:, column] == code).double().mean() - share) < 4 * math.sqrt(share * (1 - share) / n)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_logits_stay_finite(dtype):
    denoiser = make(torch.tensor([0.0, 1e6, -1e6, 1e6, 1e6, -1e6])).to(dtype)
    t = torch.full((2,), 0.5, dtype=dtype)
    loss = denoiser.loss(torch.zeros(2, 3, dtype=dtype), t=t, eps=torch.randn(2, denoiser.width, dtype=dtype))
    assert loss.isfinite().all()


def test_what_a_sampler_ended_at_becomes_data():
    denoiser = make(torch.randn(6, generator=torch.Generator().manual_seed(0)))
    x = torch.randn(5, denoiser.width, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    drawn = [torch.Generator().manual_seed(2) for _ in range(2)]
    t_min = torch.tensor(denoiser.schedule.t_min, dtype=torch.float64)
    assert denoiser.has_levels
    torch.testing.assert_close(
        denoiser.finish(x, None, drawn[0]), denoiser.to_data(x, t_min, None, drawn[1]), rtol=0, atol=0
    )


def test_of_numbers_alone_the_sampler_takes_the_last_step_and_the_estimate_is_of_numbers():
    plain = Denoiser(Constant(torch.tensor([0.5, -1.0])), make_schedule("cosine"))
    x, t = torch.randn(3, 2), torch.tensor(0.4)
    assert not plain.has_levels and plain.finish(x) is x
    torch.testing.assert_close(plain.numbers(x, t), plain(x, t), rtol=0, atol=0)
