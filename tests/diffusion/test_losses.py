"""Networks that learn the mixture from draws, for the ways of learning it that make sense."""

import pytest
import torch
from exhaustive import exhaustive
from torch import nn

from tabdiff.diffusion import Denoiser, make_schedule, make_times, sample

WAYS = [
    ("cosine", "v", "simple", "stratified", None),
    ("vp", "eps", "min_snr", "uniform", None),
    ("cosine", "x0", "truncated_snr", "stratified", None),
    ("vp", "score", "simple", "stratified", None),
    ("linear", "eps", "simple", "uniform", 1000),
    ("sigmoid", "v", "huber", "stratified", None),
    ("vp", "v", "simple", "stratified", None),
    ("sub_vp", "edm", "simple", "stratified", None),
    ("ve", "edm", "edm", "stratified", None),
    ("edm", "edm", "edm", "log_normal", None),
    ("rectified_flow", "flow", "simple", "logit_normal", None),
]


class Network(nn.Module):
    """A small network with Fourier features of the time."""

    def __init__(self, generator):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(18, 96), nn.Linear(96, 96), nn.Linear(96, 96), nn.Linear(96, 2)])
        for parameter in self.parameters():  # layers draw from the global state, which tests leave alone
            bound = parameter.shape[-1] ** -0.5
            parameter.data.uniform_(-bound, bound, generator=generator)

    def forward(self, x, t, c):
        angles = t[:, None] * torch.tensor([1.0, 2, 4, 8, 16, 32, 64, 128])
        h = torch.cat([x, angles.sin(), angles.cos()], 1)
        for layer in self.layers[:-1]:
            h = nn.functional.silu(layer(h))
        return self.layers[-1](h)


# The floor of 2,000 draws is about 0.025; training is short.
TOLERANCE = 0.2


@pytest.mark.slow
@pytest.mark.parametrize(("schedule", "target", "loss", "times", "n_timesteps"), exhaustive(WAYS, quick=3))
def test_a_mixture_is_learned(schedule, target, loss, times, n_timesteps, mixture, sliced_wasserstein):
    generator = torch.Generator().manual_seed(0)
    schedule = make_schedule(schedule, n_timesteps)
    data = mixture(schedule).sample(8192, generator)[0].float()
    denoiser = Denoiser(Network(generator), schedule, target, loss=loss)
    draw_times = make_times(times)
    optimiser = torch.optim.Adam(denoiser.parameters(), lr=4e-3)
    n_steps = 500
    schedule_rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, 6e-3, total_steps=n_steps)
    for _ in range(n_steps):
        x0 = data[torch.randint(0, len(data), (512,), generator=generator)]
        eps = torch.randn(x0.shape, generator=generator)
        value = denoiser.loss(x0, t=draw_times(512, schedule, generator), eps=eps).mean()
        optimiser.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(denoiser.parameters(), 1.0)
        optimiser.step()
        schedule_rate.step()
    rows = sample(denoiser, torch.randn(2000, 2, generator=generator), steps=30)
    assert sliced_wasserstein(rows, mixture(schedule).sample(2000, generator)[0]) < TOLERANCE
