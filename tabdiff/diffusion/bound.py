"""The variational bound for data that mix numbers, categories and missing entries."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tabdiff.diffusion.denoiser import Denoiser, coefficients
from tabdiff.diffusion.likelihood import variational_bound
from tabdiff.diffusion.mixed_denoiser import MixedDenoiser

__all__ = ["row_bound"]

# At more noise than the first nothing is left of a row. At less than the last a learned estimate of a category is
# never as exact as the weight on its error, which grows as the SNR, asks for. It is a bound for any range.
LOG_SNR_RANGE = (-7.0, 6.0)


@torch.no_grad()
def row_bound(
    denoiser: Denoiser,
    data: Tensor,
    condition: Tensor | None = None,
    *,
    steps: int = 24,
    seed: int = 0,
    log_snr_max: float = LOG_SNR_RANGE[1],
) -> Tensor:
    """Return a lower bound on the log-likelihood of each row, in nats.

    Numbers count by their density, categories by their probability. The noises are fixed by the seed and the same for
    every row, so that a row's value does not depend on the rows beside it.

    Parameters
    ----------
    denoiser : Denoiser or MixedDenoiser
        In float64 for values that do not depend on how rows are batched.
    data : Tensor of shape (B, d)
        Encoded rows, of the denoiser's dtype; NaN marks a missing number, which is left out.
    condition : Tensor of shape (B, k), optional
        Encoded condition.
    steps : int
        Steps of the chain, two evaluations each; more give a tighter bound.
    seed : int
        Of the fixed noises.
    log_snr_max : float
        Where the chain ends. Less leaves more noise in the row: what is finer than it takes no part.

    Returns
    -------
    Tensor of shape (B,)
        float64.
    """
    schedule = denoiser.schedule
    low = max(schedule.log_snr(schedule.t_max).item(), LOG_SNR_RANGE[0])
    high = min(schedule.log_snr(schedule.t_min).item(), log_snr_max)
    times = schedule.t_from_log_snr(torch.linspace(low, high, steps + 1, dtype=torch.float64))
    settings: dict[str, Any] = {"grid": times, "generator": torch.Generator().manual_seed(seed)}
    if not isinstance(denoiser, MixedDenoiser):
        return variational_bound(denoiser, data, condition, **settings)
    n = denoiser.n_continuous
    clean = denoiser.to_x0(data)
    number = torch.zeros_like(clean, dtype=torch.bool)
    number[:, :n] = True
    known = ~number
    known[:, :n] = ~data[:, :n].isnan()
    bound = variational_bound(denoiser, clean, condition, **settings, known=known, reconstructed=number)
    alpha, sigma = coefficients(schedule, times[-1], clean)
    eps = torch.randn((1, clean.shape[1]), generator=settings["generator"], dtype=clean.dtype)
    noisy = torch.where(known, alpha * clean + sigma * eps, eps)
    log_p = denoiser.log_probabilities(noisy, times[-1], condition)
    return bound + log_p.gather(1, data[:, n:].long() + denoiser.blocks.offsets).double().sum(1)
