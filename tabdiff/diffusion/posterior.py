"""Sampling with some entries, or some linear measurements, known: imputation, inpainting, super-resolution."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from tabdiff.diffusion.denoiser import DenoiserLike, coefficients
from tabdiff.diffusion.guidance import check_wrapped, needs_signal
from tabdiff.diffusion.samplers.base import Model, Sampler
from tabdiff.diffusion.samplers.grids import make_path
from tabdiff.diffusion.samplers.sample import SampleState, auto_grid, check_method
from tabdiff.utils.random import RowStreams
from tabdiff.utils.validation import is_integer

__all__ = ["PosteriorGuidance", "RePaint", "sample_known"]


@dataclass(frozen=True)
class RePaint:
    """How RePaint settles unknown entries with known ones: ``gen.impute(images, mask=mask, method=RePaint(...))``.

    Parameters
    ----------
    method : str or Sampler
        Method of each step.
    n_resamples : int
        How many times each block of steps is taken, at least 1; the paper uses 10.
    jump_length : int
        Steps of a block: how far a resampling goes back. The paper uses 10 of its 250 steps; a block of 1 changes
        details only.

    Raises
    ------
    ValueError
        If a number is below 1.

    References
    ----------
    Lugmayr et al., "RePaint: Inpainting using Denoising Diffusion Probabilistic Models", 2022, section 4.2.

    Examples
    --------
    >>> from tabdiff.diffusion import RePaint
    >>> RePaint(n_resamples=10, jump_length=5).n_resamples
    10
    """

    method: str | Sampler = "ddpm"
    n_resamples: int = 5
    jump_length: int = 1

    def __post_init__(self) -> None:
        for name in ("n_resamples", "jump_length"):
            value = getattr(self, name)
            if not is_integer(value, 1):
                raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")


@torch.no_grad()
def sample_known(
    denoiser: DenoiserLike,
    noise: Tensor,
    known: Tensor,
    mask: Tensor,
    condition: Tensor | None = None,
    *,
    method: str | Sampler = "ddpm",
    steps: int = 50,
    n_resamples: int = 5,
    jump_length: int = 1,
    grid: str | Sequence[float] | Tensor = "auto",
    generator: torch.Generator | RowStreams | None = None,
    callback: Callable[[SampleState], None] | None = None,
) -> Tensor:
    """Draw the unknown entries of rows given the known ones, by replacement with resampling (RePaint).

    After each step the known entries are put in their place with the noise of the time reached. One pass
    alone knows of them too late; so each block of `jump_length` steps is taken `n_resamples` times, going back
    by the forward process in between, which lets the unknown entries settle with the known ones.

    Parameters
    ----------
    denoiser : callable
        ``denoiser(x_t, t, condition) -> x0``.
    noise : Tensor
        Standard normal, shape ``(B, *)``.
    known : Tensor
        The rows, of the shape of `noise`; what stands in unknown places, NaN included, is not used.
    mask : Tensor
        Boolean, broadcastable to `known`: True where an entry is known.
    condition : Tensor, optional
        Shape ``(B, k)``, NaN for a null entry.
    method : str or Sampler
        Method of each step. Multistep methods start anew each time and are of first order here.
    steps : int
        Number of steps.
    n_resamples : int
        How many times each block of steps is taken, at least 1.
    jump_length : int
        Steps of a block, at least 1. As in the paper's schedule blocks end before the last step, and the steps that
        fill no block are the first ones; they are taken once.
    grid : str or sequence of float
        As in `sample`.
    generator : torch.Generator or RowStreams, optional
        Source of the fresh noise.
    callback : callable, optional
        Called with a `SampleState` after each step, when it is taken for the last time.

    Returns
    -------
    Tensor
        The rows, with the known entries exactly as given.

    Raises
    ------
    ValueError
        If the mask is not boolean, a known entry is not finite, `n_resamples` or `jump_length` is below 1, or the
        steps are fewer than a block and the last one.

    References
    ----------
    Lugmayr et al., "RePaint: Inpainting using Denoising Diffusion Probabilistic Models", 2022,
    algorithm 1 and section 4.2.

    Examples
    --------
    >>> import torch
    >>> from tabdiff.diffusion import CosineSchedule, GaussianDenoiser, sample_known
    >>> denoiser = GaussianDenoiser(torch.zeros(2), torch.eye(2), CosineSchedule())
    >>> known, mask = torch.zeros(3, 2), torch.tensor([[True, False]]).expand(3, 2)
    >>> generator = torch.Generator().manual_seed(0)
    >>> rows = sample_known(denoiser, torch.ones(3, 2), known, mask, steps=8, generator=generator)
    >>> rows[:, 0]
    tensor([0., 0., 0.])
    """
    RePaint(method, n_resamples, jump_length)  # raises where a number is no count
    if mask.dtype != torch.bool:
        raise ValueError(f"mask must be boolean, True where an entry is known, got {mask.dtype}")
    known = torch.where(mask, known, torch.zeros_like(known))
    if not bool(known.isfinite().all()):
        raise ValueError("a known entry is NaN or infinite; set mask to False where an entry is missing")
    solver = check_method(method, denoiser)
    schedule = denoiser.schedule
    if isinstance(grid, str) and grid == "auto":
        grid = auto_grid(schedule, solver)
    path = make_path(schedule, steps, grid)
    model = Model(denoiser, condition, generator)
    x = path[0].sigma * noise
    x = torch.where(mask, path[0].alpha * known + x, x)
    for first, last, repeats in _blocks(len(path) - 1, n_resamples, jump_length):
        for repeat in range(repeats):
            if repeat:
                x = model.renoise(x, path[last], path[first])
            for step, (now, then) in enumerate(pairwise(path[first : last + 1]), start=first + 1):
                *_, (_, x, x0) = solver(model, x, [now, then])
                at_then = then.alpha * known + (then.sigma * model.noise(known) if then.sigma > 0 else 0.0)
                x = torch.where(mask, at_then, x)
                if callback is not None and repeat == repeats - 1:
                    callback(SampleState(step, len(path) - 1, then.t, x, x0))
    return x


def _blocks(steps: int, n_resamples: int, jump_length: int) -> list[tuple[int, int, int]]:
    """Return the stops at which blocks of steps begin and end, and how many times each is taken.

    Lugmayr et al. go back `jump_length` steps, ``n_resamples - 1`` times, from every `jump_length`-th stop counted from
    the one before the last step. Since each jump ends where the block before it ended, the blocks do not overlap.
    """
    if n_resamples > 1 and steps > 1 and jump_length > steps - 1:
        raise ValueError(
            f"jump_length must be at most {steps - 1} for {steps} steps, of which the last is taken once; got "
            f"{jump_length}. Take more steps or shorter jumps"
        )
    once = (steps - 1) % jump_length
    blocks = [(first, first + jump_length, n_resamples) for first in range(once, steps - 1, jump_length)]
    return [(0, once, 1), *blocks, (steps - 1, steps, 1)] if once else [*blocks, (steps - 1, steps, 1)]


class PosteriorGuidance(nn.Module):
    r"""Posterior sampling given linear measurements ``y = A x0 + noise``: a denoiser that knows of them.

    The likelihood of the measurements given a noisy row is taken as
    :math:`N(A D(x_t), \mathit{noise\_std}^2 I + r_t^2 A A^T)`. With ``data_std = 0`` it is DPS, which forgets that
    the estimate itself is uncertain (:math:`r_t = 0`); otherwise :math:`r_t^2 = \sigma^2 s^2 / (\alpha^2 s^2
    + \sigma^2)` with :math:`s` the `data_std`, which is exact for Gaussian data of that variance (ΠGDM) and
    far more stable where the measurements are precise.

    Parameters
    ----------
    denoiser : callable
        A differentiable denoiser.
    operator : Tensor
        The matrix A, shape ``(m, d)``, on rows flattened to ``(B, d)``.
    measurements : Tensor
        Measured values y, shape ``(m,)`` or ``(B, m)``.
    noise_std : float
        Standard deviation of the measurements' noise, above 0.
    data_std : float
        Standard deviation of the data, for the uncertainty of the estimate; 0 for DPS.
    scale : float
        Factor of the gradient; 1 is Bayes' rule.

    Raises
    ------
    ValueError
        If `noise_std` is not above 0, or the schedule leaves no signal at ``t_max``.

    References
    ----------
    Chung et al., "Diffusion Posterior Sampling for General Noisy Inverse Problems", 2023; Song et al.,
    "Pseudoinverse-Guided Diffusion Models for Inverse Problems", 2023.

    Examples
    --------
    >>> import torch
    >>> from tabdiff.diffusion import CosineSchedule, GaussianDenoiser, PosteriorGuidance, sample
    >>> denoiser = GaussianDenoiser(torch.zeros(2), torch.eye(2), CosineSchedule())
    >>> operator, seen = torch.tensor([[1.0, 1.0]]), torch.full((3, 1), 2.0)
    >>> guided = PosteriorGuidance(denoiser, operator, seen, noise_std=0.1)
    >>> sample(guided, torch.ones(3, 2), steps=8).shape
    torch.Size([3, 2])
    """

    def __init__(
        self,
        denoiser: DenoiserLike,
        operator: Tensor,
        measurements: Tensor,
        noise_std: float,
        *,
        data_std: float = 1.0,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        check_wrapped(denoiser, self)
        if not noise_std > 0:
            raise ValueError(f"noise_std must be above 0, got {noise_std}; give a small one for exact measurements")
        needs_signal(denoiser.schedule, "posterior guidance")
        self.denoiser = denoiser
        self.schedule = denoiser.schedule
        self.operator = operator
        self.measurements = measurements
        self.noise_std = noise_std
        self.data_std = data_std
        self.scale = scale

    def forward(self, x_t: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return the estimate of the clean rows given the measurements; see `Denoiser.forward`."""
        alpha, sigma = coefficients(self.schedule, t, x_t)
        operator = self.operator.to(x_t)
        spread = sigma**2 * self.data_std**2 / (alpha**2 * self.data_std**2 + sigma**2)
        identity = torch.eye(len(operator), dtype=x_t.dtype, device=x_t.device)
        # One time for all rows may be a number on the host, which only without dimensions meets tensors of a GPU.
        spread = spread.reshape(-1, 1, 1) if spread.dim() else spread
        covariance = self.noise_std**2 * identity + spread * (operator @ operator.T)[None]
        with torch.enable_grad():
            rows = x_t.detach().requires_grad_()
            x0 = self.denoiser(rows, t, condition)
            residual = self.measurements.to(x_t) - x0.flatten(1) @ operator.T
            # Without the look at whether it is singular, for which a GPU would wait: the noise's variance is above 0.
            weighed = torch.linalg.solve_ex(covariance, residual.detach()[..., None])[0][..., 0]
            (gradient,) = torch.autograd.grad((residual * weighed).sum(), rows)
        # The gradient of the log-likelihood is minus that of the weighed residuals, the covariance being fixed.
        return x0.detach() - self.scale * sigma**2 / alpha * gradient
