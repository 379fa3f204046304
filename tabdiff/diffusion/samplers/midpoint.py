"""The explicit midpoint method on the probability-flow ODE."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from tabdiff.diffusion.samplers.base import Model, Step
from tabdiff.diffusion.samplers.grids import Node
from tabdiff.diffusion.samplers.runge_kutta import drift

__all__ = ["Midpoint"]


@dataclass(frozen=True)
class Midpoint:
    r"""The explicit midpoint method: second order at two evaluations a step.

    With :math:`v(x, t)` the velocity of the probability-flow ODE, a step from t to s is

    .. math:: x_s = x_t + (s - t)\, v\left(x_t + \tfrac{s - t}{2} v(x_t, t), \tfrac{t + s}{2}\right).

    Examples
    --------
    >>> import torch
    >>> from tabdiff.diffusion import CosineSchedule, GaussianDenoiser, sample
    >>> denoiser = GaussianDenoiser(torch.zeros(2), torch.eye(2), CosineSchedule())
    >>> sample(denoiser, torch.ones(3, 2), method=Midpoint(), steps=10).shape
    torch.Size([3, 2])
    """

    def __call__(self, model: Model, x: Tensor, path: list[Node]) -> Iterator[Step]:
        """Walk the path; see `Sampler`."""
        for now, then in pairwise(path):
            velocity, x0 = drift(model, x, now)
            if then.sigma == 0:
                x = x0
            else:
                middle = model.node((now.t + then.t) / 2)
                velocity, x0 = drift(model, x + (middle.t - now.t) * velocity, middle)
                x = x + (then.t - now.t) * velocity
            yield then.t, x, x0
