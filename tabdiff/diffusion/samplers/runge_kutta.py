r"""General solvers of the probability-flow ODE and of the reverse SDE.

In time the ODE is :math:`dx = (\alpha' \hat x_0 + \sigma' \hat\varepsilon)\, dt`, and the reverse SDE adds
:math:`-\lambda' \sigma \hat\varepsilon\, dt` and noise of variance :math:`2 \sigma^2 |\lambda'\, dt|`, with
:math:`\lambda = \log(\alpha / \sigma)`. Onto the clean end, after ``t_min``, each of them takes the estimate
itself. The ODE solvers walk a path in either direction.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from tabdiff.diffusion.samplers.base import Model, Step
from tabdiff.diffusion.samplers.grids import Node
from tabdiff.diffusion.targets import to_eps

__all__ = ["RK4", "RK45", "Euler", "EulerMaruyama", "Heun"]


def drift(model: Model, x: Tensor, node: Node) -> tuple[Tensor, Tensor]:
    """Return the velocity of the probability-flow ODE at `x`, and the estimate of the clean rows."""
    x0 = model.x0(x, node)
    dalpha, dsigma = model.rates(node.t)
    return dalpha * x0 + dsigma * to_eps(x0, x, node.alpha, node.sigma), x0


@dataclass(frozen=True)
class Euler:
    """Euler's method in time: first order.

    Examples
    --------
    >>> import torch
    >>> from tabdiff.diffusion import CosineSchedule, Euler, GaussianDenoiser, sample
    >>> denoiser = GaussianDenoiser(torch.zeros(2), torch.eye(2), CosineSchedule())
    >>> sample(denoiser, torch.ones(3, 2), method=Euler(), steps=8, generator=torch.Generator().manual_seed(0)).shape
    torch.Size([3, 2])
    """

    def __call__(self, model: Model, x: Tensor, path: list[Node]) -> Iterator[Step]:
        """Walk the path; see `Sampler`."""
        for now, then in pairwise(path):
            velocity, x0 = drift(model, x, now)
            x = x0 if then.sigma == 0 else x + (then.t - now.t) * velocity
            yield then.t, x, x0


@dataclass(frozen=True)
class Heun:
    """Heun's method: second order at two evaluations a step; with `churn`, the stochastic sampler of EDM.

    Parameters
    ----------
    churn : float
        Noise added in the whole run, spread over its steps; 0 is deterministic.
    churn_range : tuple of float
        Noise levels ``sigma / alpha`` between which noise is added.
    churn_noise : float
        Standard deviation of the noise that is added, as a factor; a little above 1 makes up for lost detail.

    Notes
    -----
    The first step starts above ``t_max``, as in the paper, wherever the schedule has more noise to give: in
    continuous time with some signal at ``t_max``. A discrete schedule has no step after its last, and pure noise
    (alpha = 0) no more noise than it has: there nothing is added at ``t_max``.

    References
    ----------
    Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", 2022, algorithm 2.

    Examples
    --------
    >>> import torch
    >>> from tabdiff.diffusion import CosineSchedule, GaussianDenoiser, Heun, sample
    >>> denoiser = GaussianDenoiser(torch.zeros(2), torch.eye(2), CosineSchedule())
    >>> sample(
    ...     denoiser, torch.ones(3, 2), method=Heun(churn=5), steps=8, generator=torch.Generator().manual_seed(0)
    ... ).shape
    torch.Size([3, 2])
    """

    churn: float = 0.0
    churn_range: tuple[float, float] = (0.0, math.inf)
    churn_noise: float = 1.0

    def __call__(self, model: Model, x: Tensor, path: list[Node]) -> Iterator[Step]:
        """Walk the path; see `Sampler`."""
        growth = min(self.churn / max(len(path) - 1, 1), math.sqrt(2) - 1)
        for now, then in pairwise(path):
            if growth > 0 and self.churn_range[0] <= math.exp(-now.lam) <= self.churn_range[1]:
                x, now = self._add_noise(model, x, now, growth)
            velocity, x0 = drift(model, x, now)
            if then.sigma == 0:
                x = x0
            else:
                dt = then.t - now.t
                ahead, _ = drift(model, x + dt * velocity, then)
                x = x + dt / 2 * (velocity + ahead)
            yield then.t, x, x0

    def _add_noise(self, model: Model, x: Tensor, now: Node, growth: float) -> tuple[Tensor, Node]:
        if now.alpha == 0:
            return x, now
        noisier = max(model.schedule.t_from_log_snr(2 * (now.lam - math.log1p(growth))).item(), now.t)
        last = math.inf if model.schedule.n_timesteps is None else model.schedule.t_max
        raised = model.node(min(noisier, last))
        keep = raised.alpha / now.alpha
        added = math.sqrt(max(raised.sigma**2 - (keep * now.sigma) ** 2, 0.0)) * self.churn_noise
        return keep * x + added * model.noise(x), raised


@dataclass(frozen=True)
class RK4:
    """The classical Runge-Kutta method: fourth order at four evaluations a step.

    Examples
    --------
    >>> import torch
    >>> from tabdiff.diffusion import CosineSchedule, GaussianDenoiser, RK4, sample
    >>> denoiser = GaussianDenoiser(torch.zeros(2), torch.eye(2), CosineSchedule())
    >>> sample(denoiser, torch.ones(3, 2), method=RK4(), steps=8, generator=torch.Generator().manual_seed(0)).shape
    torch.Size([3, 2])
    """

    def __call__(self, model: Model, x: Tensor, path: list[Node]) -> Iterator[Step]:
        """Walk the path; see `Sampler`."""
        for now, then in pairwise(path):
            k1, x0 = drift(model, x, now)
            if then.sigma == 0:
                x = x0
            else:
                dt = then.t - now.t
                middle = model.node(now.t + dt / 2)
                k2, _ = drift(model, x + dt / 2 * k1, middle)
                k3, _ = drift(model, x + dt / 2 * k2, middle)
                k4, _ = drift(model, x + dt * k3, then)
                x = x + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
            yield then.t, x, x0


_DORMAND_PRINCE = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
_DP_TIMES = (1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
_DP_ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)


@dataclass(frozen=True)
class RK45:
    """Dormand and Prince's adaptive Runge-Kutta method of orders 5 and 4.

    It keeps to the two ends of the path and chooses the steps between them itself. The steps suit the batch
    as a whole, so a row depends on its batch within the tolerance.

    Parameters
    ----------
    rtol, atol : float
        Error allowed in a step, relative and absolute.
    max_steps : int
        Number of steps, rejected ones included, after which it gives up.

    References
    ----------
    Dormand and Prince, "A family of embedded Runge-Kutta formulae", 1980.

    Examples
    --------
    >>> import torch
    >>> from tabdiff.diffusion import CosineSchedule, GaussianDenoiser, RK45, sample
    >>> denoiser = GaussianDenoiser(torch.zeros(2), torch.eye(2), CosineSchedule())
    >>> sample(
    ...     denoiser, torch.ones(3, 2), method=RK45(rtol=1e-3), steps=8, generator=torch.Generator().manual_seed(0)
    ... ).shape
    torch.Size([3, 2])
    """

    rtol: float = 1e-4
    atol: float = 1e-4
    max_steps: int = 10_000
    adaptive: ClassVar[bool] = True

    def __call__(self, model: Model, x: Tensor, path: list[Node]) -> Iterator[Step]:
        """Walk the path; see `Sampler`."""
        clean = path[-1].sigma == 0
        now, end = path[0], path[-2] if clean else path[-1]
        dt = (end.t - now.t) / 100
        k, x0 = drift(model, x, now)
        for _ in range(self.max_steps):
            if now.t == end.t:
                break
            last = abs(dt) >= abs(end.t - now.t)
            then = end if last else model.node(now.t + dt)
            dt = then.t - now.t
            stages = [k]
            for share, row in zip(_DP_TIMES, _DORMAND_PRINCE):
                proposal = x + dt * sum(a * stage for a, stage in zip(row, stages))
                stage, ahead = drift(model, proposal, then if share == 1 else model.node(now.t + share * dt))
                stages.append(stage)
            error = dt * sum(e * stage for e, stage in zip(_DP_ERROR, stages))
            scale = self.atol + self.rtol * torch.maximum(x.abs(), proposal.abs())
            size = (error / scale).square().mean().sqrt().item()
            if size <= 1:
                now, x, x0, k = then, proposal, ahead, stages[-1]
                yield now.t, x, x0
            dt *= min(5.0, max(0.2, 0.9 * max(size, 1e-10) ** -0.2))
        else:
            raise RuntimeError(
                f"RK45 needed more than {self.max_steps} steps for rtol={self.rtol:g} and atol={self.atol:g}; "
                "raise the tolerances, or compute in float64"
            )
        if clean:
            x0 = model.x0(x, now)
            yield now.t, x0, x0


@dataclass(frozen=True)
class EulerMaruyama:
    """The Euler-Maruyama method for the reverse SDE: weak order one.

    References
    ----------
    Song et al., "Score-Based Generative Modeling through Stochastic Differential Equations", 2021.

    Examples
    --------
    >>> import torch
    >>> from tabdiff.diffusion import CosineSchedule, EulerMaruyama, GaussianDenoiser, sample
    >>> denoiser = GaussianDenoiser(torch.zeros(2), torch.eye(2), CosineSchedule())
    >>> sample(
    ...     denoiser, torch.ones(3, 2), method=EulerMaruyama(), steps=8, generator=torch.Generator().manual_seed(0)
    ... ).shape
    torch.Size([3, 2])
    """

    default_grid: ClassVar[str] = "log_snr"

    def __call__(self, model: Model, x: Tensor, path: list[Node]) -> Iterator[Step]:
        """Walk the path; see `Sampler`."""
        if path[0].alpha == 0:
            raise ValueError(
                "the reverse SDE makes no sense where the schedule leaves no signal (alpha = 0), because its noise is "
                "infinite there; use 'ddpm' or an ODE method"
            )
        for now, then in pairwise(path):
            x0 = model.x0(x, now)
            if then.sigma == 0:
                x = x0
            else:
                eps = to_eps(x0, x, now.alpha, now.sigma)
                dalpha, dsigma = model.rates(now.t)
                speed = dalpha / now.alpha - dsigma / now.sigma
                dt = then.t - now.t
                velocity = dalpha * x0 + (dsigma - speed * now.sigma) * eps
                x = x + dt * velocity + now.sigma * math.sqrt(2 * speed * dt) * model.noise(x)
            yield then.t, x, x0
