"""Noise schedules in continuous time."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from tabdiff.diffusion.schedules.base import Schedule

__all__ = [
    "CosineSchedule",
    "EDMSchedule",
    "OffsetCosineSchedule",
    "RectifiedFlowSchedule",
    "SigmoidSchedule",
    "SubVPSchedule",
    "VESchedule",
    "VPSchedule",
]


@dataclass(frozen=True)
class CosineSchedule(Schedule):
    r"""Cosine schedule in continuous time: ``alpha = cos(pi t / 2)``, ``sigma = sin(pi t / 2)``.

    ``t_max`` is 0.999 rather than 1: with ``t_min`` 0.001 the log-SNR then runs over the symmetric, finite
    range ±12.9, between those of the VP-SDE (-10.1) and of the discrete cosine schedule (-19.8) at the noisy
    end. What is lost is a shift of the start by 0.0016 data means.

    Parameters
    ----------
    t_min, t_max : float
        The ends of the times at which the denoiser is asked, in [0, 1].

    References
    ----------
    Nichol and Dhariwal, "Improved Denoising Diffusion Probabilistic Models", 2021; this continuous form is
    that of Salimans and Ho, "Progressive Distillation", 2022.

    Examples
    --------
    >>> import torch
    >>> from tabdiff.diffusion import CosineSchedule
    >>> schedule = CosineSchedule()
    >>> schedule.log_snr(torch.tensor([0.1, 0.5, 0.9])).round(decimals=2)
    tensor([ 3.6900,  0.0000, -3.6900])
    """

    name = "cosine"
    t_min: float = 1e-3
    t_max: float = 0.999

    def _moments(self, t: Tensor) -> tuple[Tensor, Tensor]:
        angle = t * (math.pi / 2)
        return angle.cos(), angle.sin()

    def _rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        angle = t * (math.pi / 2)
        return -angle.sin() * (math.pi / 2), angle.cos() * (math.pi / 2)

    def _t_from_log_snr(self, log_snr: Tensor) -> Tensor:
        return (-log_snr / 2).exp().atan() * (2 / math.pi)


@dataclass(frozen=True)
class OffsetCosineSchedule(Schedule):
    r"""The cosine schedule of improved DDPM in continuous time, with its offset `s`.

    .. math:: \alpha(t)^2 = f(t) / f(0), \qquad f(t) = \cos^2\left(\frac{t + s}{1 + s} \frac{\pi}{2}\right)

    The offset gives the first times some noise: sigma rises there like the square root of time, as in the VP-SDE,
    where that of `CosineSchedule` (offset 0) rises like time itself. `DiscreteCosineSchedule` takes its table from it.

    Parameters
    ----------
    offset : float
        The `s` of the paper, at least 0.
    t_min, t_max : float
        The ends of the times at which the denoiser is asked, in [0, 1].

    References
    ----------
    Nichol and Dhariwal, "Improved Denoising Diffusion Probabilistic Models", 2021, equation 17.

    Examples
    --------
    >>> import torch
    >>> from tabdiff.diffusion import OffsetCosineSchedule
    >>> schedule = OffsetCosineSchedule()
    >>> schedule.log_snr(torch.tensor([0.1, 0.5, 0.9])).round(decimals=2)
    tensor([ 3.5500, -0.0200, -3.7000])
    """

    name = "offset_cosine"
    offset: float = 0.008
    t_min: float = 2.5e-5
    t_max: float = 0.999

    def __post_init__(self) -> None:
        if not self.offset >= 0:
            raise ValueError(f"offset must be at least 0; got {self.offset}. The paper has 0.008")

    def _angle(self, t: Tensor) -> tuple[Tensor, float, float]:
        """Return the angle, that of time 0, and the rate at which it grows."""
        rate = math.pi / 2 / (1 + self.offset)
        return (t + self.offset) * rate, self.offset * rate, rate

    def _moments(self, t: Tensor) -> tuple[Tensor, Tensor]:
        angle, first, rate = self._angle(t)
        # 1 - alpha**2 cancels near the clean end; the difference of two squared cosines is a product of sines.
        variance = (t * rate).sin() * (angle + first).sin() / math.cos(first) ** 2
        return angle.cos() / math.cos(first), variance.sqrt()

    def _rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        angle, first, rate = self._angle(t)
        alpha, sigma = self._moments(t)
        dalpha = -rate * angle.sin() / math.cos(first)
        return dalpha, -alpha * dalpha / sigma

    def _t_from_log_snr(self, log_snr: Tensor) -> Tensor:
        _, first, rate = self._angle(log_snr)
        noise, signal = torch.sigmoid(-log_snr), (logsigmoid(log_snr) / 2).exp()
        sine = (noise * math.cos(first) ** 2 + math.sin(first) ** 2).sqrt()
        return torch.atan2(sine, signal * math.cos(first)) / rate - self.offset


@dataclass(frozen=True)
class SigmoidSchedule(Schedule):
    """Sigmoid schedule: ``alpha**2`` falls from 1 to 0 along a stretch of the logistic function.

    Parameters
    ----------
    start, end : float
        The stretch of the logistic function, in its own units.
    tau : float
        Temperature: a smaller one makes the fall steeper in the middle.
    t_min, t_max : float
        The ends of the times at which the denoiser is asked, in [0, 1].

    References
    ----------
    Jabri, Fleet and Chen, "Scalable Adaptive Computation for Iterative Generation", 2022.

    Examples
    --------
    >>> import torch
    >>> from tabdiff.diffusion import SigmoidSchedule
    >>> schedule = SigmoidSchedule()
    >>> schedule.log_snr(torch.tensor([0.1, 0.5, 0.9])).round(decimals=2)
    tensor([ 3.1900,  0.0000, -3.1900])
    """

    name = "sigmoid"
    default_grid = "log_snr"  # its rates are infinite at both ends of time
    start: float = -3.0
    end: float = 3.0
    tau: float = 1.0
    t_min: float = 1e-5
    t_max: float = 1 - 1e-5

    def _variance(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return ``sigma**2``, ``alpha**2`` and the derivative of ``sigma**2``."""
        low, high = _sigmoid(self.start / self.tau), _sigmoid(self.end / self.tau)
        value = torch.sigmoid((self.start + (self.end - self.start) * t) / self.tau)
        slope = value * (1 - value) * (self.end - self.start) / self.tau
        return (value - low) / (high - low), (high - value) / (high - low), slope / (high - low)

    def _moments(self, t: Tensor) -> tuple[Tensor, Tensor]:
        variance, signal, _ = self._variance(t)
        return signal.sqrt(), variance.sqrt()

    def _rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        variance, signal, slope = self._variance(t)
        return -slope / (2 * signal.sqrt()), slope / (2 * variance.sqrt())

    def _t_from_log_snr(self, log_snr: Tensor) -> Tensor:
        low, high = _sigmoid(self.start / self.tau), _sigmoid(self.end / self.tau)
        value = low + torch.sigmoid(-log_snr) * (high - low)
        return (torch.logit(value) * self.tau - self.start) / (self.end - self.start)


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@dataclass(frozen=True)
class VPSchedule(Schedule):
    r"""Variance-preserving SDE, the linear schedule in continuous time: ``alpha = exp(-B / 2)``.

    The rate of noise :math:`\beta(t)` grows linearly from `beta_min` to `beta_max`, and
    :math:`B(t) = \int_0^t \beta = \beta_{min} t + (\beta_{max} - \beta_{min}) t^2 / 2`.

    Parameters
    ----------
    beta_min, beta_max : float
        Rate of the noise at the clean and at the noisy end.
    t_min, t_max : float
        The ends of the times at which the denoiser is asked, in [0, 1].

    References
    ----------
    Song et al., "Score-Based Generative Modeling through Stochastic Differential Equations", 2021.

    Examples
    --------
    >>> import torch
    >>> from tabdiff.diffusion import VPSchedule
    >>> schedule = VPSchedule()
    >>> schedule.log_snr(torch.tensor([0.1, 0.5, 0.9])).round(decimals=2)
    tensor([ 2.1600, -2.4600, -8.1500])
    """

    name = "vp"
    beta_min: float = 0.1
    beta_max: float = 20.0
    t_min: float = 1e-5
    t_max: float = 1.0

    def _integral(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return the rate and its integral from 0."""
        slope = self.beta_max - self.beta_min
        return self.beta_min + slope * t, (self.beta_min + slope * t / 2) * t

    def _moments(self, t: Tensor) -> tuple[Tensor, Tensor]:
        _, integral = self._integral(t)
        return (-integral / 2).exp(), (-torch.expm1(-integral)).sqrt()

    def _rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        rate, _ = self._integral(t)
        alpha, sigma = self._moments(t)
        return -rate * alpha / 2, rate * alpha**2 / (2 * sigma)

    def _t_from_integral(self, integral: Tensor) -> Tensor:
        slope = self.beta_max - self.beta_min
        return 2 * integral / (self.beta_min + (self.beta_min**2 + 2 * slope * integral).sqrt())

    def _t_from_log_snr(self, log_snr: Tensor) -> Tensor:
        return self._t_from_integral(softplus(-log_snr))


@dataclass(frozen=True)
class SubVPSchedule(VPSchedule):
    """Sub-VP SDE: the signal of the VP-SDE with less noise, ``sigma = 1 - exp(-B)``.

    Parameters
    ----------
    beta_min, beta_max : float
        Rate of the noise at the clean and at the noisy end.
    t_min, t_max : float
        The ends of the times at which the denoiser is asked, in [0, 1].

    References
    ----------
    Song et al., "Score-Based Generative Modeling through Stochastic Differential Equations", 2021.

    Examples
    --------
    >>> import torch
    >>> from tabdiff.diffusion import SubVPSchedule
    >>> schedule = SubVPSchedule()
    >>> schedule.log_snr(torch.tensor([0.1, 0.5, 0.9])).round(decimals=2)
    tensor([ 4.4200, -2.3700, -8.1500])
    """

    name = "sub_vp"
    variance_preserving = False
    t_min: float = 1e-4

    def _moments(self, t: Tensor) -> tuple[Tensor, Tensor]:
        _, integral = self._integral(t)
        return (-integral / 2).exp(), -torch.expm1(-integral)

    def _rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        rate, integral = self._integral(t)
        return -rate * (-integral / 2).exp() / 2, rate * (-integral).exp()

    def _t_from_log_snr(self, log_snr: Tensor) -> Tensor:
        return self._t_from_integral(2 * torch.asinh((-log_snr / 2).exp() / 2))


@dataclass(frozen=True)
class VESchedule(Schedule):
    """Variance-exploding SDE: ``alpha = 1`` and `sigma` grows geometrically on t in [0, 1].

    Parameters
    ----------
    sigma_min, sigma_max : float
        Noise at the clean and at the noisy end.
    t_min, t_max : float
        The ends of the times at which the denoiser is asked, in [0, 1].

    References
    ----------
    Song et al., "Score-Based Generative Modeling through Stochastic Differential Equations", 2021.

    Examples
    --------
    >>> import torch
    >>> from tabdiff.diffusion import VESchedule
    >>> schedule = VESchedule()
    >>> schedule.log_snr(torch.tensor([0.1, 0.5, 0.9])).round(decimals=2)
    tensor([ 7.5100,  0.6900, -6.1200])
    """

    name = "ve"
    variance_preserving = False
    default_grid = "uniform"
    sigma_min: float = 0.01
    sigma_max: float = 50.0
    t_min: float = 0.0
    t_max: float = 1.0

    def _moments(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones_like(t), self.sigma_min * (self.sigma_max / self.sigma_min) ** t

    def _rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(t), self._moments(t)[1] * math.log(self.sigma_max / self.sigma_min)

    def _t_from_log_snr(self, log_snr: Tensor) -> Tensor:
        return (-log_snr / 2 - math.log(self.sigma_min)) / math.log(self.sigma_max / self.sigma_min)


@dataclass(frozen=True)
class EDMSchedule(Schedule):
    """EDM: ``alpha = 1`` and ``sigma = t``, on t in [0.002, 80].

    A network sees the logarithm of the noise, scaled to [0, 1] (``c_noise`` of the paper up to a linear map).

    Parameters
    ----------
    t_min, t_max : float
        The ends of the times at which the denoiser is asked, in [0, 1].

    References
    ----------
    Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", 2022.

    Examples
    --------
    >>> import torch
    >>> from tabdiff.diffusion import EDMSchedule
    >>> schedule = EDMSchedule()
    >>> schedule.log_snr(torch.tensor([0.1, 0.5, 0.9])).round(decimals=2)
    tensor([4.6100, 1.3900, 0.2100])
    """

    name = "edm"
    variance_preserving = False
    default_grid = "karras"
    t_min: float = 0.002
    t_max: float = 80.0

    def _moments(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones_like(t), t

    def _rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(t), torch.ones_like(t)

    def _t_from_log_snr(self, log_snr: Tensor) -> Tensor:
        return (-log_snr / 2).exp()

    def network_time(self, t: Tensor) -> Tensor:
        """Return ``log(t / t_min) / log(t_max / t_min)``."""
        return (t / self.t_min).log() / math.log(self.t_max / self.t_min)


@dataclass(frozen=True)
class RectifiedFlowSchedule(Schedule):
    """Rectified flow, or flow matching on straight lines: ``x_t = (1 - t) x_0 + t eps``.

    Time runs from data to noise here; papers that run from noise to data flip both `t` and the sign of the
    velocity.

    Parameters
    ----------
    t_min, t_max : float
        The ends of the times at which the denoiser is asked, in [0, 1].

    References
    ----------
    Liu, Gong and Liu, "Flow Straight and Fast", 2022; Lipman et al., "Flow Matching for Generative Modeling",
    2022.

    Examples
    --------
    >>> import torch
    >>> from tabdiff.diffusion import RectifiedFlowSchedule
    >>> schedule = RectifiedFlowSchedule()
    >>> schedule.log_snr(torch.tensor([0.1, 0.5, 0.9])).round(decimals=2)
    tensor([ 4.3900,  0.0000, -4.3900])
    """

    name = "rectified_flow"
    variance_preserving = False
    t_min: float = 1e-3
    t_max: float = 0.999

    def _moments(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return 1 - t, t

    def _rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return -torch.ones_like(t), torch.ones_like(t)

    def _t_from_log_snr(self, log_snr: Tensor) -> Tensor:
        return torch.sigmoid(-log_snr / 2)
