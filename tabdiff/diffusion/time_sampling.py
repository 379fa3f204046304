"""How times are drawn in training.

Each way is a callable ``times(batch_size, schedule, generator=None, *, device=None, dtype=torch.float32)``
that returns times of shape ``(batch_size,)`` in ``[t_min, t_max]``; for a discrete schedule they lie on its
grid ``k / T``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from tabdiff.diffusion.schedules.registry import Schedule

__all__ = ["TIMES", "LogNormal", "LogitNormal", "LossAware", "Times", "make_times", "stratified", "uniform"]


class Times(Protocol):
    """Anything that draws training times.

    Parameters
    ----------
    *args, **kwargs
        Options of the class that follows the protocol, where it is no function; the protocol itself cannot be made.

    Examples
    --------
    A function that prefers the noisy end, and the loss at times that it draws:

    >>> import torch
    >>> from tabdiff.diffusion import CosineSchedule, Denoiser, uniform
    >>> def late(batch_size, schedule, generator=None, *, device=None, dtype=torch.float32):
    ...     draws = [uniform(batch_size, schedule, generator, device=device, dtype=dtype) for _ in range(2)]
    ...     return torch.maximum(*draws)
    >>> denoiser = Denoiser(lambda x, t, c: torch.zeros_like(x), CosineSchedule())
    >>> t = late(512, denoiser.schedule, torch.Generator().manual_seed(0))
    >>> bool(t.mean() > 0.6), denoiser.loss(torch.zeros(512, 2), t=t, eps=torch.ones(512, 2)).shape
    (True, torch.Size([512]))
    """

    def __call__(
        self,
        batch_size: int,
        schedule: Schedule,
        generator: torch.Generator | None = None,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Return times of shape ``(batch_size,)``."""


def uniform(
    batch_size: int,
    schedule: Schedule,
    generator: torch.Generator | None = None,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Draw independent uniform times, shape ``(batch_size,)``.

    Parameters
    ----------
    batch_size : int
        How many.
    schedule : Schedule
        The schedule whose times they are.
    generator : torch.Generator, optional
        Source of randomness; drawing happens on its device.
    device : torch.device or str, optional
        Where the result is wanted; by default where it was drawn.
    dtype : torch.dtype
        Of the result.

    Returns
    -------
    Tensor of shape (batch_size,)
        Times of the schedule.

    Examples
    --------
    >>> import torch
    >>> from tabdiff.diffusion import CosineSchedule, uniform
    >>> uniform(4, CosineSchedule(), torch.Generator().manual_seed(0)).shape
    torch.Size([4])
    """
    source = generator.device if generator is not None else device
    u = torch.rand(batch_size, generator=generator, device=source, dtype=torch.float32)
    return from_unit(u, schedule).to(device or u.device, dtype)


def stratified(
    batch_size: int,
    schedule: Schedule,
    generator: torch.Generator | None = None,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
    permute: bool = False,
) -> Tensor:
    """Draw times that cover the range evenly: one uniform offset plus ``k / batch_size``, modulo 1.

    Each time by itself is uniform, so a loss stays unbiased; together they vary far less than independent
    ones.

    Parameters
    ----------
    batch_size, schedule, generator, device, dtype
        As for `uniform`.
    permute : bool
        Whether to shuffle them. It matters only where the order of the rows in the batch means something.

    Returns
    -------
    Tensor of shape (batch_size,)
        Times of the schedule.

    References
    ----------
    Kingma et al., "Variational Diffusion Models", 2021, appendix I.1.

    Examples
    --------
    >>> import torch
    >>> from tabdiff.diffusion import CosineSchedule, stratified
    >>> stratified(4, CosineSchedule(), torch.Generator().manual_seed(0)).shape
    torch.Size([4])
    """
    source = generator.device if generator is not None else device
    offset = torch.rand(1, generator=generator, device=source, dtype=torch.float32)
    u = (offset + torch.arange(batch_size, device=offset.device) / batch_size) % 1
    if permute:
        u = u[torch.randperm(batch_size, generator=generator, device=offset.device)]
    return from_unit(u, schedule).to(device or u.device, dtype)


def from_unit(u: Tensor, schedule: Schedule) -> Tensor:
    """Map numbers uniform on [0, 1) to uniform times of the schedule, of the dtype of `u`."""
    if schedule.n_timesteps is not None:
        return ((u * schedule.n_timesteps).floor() + 1).clamp(max=schedule.n_timesteps) / schedule.n_timesteps
    return schedule.t_min + u * (schedule.t_max - schedule.t_min)


@dataclass(frozen=True)
class LogNormal:
    """Noise levels ``sigma / alpha`` whose logarithm is normal: neither trivial nor hopeless ones.

    Levels outside the schedule's range are moved to its ends.

    Parameters
    ----------
    mean, std : float
        Of the logarithm.

    References
    ----------
    Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", 2022, table 1.

    Examples
    --------
    >>> import torch
    >>> from tabdiff.diffusion import CosineSchedule, LogNormal
    >>> t = LogNormal()(1000, CosineSchedule(), torch.Generator().manual_seed(0))
    >>> t.shape, bool((t > 0).all() and (t < 1).all())
    (torch.Size([1000]), True)
    """

    mean: float = -1.2
    std: float = 1.2

    def __call__(
        self,
        batch_size: int,
        schedule: Schedule,
        generator: torch.Generator | None = None,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Draw times, shape ``(batch_size,)``; see `uniform` for the arguments."""
        source = generator.device if generator is not None else device
        log_noise = self.mean + self.std * torch.randn(batch_size, generator=generator, device=source)
        t = schedule.t_from_log_snr(-2 * log_noise).clamp(schedule.t_min, schedule.t_max)
        return to_grid(t, schedule).to(device or t.device, dtype)


@dataclass(frozen=True)
class LogitNormal:
    """Times whose logit, within ``[t_min, t_max]``, is normal: effort in the middle.

    Parameters
    ----------
    mean, std : float
        Of the logit.

    References
    ----------
    Esser et al., "Scaling Rectified Flow Transformers for High-Resolution Image Synthesis", 2024, section
    3.1.

    Examples
    --------
    >>> import torch
    >>> from tabdiff.diffusion import CosineSchedule, LogitNormal
    >>> t = LogitNormal()(1000, CosineSchedule(), torch.Generator().manual_seed(0))
    >>> t.shape, bool((t > 0).all() and (t < 1).all())
    (torch.Size([1000]), True)
    """

    mean: float = 0.0
    std: float = 1.0

    def __call__(
        self,
        batch_size: int,
        schedule: Schedule,
        generator: torch.Generator | None = None,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Draw times, shape ``(batch_size,)``; see `uniform` for the arguments."""
        source = generator.device if generator is not None else device
        u = torch.sigmoid(self.mean + self.std * torch.randn(batch_size, generator=generator, device=source))
        t = from_unit(u, schedule)
        return t.to(device or t.device, dtype)


def to_grid(t: Tensor, schedule: Schedule) -> Tensor:
    """Round times to the grid of a discrete schedule; times of a continuous one stay as they are."""
    if schedule.n_timesteps is None:
        return t
    return (t * schedule.n_timesteps).round().clamp(min=1) / schedule.n_timesteps


class LossAware:
    """Importance sampling of times by the second moments of their losses.

    Time is cut into bins; for a discrete schedule their number must divide that of its times. Each bin keeps
    the last losses seen in it and is drawn in proportion to the root of their mean square; `weights` makes up
    for that, so that the weighted mean of the losses stays that of uniform times, with less variance. Until
    every bin has its full history, times are uniform. What is learned lies on the device that times are drawn on, and
    is never read back.

    Parameters
    ----------
    n_bins : int
        Number of bins.
    history : int
        Losses kept per bin.
    uniform_share : float
        Share of draws that stay uniform, so that no bin is forgotten.

    References
    ----------
    Nichol and Dhariwal, "Improved Denoising Diffusion Probabilistic Models", 2021, equation 18.

    Examples
    --------
    >>> import torch
    >>> from tabdiff.diffusion import CosineSchedule, LossAware
    >>> times = LossAware(n_bins=10)
    >>> times(4, CosineSchedule(), torch.Generator().manual_seed(0)).shape
    torch.Size([4])
    """

    def __init__(self, n_bins: int = 100, history: int = 10, uniform_share: float = 0.001) -> None:
        if n_bins < 1 or history < 1 or not 0 < uniform_share <= 1:
            raise ValueError(
                f"n_bins and history must be at least 1 and uniform_share in (0, 1], got {n_bins}, {history} and "
                f"{uniform_share}"
            )
        self.n_bins = n_bins
        self.history = history
        self.uniform_share = uniform_share
        self._losses = torch.zeros(n_bins, history, dtype=torch.float64)
        self._counts = torch.zeros(n_bins, dtype=torch.int64)

    def to(self, device: torch.device | str) -> LossAware:
        """Move what was learned to a device; does nothing where it lies there."""
        self._losses, self._counts = self._losses.to(device), self._counts.to(device)
        return self

    @property
    def probabilities(self) -> Tensor:
        """Probability of each bin, shape ``(n_bins,)``, float64."""
        even = torch.full_like(self._losses[:, 0], 1 / self.n_bins)
        root = self._losses.square().mean(1).sqrt()
        total = root.sum()
        learned = (1 - self.uniform_share) * root / total + self.uniform_share * even
        return torch.where((self._counts < self.history).any() | (total == 0), even, learned)

    def __call__(
        self,
        batch_size: int,
        schedule: Schedule,
        generator: torch.Generator | None = None,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Draw times, shape ``(batch_size,)``; see `uniform` for the arguments.

        Raises
        ------
        ValueError
            If the times of a discrete schedule cannot be shared evenly among the bins.
        """
        if schedule.n_timesteps is not None and schedule.n_timesteps % self.n_bins:
            raise ValueError(
                f"{schedule.n_timesteps} times cannot be shared evenly among {self.n_bins} bins; choose n_bins so "
                "that it divides n_timesteps"
            )
        source = generator.device if generator is not None else torch.device(device or "cpu")
        self.to(source)
        bins = torch.multinomial(self.probabilities.float(), batch_size, replacement=True, generator=generator)
        within = torch.rand(batch_size, generator=generator, device=source)
        return from_unit((bins + within) / self.n_bins, schedule).to(device or source, dtype)

    def weights(self, t: Tensor, schedule: Schedule) -> Tensor:
        """Return the weight of the loss at each time, ``1 / (n_bins p)``, of the shape and dtype of `t`."""
        return (1 / (self.n_bins * self.probabilities))[self._bins(t, schedule)].to(t)

    def update(self, t: Tensor, losses: Tensor, schedule: Schedule) -> None:
        """Remember the unweighted losses, shape ``(B,)``, at the times `t`, shape ``(B,)``."""
        bins, order = self._bins(t, schedule).sort(stable=True)
        # Each takes the next place of its bin; of more than there are places, the last ones stay. In the same places
        # of memory, so that a captured step finds them again.
        place = torch.arange(len(bins), device=bins.device)
        first = torch.searchsorted(bins, bins)
        behind = torch.searchsorted(bins, bins, right=True)
        slot = bins * self.history + (self._counts[bins] + place - first) % self.history
        # What does not stay goes to a place of its own, which is cut off.
        slot = torch.where(behind - place <= self.history, slot, self._losses.numel())
        values = losses.detach()[order].to(self._losses)
        flat = torch.cat([self._losses.flatten(), self._losses.new_zeros(1)]).scatter(0, slot, values)
        self._losses.copy_(flat[:-1].reshape(self._losses.shape))
        self._counts.scatter_add_(0, bins, torch.ones_like(bins))

    def state_dict(self) -> dict[str, Tensor]:
        """Return what was learned, for a checkpoint."""
        return {"losses": self._losses, "counts": self._counts}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over what `state_dict` returned."""
        self._losses.copy_(state["losses"])
        self._counts.copy_(state["counts"])

    def _bins(self, t: Tensor, schedule: Schedule) -> Tensor:
        t = t.detach().to(self._losses.device).double()
        if schedule.n_timesteps is not None:
            share = ((t * schedule.n_timesteps).round() - 0.5) / schedule.n_timesteps
        else:
            share = (t - schedule.t_min) / (schedule.t_max - schedule.t_min)
        return (share * self.n_bins).floor().long().clamp(0, self.n_bins - 1)


_BY_NAME: dict[str, Callable[[], Times]] = {
    "uniform": lambda: uniform,
    "stratified": lambda: stratified,
    "log_normal": LogNormal,
    "logit_normal": LogitNormal,
    "loss_aware": LossAware,
}
TIMES = tuple(_BY_NAME)


def make_times(times: str | Times) -> Times:
    """Return a way to draw times by its name; a callable is returned as it is.

    Parameters
    ----------
    times : str or Times
        A name, or a callable that draws times.

    Returns
    -------
    Times
        What draws times.

    Raises
    ------
    ValueError
        If the name is unknown.

    Examples
    --------
    >>> from tabdiff.diffusion import make_times
    >>> make_times("log_normal")
    LogNormal(mean=-1.2, std=1.2)
    """
    if not isinstance(times, str):
        return times
    if times not in _BY_NAME:
        raise ValueError(f"unknown times {times!r}; known ones are {', '.join(sorted(_BY_NAME))}")
    return _BY_NAME[times]()
