r"""The variational bound on the log-density of rows, of numbers and of tables that mix numbers and categories.

A bound has three parts: how far the noisiest state is from the prior, what the denoiser's errors cost on the way, and
how well the row is told from its cleanest state. With :math:`e(\lambda) = E\|x - D(x_t, t)\|^2` at the log-SNR
:math:`\lambda` the second part is

- of a chain of T steps a sum, over its steps from t to s, of the divergence of :math:`q(x_s | x_t, x)` from the
  normal distribution that the chain draws from (Ho et al., 2020, equation 5). With the chain's variance a multiple
  :math:`1 / r` of that of q it is, for d entries,
  :math:`\tfrac12 [d (r - 1 - \log r) + r (\mathrm{SNR}_s - \mathrm{SNR}_t)\, e(\lambda_t)]`;
- in continuous time the integral :math:`\tfrac12 \int \mathrm{SNR}\; e(\lambda)\, d\lambda`, to which the sum comes
  close as its steps get short (Kingma et al., 2021).

What is exact: in continuous time the bound of the exact denoiser is the log-density itself, row by row, but for what
is lost at the two ends. A chain of few steps is another model with a likelihood of its own: its steps are normal, and
those of the data are not, so even with the exact denoiser its bound lies below the log-density by a gap that closes
as T grows. For normal data of variance v, whose error is :math:`v / (1 + v\, \mathrm{SNR})`, every term is known; the
tests compare with that. For v = 1 there is no gap at any T with the larger variance, :math:`r = (1 + \mathrm{SNR}_t) /
(1 + \mathrm{SNR}_s)`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Literal, overload

import torch
from torch import Tensor

from tabdiff.diffusion.bound_terms import LOG_SNR_ZERO, Term, chain, integral, log_snr_node, repeated
from tabdiff.diffusion.cubature import Directions, radii
from tabdiff.diffusion.denoiser import Denoiser, DenoiserLike, LikelihoodParts
from tabdiff.diffusion.samplers.base import Model
from tabdiff.diffusion.samplers.grids import Node, node_at

__all__ = ["TIMES", "VARIANCES", "row_bound", "variational_bound"]

TIMES = ("schedule", "continuous")
VARIANCES = ("large", "small")

# At more noise than the first nothing is left of a row, so an integral need not go on; a chain goes to its end. At
# less than the last a learned estimate of a category is never as exact as the weight on its error, which grows as the
# SNR, asks for. It is a bound for any range.
LOG_SNR_RANGE = (-7.0, 6.0)
# Numbers alone: the estimate of nearly clean numbers is exact enough, and rows that lie close together, as those of
# strongly correlated columns do, are blurred less.
LOG_SNR_NUMBERS = 9.0
# Up to so many entries every node has a whole frame of directions, and fewer directions beyond.
WHOLE_FRAME, PARTIAL_FRAME = 8, 6
DECODING_NODES = 2


@overload
def variational_bound(
    denoiser: DenoiserLike,
    x: Tensor,
    condition: Tensor | None = None,
    *,
    steps: int = ...,
    n_draws: int | None = ...,
    time: str = ...,
    variance: str = ...,
    log_snr_range: tuple[float, float] = ...,
    generator: torch.Generator | None = ...,
    shared: bool = ...,
    decode: bool = ...,
    known: Tensor | None = ...,
    reconstructed: Tensor | None = ...,
    log_decoder: Callable[[Tensor, Tensor], Tensor] | None = ...,
    return_std: Literal[False] = ...,
) -> Tensor: ...


@overload
def variational_bound(
    denoiser: DenoiserLike,
    x: Tensor,
    condition: Tensor | None = None,
    *,
    steps: int = ...,
    n_draws: int | None = ...,
    time: str = ...,
    variance: str = ...,
    log_snr_range: tuple[float, float] = ...,
    generator: torch.Generator | None = ...,
    shared: bool = ...,
    decode: bool = ...,
    known: Tensor | None = ...,
    reconstructed: Tensor | None = ...,
    log_decoder: Callable[[Tensor, Tensor], Tensor] | None = ...,
    return_std: Literal[True],
) -> tuple[Tensor, Tensor]: ...


@torch.no_grad()
def variational_bound(
    denoiser: DenoiserLike,
    x: Tensor,
    condition: Tensor | None = None,
    *,
    steps: int = 16,
    n_draws: int | None = None,
    time: str = "schedule",
    variance: str = "large",
    log_snr_range: tuple[float, float] = (-math.inf, math.inf),
    generator: torch.Generator | None = None,
    shared: bool = True,
    decode: bool = True,
    known: Tensor | None = None,
    reconstructed: Tensor | None = None,
    log_decoder: Callable[[Tensor, Tensor], Tensor] | None = None,
    return_std: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    r"""Return an estimate of the variational bound on the log-density of rows.

    See the head of `tabdiff.diffusion.bound` for the formulas. The row is decoded from its cleanest state by a normal
    distribution round the denoiser's estimate, of variance ``1 / (1 + SNR)``, which is that of a chain's last step
    (Ho et al., 2020, section 3.3, with beta_1).

    The mean over the noise is estimated by a rule that is exact where the denoiser is linear: directions that are
    orthogonal to each other, both ways along each, at radii of a Gauss rule for the length of normal noise. Where
    every node has as many directions as a row has entries, the bound of normal data has no noise at all.

    Parameters
    ----------
    denoiser : callable
        ``denoiser(x_t, t, condition) -> x0``.
    x : Tensor
        Clean rows, shape ``(B, *)``.
    condition : Tensor, optional
        Shape ``(B, k)``, NaN for a null entry.
    steps : int
        Number of nodes of the integral, or of groups of the terms of the sum. Of a chain with no more steps every
        term is taken.
    n_draws : int, optional
        Directions per node; by default as many as a row has entries up to 8, else 6.
    time : {"schedule", "continuous"}
        "schedule" is the sum for a discrete schedule and the integral for a continuous one. "continuous" is the
        integral for both: along the logarithm of alpha between a chain's times, where a network that was trained at
        the times alone has not been seen.
    variance : {"large", "small"}
        That of a chain's steps: beta, which is right for standard normal numbers and never far off where the SNR is
        high, or that of q given the row. Entries that are not `reconstructed` have the small one, since a category is
        known exactly long before the end.
    log_snr_range : tuple of float
        Where the integral begins and ends; a chain ends, and is decoded, at the first time within it.
    generator : torch.Generator, optional
        Source of the directions; the same state gives the same bound.
    shared : bool
        Whether all rows have the same noise, so that a row's bound depends neither on its neighbours nor on its place.
        Otherwise each has its own, in the order of the rows: the mean over rows is then far more exact.
    decode : bool
        Whether numbers are decoded. Without, the bound is on the log-density of noisy rows at the cleanest state, on
        average over their noise.
    known : Tensor, optional
        Which entries count, boolean, of the shape of `x`; the others are pure noise to the denoiser. By default all.
    reconstructed : Tensor, optional
        Known entries that are numbers, boolean, of the shape of `x`; by default all of `known`. Embedded categories
        are not among them: `log_decoder` tells their probability.
    log_decoder : callable, optional
        ``log_decoder(x_t, t)`` returns the log-probability ``(B,)`` of what is not reconstructed, given the cleanest
        state.
    return_std : bool
        Whether to return the standard error of each row's estimate too.

    Returns
    -------
    bound : Tensor
        Shape ``(B,)``, float64, in nats.
    std : Tensor
        Shape ``(B,)``: the standard error that the choice of directions leaves, from differences between neighbouring
        nodes, or looks at one term. Only if `return_std`. With `shared` noise the errors of rows that resemble each
        other are alike, so their mean is hardly more exact than one of them.

    Raises
    ------
    ValueError
        If `time` or `variance` is unknown, or `steps` or `n_draws` is below 1.

    References
    ----------
    Ho, Jain and Abbeel, "Denoising Diffusion Probabilistic Models", 2020; Kingma et al., "Variational Diffusion
    Models", 2021, section 4; Genz and Monahan, "Stochastic Integration Rules for Infinite Regions", 1998; Wolter,
    "Introduction to Variance Estimation", 2007, section 8.2 (systematic samples).

    Examples
    --------
    >>> import torch
    >>> from tabdiff.diffusion import DiscreteCosineSchedule, GaussianDenoiser
    >>> oracle = GaussianDenoiser(0.0, 1.0, DiscreteCosineSchedule(10))
    >>> variational_bound(oracle, torch.zeros(1, 2, dtype=torch.float64))  # -log(2 pi)
    tensor([-1.8379], dtype=torch.float64)
    """
    if time not in TIMES:
        raise ValueError(f"time must be 'schedule' or 'continuous'; got {time!r}.")
    if variance not in VARIANCES:
        raise ValueError(f"variance must be 'large' or 'small'; got {variance!r}.")
    n_entries = x[0].numel()
    if n_draws is None:
        n_draws = n_entries if n_entries <= WHOLE_FRAME else PARTIAL_FRAME
    if steps < 1 or n_draws < 1:
        raise ValueError(f"steps and n_draws must be at least 1; got {steps} and {n_draws}.")
    schedule = denoiser.schedule
    if schedule.n_timesteps is not None and time == "schedule":
        noisiest = node_at(schedule, schedule.t_max)
        cleanest, constant, terms = chain(schedule, log_snr_range[1], steps, variance)
    else:
        low = max(schedule.log_snr(schedule.t_max).item(), log_snr_range[0], LOG_SNR_ZERO)
        high = min(schedule.log_snr(schedule.t_min).item(), log_snr_range[1])
        noisiest, cleanest = log_snr_node(schedule, low), log_snr_node(schedule, high)
        constant, terms = 0.0, integral(schedule, low, high, steps)

    model = Model(denoiser, condition)
    counts = torch.ones_like(x, dtype=torch.bool) if known is None else known
    rebuilt = counts if reconstructed is None else counts & reconstructed
    embedded = counts & ~rebuilt
    directions = Directions(x, generator, shared=shared)
    rule = radii(n_entries)

    def total(entries: Tensor, which: Tensor) -> Tensor:
        return torch.where(which, entries.double(), 0.0).flatten(1).sum(1)

    def noisy_rows(node: Node) -> Iterator[tuple[Tensor, Tensor, float]]:
        """Noisy rows with their noise and its weight, of one look."""
        for _ in range(n_draws):
            direction = directions.take()
            for radius, share in rule:
                for signed in (radius, -radius):
                    eps = signed * direction
                    noise = math.hypot(node.alpha, node.sigma) * eps
                    rows = torch.where(counts, node.alpha * x + node.sigma * eps, noise)
                    yield rows, eps, share / (2 * n_draws)

    def squared(rows: Tensor, eps: Tensor, node: Node) -> Tensor:
        """Squared errors, less what the length of the noise adds to those of standard normal numbers."""
        snr = math.exp(2 * node.lam)
        surplus = snr / (1 + snr) ** 2 * (eps.double().square() - 1)
        # The error of a known category is no multiple of the noise, so there the correction would add noise.
        return (model.x0(rows, node) - x).double().square() - surplus * rebuilt

    n_numbers = rebuilt.flatten(1).sum(1)
    prior = noisiest.alpha**2 + noisiest.sigma**2
    share = noisiest.sigma**2 / prior
    bound = -0.5 * total(share - 1 - math.log(share) + noisiest.alpha**2 / prior * x.square(), counts)
    bound = bound - constant * n_numbers
    looks: list[tuple[Term, Tensor]] = []
    for term, n in zip(terms, repeated(terms, steps), strict=True):
        for _ in range(n):
            cost = torch.zeros_like(bound)
            for rows, eps, weight in noisy_rows(term.node):
                error = squared(rows, eps, term.node)
                cost += weight * (term.weight * total(error, rebuilt) + term.embedded_weight * total(error, embedded))
            bound = bound - cost / n
            looks.append((term, cost))
    spread = _variance(looks, bound)

    snr = math.exp(2 * cleanest.lam)
    if decode:
        bound = bound - 0.5 * n_numbers * (math.log(2 * math.pi) - math.log1p(snr))
    else:
        bound = bound - 0.5 * n_numbers * (math.log(2 * math.pi) + 1 - 2 * cleanest.lam)
    if decode or log_decoder is not None:
        t = torch.tensor(cleanest.t, dtype=torch.float64)
        parts = torch.zeros((DECODING_NODES, len(x)), dtype=torch.float64, device=x.device)
        for part in parts:
            for rows, eps, weight in noisy_rows(cleanest):
                if decode:
                    part -= 0.5 * weight * (1 + snr) * total(squared(rows, eps, cleanest), rebuilt)
                if log_decoder is not None:
                    part += weight * log_decoder(rows, t).double()
        bound = bound + parts.mean(0)
        spread = spread + parts.var(0) / DECODING_NODES
    return (bound, spread.sqrt()) if return_std else bound


def _variance(looks: list[tuple[Term, Tensor]], like: Tensor) -> Tensor:
    """Return the variance (B,) of the sum of the terms' mean costs.

    Looks at one term are compared with each other. Where each has one, they are a systematic sample along the log-SNR:
    second differences of the costs per mass leave out what changes evenly along the way.
    """
    by_term: dict[Term, list[Tensor]] = {}
    for term, cost in looks:
        by_term.setdefault(term, []).append(cost)
    if all(len(costs) > 1 for costs in by_term.values()):
        return sum((torch.stack(costs).var(0) / len(costs) for costs in by_term.values()), torch.zeros_like(like))
    if len(looks) < 3:
        return torch.full_like(like, math.nan)
    mass = torch.tensor([term.mass for term in by_term], dtype=like.dtype, device=like.device)[:, None]
    ratio = torch.stack([cost for _, cost in looks]) / mass
    bend = ratio[2:] - 2 * ratio[1:-1] + ratio[:-2]
    inner = mass[1:-1].square()
    return (inner * bend.square() / 6).sum(0) * (mass.square().sum() / inner.sum())


@overload
def row_bound(
    denoiser: Denoiser,
    data: Tensor,
    condition: Tensor | None = None,
    *,
    steps: int = ...,
    n_draws: int | None = ...,
    time: str = ...,
    seed: int | torch.Generator = ...,
    log_snr_max: float | None = ...,
    shared: bool = ...,
    decode: bool = ...,
    return_std: Literal[False] = ...,
) -> Tensor: ...


@overload
def row_bound(
    denoiser: Denoiser,
    data: Tensor,
    condition: Tensor | None = None,
    *,
    steps: int = ...,
    n_draws: int | None = ...,
    time: str = ...,
    seed: int | torch.Generator = ...,
    log_snr_max: float | None = ...,
    shared: bool = ...,
    decode: bool = ...,
    return_std: Literal[True],
) -> tuple[Tensor, Tensor]: ...


@torch.no_grad()
def row_bound(
    denoiser: Denoiser,
    data: Tensor,
    condition: Tensor | None = None,
    *,
    steps: int = 16,
    n_draws: int | None = None,
    time: str = "schedule",
    seed: int | torch.Generator = 0,
    log_snr_max: float | None = None,
    shared: bool = True,
    decode: bool = True,
    return_std: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Return a lower bound on the log-likelihood of each encoded row, in nats.

    Numbers count by their density, categories by their probability. See `variational_bound` for the estimate.

    Parameters
    ----------
    denoiser : Denoiser or MixedDenoiser
        In float64 for values that do not depend on how rows are batched.
    data : Tensor of shape (B, d)
        Encoded rows, of the denoiser's dtype; NaN marks a missing number, which is left out.
    condition : Tensor of shape (B, k), optional
        Encoded condition.
    steps, n_draws, time, shared, decode, return_std
        See `variational_bound`.
    seed : int or torch.Generator
        Of the noises.
    log_snr_max : float, optional
        Where the way to the row ends. Less leaves more noise in it: what is finer is known to the last step alone. By
        default 6, and 9 for numbers alone.

    Returns
    -------
    bound : Tensor of shape (B,)
        float64.
    std : Tensor of shape (B,)
        Its standard error, if `return_std`.
    """
    # What is no `Denoiser`, an oracle or guidance, has numbers alone.
    own = isinstance(denoiser, Denoiser)
    if log_snr_max is None:
        log_snr_max = LOG_SNR_RANGE[1] if own and denoiser.has_levels else LOG_SNR_NUMBERS
    generator = seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(seed)
    parts = denoiser.likelihood_parts(data, condition) if own else LikelihoodParts(data)
    bound, std = variational_bound(
        denoiser,
        parts.clean,
        condition,
        steps=steps,
        n_draws=n_draws,
        time=time,
        log_snr_range=(LOG_SNR_RANGE[0], log_snr_max),
        generator=generator,
        shared=shared,
        decode=decode,
        known=parts.known,
        reconstructed=parts.numbers,
        log_decoder=parts.log_decoder,
        return_std=True,
    )
    return (bound, std) if return_std else bound
