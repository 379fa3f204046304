import math

import torch

from tabdiff.diffusion import GaussianDenoiser, VPSchedule, sample
from tabdiff.diffusion.samplers.midpoint import Midpoint


def error(steps):
    """Root mean square distance from the exact path of N(0.7, 0.5²), at the end of it."""
    schedule, mean, std = VPSchedule(), 0.7, 0.5
    denoiser = GaussianDenoiser(torch.tensor([mean]).double(), torch.tensor([[std**2]]).double(), schedule)
    noise = torch.randn((500, 1), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    t = torch.tensor([schedule.t_max, schedule.t_min], dtype=torch.float64)
    (a1, a0), (s1, s0) = schedule.alpha(t).tolist(), schedule.sigma(t).tolist()
    exact = a0 * mean + math.hypot(a0 * std, s0) / math.hypot(a1 * std, s1) * (s1 * noise - a1 * mean)
    drawn = sample(denoiser, noise, method=Midpoint(), steps=steps, denoise_last=False)
    return (drawn - exact).square().mean().sqrt().item()


def test_the_error_falls_with_the_square_of_the_step():
    assert 1.8 < math.log2(error(80) / error(160)) < 2.2
