"""The negative binomial distribution of counts: its density and draws."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["nb_log_prob", "nb_sample"]


def nb_log_prob(counts: Tensor, mean: Tensor, log_theta: Tensor) -> Tensor:
    r"""Log-probability of counts under a negative binomial.

    Parameters
    ----------
    counts, mean, log_theta : Tensor
        Broadcastable; counts non-negative integers as floats, mean > 0, log of the inverse dispersion
        :math:`\theta`. The variance is mean + mean² / θ; θ → ∞ gives the Poisson distribution.

    Returns
    -------
    Tensor
        Log-probabilities in nats, of the broadcast shape.

    Examples
    --------
    >>> import torch
    >>> nb_log_prob(torch.tensor(0.0), torch.tensor(1.0), torch.tensor(0.0)).exp()  # 1 / (1 + 1)
    tensor(0.5000)
    """
    theta = log_theta.exp()
    log_total = torch.log(mean + theta)
    return (
        torch.lgamma(counts + theta)
        - torch.lgamma(theta)
        - torch.lgamma(counts + 1)
        + theta * (log_theta - log_total)
        + counts * (torch.log(mean) - log_total)
    )


def nb_sample(mean: Tensor, log_theta: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draw negative-binomial counts as a Poisson with a gamma-distributed rate.

    Parameters
    ----------
    mean, log_theta : Tensor
        Of one shape: mean >= 0 and log of the inverse dispersion.
    generator : torch.Generator, optional
        Source of randomness, on the tensors' device.

    Returns
    -------
    Tensor
        Integers as floats, in the shape of `mean`.
    """
    theta = log_theta.exp()
    gamma = torch._standard_gamma(theta, generator=generator)
    return torch.poisson(gamma * (mean / theta), generator=generator)


def _sum_nb_log_prob(counts: Tensor, log_mean: Tensor, log_theta: Tensor) -> Tensor:
    """Row sums of `nb_log_prob` up to the terms in counts alone, for sparse counts (B, n).

    lgamma(x + θ) - lgamma(θ) is zero wherever x is, and lgamma is the costly part: it is
    evaluated at the non-zero entries only.
    """
    theta = log_theta.exp()
    log_total = torch.logaddexp(log_mean, log_theta)
    dense = theta * (log_theta - log_total) + counts * (log_mean - log_total)
    rows, columns = counts.nonzero(as_tuple=True)
    theta = theta.expand_as(counts)[rows, columns]
    rising = torch.lgamma(counts[rows, columns] + theta) - torch.lgamma(theta)
    return dense.sum(1).index_add(0, rows, rising)
