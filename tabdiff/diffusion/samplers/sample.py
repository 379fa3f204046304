"""Samplers: the way from noise to data, given nothing but a denoiser.

Each method is a small object that holds its options and, called, walks a path of times and yields the state
after every step; `sample` is the one loop around all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tabdiff.diffusion.denoiser import DenoiserLike
from tabdiff.diffusion.guidance import CFGPlusPlus
from tabdiff.diffusion.samplers.ancestral import DDIM, DDPM, PredictorCorrector
from tabdiff.diffusion.samplers.base import Model, Sampler
from tabdiff.diffusion.samplers.grids import Node, make_path
from tabdiff.diffusion.samplers.multistep import DPMpp2M, DPMpp3M, UniPC
from tabdiff.diffusion.samplers.runge_kutta import RK4, RK45, Euler, EulerMaruyama, Heun
from tabdiff.diffusion.schedules.registry import Schedule
from tabdiff.utils.random import RowStreams

__all__ = ["METHODS", "SampleState", "check_method", "make_sampler", "sample"]


@dataclass(frozen=True)
class SampleState:
    """Where a sampler stands after a step, as a callback sees it.

    Parameters
    ----------
    step : int
        Number of steps done, from 1.
    n_steps : int or None
        Number of steps to do; None for an adaptive method.
    t : float
        The time reached.
    x : Tensor
        The rows at that time.
    x0 : Tensor
        The last estimate of the clean rows.

    Examples
    --------
    >>> import torch
    >>> from tabdiff.diffusion import CosineSchedule, GaussianDenoiser, sample
    >>> denoiser = GaussianDenoiser(torch.zeros(2), torch.eye(2), CosineSchedule())
    >>> rows = sample(denoiser, torch.ones(3, 2), steps=2, callback=lambda state: print(state.step, state.n_steps))
    1 2
    2 2
    """

    step: int
    n_steps: int | None
    t: float
    x: Tensor
    x0: Tensor


_BY_NAME: dict[str, Callable[[], Sampler]] = {
    "ddpm": DDPM,
    "ddim": DDIM,
    "euler": Euler,
    "heun": Heun,
    "rk4": RK4,
    "rk45": RK45,
    "dpmpp_2m": DPMpp2M,
    "dpmpp_3m": DPMpp3M,
    "dpmpp_2m_sde": lambda: DPMpp2M(stochastic=True),
    "dpmpp_3m_sde": lambda: DPMpp3M(stochastic=True),
    "unipc": UniPC,
    "euler_maruyama": EulerMaruyama,
    "predictor_corrector": PredictorCorrector,
}
METHODS = tuple(_BY_NAME)
_RENOISING = (DDPM, DDIM, PredictorCorrector)
_KINDS = (*_RENOISING, Euler, Heun, RK4, RK45, DPMpp2M, DPMpp3M, UniPC, EulerMaruyama)


def make_sampler(method: str | Sampler) -> Sampler:
    """Return a sampling method by its name; an object is returned as it is.

    Parameters
    ----------
    method : str or Sampler
        A name of ``METHODS``, or a method.

    Returns
    -------
    Sampler
        The method of that name.

    Raises
    ------
    ValueError
        If the name is unknown, or the object is no sampling method.

    Examples
    --------
    >>> from tabdiff.diffusion import make_sampler
    >>> make_sampler("ddim")
    DDIM(eta=0.0)
    """
    if not isinstance(method, str):
        if not callable(method) or isinstance(method, type):
            raise ValueError(
                f"method must be one of {', '.join(METHODS)} or an object such as DDIM(eta=0.5); got {method!r}"
            )
        return method
    if method not in _BY_NAME:
        raise ValueError(f"unknown sampling method {method!r}; known ones are {', '.join(sorted(_BY_NAME))}")
    return _BY_NAME[method]()


def check_method(method: str | Sampler, denoiser: DenoiserLike) -> Sampler:
    """Return a sampling method by its name, if it can use what a denoiser returns.

    Raises
    ------
    ValueError
        If the name is unknown, or the denoiser is one of CFG++ and the method does not put the noise back.
    """
    solver = make_sampler(method)
    if isinstance(denoiser, CFGPlusPlus) and isinstance(solver, _KINDS) and not isinstance(solver, _RENOISING):
        shown = method if isinstance(method, str) else type(method).__name__
        raise ValueError(
            "method must be 'ddim', 'ddpm' or 'predictor_corrector' with CFG++, which puts the noise of the "
            f"unguided estimate back in each step; got {shown!r}. Use method='ddim'"
        )
    return solver


@torch.no_grad()
def sample(
    denoiser: DenoiserLike,
    noise: Tensor,
    condition: Tensor | None = None,
    *,
    method: str | Sampler = "dpmpp_2m",
    steps: int = 25,
    grid: str | Sequence[float] | Tensor = "auto",
    generator: torch.Generator | RowStreams | None = None,
    callback: Callable[[SampleState], None] | None = None,
    denoise_last: bool = True,
) -> Tensor:
    """Turn noise into rows.

    Parameters
    ----------
    denoiser : callable
        ``denoiser(x_t, t, condition) -> x0`` with a ``schedule``; see `tabdiff.diffusion.denoiser`.
    noise : Tensor
        Standard normal, shape ``(B, *)``; multiplied by ``sigma(t_max)`` it is the start.
    condition : Tensor, optional
        Shape ``(B, k)``, NaN for a null entry.
    method : str or Sampler
        The method, by name or as an object with options, such as ``DDIM(eta=0.5)``.
    steps : int
        Number of steps, at least 1. A method with one evaluation a step makes exactly so many. The adaptive
        "rk45" chooses its own steps between ``t_max`` and ``t_min``.
    grid : str or sequence of float
        A name from ``GRIDS``, "auto", or the times themselves, decreasing (`steps` is not used then).
    generator : torch.Generator or RowStreams, optional
        Source of the fresh noise of stochastic methods; drawing happens on its device. Streams of the rows' own
        give a row the same noise whatever rows stand beside it.
    callback : callable, optional
        Called with a `SampleState` after each step.
    denoise_last : bool
        If True the last step leads from ``t_min`` to the estimate of the clean rows. If False the steps end
        at ``t_min`` and the rows there are returned, ``alpha(t_min) x0 + sigma(t_min) eps``. With `steps` of
        the first and ``steps - 1`` of the second the rows at ``t_min`` are the same.

    Returns
    -------
    Tensor
        The rows, of the shape and dtype of `noise`.

    Raises
    ------
    ValueError
        If a name is unknown, the number of steps or the grid does not fit the schedule, or the method the denoiser
        (see `check_method`).

    Examples
    --------
    >>> import torch
    >>> from tabdiff.diffusion import CosineSchedule, GaussianDenoiser
    >>> oracle = GaussianDenoiser(3.0, 0.1, CosineSchedule())
    >>> noise = torch.randn(1000, 1, generator=torch.Generator().manual_seed(0))
    >>> rows = sample(oracle, noise, steps=20)
    >>> round(float(rows.mean()), 1), round(float(rows.std()), 1)
    (3.0, 0.1)
    """
    solver = check_method(method, denoiser)
    schedule = denoiser.schedule
    if isinstance(grid, str) and grid == "auto":
        grid = auto_grid(schedule, solver)
    path = make_path(schedule, steps, grid, denoise_last=denoise_last)
    n_steps: int | None = len(path) - 1
    if getattr(solver, "adaptive", False):
        n_steps = None
        if isinstance(grid, str):  # the two ends alone count, and a name means those of the schedule
            path = make_path(schedule, 1, "uniform", denoise_last=False)
            path += [Node(path[-1].t, 1.0, 0.0)] if denoise_last else []
    x = path[0].sigma * noise
    walk = solver(Model(denoiser, condition, generator), x, path)
    for step, (t, x, x0) in enumerate(walk, start=1):
        if callback is not None:
            callback(SampleState(step, n_steps, t, x, x0))
    return x


def auto_grid(schedule: Schedule, method: Sampler) -> str:
    """Return the grid that suits a schedule and a method: the method's own if it has one, or the schedule's."""
    if schedule.alpha(schedule.t_max).item() == 0:
        return "trailing"
    wanted: str = getattr(method, "default_grid", schedule.default_grid)
    return wanted
