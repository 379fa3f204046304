r"""The variational bound on the log-likelihood, over a fixed grid of times and noises.

With times :math:`t_0 < \dots < t_K`,

.. math::
   \log p(x_0) \ge -KL(q(x_{t_K}) \| N(0, I)) + E \log p(x_0 | x_{t_0})
   - \tfrac12 \sum_{k=1}^{K} (SNR_{k-1} - SNR_k)\, E \|x_0 - D(x_{t_k}, t_k)\|^2

(Kingma et al., 2021, https://arxiv.org/abs/2107.00630). The expectation over the noise is taken at a few
fixed draws, the same for every row, so that a row's value does not depend on the rows beside it. It is a
bound for any times. They run over log-SNRs from -7 to 6: at more noise nothing is left of a row, and at less
a learned estimate of a category is never as exact as the weight on its error, which grows as the SNR, asks
for.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tabdiff.diffusion.denoiser import Denoiser
from tabdiff.diffusion.mixed import MixedDenoiser

__all__ = ["variational_bound"]

LOG_SNR_RANGE = (-7.0, 6.0)


@torch.no_grad()
def variational_bound(
    denoiser: Denoiser, data: Tensor, condition: Tensor | None = None, *, n_times: int = 32, seed: int = 0
) -> Tensor:
    """Return a lower bound on the log-likelihood of each row, in nats.

    Parameters
    ----------
    denoiser : Denoiser or MixedDenoiser
        In float64 for values that do not depend on how rows are batched.
    data : Tensor of shape (B, d)
        Encoded rows, of the denoiser's dtype; NaN marks a missing number, which is left out.
    condition : Tensor of shape (B, k), optional
        Encoded condition.
    n_times : int
        K. More times give a tighter bound.
    seed : int
        Of the fixed noises.

    Returns
    -------
    Tensor of shape (B,)
        float64.

    Raises
    ------
    ValueError
        If the schedule does not preserve variance: the bound needs a standard normal at its noisy end.
    """
    schedule = denoiser.schedule
    if not schedule.variance_preserving:
        raise ValueError(f"the variational bound needs a variance-preserving schedule, however: {schedule.name!r}")
    mixed = denoiser if isinstance(denoiser, MixedDenoiser) else None
    n_continuous = mixed.n_continuous if mixed else data.shape[1]
    known = torch.ones_like(data[:, :n_continuous], dtype=torch.bool)
    clean = data
    if mixed:
        known = ~data[:, :n_continuous].isnan()
        clean = mixed.to_x0(data)
    keep = torch.cat([known, torch.ones_like(clean[:, n_continuous:], dtype=torch.bool)], dim=1)
    low = max(schedule.log_snr(schedule.t_max).item(), LOG_SNR_RANGE[0])
    high = min(schedule.log_snr(schedule.t_min).item(), LOG_SNR_RANGE[1])
    levels = torch.linspace(high, low, n_times + 1, dtype=torch.float64)
    times = schedule.t_from_log_snr(levels).clamp(schedule.t_min, schedule.t_max)
    noises = torch.randn(
        (n_times + 1, clean.shape[1]), generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    ).to(clean)

    def noisy(k: int) -> Tensor:
        alpha, sigma = schedule.alpha(times[k]).item(), schedule.sigma(times[k]).item()
        # What is missing is pure noise to the network, as in training.
        return torch.where(keep, alpha * clean + sigma * noises[k], math.hypot(alpha, sigma) * noises[k])

    alpha, sigma = schedule.alpha(times[-1]).item(), schedule.sigma(times[-1]).item()
    prior = 0.5 * (alpha**2 * clean.square() + sigma**2 - 1 - 2 * math.log(sigma))
    bound = -torch.where(keep, prior, 0.0).double().sum(1)
    snr = schedule.log_snr(times).exp()
    for k in range(1, n_times + 1):
        error = torch.where(keep, clean - denoiser(noisy(k), times[k], condition), 0.0)
        bound -= 0.5 * (snr[k - 1] - snr[k]).item() * error.double().square().sum(1)
    spread = math.log(schedule.sigma(times[0]).item() / schedule.alpha(times[0]).item())
    last = 0.5 * (math.log(2 * math.pi) + 2 * spread + noises[0, :n_continuous].double().square())
    bound -= torch.where(known, last, 0.0).sum(1)
    if mixed and mixed.n_levels:
        log_p = mixed.log_probabilities(noisy(0), times[0], condition)
        index = data[:, n_continuous:].long() + mixed.offsets
        bound += log_p.gather(1, index).double().sum(1)
    return bound
