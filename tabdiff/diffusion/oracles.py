r"""Exact denoisers for data whose distribution is known: a Gaussian, and a mixture of Gaussians.

For :math:`x_0 \sim N(\mu, \Sigma)` the best estimate is
:math:`E[x_0 | x_t] = \mu + \alpha \Sigma (\alpha^2 \Sigma + \sigma^2 I)^{-1} (x_t - \alpha \mu)`; for a
mixture the components' estimates are weighed by their posterior probabilities. They stand where a trained
network would, so that whatever a sampler, a guidance rule or a likelihood does wrong is its own doing.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from tabdiff.diffusion.schedules.registry import Schedule

__all__ = ["GaussianDenoiser", "MixtureDenoiser"]


class MixtureDenoiser(nn.Module):
    """The exact ``E[x0 | x_t]`` of a mixture of Gaussians.

    Arithmetic is float64; the result has the dtype of `x_t`.

    Parameters
    ----------
    weights : Tensor
        Weights of the components, shape ``(k,)``; scaled to sum to 1.
    means : Tensor
        Shape ``(k, d)``, or ``(k, 1)`` for means that are the same in every entry of rows of any size.
    covs : Tensor
        Covariances of shape ``(k, d, d)``, or variances of shape ``(k, d)`` or ``(k, 1)``.
    schedule : Schedule
        The noise schedule.

    Notes
    -----
    A condition of shape ``(B, 1)`` holds the number of the component a row is to come from; NaN, or no
    condition at all, leaves every component open. So the oracle is class-conditional with the components as
    classes.

    Examples
    --------
    >>> import torch
    >>> from tabdiff.diffusion import CosineSchedule
    >>> oracle = MixtureDenoiser(torch.ones(2), torch.tensor([[-3.0], [3.0]]), torch.ones(2, 1), CosineSchedule())
    >>> oracle(torch.tensor([[0.0]]), torch.tensor(0.5))
    tensor([[0.]])
    """

    weights: Tensor
    means: Tensor
    _variances: Tensor
    _axes: Tensor | None

    def __init__(self, weights: Tensor, means: Tensor, covs: Tensor, schedule: Schedule) -> None:
        super().__init__()
        weights, means, covs = (torch.as_tensor(v, dtype=torch.float64) for v in (weights, means, covs))
        if means.dim() != 2 or weights.shape != means.shape[:1] or covs.shape[0] != len(means):
            raise ValueError(
                f"weights, means and covs must have shapes (k,), (k, d) and (k, d, d) or (k, d); got "
                f"{tuple(weights.shape)}, {tuple(means.shape)} and {tuple(covs.shape)}"
            )
        axes = None
        if covs.dim() == 3:
            covs, axes = torch.linalg.eigh(covs)
        self.schedule = schedule
        self.register_buffer("weights", weights / weights.sum())
        self.register_buffer("means", means)
        self.register_buffer("_variances", covs)
        self.register_buffer("_axes", axes)

    def forward(self, x_t: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return ``E[x0 | x_t]``, shape ``(B, *)``; see `Denoiser.forward` for the arguments."""
        rows = x_t.reshape(len(x_t), 1, -1).double()
        alpha, _, offset, variance = self._whiten(rows, t)
        shrunk = alpha * self._variances / variance * offset
        if self._axes is not None:
            shrunk = torch.einsum("kij,bkj->bki", self._axes, shrunk)
        posterior = self.posterior(x_t, t, condition)
        return (posterior[..., None] * (self.means + shrunk)).sum(1).reshape(x_t.shape).to(x_t.dtype)

    def log_prob(self, x_t: Tensor, t: Tensor | None = None, condition: Tensor | None = None) -> Tensor:
        """Return the exact log-density of rows in nats.

        Parameters
        ----------
        x_t : Tensor
            Shape ``(B, *)``.
        t : Tensor, optional
            The time whose marginal is meant; None for the data themselves.
        condition : Tensor, optional
            Component of each row, shape ``(B, 1)``, NaN for any.

        Returns
        -------
        Tensor
            Shape ``(B,)``, float64.
        """
        return self._log_joint(x_t, t, condition).logsumexp(1)

    def posterior(self, x_t: Tensor, t: Tensor | None = None, condition: Tensor | None = None) -> Tensor:
        """Return the probability of each component given the row, shape ``(B, k)``, float64; see `log_prob`."""
        return self._log_joint(x_t, t, condition).softmax(1)

    def sample(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Draw exact rows.

        Parameters
        ----------
        n : int
            How many.
        generator : torch.Generator, optional
            Source of randomness.

        Returns
        -------
        rows : Tensor
            Shape ``(n, d)``, float64.
        component : Tensor
            The component of each, shape ``(n,)``, int64.
        """
        component = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        noise = torch.randn((n, self.means.shape[1]), generator=generator, dtype=torch.float64)
        noise = noise * self._variances[component].sqrt()
        if self._axes is not None:
            noise = torch.einsum("bij,bj->bi", self._axes[component], noise)
        return self.means[component] + noise, component

    def _whiten(self, rows: Tensor, t: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return alpha, sigma, and each component's offset and variance along its own axes, ``(B, k, d)``."""
        time = None if t is None else torch.as_tensor(t, device=rows.device).double().reshape(-1, 1, 1)
        alpha = torch.ones_like(rows[:1, :1, :1]) if time is None else self.schedule.alpha(time)
        sigma = torch.zeros_like(alpha) if time is None else self.schedule.sigma(time)
        offset = rows - alpha * self.means
        if self._axes is not None:
            offset = torch.einsum("kji,bkj->bki", self._axes, offset)
        return alpha, sigma, offset, alpha**2 * self._variances + sigma**2

    def _log_joint(self, x_t: Tensor, t: Tensor | None, condition: Tensor | None) -> Tensor:
        _, _, offset, variance = self._whiten(x_t.reshape(len(x_t), 1, -1).double(), t)
        log_density = -0.5 * (offset**2 / variance + variance.log() + math.log(2 * math.pi)).sum(-1)
        log_weights = self.weights.log().expand_as(log_density)
        if condition is None:
            return log_density + log_weights
        code = condition[:, :1]
        chosen = torch.where(torch.arange(len(self.weights), device=code.device) == code, 0.0, -torch.inf)
        return log_density + torch.where(code.isnan(), log_weights, chosen.to(log_weights))


class GaussianDenoiser(MixtureDenoiser):
    """The exact ``E[x0 | x_t]`` of a Gaussian.

    Parameters
    ----------
    mean : Tensor or float
        Shape ``(d,)``; a number stands for every entry of rows of any shape.
    cov : Tensor or float
        Covariance of shape ``(d, d)``, or standard deviations of shape ``(d,)`` or as one number.
    schedule : Schedule
        The noise schedule.

    Examples
    --------
    >>> import torch
    >>> from tabdiff.diffusion import CosineSchedule
    >>> oracle = GaussianDenoiser(0.7, 0.5, CosineSchedule())
    >>> oracle(torch.zeros(2, 3, 4), torch.tensor(0.5)).shape
    torch.Size([2, 3, 4])
    """

    def __init__(self, mean: Tensor | float, cov: Tensor | float, schedule: Schedule) -> None:
        mean, cov = (torch.as_tensor(v, dtype=torch.float64) for v in (mean, cov))
        covs = cov[None] if cov.dim() == 2 else cov.square().reshape(1, -1)
        super().__init__(torch.ones(1), mean.reshape(1, -1), covs, schedule)
