"""Step grids: the times at which a sampler stops on its way from noise to data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tabdiff.diffusion.schedules.registry import Schedule

__all__ = ["GRIDS", "Node", "make_path", "node_at", "time_grid"]

GRIDS = ("uniform", "log_snr", "karras", "quadratic", "trailing")


@dataclass(frozen=True)
class Node:
    """A stop of a sampler: a time and the schedule's values there, as float64 numbers.

    The clean end, after ``t_min``, has ``t = t_min``, ``alpha = 1`` and ``sigma = 0``.

    Parameters
    ----------
    t : float
        The time, in [0, 1].
    alpha, sigma : float
        Coefficients of the signal and of the noise there.

    Examples
    --------
    >>> from tabdiff.diffusion import CosineSchedule, node_at
    >>> node = node_at(CosineSchedule(), 0.5)
    >>> round(node.alpha, 3), round(node.sigma, 3)
    (0.707, 0.707)
    """

    t: float
    alpha: float
    sigma: float

    @property
    def lam(self) -> float:
        """Half the log-SNR, ``log(alpha / sigma)``: the time of DPM-Solver."""
        if self.sigma == 0:
            return math.inf
        return math.log(self.alpha / self.sigma) if self.alpha > 0 else -math.inf


def node_at(schedule: Schedule, t: float) -> Node:
    """Return the stop at time `t`.

    Parameters
    ----------
    schedule : Schedule
        The noise schedule.
    t : float
        A time in [0, 1].

    Returns
    -------
    Node
        The time with `alpha` and `sigma` there.

    Examples
    --------
    >>> from tabdiff.diffusion import CosineSchedule, node_at
    >>> node = node_at(CosineSchedule(), 0.5)
    >>> round(node.alpha, 3), round(node.sigma, 3)
    (0.707, 0.707)
    """
    return Node(t, schedule.alpha(t).item(), schedule.sigma(t).item())


def time_grid(schedule: Schedule, n: int, grid: str = "uniform") -> Tensor:
    """Return `n` times that fall from ``t_max`` to ``t_min``; on its own grid for a discrete schedule.

    Parameters
    ----------
    schedule : Schedule
        The noise schedule.
    n : int
        Number of times; 1 gives ``t_max`` alone.
    grid : str
        "uniform" in time; "log_snr", uniform in the log-SNR; "karras", uniform in ``(sigma / alpha) ** (1 /
        7)`` (Karras et al., 2022); "quadratic", uniform in the square root of time (Song et al., 2021, DDIM);
        "trailing", uniform in time without the last: ``t_max (1 - i / n)`` (Lin et al., 2023).

    Returns
    -------
    Tensor
        Shape ``(n,)``, float64, strictly decreasing.

    Raises
    ------
    ValueError
        If the grid is unknown, `n` is below 1 or above the number of times of a discrete schedule, or the
        grid lives in the log-SNR of a schedule that leaves no signal at ``t_max``.

    Examples
    --------
    >>> from tabdiff.diffusion import CosineSchedule, time_grid
    >>> time_grid(CosineSchedule(), 3).round(decimals=3)
    tensor([0.9990, 0.5000, 0.0010], dtype=torch.float64)
    """
    if grid not in GRIDS:
        raise ValueError(f"unknown grid {grid!r}; known ones are {', '.join(GRIDS)}")
    if n < 1:
        raise ValueError(f"a grid needs at least 1 time, got {n}")
    if schedule.n_timesteps is not None and n > schedule.n_timesteps:
        raise ValueError(
            f"the schedule has {schedule.n_timesteps} times, but {n} were asked for; use at most that many steps"
        )
    if grid in ("log_snr", "karras") and schedule.alpha(schedule.t_max).item() == 0:
        raise ValueError(
            f"grid {grid!r} makes no sense where the schedule leaves no signal at t_max, because the log-SNR is "
            "infinite there; use 'uniform', 'quadratic' or 'trailing'"
        )
    times = _spread(schedule, n, grid)
    times[0] = schedule.t_max
    if n > 1 and grid != "trailing":
        times[-1] = schedule.t_min
    return times if schedule.n_timesteps is None else _snap(times, schedule.n_timesteps)


def _spread(schedule: Schedule, n: int, grid: str) -> Tensor:
    low, high = schedule.t_min, schedule.t_max
    if grid == "trailing":
        low = low if schedule.n_timesteps is None else 0.0
        return high - (high - low) * torch.arange(n, dtype=torch.float64) / n
    share = torch.linspace(0, 1, n, dtype=torch.float64)
    if grid == "uniform":
        return high + share * (low - high)
    if grid == "quadratic":
        return (high**0.5 + share * (low**0.5 - high**0.5)) ** 2
    first, last = schedule.log_snr(high).item(), schedule.log_snr(low).item()
    if grid == "log_snr":
        return schedule.t_from_log_snr(first + share * (last - first))
    rho = 7
    roots = [math.exp(-value / 2) ** (1 / rho) for value in (first, last)]
    noise = (roots[0] + share * (roots[1] - roots[0])) ** rho
    return schedule.t_from_log_snr(-2 * noise.log())


def _snap(times: Tensor, n_timesteps: int) -> Tensor:
    """Round to multiples of 1 / n_timesteps, moving as little as it takes to keep them apart."""
    stops = [round(value * n_timesteps) for value in times.tolist()]
    for i in range(1, len(stops)):
        stops[i] = min(stops[i], stops[i - 1] - 1)
    stops[-1] = max(stops[-1], 1)
    for i in range(len(stops) - 2, -1, -1):
        stops[i] = max(stops[i], stops[i + 1] + 1)
    return torch.tensor(stops, dtype=torch.float64) / n_timesteps


def make_path(
    schedule: Schedule,
    steps: int,
    grid: str | Sequence[float] | Tensor = "uniform",
    *,
    denoise_last: bool = True,
) -> list[Node]:
    """Return the ``steps + 1`` stops of a sampler.

    With `denoise_last` the denoiser is asked at `steps` times from ``t_max`` to ``t_min`` and a clean end
    follows them; without it the last of ``steps + 1`` times is ``t_min``, where the denoiser is not asked.
    Either way a method with one evaluation a step makes `steps` of them.

    Parameters
    ----------
    schedule : Schedule
        The noise schedule.
    steps : int
        Number of steps, at least 1.
    grid : str or sequence of float
        A name from ``GRIDS``, or the decreasing times themselves (then `steps` is not used).
    denoise_last : bool
        Whether the path ends with clean data rather than at ``t_min``.

    Returns
    -------
    list of Node
        From noise to data.

    Raises
    ------
    ValueError
        As `time_grid`; or if the times given do not decrease within ``[t_min, t_max]``.

    Examples
    --------
    >>> from tabdiff.diffusion import CosineSchedule, make_path
    >>> [round(node.t, 3) for node in make_path(CosineSchedule(), 3)]
    [0.999, 0.5, 0.001, 0.001]
    """
    if isinstance(grid, str):
        if steps < 1:
            raise ValueError(f"steps must be at least 1, got {steps}")
        if denoise_last:
            times = time_grid(schedule, steps, grid)
        else:
            times = time_grid(schedule, steps + 1, "uniform" if grid == "trailing" else grid)
    else:
        times = torch.as_tensor(grid, dtype=torch.float64)
        inside = times.numel() and schedule.t_min <= times.min() and times.max() <= schedule.t_max
        if times.dim() != 1 or not inside or bool((times.diff() >= 0).any()):
            raise ValueError(
                f"the times of a grid must decrease within [{schedule.t_min:g}, {schedule.t_max:g}], got {grid!r}"
            )
    path = [node_at(schedule, t) for t in times.tolist()]
    return path + [Node(path[-1].t, 1.0, 0.0)] if denoise_last else path
