r"""Training losses: how errors at different noise levels, and of different sizes, are weighed.

An error of any target is the error of the clean row times a factor that depends on the noise alone (see
`x0_factor`), so every published weighting is one function :math:`W` of the log-SNR in
:math:`W \cdot \|\hat x_0 - x_0\|^2`:

===================  =========================================  =======================================
loss                 W                                          source
===================  =========================================  =======================================
simple               the factor of the target itself            Ho et al. (2020)
elbo                 :math:`-\frac12 d\,\mathrm{SNR}/dt`        Kingma et al. (2021)
snr                  SNR                                        Ho et al. (2020), in terms of eps
truncated_snr        max(SNR, 1)                                Salimans and Ho (2022)
inverse_snr          1                                          1 / SNR, in terms of eps
clipped_inverse_snr  min(1 / SNR, gamma)                        for comparison
min_snr              min(SNR, gamma)                            Hang et al. (2023)
edm                  :math:`1 / c_{out}^2`                      Karras et al. (2022)
huber                as simple, on a pseudo-Huber error         Song and Dhariwal (2023)
===================  =========================================  =======================================
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tabdiff.diffusion.schedules.base import Schedule, log_snr_rate
from tabdiff.diffusion.targets import edm_coefficients

__all__ = ["LOSSES", "Loss", "make_loss", "x0_factor"]

LOSSES = ("simple", "elbo", "snr", "truncated_snr", "inverse_snr", "clipped_inverse_snr", "min_snr", "edm", "huber")


def x0_factor(alpha: Tensor, sigma: Tensor, target: str, sigma_data: float = 1.0) -> Tensor:
    """Return the squared error of a target per squared error of the clean row.

    SNR for "eps" and for "score" (whose error is taken of ``sigma * score``), SNR + 1 for "v" on a
    variance-preserving schedule, ``1 / t**2`` for "flow" on a rectified flow, ``1 / c_out**2`` for "edm".

    Parameters
    ----------
    alpha, sigma : Tensor
        Coefficients of the signal and of the noise.
    target : str
        A name of ``TARGETS``.
    sigma_data : float, default=1.0
        Standard deviation of the data, for "edm".

    Returns
    -------
    Tensor
        The factor, of the shape of `alpha`.

    Examples
    --------
    >>> import torch
    >>> from tabdiff.diffusion import x0_factor
    >>> x0_factor(torch.tensor(0.6), torch.tensor(0.8), "eps").round(decimals=3)
    tensor(0.5620)
    """
    if target == "x0":
        return torch.ones_like(alpha)
    if target in ("eps", "score"):
        return (alpha / sigma) ** 2
    if target == "v":
        return ((alpha**2 + sigma**2) / sigma) ** 2
    if target == "flow":
        return ((alpha + sigma) / sigma) ** 2
    return edm_coefficients(alpha, sigma, sigma_data)[2] ** -2


@dataclass(frozen=True)
class Loss:
    """A training loss: maps the error of a target to one number per row.

    Parameters
    ----------
    weighting : str
        One of ``LOSSES``.
    gamma : float
        Bound of "min_snr" and "clipped_inverse_snr".
    huber_c : float
        Scale of "huber": errors much smaller count squared, much larger ones in proportion.

    Raises
    ------
    ValueError
        If the weighting is unknown or a scale is not above 0.

    Examples
    --------
    >>> import torch
    >>> from tabdiff.diffusion import CosineSchedule, Loss
    >>> loss = Loss("min_snr", gamma=5.0)
    >>> loss(torch.ones(2, 3), CosineSchedule(), torch.tensor([0.2, 0.8]), "eps").round(decimals=3)
    tensor([0.5280, 1.0000])
    """

    weighting: str = "simple"
    gamma: float = 5.0
    huber_c: float = 1.0

    def __post_init__(self) -> None:
        if self.weighting not in LOSSES:
            raise ValueError(f"unknown loss {self.weighting!r}; known ones are {', '.join(LOSSES)}")
        if not (self.gamma > 0 and self.huber_c > 0):
            raise ValueError(f"gamma and huber_c must be above 0, got {self.gamma} and {self.huber_c}")

    def __call__(self, error: Tensor, schedule: Schedule, t: Tensor, target: str, *, sigma_data: float = 1.0) -> Tensor:
        """Return the loss of each row.

        Parameters
        ----------
        error : Tensor
            Prediction minus target, shape ``(B, *)``; for "score" it is the error of the score.
        schedule : Schedule
            The noise schedule.
        t : Tensor
            Times, 0-d or shape ``(B,)``.
        target : str
            What was predicted.
        sigma_data : float
            Standard deviation of the data.

        Returns
        -------
        Tensor
            Shape ``(B,)``: the weighted mean over the entries of each row.
        """
        if target == "score":
            error = error * schedule.sigma(t).to(error).reshape(t.shape + (1,) * (error.dim() - 1))
        if self.weighting == "huber":
            # 2 c (sqrt(e^2 + c^2) - c), in the form in which small errors do not cancel
            error = error * (2 / (1 + (1 + (error / self.huber_c) ** 2).sqrt())).sqrt()
        rows = error.square().flatten(1).mean(1)
        if self.weighting in ("simple", "huber"):
            return rows
        return rows * self.relative_weight(schedule, t, target, sigma_data=sigma_data).to(rows)

    def relative_weight(self, schedule: Schedule, t: Tensor, target: str, *, sigma_data: float = 1.0) -> Tensor:
        """Return the weight of the squared error of `target` at `t`, in its shape, float64."""
        t = t.double()
        factor = x0_factor(schedule.alpha(t), schedule.sigma(t), target, sigma_data)
        return self.weight(schedule, t, target, sigma_data=sigma_data) / factor

    def weight(self, schedule: Schedule, t: Tensor, target: str, *, sigma_data: float = 1.0) -> Tensor:
        """Return W, the weight of the squared error of the clean row at `t`, in its shape, float64."""
        t = t.double()
        snr = schedule.log_snr(t).exp()
        if self.weighting == "elbo":
            return elbo_weight(schedule, t)
        if self.weighting == "snr":
            return snr
        if self.weighting == "truncated_snr":
            return snr.clamp(min=1.0)
        if self.weighting == "inverse_snr":
            return torch.ones_like(snr)
        if self.weighting == "clipped_inverse_snr":
            return (1 / snr).clamp(max=self.gamma)
        if self.weighting == "min_snr":
            return snr.clamp(max=self.gamma)
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        return x0_factor(alpha, sigma, "edm" if self.weighting == "edm" else target, sigma_data)


def elbo_weight(schedule: Schedule, t: Tensor) -> Tensor:
    """Return the weight of a squared error of the clean row in the variational bound, for uniform times.

    Its mean over times drawn uniformly, times the squared norm of the error, is the bound's diffusion term in
    nats: ``1/2 (SNR(s) - SNR(t))`` times the number of steps in discrete time, ``-1/2 dSNR/dt`` times the
    length of time in continuous time.

    Parameters
    ----------
    schedule : Schedule
        The noise schedule.
    t : Tensor of shape (B,)
        Times.

    Returns
    -------
    Tensor of shape (B,)
        The weights.

    References
    ----------
    Kingma et al., "Variational Diffusion Models", 2021, equations 13 and 18.

    Examples
    --------
    >>> import torch
    >>> from tabdiff.diffusion import RectifiedFlowSchedule, elbo_weight
    >>> elbo_weight(RectifiedFlowSchedule(), torch.tensor([0.25, 0.5])).round(decimals=2)
    tensor([47.9000,  3.9900], dtype=torch.float64)
    """
    t = t.double()
    snr = schedule.log_snr(t).exp()
    if schedule.n_timesteps is None:
        return -0.5 * snr * log_snr_rate(schedule, t) * (schedule.t_max - schedule.t_min)
    previous = (t - 1 / schedule.n_timesteps).clamp(min=schedule.t_min)
    # There is no cleaner time than the first: its term is the decoder's, not the diffusion's.
    return 0.5 * schedule.n_timesteps * (schedule.log_snr(previous).exp() - snr)


def make_loss(loss: str | Loss) -> Loss:
    """Return a loss by its name; a `Loss` is returned as it is.

    Parameters
    ----------
    loss : str or Loss
        A name of ``LOSSES``, or a loss.

    Returns
    -------
    Loss
        The loss of that name.

    Raises
    ------
    ValueError
        If the name is unknown.

    Examples
    --------
    >>> from tabdiff.diffusion import make_loss
    >>> make_loss("min_snr").gamma
    5.0
    """
    return loss if isinstance(loss, Loss) else Loss(loss)
