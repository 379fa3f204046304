"""The negative binomial distribution of counts: its density, that of whole rows at once, and draws."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["nb_log_prob", "nb_row_log_prob", "nb_sample"]

# Values of rows of a class that are worked on together, so that what is made of them stays in the processor's caches.
CACHE_VALUES = 2**18
# Counts up to which a ratio of gamma functions is taken for the product that it is.
SMALL_COUNT = 4
# Variance up to which counts are drawn by inversion, which walks up from zero, and the longest walk.
INVERTED_VARIANCE, LONGEST_WALK = 24.0, 5000
UNIFORM_STEP = 2.0**-24  # of single-precision uniform draws


def nb_log_prob(counts: Tensor, mean: Tensor, log_theta: Tensor) -> Tensor:
    r"""Log-probability of counts under a negative binomial.

    Parameters
    ----------
    counts, mean, log_theta : Tensor
        Broadcastable; counts non-negative integers as floats, mean > 0, log of the inverse dispersion
        :math:`\theta`. The variance is mean + mean² / θ; θ → ∞ gives the Poisson distribution.

    Returns
    -------
    Tensor
        Log-probabilities in nats, of the broadcast shape.

    Examples
    --------
    >>> import torch
    >>> nb_log_prob(torch.tensor(0.0), torch.tensor(1.0), torch.tensor(0.0)).exp()  # 1 / (1 + 1)
    tensor(0.5000)
    """
    theta = log_theta.exp()
    log_total = torch.log(mean + theta)
    return (
        torch.lgamma(counts + theta)
        - torch.lgamma(theta)
        - torch.lgamma(counts + 1)
        + theta * (log_theta - log_total)
        + counts * (torch.log(mean) - log_total)
    )


def nb_sample(mean: Tensor, log_theta: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draw negative-binomial counts.

    Where counts are small they are found by inversion: a uniform draw says at once that a count is zero, as most are,
    and the others walk up the distribution function. Large ones are Poisson with a gamma-distributed rate.

    Parameters
    ----------
    mean, log_theta : Tensor
        Of one shape: mean >= 0 and log of the inverse dispersion.
    generator : torch.Generator, optional
        Source of randomness, on the tensors' device.

    Returns
    -------
    Tensor
        Integers as floats, in the shape of `mean`.

    Examples
    --------
    >>> import torch
    >>> generator = torch.Generator().manual_seed(0)
    >>> nb_sample(torch.full((100_000,), 0.2), torch.zeros(100_000), generator).mean().round(decimals=2)
    tensor(0.2000)
    """
    shape = mean.shape
    mean, theta = mean.reshape(-1), log_theta.exp().reshape(-1)
    ratio = mean / theta
    some = -torch.expm1(-theta * torch.log1p(ratio))  # the probability of a count that is not zero
    uniform = torch.rand(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)
    large = _places(torch.addcmul(mean, mean, ratio) > INVERTED_VARIANCE)
    out = torch.zeros_like(mean)
    if len(large):
        some[large] = 0
        gamma = torch._standard_gamma(theta[large], generator=generator)
        out[large] = torch.poisson(gamma * ratio[large], generator=generator)
    there = _places(uniform < some)
    if len(there):
        # Single-precision draws lie on a grid, too coarse for what is rare: within its steps they are drawn again.
        fine = torch.rand(there.shape, generator=generator, dtype=torch.float64, device=mean.device)
        survival = uniform[there].double() + (UNIFORM_STEP * fine if mean.dtype == torch.float32 else 0)
        out[there] = _inverted(survival, mean[there], theta[there]).to(out)
    return out.reshape(shape)


def _inverted(survival: Tensor, mean: Tensor, theta: Tensor) -> Tensor:
    """Counts (n,) above which the probability is at most `survival` (n,), and above one fewer is more."""
    mean, theta = mean.double(), theta.double()
    out = torch.zeros_like(mean)
    log_zero = -theta * torch.log1p(mean / theta)
    above, p, growth = -torch.expm1(log_zero), log_zero.exp(), mean / (mean + theta)
    left, k = torch.arange(len(mean), device=mean.device), 0
    while True:
        go_on = survival < above
        # Rounding may keep the probability above a draw that is next to nothing.
        if k == LONGEST_WALK or not bool(go_on.any()):
            return out
        if not bool(go_on.all()):
            kept = (survival, above, p, growth, theta, left)
            survival, above, p, growth, theta, left = (values[go_on] for values in kept)
        k += 1
        out[left] = k
        p = p * growth * ((k - 1 + theta) / k)
        above = above - p


def nb_row_log_prob(
    logits: Tensor, offset: Tensor, counts: Tensor, log_theta: Tensor, classes: Tensor, *, gradient: bool = True
) -> Tensor:
    r"""Log-probability of rows of counts, up to terms in the counts alone, in one pass over them.

    The mean of a count is its row's total times the softmax of the row's logits and the offset of its class, which has
    an inverse dispersion for each feature too. With :math:`r = \mu / \theta` it is

    .. math:: -\sum_g \theta \log(1 + r)
        + \sum_{x > 0} x \log\frac{r}{1 + r} + \log\Gamma(x + \theta) - \log\Gamma(\theta),

    whose second sum is over the counts that are not zero, a few of all. The gradient follows from the same terms, so it
    is kept from the same pass, rows of a class after those of another: what classes share is there once, and what is
    made of some rows stays in the processor's caches. Automatic differentiation would go over all values two dozen
    times.

    Parameters
    ----------
    logits : Tensor of shape (B, n)
    offset : Tensor of shape (n_classes, n)
        What a class adds to the logits of its rows.
    counts : Tensor of shape (B, n)
    log_theta : Tensor of shape (n_classes, n)
        Log inverse dispersions.
    classes : int64 Tensor of shape (B,)
        Fastest where it is sorted.
    gradient : bool
        Whether to keep what a gradient needs. It can be taken once, of the rows' sum or mean.

    Returns
    -------
    Tensor of shape (B,)

    Examples
    --------
    >>> import torch
    >>> zero = torch.zeros(1, 2)
    >>> nb_row_log_prob(zero, zero, torch.tensor([[2.0, 0.0]]), zero, torch.tensor([0])).round(decimals=4)
    tensor([-2.0794])
    """
    if bool((classes.diff() < 0).any()):
        order = classes.argsort(stable=True)
        value = nb_row_log_prob(logits[order], offset, counts[order], log_theta, classes[order], gradient=gradient)
        return value[order.argsort()]
    found: Tensor = _RowLogProb.apply(logits, offset, counts, log_theta, classes, gradient)
    return found


class _RowLogProb(torch.autograd.Function):
    """See `nb_row_log_prob`; the classes are sorted."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, offset: Tensor, counts: Tensor, log_theta: Tensor, classes: Tensor, gradient: bool
    ) -> Tensor:
        """Values (B,); for the gradient, derivatives of their sum are kept."""
        n = logits.shape[1]
        out, thetas = logits.new_empty(len(logits)), log_theta.exp()
        inverse = thetas.reciprocal()
        by_logits = torch.empty(logits.shape, dtype=logits.dtype, device=logits.device) if gradient else None
        by_offset, by_theta = torch.zeros_like(thetas), torch.zeros_like(thetas)
        for c, part in _groups(classes, max(1, CACHE_VALUES // max(n, 1))):
            x, theta = counts[part].reshape(-1), thetas[c]
            total = counts[part].sum(1, keepdim=True)
            share = torch.softmax(logits[part] + offset[c], dim=1)
            ratio = (share * inverse[c]).mul_(total.clamp_min(0.5))
            at = _places(x != 0)
            rows = at // n
            columns = at - n * rows
            there, r = x.index_select(0, at), ratio.view(-1).index_select(0, at)
            log_ratio = torch.log1p(ratio)
            rising, slope = _rising(there, theta.index_select(0, columns))
            # A share that single precision takes for zero has a logarithm all the same.
            log_odds = r.clamp_min(torch.finfo(r.dtype).tiny).log() - log_ratio.view(-1).index_select(0, at)
            out[part] = (-(log_ratio @ theta)).index_add_(0, rows, there * log_odds + rising)
            if by_logits is None:
                continue
            odds = ratio.div_(ratio + 1)
            pull = there * odds.view(-1).index_select(0, at)
            gap = (total[:, 0] - odds @ theta).index_add_(0, rows, pull, alpha=-1)
            by_theta[c] += theta * (odds.sum(0) - log_ratio.sum(0))
            by_theta[c].index_add_(0, columns, pull - there + slope)
            own = odds.mul_(-theta).addcmul_(share, gap[:, None], value=-1)
            own.view(-1).index_add_(0, at, there - pull)
            by_offset[c] += own.sum(0)
            by_logits[part] = own
        ctx.kept = by_logits, by_offset, by_theta
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients by logits (B, n), and by the offsets and the log inverse dispersions of classes (n_classes, n)."""
        if ctx.kept is None or ctx.kept[0] is None:
            raise RuntimeError("The gradient of nb_row_log_prob can be taken once, where gradient=True.")
        if not bool((gradient == gradient[0]).all()):
            raise RuntimeError("The gradient of nb_row_log_prob is that of the sum or the mean of all rows.")
        (by_logits, by_offset, by_theta), ctx.kept = ctx.kept, None
        scale = gradient[0]
        return by_logits.mul_(scale), by_offset.mul_(scale), None, by_theta.mul_(scale), None, None


def _places(mask: Tensor) -> Tensor:
    """Positions (m,) at which a mask (n,) is true; NumPy finds them in a fourth of the time."""
    return torch.from_numpy(mask.numpy().nonzero()[0]) if mask.device.type == "cpu" else mask.nonzero()[:, 0]


def _groups(classes: Tensor, size: int) -> list[tuple[int, slice]]:
    """Rows of one class each, at most `size` of them, where classes (B,) are sorted."""
    found, counts = classes.unique_consecutive(return_counts=True)
    out, start = [], 0
    for c, n in zip(found.tolist(), counts.tolist(), strict=True):
        out += [(c, slice(first, min(first + size, start + n))) for first in range(start, start + n, size)]
        start += n
    return out


def _rising(counts: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
    r""":math:`\log\Gamma(x + \theta) - \log\Gamma(\theta)` of counts x > 0 (n,), and its derivative by log θ."""
    rising, slope = theta.log(), torch.ones_like(theta)
    for k in range(1, SMALL_COUNT):
        more = (counts > k).to(theta)
        rising.addcmul_(torch.log(theta + k), more)
        slope.addcmul_(theta / (theta + k), more)
    many = _places(counts > SMALL_COUNT)
    if len(many):
        x, own = counts[many], theta[many]
        rising[many] = torch.lgamma(x + own) - torch.lgamma(own)
        slope[many] = own * (torch.digamma(x + own) - torch.digamma(own))
    return rising, slope
