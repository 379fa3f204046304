"""Noise schedules of a chain of T steps, and schedules made of other schedules."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from tabdiff.diffusion.schedules.base import Schedule, log_snr_rate

__all__ = ["DiscreteCosineSchedule", "DiscreteLinearSchedule", "ShiftedSchedule", "ZeroTerminalSNRSchedule"]


class _DiscreteSchedule(Schedule):
    """A chain of T noising steps with variances beta_k, at the times k / T.

    Between those times the logarithm of alpha is interpolated linearly, as DPM-Solver does, so that every
    sampler can be used; beyond the last it goes on along the last slope.
    """

    _log_alpha: Tensor
    _tables: dict[torch.device, Tensor]

    def __getstate__(self) -> dict[str, Any]:
        # What lies on a GPU here is not to be looked for where a model is loaded.
        return {**self.__dict__, "_tables": {}}

    def _table(self, device: torch.device) -> Tensor:
        """Return the table of log alpha on a device, where it is copied once: every copy makes a GPU wait."""
        if device.type == "cpu":
            return self._log_alpha
        if device not in self._tables:
            self._tables[device] = self._log_alpha.to(device)
        return self._tables[device]

    @abstractmethod
    def _betas(self, n_timesteps: int) -> Tensor:
        """Return the variances of the noising steps, float64, shape ``(n_timesteps,)``."""

    def __post_init__(self) -> None:
        steps = self.n_timesteps
        if not isinstance(steps, int) or steps < 2:
            raise ValueError(f"n_timesteps must be an integer of at least 2, got {steps!r}")
        log_alpha = torch.log1p(-self._betas(steps)).cumsum(0) / 2
        object.__setattr__(self, "_log_alpha", torch.cat([torch.zeros(1, dtype=torch.float64), log_alpha]))
        object.__setattr__(self, "_tables", {})
        object.__setattr__(self, "t_min", 1 / steps)
        object.__setattr__(self, "t_max", 1.0)

    @property
    def betas(self) -> Tensor:
        """The variances of the T noising steps, float64, shape (T,)."""
        return -torch.expm1(2 * self._log_alpha.diff())

    def _log_alpha_and_slope(self, t: Tensor) -> tuple[Tensor, Tensor]:
        steps = len(self._log_alpha) - 1
        position = t * steps
        # A float32 k / T must find the table's k-th value: log alpha can fall by 3 within one step.
        nearest = position.round()
        position = torch.where((position - nearest).abs() < 2e-7 * steps, nearest, position)
        left = (position.ceil().long() - 1).clamp(0, steps - 1)
        table = self._table(t.device)
        # Taken, not indexed: an index without dimensions would be read as a number of Python.
        below = table.take(left)
        rise = table.take(left + 1) - below
        return below + (position - left) * rise, rise * steps

    def _moments(self, t: Tensor) -> tuple[Tensor, Tensor]:
        log_alpha, _ = self._log_alpha_and_slope(t)
        return log_alpha.exp(), (-torch.expm1(2 * log_alpha)).sqrt()

    def _rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        log_alpha, slope = self._log_alpha_and_slope(t)
        alpha, sigma = self._moments(t)
        return alpha * slope, -slope * (2 * log_alpha).exp() / sigma

    def _t_from_log_snr(self, log_snr: Tensor) -> Tensor:
        log_alpha = logsigmoid(log_snr) / 2
        table = self._table(log_snr.device)
        steps = len(table) - 1
        left = (torch.searchsorted(-table, -log_alpha.contiguous()) - 1).clamp(0, steps - 1)
        below = table.take(left)
        return (left + (log_alpha - below) / (table.take(left + 1) - below)) / steps


@dataclass(frozen=True)
class DiscreteLinearSchedule(_DiscreteSchedule):
    """The linear schedule of DDPM: T variances from `beta_min` to `beta_max`, scaled by ``1000 / T``, at most 0.999.

    Parameters
    ----------
    n_timesteps : int
        Number of steps, at least 1.
    beta_min, beta_max : float
        Rate of the noise at the clean and at the noisy end.

    References
    ----------
    Ho, Jain and Abbeel, "Denoising Diffusion Probabilistic Models", 2020.

    Examples
    --------
    >>> import torch
    >>> from tabdiff.diffusion import DiscreteLinearSchedule
    >>> schedule = DiscreteLinearSchedule(n_timesteps=100)
    >>> schedule.log_snr(torch.tensor([0.01, 0.5, 1.0])).round(decimals=2)
    tensor([  6.9100,  -2.5200, -10.8000])
    """

    name = "discrete_linear"
    n_timesteps: int = 1000
    beta_min: float = 1e-4
    beta_max: float = 0.02
    t_min: float = field(init=False)
    t_max: float = field(init=False)

    def _betas(self, n_timesteps: int) -> Tensor:
        betas = torch.linspace(self.beta_min, self.beta_max, n_timesteps, dtype=torch.float64)
        return (betas * (1000 / n_timesteps)).clamp(max=0.999)


@dataclass(frozen=True)
class DiscreteCosineSchedule(_DiscreteSchedule):
    """The cosine schedule of improved DDPM: T variances of at most `max_beta`.

    Parameters
    ----------
    n_timesteps : int
        Number of steps, at least 1.
    offset : float
        The offset `s` of the paper, which keeps the first steps from being too small.
    max_beta : float
        Bound of the variance that one step adds.

    References
    ----------
    Nichol and Dhariwal, "Improved Denoising Diffusion Probabilistic Models", 2021.

    Examples
    --------
    >>> import torch
    >>> from tabdiff.diffusion import DiscreteCosineSchedule
    >>> schedule = DiscreteCosineSchedule(n_timesteps=100)
    >>> schedule.log_snr(torch.tensor([0.01, 0.5, 1.0])).round(decimals=2)
    tensor([  7.3700,  -0.0200, -15.2300])
    """

    name = "discrete_cosine"
    n_timesteps: int = 1000
    offset: float = 0.008
    max_beta: float = 0.999
    t_min: float = field(init=False)
    t_max: float = field(init=False)

    def _betas(self, n_timesteps: int) -> Tensor:
        time = torch.arange(n_timesteps + 1, dtype=torch.float64) / n_timesteps
        signal = ((time + self.offset) / (1 + self.offset) * (math.pi / 2)).cos() ** 2
        return (1 - signal[1:] / signal[:-1]).clamp(max=self.max_beta)


@dataclass(frozen=True)
class ZeroTerminalSNRSchedule(Schedule):
    """A variance-preserving schedule with `alpha` shifted and scaled so that no signal is left at ``t_max``.

    The clean end is unchanged. The targets "eps" and "score" carry no information about a row at the noisy
    end and cannot be used; the log-SNR there is minus infinity, so a sampler needs a grid in time ("uniform",
    "trailing").

    Parameters
    ----------
    base : Schedule
        A variance-preserving schedule.

    References
    ----------
    Lin et al., "Common Diffusion Noise Schedules and Sample Steps are Flawed", 2023.

    Examples
    --------
    >>> import torch
    >>> from tabdiff.diffusion import DiscreteLinearSchedule, ZeroTerminalSNRSchedule
    >>> schedule = ZeroTerminalSNRSchedule(DiscreteLinearSchedule())
    >>> float(schedule.alpha(torch.tensor(1.0)))
    0.0
    """

    name = "zero_terminal_snr"
    base: Schedule
    n_timesteps: int | None = field(init=False)
    t_min: float = field(init=False)
    t_max: float = field(init=False)
    _scale: tuple[float, float] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.base.variance_preserving:
            raise ValueError(
                f"zero-terminal-SNR rescaling needs a variance-preserving schedule (alpha**2 + sigma**2 = 1); "
                f"{self.base.name!r} is not one"
            )
        _adopt_times(self, self.base)
        clean, noisy = self.base.alpha(self.t_min).item(), self.base.alpha(self.t_max).item()
        # Alpha of the base at the noisy end, and the factor that restores it at the clean end.
        object.__setattr__(self, "_scale", (noisy, clean / (clean - noisy)))

    def _moments(self, t: Tensor) -> tuple[Tensor, Tensor]:
        noisy, factor = self._scale
        base_alpha, base_sigma = self.base._moments(t)
        alpha = (base_alpha - noisy) * factor
        # 1 - alpha**2 cancels near the clean end; written from the base's own sigma it does not.
        return alpha, (base_sigma**2 + (base_alpha - alpha) * (base_alpha + alpha)).sqrt()

    def _rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        rate = self.base._rates(t)[0] * self._scale[1]
        alpha, sigma = self._moments(t)
        return rate, -alpha * rate / sigma

    def _t_from_log_snr(self, log_snr: Tensor) -> Tensor:
        noisy, factor = self._scale
        variance = torch.sigmoid(-log_snr)
        alpha = (logsigmoid(log_snr) / 2).exp()
        base_alpha = alpha / factor + noisy
        base_variance = variance + (alpha - base_alpha) * (alpha + base_alpha)
        return self.base._t_from_log_snr(2 * base_alpha.log() - base_variance.log())


@dataclass(frozen=True)
class ShiftedSchedule(Schedule):
    """A schedule whose log-SNR is moved by ``-2 log(factor)``: more noise at each time for a factor above 1.

    Averaging over neighbouring pixels removes noise, so an image of side ``d`` needs ``factor = d / 64`` to
    lose its content at the times at which one of side 64 does. On a rectified flow this is the familiar ``t
    -> factor t / (1 + (factor - 1) t)``.

    Parameters
    ----------
    base : Schedule
        The schedule to shift.
    factor : float
        Ratio of resolutions, above 0.

    References
    ----------
    Hoogeboom, Heek and Salimans, "simple diffusion", 2023; Esser et al., "Scaling Rectified Flow
    Transformers", 2024.

    Examples
    --------
    >>> import torch
    >>> from tabdiff.diffusion import CosineSchedule, ShiftedSchedule
    >>> t = torch.tensor([0.5])
    >>> ShiftedSchedule(CosineSchedule(), 2.0).log_snr(t).round(decimals=3)
    tensor([-1.3860])
    """

    name = "shifted"
    base: Schedule
    factor: float
    n_timesteps: int | None = field(init=False)
    t_min: float = field(init=False)
    t_max: float = field(init=False)

    def __post_init__(self) -> None:
        if not self.factor > 0:
            raise ValueError(f"factor must be above 0, got {self.factor}")
        _adopt_times(self, self.base)

    def _base_time(self, t: Tensor) -> Tensor:
        return self.base._t_from_log_snr(self.base._log_snr(t) - 2 * math.log(self.factor))

    def _moments(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return self.base._moments(self._base_time(t))

    def _rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        moved = self._base_time(t)
        speed = log_snr_rate(self.base, t) / log_snr_rate(self.base, moved)
        dalpha, dsigma = self.base._rates(moved)
        return dalpha * speed, dsigma * speed

    def _log_snr(self, t: Tensor) -> Tensor:
        return self.base._log_snr(t) - 2 * math.log(self.factor)

    def _t_from_log_snr(self, log_snr: Tensor) -> Tensor:
        return self.base._t_from_log_snr(log_snr + 2 * math.log(self.factor))

    def network_time(self, t: Tensor) -> Tensor:
        """Return the time as the base shows it to a network."""
        return self.base.network_time(t)


def _adopt_times(schedule: Schedule, base: Schedule) -> None:
    for attribute in ("n_timesteps", "t_min", "t_max", "variance_preserving", "default_grid"):
        object.__setattr__(schedule, attribute, getattr(base, attribute))
