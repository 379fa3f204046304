r"""The variance of an ancestral step, learned: improved DDPM.

A step of a discrete schedule from time t to the cleaner s is a Gaussian. Its mean follows from the estimate of the
clean row; its variance lies, in each entry, between that of the step given the clean row, :math:`\tilde\beta`, and
that of the noising step, :math:`\beta`. The network returns a share v for each entry, and

.. math:: \log \Sigma = v \log \beta + (1 - v) \log \tilde\beta.

It learns v from the variational bound, whose term for one step is a Kullback-Leibler divergence of two Gaussians, and
in which the mean is held fixed, so that only the simple loss moves the mean:
:math:`L_{hybrid} = L_{simple} + 0.001\, L_{vlb}`.

References
----------
Nichol and Dhariwal, "Improved Denoising Diffusion Probabilistic Models", 2021, https://arxiv.org/abs/2102.09672,
equations 15 and 16.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tabdiff.diffusion.schedules.base import Schedule

__all__ = ["VLB_WEIGHT", "bound_terms", "step_log_variances", "to_share"]

VLB_WEIGHT = 0.001


def to_share(output: Tensor) -> Tensor:
    """Return the share v of a network's output: its range is from -1 to 1, as in the authors' code, 0 at the start."""
    return (output + 1) / 2


def step_log_variances(schedule: Schedule, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r"""Return what a step of a discrete schedule from `t` to the time before it is made of.

    Parameters
    ----------
    schedule : Schedule
        With `n_timesteps`.
    t : Tensor
        Times ``k / n_timesteps``, of any shape.

    Returns
    -------
    log_small, log_large : Tensor
        :math:`\log \tilde\beta` and :math:`\log \beta`. The first step (k = 1) leads to the clean row itself, where
        :math:`\tilde\beta` is 0; that of the second takes its place, as in the paper.
    weight : Tensor
        That of the clean row in the mean. All are float64, in the shape of `t`.

    Raises
    ------
    ValueError
        In continuous time, where a step has no length of its own.

    Examples
    --------
    >>> import torch
    >>> from tabdiff.diffusion import DiscreteLinearSchedule
    >>> schedule = DiscreteLinearSchedule(1000)
    >>> _, log_large, _ = step_log_variances(schedule, torch.tensor([1.0]))
    >>> bool((log_large.exp() - schedule.betas[-1]).abs() < 1e-12)
    True
    """
    n = schedule.n_timesteps
    if n is None:
        raise ValueError(
            "a learned variance is that of a step of a discrete schedule; got one in continuous time. Use a schedule "
            "with n_timesteps."
        )
    k = (t.detach().double() * n).round().clamp(min=1)
    log_large, _, weight = _step(schedule, k, n)
    return _step(schedule, k.clamp(min=2), n)[1], log_large, weight


def _step(schedule: Schedule, k: Tensor, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the logarithms of the large and the small variance of steps k, and the weight of the clean row."""
    first = k == 1
    sigma = schedule.sigma(k / n)
    before = (k - 1).clamp(min=1) / n
    alpha_before = torch.where(first, 1.0, schedule.alpha(before))
    sigma_before = torch.where(first, 0.0, schedule.sigma(before))
    # Share of the noise at k that the step adds. From log-SNRs, because SNRs of fine steps are nearly equal.
    rise = schedule.log_snr(k / n) - torch.where(first, math.inf, schedule.log_snr(before))
    added = -torch.expm1(rise)
    return 2 * sigma.log() + added.log(), 2 * sigma_before.log() + added.log(), alpha_before * added


def bound_terms(x0: Tensor, estimate: Tensor, share: Tensor, schedule: Schedule, t: Tensor) -> Tensor:
    r"""Return the term of the variational bound that belongs to each entry's step, in nats.

    For the steps but the first it is :math:`KL(q(x_s | x_t, x_0) \,\|\, p(x_s | x_t))`, for the first
    :math:`-\log p(x_0 | x_t)`, a density.

    Parameters
    ----------
    x0, estimate : Tensor
        Clean rows and their estimates, shape ``(B, *)``. No gradient goes to the estimates.
    share : Tensor
        v, of the same shape.
    schedule : Schedule
        With `n_timesteps`.
    t : Tensor
        Times ``k / n_timesteps``, shape ``(B,)``.

    Returns
    -------
    Tensor
        Of the shape of `x0`.
    """
    shape = t.shape + (1,) * (x0.dim() - 1)
    log_small, log_large, weight = (v.to(x0).reshape(shape) for v in step_log_variances(schedule, t))
    first = ((t.double() * (schedule.n_timesteps or 0)).round() <= 1).reshape(shape)
    log_variance = share * log_large + (1 - share) * log_small
    error = (weight * (x0 - estimate.detach())).square() * (-log_variance).exp()
    spread = torch.where(first, math.log(2 * math.pi) + log_variance, log_variance - log_small - 1)
    return 0.5 * (spread + torch.where(first, 0.0, (log_small - log_variance).exp()) + error)
