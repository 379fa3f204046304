"""Rows to noise and back, and the ways between two rows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tabdiff.diffusion.denoiser import DenoiserLike
from tabdiff.diffusion.samplers.base import Model
from tabdiff.diffusion.samplers.grids import make_path
from tabdiff.diffusion.samplers.sample import auto_grid, make_sampler, sample

__all__ = ["encode", "interpolate", "slerp"]

_REVERSIBLE = ("ddim", "euler", "heun", "rk4")


@torch.no_grad()
def encode(
    denoiser: DenoiserLike,
    x: Tensor,
    condition: Tensor | None = None,
    *,
    method: str = "ddim",
    steps: int = 50,
    grid: str | Sequence[float] | Tensor = "auto",
) -> Tensor:
    """Return the noise from which a deterministic sampler makes the rows `x`: DDIM inversion.

    Parameters
    ----------
    denoiser : callable
        ``denoiser(x_t, t, condition) -> x0``.
    x : Tensor
        Clean rows, shape ``(B, *)``.
    condition : Tensor, optional
        Shape ``(B, k)``, NaN for a null entry.
    method : str
        "ddim", "euler", "heun" or "rk4": one that can run either way.
    steps : int
        Number of steps.
    grid : str or sequence of float
        As in `sample`.

    Returns
    -------
    Tensor
        Standard normal if the rows are of the distribution learned; what `sample` wants as its `noise`.

    Raises
    ------
    ValueError
        If the method cannot run backwards.

    References
    ----------
    Song, Meng and Ermon, "Denoising Diffusion Implicit Models", 2021, section 4.3.

    Examples
    --------
    >>> import torch
    >>> from tabdiff.diffusion import CosineSchedule, encode, GaussianDenoiser, sample
    >>> denoiser = GaussianDenoiser(torch.zeros(2), torch.eye(2), CosineSchedule())
    >>> noise = torch.randn((3, 2), generator=torch.Generator().manual_seed(0))
    >>> rows = sample(denoiser, noise, method="ddim", steps=50, denoise_last=False)
    >>> bool((encode(denoiser, rows) - noise).abs().max() < 0.1)
    False
    """
    if method not in _REVERSIBLE:
        raise ValueError(f"method {method!r} cannot run from data to noise; those that can: {', '.join(_REVERSIBLE)}")
    solver = make_sampler(method)
    if isinstance(grid, str) and grid == "auto":
        grid = auto_grid(denoiser.schedule, solver)
    path = make_path(denoiser.schedule, steps, grid, denoise_last=False)[::-1]
    *_, (_, noisy, _) = solver(Model(denoiser, condition), path[0].alpha * x, path)
    return noisy / path[-1].sigma


def slerp(a: Tensor, b: Tensor, share: float | Tensor) -> Tensor:
    """Interpolate between noises along the great circle, which keeps them as long as noise is.

    Parameters
    ----------
    a, b : Tensor
        Shape ``(B, *)``.
    share : float or Tensor
        0 for `a`, 1 for `b`; a Tensor must broadcast against the rows.

    Returns
    -------
    Tensor
        Shape ``(B, *)``.

    Examples
    --------
    >>> import torch
    >>> from tabdiff.diffusion import slerp
    >>> slerp(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]), 0.5).round(decimals=3)
    tensor([[0.7070, 0.7070]])
    """
    flat_a, flat_b = a.flatten(1), b.flatten(1)
    cosine = torch.nn.functional.cosine_similarity(flat_a, flat_b, dim=1).clamp(-1, 1)
    angle = cosine.acos().reshape(-1, *(1,) * (a.dim() - 1))
    sine = angle.sin()
    share = torch.as_tensor(share, dtype=a.dtype, device=a.device)
    straight = (1 - share) * a + share * b
    around = (((1 - share) * angle).sin() * a + (share * angle).sin() * b) / sine
    return torch.where(sine.abs() < 1e-6, straight, around)


def interpolate(
    denoiser: DenoiserLike,
    a: Tensor,
    b: Tensor,
    shares: Sequence[float],
    condition: Tensor | None = None,
    *,
    method: str = "ddim",
    steps: int = 50,
) -> Tensor:
    """Return rows on the way from `a` to `b`: encoded, interpolated as noise, and decoded.

    Parameters
    ----------
    denoiser : callable
        ``denoiser(x_t, t, condition) -> x0``.
    a, b : Tensor
        Clean rows, shape ``(B, *)``.
    shares : sequence of float
        Places on the way, 0 for `a` and 1 for `b`.
    condition : Tensor, optional
        Shape ``(B, k)``, of both.
    method : str
        As in `encode`.
    steps : int
        Number of steps each way.

    Returns
    -------
    Tensor
        Shape ``(len(shares), B, *)``.

    Examples
    --------
    >>> import torch
    >>> from tabdiff.diffusion import CosineSchedule, GaussianDenoiser, interpolate
    >>> denoiser = GaussianDenoiser(torch.zeros(2), torch.eye(2), CosineSchedule())
    >>> interpolate(denoiser, torch.zeros(1, 2), torch.ones(1, 2), [0.0, 0.5, 1.0], steps=8).shape
    torch.Size([3, 1, 2])
    """
    noise_a, noise_b = (encode(denoiser, rows, condition, method=method, steps=steps) for rows in (a, b))
    decoded = [
        sample(denoiser, slerp(noise_a, noise_b, share), condition, method=method, steps=steps) for share in shares
    ]
    return torch.stack(decoded)
