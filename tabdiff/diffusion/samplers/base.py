"""What every sampling method shares: how it asks the denoiser, and the form it has."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from tabdiff.diffusion.denoiser import DenoiserLike, PairedDenoiser, learned_variance
from tabdiff.diffusion.samplers.grids import Node, node_at
from tabdiff.diffusion.targets import to_eps
from tabdiff.utils.random import RowStreams

__all__ = ["Model", "Sampler", "Step"]

Step = tuple[float, Tensor, Tensor]
"""What a method yields: the time reached, the rows there, and the last estimate of the clean rows."""


class Model:
    """What a method asks: a denoiser with its condition, and the noise it may draw.

    Parameters
    ----------
    denoiser : callable
        ``denoiser(x_t, t, condition) -> x0``.
    condition : Tensor, optional
        Shape ``(B, k)``, NaN for a null entry.
    generator : torch.Generator or RowStreams, optional
        Source of noise; with streams of the rows' own, what is drawn for a row depends on no other row.

    Attributes
    ----------
    schedule : Schedule
        The denoiser's schedule.
    has_learned_variance : bool
        Whether the denoiser, or the one that guidance wraps, says how wide an ancestral step is.

    Examples
    --------
    >>> import torch
    >>> from tabdiff.diffusion import CosineSchedule, GaussianDenoiser, Model
    >>> denoiser = GaussianDenoiser(torch.zeros(2), torch.eye(2), CosineSchedule())
    >>> model = Model(denoiser)
    >>> model.x0(torch.ones(3, 2), model.node(0.5)).shape
    torch.Size([3, 2])
    """

    def __init__(
        self,
        denoiser: DenoiserLike,
        condition: Tensor | None = None,
        generator: torch.Generator | RowStreams | None = None,
    ) -> None:
        self.schedule = denoiser.schedule
        self._denoiser = denoiser
        self._condition = condition
        self._generator = generator
        self._paired = denoiser.x0_and_eps if isinstance(denoiser, PairedDenoiser) else None
        self._learned = learned_variance(denoiser)
        self.has_learned_variance = self._learned is not None

    def x0(self, x: Tensor, node: Node) -> Tensor:
        """Return the estimate of the clean rows, from which that of the noise in `x` follows.

        Raises
        ------
        ValueError
            If the denoiser has an estimate of the noise of its own (CFG++), which a method that asks for the
            clean rows alone would ignore.
        """
        if self._paired is not None:
            raise ValueError(
                f"the method must step to alpha x0 + sigma eps with {type(self._denoiser).__name__}, whose noise eps "
                "is not that of its x0; got one that does not. Use 'ddim', 'ddpm' or 'predictor_corrector'"
            )
        return self._denoiser(x, torch.tensor(node.t, dtype=torch.float64), self._condition)

    def x0_and_eps(self, x: Tensor, node: Node) -> tuple[Tensor, Tensor]:
        """Return the estimates of the clean rows and of the noise, for methods whose steps put the noise back.

        A step of these is ``alpha x0 + sigma eps`` with fresh noise, if any. Others must ask for `x0` alone: a
        denoiser may have an estimate of the noise that makes no velocity with its `x0`.
        """
        if self._paired is not None:
            x0, eps = self._paired(x, torch.tensor(node.t, dtype=torch.float64), self._condition)
            return x0, eps
        x0 = self.x0(x, node)
        return x0, to_eps(x0, x, node.alpha, node.sigma)

    def x0_eps_and_share(self, x: Tensor, node: Node) -> tuple[Tensor, Tensor, Tensor]:
        """Return the estimates of the clean rows and of the noise, and the learned share of each entry's variance.

        Guidance has no variance of its own: then it is that of the guided denoiser under the condition, for which it is
        asked once more.
        """
        assert self._learned is not None
        t = torch.tensor(node.t, dtype=torch.float64)
        x0, share = self._learned.x0_and_share(x, t, self._condition)
        if self._learned is not self._denoiser:
            return *self.x0_and_eps(x, node), share
        return x0, (x - node.alpha * x0) / node.sigma, share

    def noise(self, like: Tensor) -> Tensor:
        """Draw standard normal noise of the shape of `like`, the same on every device but for rounding."""
        if isinstance(self._generator, RowStreams):
            if like.device.type == "cuda":  # where numbers are drawn, not copied in each step
                self._generator.move(like.device)
            return self._generator.normal(like[0].numel()).to(like.dtype).reshape(like.shape).to(like.device)
        device = self._generator.device if self._generator is not None else like.device
        drawn = torch.randn(like.shape, generator=self._generator, device=device, dtype=like.dtype)
        return drawn.to(like.device)

    def node(self, t: float) -> Node:
        """Return the stop at time `t`."""
        return node_at(self.schedule, t)

    def rates(self, t: float) -> tuple[float, float]:
        """Return the derivatives of alpha and sigma at time `t`."""
        return self.schedule.dalpha(t).item(), self.schedule.dsigma(t).item()

    def renoise(self, x: Tensor, now: Node, then: Node) -> Tensor:
        """Return the rows `x` of `now` at the noisier `then`, as the forward process takes them there."""
        keep = then.alpha / now.alpha
        return keep * x + math.sqrt(max(then.sigma**2 - (keep * now.sigma) ** 2, 0.0)) * self.noise(x)


class Sampler(Protocol):
    """A sampling method: a small object that holds its options.

    Two attributes are read where a method has them: ``adaptive = True`` for one that chooses its own steps between the
    two ends of the path, and ``default_grid``, the name of the grid that suits it, which comes before the schedule's.

    Parameters
    ----------
    *args, **kwargs
        Options of the class that follows the protocol; the protocol itself cannot be made.

    Examples
    --------
    A method of first order, whose steps put the estimated noise back:

    >>> from itertools import pairwise
    >>> import torch
    >>> from tabdiff.diffusion import CosineSchedule, GaussianDenoiser, sample
    >>> class FirstOrder:
    ...     def __call__(self, model, x, path):
    ...         for now, then in pairwise(path):
    ...             x0, eps = model.x0_and_eps(x, now)
    ...             x = then.alpha * x0 + then.sigma * eps
    ...             yield then.t, x, x0
    >>> denoiser = GaussianDenoiser(torch.zeros(2), torch.eye(2), CosineSchedule())
    >>> noise = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    >>> rows = sample(denoiser, noise, method=FirstOrder(), steps=8)
    >>> torch.allclose(rows, sample(denoiser, noise, method="ddim", steps=8), atol=1e-5)
    True
    """

    def __call__(self, model: Model, x: Tensor, path: list[Node]) -> Iterator[Step]:
        """Walk `path` from ``path[0]``, where the rows are `x`, to its end, yielding after every step."""
