r"""Noise schedules: how much signal and how much noise there is at each time.

Every formulation in this package has one form,

.. math:: x_t = \alpha(t)\, x_0 + \sigma(t)\, \varepsilon, \qquad \varepsilon \sim N(0, I),

and a schedule is the pair of functions :math:`\alpha, \sigma` on ``[t_min, t_max]``, clean to noisy, with
their derivatives, the log signal-to-noise ratio ``log_snr = 2 log(alpha / sigma)`` and its inverse. All
arithmetic is float64; a result is rounded to the dtype of the time it was asked for as the last act.

``t_min`` is not 0 and ``t_max`` is mostly not 1, because the log-SNR is infinite there. The defaults leave
noise of about 0.001 data standard deviations at the clean end, and about the same share of signal at the
noisy end where the published schedule does not already stop earlier.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import fields
from typing import Any, ClassVar

import torch
from torch import Tensor

__all__ = ["Schedule", "log_snr_rate"]


class Schedule(ABC):
    """Base of all schedules: float64 arithmetic, dtypes, and saving as a dict.

    A subclass is a frozen dataclass that gives ``_moments``, ``_rates`` and ``_t_from_log_snr`` on float64
    tensors.

    Attributes
    ----------
    t_min, t_max : float
        The clean and the noisy end of time.
    n_timesteps : int or None
        Number of times ``k / n_timesteps`` of a discrete schedule; None in continuous time.
    variance_preserving : bool
        Whether ``alpha**2 + sigma**2 == 1``.
    default_grid : str
        The step grid that suits it; see `tabdiff.diffusion.samplers.grids`.

    Examples
    --------
    >>> from tabdiff.diffusion import CosineSchedule, Schedule
    >>> isinstance(CosineSchedule(), Schedule)
    True
    >>> CosineSchedule().config()
    {'name': 'cosine', 't_min': 0.001, 't_max': 0.999}
    """

    name: ClassVar[str]
    variance_preserving: ClassVar[bool] = True
    default_grid: ClassVar[str] = "quadratic"
    n_timesteps: int | None = None
    t_min: float
    t_max: float

    @abstractmethod
    def _moments(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``(alpha, sigma)`` at float64 times."""

    @abstractmethod
    def _rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return the derivatives of ``(alpha, sigma)`` at float64 times."""

    def _log_snr(self, t: Tensor) -> Tensor:
        alpha, sigma = self._moments(t)
        return 2 * (alpha.log() - sigma.log())

    @abstractmethod
    def _t_from_log_snr(self, log_snr: Tensor) -> Tensor:
        """Return the times of float64 log-SNRs."""

    def alpha(self, t: Tensor | float) -> Tensor:
        """Return the factor of the clean row at time `t`, in its shape and dtype."""
        return _in_double(lambda u: self._moments(u)[0], t)

    def sigma(self, t: Tensor | float) -> Tensor:
        """Return the standard deviation of the noise at time `t`, in its shape and dtype."""
        return _in_double(lambda u: self._moments(u)[1], t)

    def dalpha(self, t: Tensor | float) -> Tensor:
        """Return the derivative of `alpha` with respect to time at `t`, in its shape and dtype."""
        return _in_double(lambda u: self._rates(u)[0], t)

    def dsigma(self, t: Tensor | float) -> Tensor:
        """Return the derivative of `sigma` with respect to time at `t`, in its shape and dtype."""
        return _in_double(lambda u: self._rates(u)[1], t)

    def log_snr(self, t: Tensor | float) -> Tensor:
        """Return ``2 log(alpha / sigma)`` at time `t`, in its shape and dtype; it falls as `t` grows."""
        return _in_double(self._log_snr, t)

    def t_from_log_snr(self, log_snr: Tensor | float) -> Tensor:
        """Return the time at which the log signal-to-noise ratio is `log_snr`, in its shape and dtype."""
        return _in_double(self._t_from_log_snr, log_snr)

    def network_time(self, t: Tensor) -> Tensor:
        """Return the time as a network should see it, in [0, 1]; `t` itself unless a schedule's time is not."""
        return t

    def config(self) -> dict[str, Any]:
        """Return a JSON-able dict from which `schedule_from_config` makes an equal schedule."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.init}  # type: ignore[arg-type]
        return {"name": self.name} | {
            key: value.config() if isinstance(value, Schedule) else value for key, value in values.items()
        }


def _in_double(function: Callable[[Tensor], Tensor], t: Tensor | float) -> Tensor:
    if not isinstance(t, Tensor):
        return function(torch.as_tensor(t, dtype=torch.float64))
    dtype = t.dtype if t.is_floating_point() else torch.float64
    if t.device.type == "mps":  # no float64 there
        return function(t.cpu().double()).to(dtype).to(t.device)
    return function(t.double()).to(dtype)


def log_snr_rate(schedule: Schedule, t: Tensor) -> Tensor:
    """Return the derivative of the log-SNR with respect to time, float64 in and out."""
    (alpha, sigma), (dalpha, dsigma) = schedule._moments(t), schedule._rates(t)
    return 2 * (dalpha / alpha - dsigma / sigma)
