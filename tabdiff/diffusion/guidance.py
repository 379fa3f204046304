"""Guidance: denoisers that wrap a denoiser and push its estimate.

The scale `s` means ``D_null + s (D_condition - D_null)``: 1 is no guidance, 0 unconditional. The literature's
other form, ``(1 + w) eps_condition - w eps_null``, is ``s = 1 + w``. Estimates of the clean row, of the noise
and of the velocity are linear in each other at a fixed ``x_t``, so the rule is the same in each of them.

Estimates under several conditions come from one evaluation of as many times the rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from tabdiff.diffusion.denoiser import DenoiserLike, coefficients
from tabdiff.diffusion.schedules.registry import Schedule
from tabdiff.diffusion.targets import _to_x0, check_target, target_of, to_eps

__all__ = [
    "AutoGuidance",
    "CFGPlusPlus",
    "ClassifierFreeGuidance",
    "ClassifierGuidance",
    "MultiConditionGuidance",
]


class ClassifierFreeGuidance(nn.Module):
    """Classifier-free guidance: ``D_null + scale (D_condition - D_null)``.

    A scale of 1, and a missing condition, cost one evaluation of the rows as they are; so does a scale of 0,
    and any scale outside the interval.

    Parameters
    ----------
    denoiser : callable
        A denoiser trained with condition dropout.
    scale : float
        Guidance scale.
    interval : tuple of float, optional
        Noise levels ``sigma / alpha`` from the lowest to the highest at which to guide; elsewhere the scale
        is 1. Guidance at high noise costs diversity, and at low noise does nothing (Kynkäänniemi et al.,
        2024).
    rescale : float
        Between 0 and 1: how far each guided prediction is shrunk to the standard deviation, over the entries of
        its row, of the conditional one. It takes back the oversaturation that large scales bring (Lin et al.,
        2023, use 0.7). Meant for rows of many like entries, such as images.
    rescale_target : str
        Of which prediction, one of ``TARGETS``; it makes a difference, because a standard deviation is not linear.
        "v" is that of the paper. Implementations take what their network predicts, which for a network of another
        target is to be named here ("edm" for a `sigma_data` of 1); "x0" rescales the estimate of the clean row.
    negative : Tensor, optional
        A condition of shape ``(k,)`` or ``(B, k)`` that takes the place of the null one: guidance leads away
        from it.

    References
    ----------
    Ho and Salimans, "Classifier-Free Diffusion Guidance", 2022; Kynkäänniemi et al., "Applying Guidance in a
    Limited Interval Improves Sample and Distribution Quality in Diffusion Models", 2024; Lin et al., "Common
    Diffusion Noise Schedules and Sample Steps are Flawed", 2023.

    Examples
    --------
    >>> import torch
    >>> from tabdiff.diffusion import ClassifierFreeGuidance, CosineSchedule, GaussianDenoiser, sample
    >>> denoiser = GaussianDenoiser(torch.zeros(2), torch.eye(2), CosineSchedule())
    >>> guided = ClassifierFreeGuidance(denoiser, 2.0, interval=(0.2, 0.8))
    >>> sample(guided, torch.ones(3, 2), steps=8).shape
    torch.Size([3, 2])
    """

    def __init__(
        self,
        denoiser: DenoiserLike,
        scale: float,
        *,
        interval: tuple[float, float] | None = None,
        rescale: float = 0.0,
        rescale_target: str = "v",
        negative: Tensor | None = None,
    ) -> None:
        super().__init__()
        check_wrapped(denoiser, self)
        check_target(rescale_target)
        if rescale and rescale_target in ("eps", "score"):
            needs_signal(denoiser.schedule, f"rescale_target={rescale_target!r}")
        if interval is not None and not 0 <= interval[0] <= interval[1]:
            raise ValueError(f"interval must be two increasing noise levels of at least 0, got {interval}")
        if not 0 <= rescale <= 1:
            raise ValueError(f"rescale must lie in [0, 1], got {rescale}")
        self.denoiser = denoiser
        self.schedule = denoiser.schedule
        self.scale = scale
        self.interval = interval
        self.rescale = rescale
        self.rescale_target = rescale_target
        self.negative = negative

    def forward(self, x_t: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return the guided estimate of the clean rows; see `Denoiser.forward` for the arguments."""
        if condition is None or self.scale == 1:
            return self.denoiser(x_t, t, condition)
        null = null_like(condition) if self.negative is None else self.negative.expand_as(condition)
        inside = None if self.interval is None else self._inside(t, self.interval)
        # A time that lies on a GPU is not read back, which would make it wait: there both estimates are made.
        on_host = t.dim() == 0 and t.device.type == "cpu"
        if on_host and inside is not None and not bool(inside):
            return self.denoiser(x_t, t, condition)
        if self.scale == 0 and t.dim() == 0 and (inside is None or on_host):
            return self.denoiser(x_t, t, null)
        base, conditional = estimates(self.denoiser, x_t, t, [null, condition])
        guided = base + self.scale * (conditional - base)
        if self.rescale:
            guided = self._shrink(guided, conditional, x_t, t)
        if inside is None or on_host:
            return guided
        inside = inside.to(x_t.device).reshape(-1, *(1,) * (x_t.dim() - 1)) if t.dim() else inside
        return torch.where(inside, guided, conditional)

    def _inside(self, t: Tensor, interval: tuple[float, float]) -> Tensor:
        noise = (-self.schedule.log_snr(t) / 2).exp()
        return (noise >= interval[0]) & (noise <= interval[1])

    def _shrink(self, guided: Tensor, conditional: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        if guided[0].numel() < 2:
            raise ValueError("rescale needs rows of at least 2 entries, whose standard deviation it compares")
        alpha, sigma = coefficients(self.schedule, t, x_t)
        predicted, aim = (
            target_of(x0, to_eps(x0, x_t, alpha, sigma), alpha, sigma, self.rescale_target)
            for x0 in (guided, conditional)
        )
        wanted, got = (v.flatten(1).std(1).reshape(-1, *(1,) * (v.dim() - 1)) for v in (aim, predicted))
        rescaled = predicted * (self.rescale * wanted / got + 1 - self.rescale)
        return _to_x0(rescaled, x_t, alpha, sigma, self.rescale_target)  # the signal was looked at before


class CFGPlusPlus(nn.Module):
    """CFG++: the guided estimate of the clean row, with the noise of the unguided one.

    Each step moves to the guided row and puts back the noise that the model sees without the condition, so
    the path stays on the data for scales between 0 and 1, where ordinary guidance needs large ones. A scale of
    1 is full guidance, not none. Only methods whose steps put the noise back can use it: "ddim", "ddpm" and
    "predictor_corrector", whose corrections are those of the unguided score. Others raise an error: what they
    follow is a velocity, and guided row and unguided noise together make none. On a schedule whose alpha does not
    change (EDM, VE) it would not be guided at all.

    Parameters
    ----------
    denoiser : callable
        A denoiser trained with condition dropout.
    scale : float
        Between 0 and 1.

    References
    ----------
    Chung et al., "CFG++: Manifold-constrained Classifier Free Guidance for Diffusion Models", 2024.

    Examples
    --------
    >>> import torch
    >>> from tabdiff.diffusion import CFGPlusPlus, CosineSchedule, GaussianDenoiser, sample
    >>> denoiser = GaussianDenoiser(torch.zeros(2), torch.eye(2), CosineSchedule())
    >>> sample(CFGPlusPlus(denoiser, 0.5), torch.ones(3, 2), method="ddim", steps=8).shape
    torch.Size([3, 2])
    """

    def __init__(self, denoiser: DenoiserLike, scale: float) -> None:
        super().__init__()
        check_wrapped(denoiser, self)
        self.denoiser = denoiser
        self.schedule = denoiser.schedule
        self.scale = scale

    def forward(self, x_t: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return the guided estimate of the clean rows; see `Denoiser.forward` for the arguments."""
        return self.x0_and_eps(x_t, t, condition)[0]

    def x0_and_eps(self, x_t: Tensor, t: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the guided estimate of the clean rows and the unguided one of the noise."""
        alpha, sigma = coefficients(self.schedule, t, x_t)
        if condition is None:
            null = guided = self.denoiser(x_t, t, None)
        else:
            null, conditional = estimates(self.denoiser, x_t, t, [null_like(condition), condition])
            guided = null + self.scale * (conditional - null)
        return guided, (x_t - alpha * null) / sigma


class AutoGuidance(nn.Module):
    """Autoguidance: ``D_weak + scale (D - D_weak)``, both with the condition.

    A weaker version of the same model (smaller, or trained for less long) errs in the same places but
    further, so leading away from it improves rows without making them all alike.

    Parameters
    ----------
    denoiser, weak : callable
        The model and its weaker version, on one schedule.
    scale : float
        Guidance scale; 1 is `denoiser` alone.
    n_guided : int, optional
        How many leading entries of rows (B, d) are guided; the others are those of `denoiser`. By default all. `weak`
        need not return the others.

    References
    ----------
    Karras et al., "Guiding a Diffusion Model with a Bad Version of Itself", 2024.

    Examples
    --------
    >>> import torch
    >>> from tabdiff.diffusion import AutoGuidance, CosineSchedule, GaussianDenoiser, sample
    >>> denoiser = GaussianDenoiser(torch.zeros(2), torch.eye(2), CosineSchedule())
    >>> weak = GaussianDenoiser(torch.zeros(2), 4 * torch.eye(2), CosineSchedule())
    >>> led = AutoGuidance(denoiser, weak, 1.5)
    >>> sample(led, torch.ones(3, 2), steps=8).shape
    torch.Size([3, 2])
    """

    def __init__(
        self,
        denoiser: DenoiserLike,
        weak: Callable[[Tensor, Tensor, Tensor | None], Tensor],
        scale: float,
        *,
        n_guided: int | None = None,
    ) -> None:
        super().__init__()
        check_wrapped(denoiser, self)
        self.n_guided = n_guided
        self.denoiser = denoiser
        self.weak = weak
        self.schedule = denoiser.schedule
        self.scale = scale

    def forward(self, x_t: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return the guided estimate of the clean rows; see `Denoiser.forward` for the arguments."""
        strong = self.denoiser(x_t, t, condition)
        if self.scale == 1:
            return strong
        weak = self.weak(x_t, t, condition)
        if self.n_guided is None:
            return weak + self.scale * (strong - weak)
        weak, led = weak[:, : self.n_guided], strong[:, : self.n_guided]
        return torch.cat([weak + self.scale * (led - weak), strong[:, self.n_guided :]], dim=1)


class MultiConditionGuidance(nn.Module):
    """Guidance by several attributes, each with its own scale: ``D_null + sum_j s_j (D_j - D_null)``.

    ``D_j`` is given attribute `j` alone. With independent attributes and all scales 1 this is the joint
    condition.

    Parameters
    ----------
    denoiser : callable
        A denoiser trained with dropout of each attribute by itself: `DiffusionGenerator` does so with
        ``condition_dropout={"a": 0.3, "b": 0.3}``. One that saw attributes only together, or none of them, was never
        trained for a single one.
    scales : sequence of float
        A scale per attribute.

    References
    ----------
    Liu et al., "Compositional Visual Generation with Composable Diffusion Models", 2022.

    Examples
    --------
    >>> import torch
    >>> from tabdiff.diffusion import CosineSchedule, GaussianDenoiser, MultiConditionGuidance, sample
    >>> denoiser = GaussianDenoiser(torch.zeros(2), torch.eye(2), CosineSchedule())
    >>> guided = MultiConditionGuidance(denoiser, [2.0, 1.0])
    >>> sample(guided, torch.ones(3, 2), condition=torch.zeros(3, 2), steps=8).shape
    torch.Size([3, 2])
    """

    def __init__(self, denoiser: DenoiserLike, scales: Sequence[float]) -> None:
        super().__init__()
        check_wrapped(denoiser, self)
        self.denoiser = denoiser
        self.schedule = denoiser.schedule
        self.scales = tuple(scales)

    def forward(self, x_t: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return the guided estimate of the clean rows; see `Denoiser.forward` for the arguments.

        Raises
        ------
        ValueError
            If the condition has another number of attributes than there are scales.
        """
        if condition is None:
            return self.denoiser(x_t, t, None)
        if condition.shape[1] != len(self.scales):
            raise ValueError(
                f"{len(self.scales)} scales were given for a condition of {condition.shape[1]} attributes; give one "
                "scale per attribute"
            )
        used = [j for j, scale in enumerate(self.scales) if scale != 0]
        alone = []
        for j in used:
            single = null_like(condition)
            single[:, j] = condition[:, j]
            alone.append(single)
        null, *single_estimates = estimates(self.denoiser, x_t, t, [null_like(condition), *alone])
        guided = null
        for j, estimate in zip(used, single_estimates):
            guided = guided + self.scales[j] * (estimate - null)
        return guided


class ClassifierGuidance(nn.Module):
    """Classifier guidance: the gradient of a classifier on noisy rows, added to the score.

    Parameters
    ----------
    denoiser : callable
        The denoiser; it gets no condition.
    log_probability : callable
        ``log_probability(x_t, t, condition)`` returns the log-probability of each row's condition, shape
        ``(B,)``, differentiable in `x_t`.
    scale : float
        Factor of the gradient; 1 is Bayes' rule.

    References
    ----------
    Dhariwal and Nichol, "Diffusion Models Beat GANs on Image Synthesis", 2021.

    Examples
    --------
    >>> import torch
    >>> from tabdiff.diffusion import ClassifierGuidance, CosineSchedule, GaussianDenoiser, sample
    >>> denoiser = GaussianDenoiser(torch.zeros(2), torch.eye(2), CosineSchedule())
    >>> def log_probability(x, t, condition):
    ...     return -(x - 1).square().sum(1)
    >>> guided = ClassifierGuidance(denoiser, log_probability, scale=0.5)
    >>> sample(guided, torch.ones(3, 2), condition=torch.zeros(3, 1), steps=8).shape
    torch.Size([3, 2])
    """

    def __init__(
        self,
        denoiser: DenoiserLike,
        log_probability: Callable[[Tensor, Tensor, Tensor], Tensor],
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        check_wrapped(denoiser, self)
        needs_signal(denoiser.schedule, "classifier guidance")
        self.denoiser = denoiser
        self.schedule = denoiser.schedule
        self.log_probability = log_probability
        self.scale = scale

    def forward(self, x_t: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return the guided estimate of the clean rows; see `Denoiser.forward` for the arguments."""
        x0 = self.denoiser(x_t, t, None)
        if condition is None or self.scale == 0:
            return x0
        with torch.enable_grad():
            rows = x_t.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self.log_probability(rows, t, condition).sum(), rows)
        alpha, sigma = coefficients(self.schedule, t, x_t)
        return x0 + self.scale * sigma**2 / alpha * gradient


def check_wrapped(denoiser: DenoiserLike, outer: nn.Module) -> None:
    """Raise a ValueError if a denoiser is to be wrapped whose estimate of the noise the wrapper would lose."""
    if isinstance(denoiser, CFGPlusPlus):
        raise ValueError(
            f"{type(outer).__name__} must wrap a denoiser that has no estimate of the noise of its own; got "
            "CFGPlusPlus. Put CFGPlusPlus around the other guidance"
        )


def null_like(condition: Tensor) -> Tensor:
    """Return the null condition of the shape of `condition`."""
    return torch.full_like(condition, math.nan)


def estimates(denoiser: DenoiserLike, x_t: Tensor, t: Tensor, conditions: Sequence[Tensor]) -> list[Tensor]:
    """Return the estimates under each condition, from one evaluation."""
    n = len(conditions)
    times = t.repeat(n) if t.dim() else t
    return list(denoiser(torch.cat([x_t] * n), times, torch.cat(list(conditions))).chunk(n))


def needs_signal(schedule: Schedule, what: str) -> None:
    """Raise a ValueError if the schedule leaves no signal at ``t_max``, where a gradient in x_t says nothing."""
    if schedule.alpha(schedule.t_max).item() == 0:
        raise ValueError(
            f"{what} makes no sense with a schedule that leaves no signal at t_max (alpha = 0); choose one with a "
            "finite log-SNR"
        )
