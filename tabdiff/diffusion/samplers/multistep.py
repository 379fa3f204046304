r"""DPM-Solver++ and UniPC: high order at one evaluation a step, from the estimates of earlier steps.

In :math:`\lambda = \log(\alpha / \sigma)` the probability-flow ODE is solved exactly but for the way the
estimate of the clean row moves within a step of length :math:`h`:

.. math:: x_s = \frac{\sigma_s}{\sigma_t} x_t
          + \alpha_s \int_0^h e^{\tau - h}\, \hat x_0(\lambda_t + \tau)\, d\tau,

and the methods differ in the polynomial they put in its place. Onto the clean end, an infinite step, all of
them take the estimate itself; from pure noise (:math:`\lambda = -\infty`) they start with first order.
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

__all__ = ["DPMpp2M", "DPMpp3M", "UniPC"]


@dataclass(frozen=True)
class DPMpp2M:
    """DPM-Solver++(2M): second order, or its SDE form.

    Parameters
    ----------
    stochastic : bool
        Whether to solve the reverse SDE, with fresh noise in each step, rather than the ODE.

    Notes
    -----
    Where a step is longer than the last one the extrapolation is held to what it would be for equal steps.
    The order stays, since the steps of a smooth grid become equal as they shrink; few steps that grow, as
    those of a grid in time do at its clean end, would otherwise overshoot.

    References
    ----------
    Lu et al., "DPM-Solver++", 2022, algorithm 2 and appendix A (SDE-DPM-Solver++).
    """

    stochastic: bool = False

    def __call__(self, model: Model, x: Tensor, path: list[Node]) -> Iterator[Step]:
        """Walk the path; see `Sampler`."""
        last: tuple[float, Tensor] | None = None
        for now, then in pairwise(path):
            x0 = model.x0(x, now)
            h = then.lam - now.lam
            estimate = x0
            if last is not None and then.sigma > 0:
                estimate = x0 + (x0 - last[1]) * min(h / (now.lam - last[0]), 1.0) / 2
            x = _exponential_step(model, x, estimate, now, then, stochastic=self.stochastic)
            last = (now.lam, x0)
            yield then.t, x, x0


@dataclass(frozen=True)
class DPMpp3M:
    """DPM-Solver++(3M): third order, or its SDE form.

    Parameters
    ----------
    stochastic : bool
        Whether to solve the reverse SDE, with fresh noise in each step, rather than the ODE.

    Notes
    -----
    NOTE: published code in the style of k-diffusion takes the divided difference of second order for
    the second derivative, of which it is half; that leaves order two. Here it counts in full, and the order
    is three.

    References
    ----------
    Lu et al., "DPM-Solver++", 2022, appendix B.
    """

    default_grid: ClassVar[str] = "log_snr"
    stochastic: bool = False

    def __call__(self, model: Model, x: Tensor, path: list[Node]) -> Iterator[Step]:
        """Walk the path; see `Sampler`."""
        history: list[tuple[float, Tensor]] = []
        for now, then in pairwise(path):
            x0 = model.x0(x, now)
            if math.isfinite(now.lam):
                history = [(now.lam, x0), *history][:3]
            estimate = x0
            if len(history) > 1 and then.sigma > 0:
                h = then.lam - now.lam
                decay = 2 * h if self.stochastic else h
                phi_1 = -math.expm1(-decay)
                phi_2 = 1 - phi_1 / decay
                slope, bend = _differences(history, h)
                estimate = x0 + (phi_2 / phi_1) * slope
                if bend is not None:
                    estimate = estimate + ((1 - 2 * phi_2 / decay) / phi_1) * bend
            x = _exponential_step(model, x, estimate, now, then, stochastic=self.stochastic)
            yield then.t, x, x0


def _differences(history: list[tuple[float, Tensor]], h: float) -> tuple[Tensor, Tensor | None]:
    """Return the first and, given three estimates, half the second derivative at the newest, in units of `h`."""
    (l0, x0), (l1, x1) = history[:2]
    r0 = (l0 - l1) / h
    first = (x0 - x1) / r0
    if len(history) < 3:
        return first, None
    l2, x2 = history[2]
    r1 = (l1 - l2) / h
    second = (first - (x1 - x2) / r1) / (r0 + r1)
    return first + second * r0, second


def _exponential_step(model: Model, x: Tensor, estimate: Tensor, now: Node, then: Node, *, stochastic: bool) -> Tensor:
    """Return the rows at `then`, exact for a clean row that is `estimate` all the way."""
    h = then.lam - now.lam
    keep, decay = (math.exp(-h), 2 * h) if stochastic else (1.0, h)
    x = keep * then.sigma / now.sigma * x - then.alpha * math.expm1(-decay) * estimate
    if stochastic and then.sigma > 0:
        x = x + then.sigma * math.sqrt(-math.expm1(-2 * h)) * model.noise(x)
    return x


@dataclass(frozen=True)
class UniPC:
    """UniPC: a predictor of the given order, and a corrector that adds one at no further evaluation.

    The corrector uses the estimate at the end of a step, which the next step needs anyway; the last step has
    none.

    Parameters
    ----------
    order : int
        Order of the predictor, from 1 to 3.

    References
    ----------
    Zhao et al., "UniPC", 2023, algorithms 5 to 8, with ``B(h) = exp(h) - 1`` (bh2) and data prediction.
    """

    default_grid: ClassVar[str] = "log_snr"
    order: int = 2

    def __post_init__(self) -> None:
        if self.order not in (1, 2, 3):
            raise ValueError(f"order must be 1, 2 or 3, got {self.order}")

    def __call__(self, model: Model, x: Tensor, path: list[Node]) -> Iterator[Step]:
        """Walk the path; see `Sampler`."""
        history: list[tuple[float, Tensor]] = []
        x0 = model.x0(x, path[0])
        for i, (now, then) in enumerate(pairwise(path)):
            if math.isfinite(now.lam):
                history = [(now.lam, x0), *history][: self.order]
            base = _exponential_step(model, x, x0, now, then, stochastic=False)
            if then.sigma == 0 or not history:
                predicted = base
            else:
                predicted = base + self._correction(history, None, now, then)
            x = predicted
            if i + 2 < len(path):
                ahead = model.x0(predicted, then)
                if history:
                    x = base + self._correction(history, ahead, now, then)
                yield then.t, x, x0
                x0 = ahead
            else:
                yield then.t, x, x0

    @staticmethod
    def _correction(history: list[tuple[float, Tensor]], ahead: Tensor | None, now: Node, then: Node) -> Tensor | float:
        """Return what the movement of the estimate adds to a step of first order."""
        h = then.lam - now.lam
        newest = history[0][1]
        ratios = [(lam - now.lam) / h for lam, _ in history[1:]]
        slopes = [(x0 - newest) / r for r, (_, x0) in zip(ratios, history[1:])]
        if ahead is not None:
            ratios, slopes = [*ratios, 1.0], [*slopes, ahead - newest]
        if not slopes:
            return 0.0
        scale = math.expm1(-h)
        powers, moments, phi, factorial = [], [], scale / -h - 1, 1
        for k in range(1, len(slopes) + 1):
            powers.append([r ** (k - 1) for r in ratios])
            moments.append(phi * factorial / scale)
            factorial *= k + 1
            phi = phi / -h - 1 / factorial
        system = torch.tensor(powers, dtype=torch.float64)
        weights = torch.linalg.solve(system, torch.tensor(moments, dtype=torch.float64)).tolist()
        return -then.alpha * scale * sum(w * slope for w, slope in zip(weights, slopes))
