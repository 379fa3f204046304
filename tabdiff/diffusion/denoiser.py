"""Denoisers: what estimates the clean row from a noisy one.

A denoiser is anything of the form ``denoiser(x_t, t, condition=None) -> x0`` that carries a ``schedule``.
`Denoiser` makes one of a network; `tabdiff.diffusion.oracles` has exact ones for Gaussian and mixture data;
guidance and averaging wrap one and are one. Samplers, likelihoods and everything else here see only this
form.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from tabdiff.diffusion.learned_variance import VLB_WEIGHT, bound_terms, step_log_variances, to_share
from tabdiff.diffusion.losses import Loss, make_loss
from tabdiff.diffusion.masks import given_inputs
from tabdiff.diffusion.schedules.registry import Schedule
from tabdiff.diffusion.targets import _to_x0, check_target, edm_coefficients, target_of
from tabdiff.utils.random import RowStreams

__all__ = ["Denoiser", "DenoiserLike", "LikelihoodParts", "PairedDenoiser", "coefficients", "learned_variance"]


@dataclass(frozen=True)
class LikelihoodParts:
    """How the bound of the likelihood of rows falls into parts; see `tabdiff.diffusion.bound.variational_bound`.

    Attributes
    ----------
    clean : Tensor of shape (B, width)
        Clean rows, as they are noised.
    known, numbers : Tensor of bool, of the shape of `clean`, or None
        Which entries count, and which are numbers; None is all.
    log_decoder : callable or None
        ``log_decoder(x_t, t)``: the log-probability (B,) of what is no number.
    """

    clean: Tensor
    known: Tensor | None = None
    numbers: Tensor | None = None
    log_decoder: Callable[[Tensor, Tensor], Tensor] | None = None


class DenoiserLike(Protocol):
    """Anything that estimates the clean row from a noisy one at a known time.

    Parameters
    ----------
    *args, **kwargs
        Parameters of the class that follows the protocol; the protocol itself cannot be made.

    Attributes
    ----------
    schedule : Schedule
        The noise schedule.

    Examples
    --------
    The exact estimate for standard normal rows, to sample with:

    >>> import torch
    >>> from tabdiff.diffusion import CosineSchedule, coefficients, sample
    >>> class StandardNormal:
    ...     schedule = CosineSchedule()
    ...
    ...     def __call__(self, x_t, t, condition=None):
    ...         alpha, sigma = coefficients(self.schedule, t, x_t)
    ...         return alpha / (alpha**2 + sigma**2) * x_t
    >>> rows = sample(StandardNormal(), torch.randn(1000, 2, generator=torch.Generator().manual_seed(0)))
    >>> abs(float(rows.std()) - 1) < 0.05
    True
    """

    schedule: Schedule

    def __call__(self, x_t: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return the estimate of the clean row, of the shape of `x_t`."""


@runtime_checkable
class PairedDenoiser(Protocol):
    """A denoiser whose estimate of the noise is not the one that follows from its estimate of the clean row."""

    schedule: Schedule

    def x0_and_eps(self, x_t: Tensor, t: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the estimates of the clean row and of the noise, each of the shape of `x_t`."""


def coefficients(schedule: Schedule, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``(alpha, sigma)`` at `t` in the dtype of `like`, shaped to broadcast against its rows.

    Parameters
    ----------
    schedule : Schedule
        The noise schedule.
    t : Tensor
        Time, 0-d or shape ``(B,)``.
    like : Tensor
        Rows, shape ``(B, *)``.

    Returns
    -------
    tuple of Tensor
        Signal and noise, each of shape ``(B, 1, ...)`` or 0-d.

    Examples
    --------
    >>> import torch
    >>> from tabdiff.diffusion import CosineSchedule, coefficients
    >>> alpha, sigma = coefficients(CosineSchedule(), torch.tensor([0.2, 0.8]), torch.zeros(2, 3))
    >>> alpha.shape, alpha.square() + sigma.square()
    (torch.Size([2, 1]), tensor([[1.],
            [1.]]))
    """
    t = t.detach().double() if t.device.type != "mps" else t.detach()
    shape = t.shape + (1,) * (like.dim() - 1) if t.dim() else t.shape
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    if t.dim():
        alpha, sigma = alpha.to(like.device), sigma.to(like.device)
    return alpha.to(like.dtype).reshape(shape), sigma.to(like.dtype).reshape(shape)


class Denoiser(nn.Module):
    """A network, a schedule and a target: together an estimate of the clean row.

    The network is called as ``network(x, t, c)``: `x` is the noisy row scaled to unit variance (for data of
    standard deviation `sigma_data`), `t` of shape ``(B,)`` is the time in [0, 1] and `c` of shape ``(B,
    condition_size)`` the embedded condition, or None where there is no `condition_embedding`. It returns a
    tensor of the shape of `x`: a prediction of the target. With the target "score" it returns ``sigma *
    score``, because a score itself grows without bound towards the clean end (Song et al., 2021, divide by
    sigma likewise).

    Parameters
    ----------
    network : nn.Module or callable
        Called as ``network(x, t, c)``.
    schedule : Schedule
        The noise schedule.
    target : str
        What the network predicts: "eps", "x0", "v", "flow", "score" or "edm".
    condition_embedding : nn.Module, optional
        Called as ``condition_embedding(condition, B)``, with a condition of shape ``(B, k)``, NaN for a null
        entry, or None for all null; returns ``c``.
    loss : str or Loss
        How the errors at different times and of different sizes are weighed; see `tabdiff.diffusion.losses`.
    sigma_data : float
        Standard deviation of the data; 1 for standardised data.
    bounds : Tensor, optional
        Smallest and largest value that the data have, shape ``(2, *)``; the estimate of the clean row is clipped to
        them. The targets "eps" and "score" need it: at the noisy end their estimate is the network's error times
        ``1 / alpha``, and rows that leave the data there do not come back (`clip_denoised` of Ho et al., 2020).
    n_given : int
        Number of columns of the data, where the network can be told which entries of a row are given; else 0. It is
        then called as ``network(x, t, c, given)``, and a condition may have `n_given` columns more, at its end, that
        say what is given: see `tabdiff.diffusion.masks`. A `condition_embedding` then has `n_attributes`, the number of
        columns of a condition proper.
    learned_variance : bool
        Whether the network also says how wide each ancestral step is: it then returns twice as many entries along the
        first dimension of a row, the prediction and behind it one number for each variance; see
        `tabdiff.diffusion.learned_variance`. The loss is the hybrid one. It needs a discrete schedule.

    Attributes
    ----------
    schedule : Schedule
        The noise schedule.

    Raises
    ------
    ValueError
        If the target is unknown, or makes no sense with the schedule: "eps" and "score" where the schedule
        leaves no signal at ``t_max``, "v" where the noise explodes; for a learned variance in continuous time.

    Notes
    -----
    The estimate that "eps" and "score" stand for has ``1 / alpha`` times their error. Where the schedule goes on to
    very little signal (0.0016 for the continuous cosine, 0.007 for the VP-SDE) a small network then throws some rows
    far off; "v", the default, does not.

    Examples
    --------
    >>> import torch
    >>> from tabdiff.diffusion import CosineSchedule
    >>> denoiser = Denoiser(lambda x, t, c: torch.zeros_like(x), CosineSchedule(), target="x0")
    >>> denoiser(torch.ones(2, 3), torch.tensor(0.5))
    tensor([[0., 0., 0.],
            [0., 0., 0.]])
    """

    # Whether the network keeps dozens of maps of each row, as a U-Net does, so that fewer rows fill memory.
    keeps_maps = False
    # Whether rows hold codes of levels, which are drawn behind the last step of a sampler.
    has_levels = False
    # How many random numbers a row takes for that, in `finish`.
    n_drawn_levels = 0
    # How many of the entries of data are numbers, which stand first; None where all are.
    n_continuous: int | None = None

    def __init__(
        self,
        network: nn.Module | Callable[[Tensor, Tensor, Tensor | None], Tensor],
        schedule: Schedule,
        target: str = "v",
        condition_embedding: nn.Module | None = None,
        *,
        loss: str | Loss = "simple",
        sigma_data: float = 1.0,
        bounds: Tensor | None = None,
        n_given: int = 0,
        learned_variance: bool = False,
    ) -> None:
        super().__init__()
        check_target(target)
        if learned_variance:
            step_log_variances(schedule, torch.ones(1))  # raises where there are no steps
        last_alpha, last_sigma = schedule.alpha(schedule.t_max).item(), schedule.sigma(schedule.t_max).item()
        if target in ("eps", "score") and last_alpha == 0:
            raise ValueError(
                f"target {target!r} makes no sense with a schedule that leaves no signal at t_max (alpha = 0): from "
                "pure noise the noise is known and the row is not; use target 'v', 'x0', 'flow' or 'edm'"
            )
        if target == "v" and last_sigma > 10:
            raise ValueError(
                f"target 'v' makes no sense with schedule {schedule.name!r}, whose noise grows to {last_sigma:g}: "
                "the network would have to return values of that size; use target 'edm', 'eps', 'flow' or 'x0'"
            )
        self.network = network
        self.schedule = schedule
        self.target = target
        self.condition_embedding = condition_embedding
        self.objective = make_loss(loss)
        self.sigma_data = sigma_data
        self.n_given = n_given
        self.learned_variance = learned_variance
        # Only behind what is asked for does a condition say what is given of rows.
        embedding: Any = condition_embedding if n_given else None
        self.n_attributes = 0 if embedding is None else int(embedding.n_attributes)
        self.bounds: Tensor | None
        self.register_buffer("bounds", bounds)

    def clip(self, x0: Tensor) -> Tensor:
        """Clip estimates of clean rows to the bounds, where there are any."""
        return x0 if self.bounds is None else x0.clamp(self.bounds[0], self.bounds[1])

    def forward(self, x_t: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """Estimate the clean row.

        Parameters
        ----------
        x_t : Tensor
            Noisy rows, shape ``(B, *)``.
        t : Tensor
            Time in ``[schedule.t_min, schedule.t_max]``, 0-d or shape ``(B,)``.
        condition : Tensor, optional
            Shape ``(B, k)``, NaN for a null entry; None is all null.

        Returns
        -------
        Tensor
            The estimate of the clean row, of the shape and dtype of `x_t`.
        """
        return self._estimate(self.predict(x_t, t, condition), x_t, t, condition)

    def numbers(self, x_t: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """Estimate the clean numbers of rows, as `forward` does: here they are all that there is."""
        estimate: Tensor = self(x_t, t, condition)
        return estimate

    def finish(
        self, rows: Tensor, condition: Tensor | None = None, generator: torch.Generator | RowStreams | None = None
    ) -> Tensor:
        """Return data (B, d) for what a sampler ended at, the clean rows; see `MixedDenoiser.finish`."""
        return rows

    def share_levels(self, other: Denoiser) -> None:
        """Take the embeddings of levels of another denoiser of the same rows, and keep them; here there are none."""

    def likelihood_parts(self, data: Tensor, condition: Tensor | None) -> LikelihoodParts:
        """Return how the bound of a row's likelihood falls into parts; here all entries are numbers and known.

        Parameters
        ----------
        data : Tensor of shape (B, d)
            Encoded rows.
        condition : Tensor of shape (B, k), optional
            Their encoded condition.
        """
        return LikelihoodParts(data)

    def x0_and_share(self, x_t: Tensor, t: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the estimate of the clean rows, and the share v in [0, 1] that says the variance of each entry's step.

        For a denoiser with a learned variance alone; see `forward` for the arguments.
        """
        prediction, share = self._parts(self.raw(x_t, t, condition), x_t, t)
        assert share is not None
        return self._estimate(prediction, x_t, t, condition), share.clamp(0, 1)

    def _estimate(self, prediction: Tensor, x_t: Tensor, t: Tensor, condition: Tensor | None) -> Tensor:
        alpha, sigma = coefficients(self.schedule, t, x_t)
        return self.hold(self.clip(_to_x0(prediction, x_t, alpha, sigma, self.target, self.sigma_data)), condition)

    def split(self, condition: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """Return the condition proper (B, k), and what is given of the rows (B, n_given); None where there is none."""
        if condition is None or not self.n_given or condition.shape[1] != self.n_attributes + self.n_given:
            return condition, None
        return condition[:, : self.n_attributes] if self.n_attributes else None, condition[:, self.n_attributes :]

    def hold(self, x0: Tensor, condition: Tensor | None) -> Tensor:
        """Put the entries that are held in the place of their estimates."""
        given = self.split(condition)[1]
        if given is None:
            return x0
        return torch.where(self._widen(given.isfinite()), self._clean(given), x0)

    def _clean(self, given: Tensor) -> Tensor:
        """Return clean rows of what is held, 0 elsewhere."""
        return torch.where(given.isfinite(), given, 0.0)

    def _widen(self, mask: Tensor) -> Tensor:
        """Map a mask of columns of the data to one of entries of noisy rows."""
        return mask

    def predict(self, x_t: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return the network's prediction of the target itself; see `forward` for the arguments."""
        return self._parts(self.raw(x_t, t, condition), x_t, t)[0]

    def _parts(self, output: Tensor, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the prediction of the target, and the share v of each entry where the variance is learned."""
        share = None
        if self.learned_variance:
            output, variance = output.chunk(2, dim=1)
            share = to_share(variance)
        return output / coefficients(self.schedule, t, x_t)[1] if self.target == "score" else output, share

    def raw(self, x_t: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return what the network returns; see `forward` for the arguments."""
        alpha, sigma = coefficients(self.schedule, t, x_t)
        c_in, _, _ = edm_coefficients(alpha, sigma, self.sigma_data)
        network_t = _on_device(self.schedule.network_time(t), x_t).expand(len(x_t))
        condition, given = self.split(condition)
        if given is None:
            output: Tensor = self.network(c_in * x_t, network_t, self.embed(condition, x_t))
            return output
        seen, marks = given_inputs(given)
        x = (c_in * x_t).masked_fill(self._widen(seen), 0.0)
        values = torch.cat([self._clean(given).to(x.dtype), marks.to(x.dtype)], dim=1)
        network: Callable[..., Tensor] = self.network
        return network(x, network_t, self.embed(condition, x_t), values)

    def embed(self, condition: Tensor | None, like: Tensor) -> Tensor | None:
        """Return the embedded condition for the rows `like`, shape ``(B, condition_size)``, or None."""
        if self.condition_embedding is None:
            if condition is not None:
                raise ValueError(
                    "a condition was given to a denoiser that has no condition_embedding; leave the condition out"
                )
            return None
        embedded: Tensor = self.condition_embedding(condition, len(like))
        return embedded

    def loss(self, x0: Tensor, condition: Tensor | None = None, *, t: Tensor, eps: Tensor) -> Tensor:
        """Return the training loss of each row.

        Parameters
        ----------
        x0 : Tensor
            Clean rows, shape ``(B, *)``.
        condition : Tensor, optional
            Shape ``(B, k)``, NaN for a null entry.
        t : Tensor
            Times, shape ``(B,)``; see `tabdiff.diffusion.time_sampling`.
        eps : Tensor
            Standard normal noise, of the shape of `x0`.

        Returns
        -------
        Tensor
            Shape ``(B,)``. For the loss "simple" the mean squared error of the target over the entries of the
            row (for "score", of ``sigma * score``). With a learned variance 0.001 times the variational bound, in bits
            per entry, comes on top of it; for times drawn uniformly its mean is the sum over all steps.
        """
        alpha, sigma = coefficients(self.schedule, t, x0)
        x_t = alpha * x0 + sigma * eps
        target = target_of(x0, eps, alpha, sigma, self.target, sigma_data=self.sigma_data)
        prediction, share = self._parts(self.raw(x_t, t, condition), x_t, t)
        error = prediction - target
        given = self.split(condition)[1]
        seen = None if given is None else given_inputs(given)[0]
        if seen is not None:  # what the network sees costs nothing
            error = error.masked_fill(seen, 0.0)
        rows = self.objective(error, self.schedule, t, self.target, sigma_data=self.sigma_data)
        if share is None:
            return rows
        estimate = _to_x0(prediction, x_t, alpha, sigma, self.target, self.sigma_data)
        terms = bound_terms(x0, estimate, share, self.schedule, t)
        if seen is not None:
            terms = terms.masked_fill(seen, 0.0)
        steps = self.schedule.n_timesteps or 1
        return rows + terms.flatten(1).mean(1) * (VLB_WEIGHT * steps / math.log(2))


def _on_device(t: Tensor, like: Tensor) -> Tensor:
    """Return times on the device of rows and in their dtype.

    One time on the host is written there by the launch of a kernel; a copy would make a GPU wait for the host.
    """
    if t.dim() or t.device.type != "cpu" or like.device.type == "cpu":
        return t.to(like.device, like.dtype)
    return torch.full((), t.item(), dtype=like.dtype, device=like.device)


def learned_variance(denoiser: DenoiserLike) -> Denoiser | None:
    """Return the denoiser with a learned variance that guidance wraps, or that it is; None where there is none."""
    modules = denoiser.modules() if isinstance(denoiser, nn.Module) else ()
    return next((m for m in modules if isinstance(m, Denoiser) and m.learned_variance), None)
