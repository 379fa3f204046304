r"""DDPM, DDIM and predictor-corrector: steps that draw from a Gaussian given the estimate of the clean row.

A step from `t` to the cleaner `s` is
:math:`x_s = \alpha_s \hat x_0 + \sqrt{\sigma_s^2 - \tau^2}\, \hat\varepsilon + \tau z`, exact for a right
:math:`\hat x_0`, whatever the share :math:`\tau` of fresh noise.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from tabdiff.diffusion.samplers.base import Model, Step
from tabdiff.diffusion.samplers.grids import Node

__all__ = ["DDIM", "DDPM", "PredictorCorrector"]


@dataclass(frozen=True)
class DDIM:
    """DDIM: first order; exact where the estimate of the clean row does not change along the way.

    Parameters
    ----------
    eta : float
        Share of fresh noise, from 0 (deterministic) to 1 (DDPM with the small variance).

    References
    ----------
    Song, Meng and Ermon, "Denoising Diffusion Implicit Models", 2021.

    Examples
    --------
    >>> import torch
    >>> from tabdiff.diffusion import CosineSchedule, DDIM, GaussianDenoiser, sample
    >>> denoiser = GaussianDenoiser(torch.zeros(2), torch.eye(2), CosineSchedule())
    >>> sample(
    ...     denoiser, torch.ones(3, 2), method=DDIM(eta=0.5), steps=8, generator=torch.Generator().manual_seed(0)
    ... ).shape
    torch.Size([3, 2])
    """

    eta: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta must lie in [0, 1], got {self.eta}")

    def __call__(self, model: Model, x: Tensor, path: list[Node]) -> Iterator[Step]:
        """Walk the path; see `Sampler`."""
        for now, then in pairwise(path):
            x0, eps = model.x0_and_eps(x, now)
            tau = self.eta * math.sqrt(_step_variances(now, then)[0]) if self.eta else 0.0
            x = then.alpha * x0 + math.sqrt(then.sigma**2 - tau**2) * eps
            if tau > 0:
                x = x + tau * model.noise(x)
            yield then.t, x, x0


@dataclass(frozen=True)
class DDPM:
    """Ancestral sampling of DDPM.

    Parameters
    ----------
    variance : str or float
        "small", the variance of the step given the clean row; "large", that of the noising step, right for
        data of unit variance and much too wide for tight data with few steps; a number between 0 (small)
        and 1 (large) that interpolates their logarithms; "learned", such a number for each entry from a denoiser with
        `learned_variance`; or "auto", which is "learned" where there is one and else "small".

    References
    ----------
    Ho, Jain and Abbeel, "Denoising Diffusion Probabilistic Models", 2020; Nichol and Dhariwal, "Improved
    Denoising Diffusion Probabilistic Models", 2021, equation 15.

    Examples
    --------
    >>> import torch
    >>> from tabdiff.diffusion import CosineSchedule, DDPM, GaussianDenoiser, sample
    >>> denoiser = GaussianDenoiser(torch.zeros(2), torch.eye(2), CosineSchedule())
    >>> sample(
    ...     denoiser,
    ...     torch.ones(3, 2),
    ...     method=DDPM(variance="large"),
    ...     steps=8,
    ...     generator=torch.Generator().manual_seed(0),
    ... ).shape
    torch.Size([3, 2])
    """

    variance: str | float = "auto"

    def __post_init__(self) -> None:
        named = self.variance in ("auto", "small", "large", "learned")
        if not named and (isinstance(self.variance, str) or not 0 <= self.variance <= 1):
            raise ValueError(
                f"variance must be 'auto', 'small', 'large', 'learned' or a number in [0, 1], got {self.variance!r}"
            )

    def __call__(self, model: Model, x: Tensor, path: list[Node]) -> Iterator[Step]:
        """Walk the path; see `Sampler`."""
        if self.variance == "learned" and not model.has_learned_variance:
            raise ValueError(
                "variance must be 'small', 'large' or a number in [0, 1] for a denoiser without a learned variance; "
                "got 'learned'. Train one with variance='learned'."
            )
        learned = self.variance in ("auto", "learned") and model.has_learned_variance
        named = {"auto": 0.0, "small": 0.0, "large": 1.0}
        share = named.get(self.variance, 0.0) if isinstance(self.variance, str) else self.variance
        for now, then in pairwise(path):
            small, large = _step_variances(now, then)
            std: Tensor | float
            if learned:
                x0, eps, shares = model.x0_eps_and_share(x, now)
                std = (small ** (1 - shares) * large**shares).sqrt()
            else:
                x0, eps = model.x0_and_eps(x, now)
                std = math.sqrt(small ** (1 - share) * large**share)
            x = then.alpha * x0 + math.sqrt(then.sigma**2 - small) * eps
            if then.sigma > 0:
                x = x + std * model.noise(x)
            yield then.t, x, x0


def _step_variances(now: Node, then: Node) -> tuple[float, float]:
    """Return the variance of a step given the clean row, and that of the noising step it undoes."""
    added = -math.expm1(2 * (now.lam - then.lam))  # share of the noise at `now` that came after `then`
    return then.sigma**2 * added, now.sigma**2 * added


@dataclass(frozen=True)
class PredictorCorrector:
    """Ancestral steps, each followed by Langevin corrections at the noise level it reached.

    Parameters
    ----------
    corrections : int
        Langevin steps after each ancestral step; each costs an evaluation.
    snr : float
        Length of the Langevin steps: the ratio of the norms of their drift and of their noise.

    References
    ----------
    Song et al., "Score-Based Generative Modeling through Stochastic Differential Equations", 2021, algorithm
    5.

    Examples
    --------
    >>> import torch
    >>> from tabdiff.diffusion import CosineSchedule, GaussianDenoiser, PredictorCorrector, sample
    >>> denoiser = GaussianDenoiser(torch.zeros(2), torch.eye(2), CosineSchedule())
    >>> sample(
    ...     denoiser,
    ...     torch.ones(3, 2),
    ...     method=PredictorCorrector(corrections=2),
    ...     steps=8,
    ...     generator=torch.Generator().manual_seed(0),
    ... ).shape
    torch.Size([3, 2])
    """

    corrections: int = 1
    snr: float = 0.16

    def __post_init__(self) -> None:
        if self.corrections < 1 or not self.snr > 0:
            raise ValueError(f"corrections must be at least 1 and snr above 0, got {self.corrections} and {self.snr}")

    def __call__(self, model: Model, x: Tensor, path: list[Node]) -> Iterator[Step]:
        """Walk the path; see `Sampler`."""
        for now, then in pairwise(path):
            for _, x, x0 in DDPM()(model, x, [now, then]):  # noqa: B007, B020
                pass
            for _ in range(self.corrections if then.sigma > 0 else 0):
                x0, eps = model.x0_and_eps(x, then)
                # The noise of the rows has a norm of about sqrt(d), and so has the drift in units of 1 / sigma.
                length = 2 * (self.snr * then.sigma) ** 2
                x = x - length / then.sigma * eps + math.sqrt(2 * length) * model.noise(x)
            yield then.t, x, x0
