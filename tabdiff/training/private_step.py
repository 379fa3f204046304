r"""A differentially private step of training: gradients of rows clipped one by one, noise added to their sum.

.. math:: \tilde g = \frac{1}{b} \left( \sum_{i \in B} g_i \min\left(1, \frac{C}{\|g_i\|}\right) +
    \sigma C\, \xi \right), \qquad \xi \sim N(0, I),

over a Poisson sample B, in which each row is with the same probability (Abadi et al., 2016,
https://arxiv.org/abs/1607.00133). The divisor b is what such a sample holds about, and is not counted: neither how
many rows a sample has nor how many there are may be told.

Norms of single gradients do not need these gradients: that of a linear layer's weights is the product of the norms of
what went in and of the derivative by what came out (Goodfellow, 2015, https://arxiv.org/abs/1510.01799). Where a
network is made of such layers, a second pass with the losses scaled sums the clipped gradients ("ghost clipping": Li et
al., 2022, https://arxiv.org/abs/2110.05679). Whether a network is, is tried on rows of noise before the first step;
elsewhere gradients are computed one by one.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.overrides import TorchFunctionMode

from tabdiff.diffusion import Denoiser
from tabdiff.diffusion.time_sampling import uniform
from tabdiff.training.batches import Batches
from tabdiff.training.ema import EMA

__all__ = ["ClippedNoise", "PrivateStep", "clipped_gradients", "gradient_norms"]

# Rows whose gradients are computed at a time: many where norms are enough, few where each has its own.
CHUNK_ROWS, SINGLE_ROWS = 2048, 32
# Rows of noise on which the short way is compared with the long one, and how far norms may differ.
TRIED_ROWS, TOLERANCE = 6, 1e-3


@dataclass(frozen=True)
class ClippedNoise:
    """How gradients are clipped and noised.

    Parameters
    ----------
    max_grad_norm : float
        Norm to which the gradient of a row is clipped.
    noise_multiplier : float
        Standard deviation of the noise, in units of `max_grad_norm`.
    sample_rate : float
        Probability with which a row is in a batch.
    batch_rows : int
        What sums of gradients are divided by: rows of a batch, about, known without counting.
    seed : int
        Of the samples and of the noise.

    Examples
    --------
    >>> from tabdiff.training import ClippedNoise
    >>> ClippedNoise(max_grad_norm=1.0, noise_multiplier=2.0, sample_rate=0.05, batch_rows=512, seed=0).batch_rows
    512
    """

    max_grad_norm: float
    noise_multiplier: float
    sample_rate: float
    batch_rows: int
    seed: int


class _Recorder(TorchFunctionMode):
    """Notes what goes into and comes out of layers that have weights, while a network runs."""

    def __init__(self, trained: set[int]) -> None:
        super().__init__()
        self.trained = trained
        self.calls: list[tuple[str, tuple[Any, ...], Tensor]] = []

    def _is_trained(self, weight: Any) -> bool:
        # A part of a weight, weight[:, :k], counts as the weight: parts that are used do not overlap.
        base = weight._base if isinstance(weight, Tensor) and weight._base is not None else weight
        return isinstance(weight, Tensor) and id(base) in self.trained

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is nn.functional.linear:
            x, weight = args[:2]
            bias = args[2] if len(args) > 2 else (kwargs or {}).get("bias")
            if self._is_trained(weight) or self._is_trained(bias):
                self.calls.append(("linear", (x.detach(), self._is_trained(weight), self._is_trained(bias)), out))
                return out.clone()  # what is written into later is not what came out
        elif func is nn.functional.layer_norm:
            weight, bias = args[2:4] if len(args) > 3 else ((kwargs or {}).get("weight"), (kwargs or {}).get("bias"))
            if self._is_trained(weight) or self._is_trained(bias):
                x, shape = args[:2]
                plain = nn.functional.layer_norm(x.detach(), shape)
                self.calls.append(("norm", (plain, self._is_trained(weight), self._is_trained(bias)), out))
                return out.clone()
        elif func is nn.functional.embedding and self._is_trained(args[1]):
            self.calls.append(("embedding", (), out))
            return out.clone()
        return out

    def squared_norms(self, losses: Tensor) -> Tensor:
        """Return the squared norm of the gradient of each row (B,), as far as the layers that were seen have it."""
        outs = [out for _, _, out in self.calls]
        gradients = torch.autograd.grad(losses.sum(), outs, retain_graph=True, allow_unused=True)
        total = torch.zeros(len(losses), dtype=torch.float64, device=losses.device)
        for (kind, parts, _), g in zip(self.calls, gradients, strict=True):
            if g is None:
                continue
            g = g.flatten(1).double()
            if kind == "embedding":
                total += g.square().sum(1)
                continue
            inside, has_weight, has_bias = parts
            if has_weight and kind == "linear":
                total += g.square().sum(1) * inside.flatten(1).double().square().sum(1)
            elif has_weight:
                total += (g * inside.flatten(1).double()).square().sum(1)
            if has_bias:
                total += g.square().sum(1)
        return total


def _trained(denoiser: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in denoiser.named_parameters() if p.requires_grad}


def gradient_norms(denoiser: Denoiser, x0: Tensor, condition: Tensor | None, t: Tensor, eps: Tensor) -> Tensor:
    """Return the norm of the gradient of each row's loss (B,), each computed by itself."""
    return _norms(_single_gradients(denoiser, x0, condition, t, eps))


def _norms(gradients: dict[str, Tensor]) -> Tensor:
    """Return the norm (B,) of each row's gradient, of which a parameter has the part (B, *)."""
    return torch.stack([g.flatten(1).double().square().sum(1) for g in gradients.values()]).sum(0).sqrt()


def _single_gradients(
    denoiser: Denoiser, x0: Tensor, condition: Tensor | None, t: Tensor, eps: Tensor
) -> dict[str, Tensor]:
    """Return the gradient of each row's loss, (B, *) for each parameter."""
    module = _Loss(denoiser)
    weights = {f"denoiser.{name}": p.detach() for name, p in _trained(denoiser).items()}

    def loss(weights: dict[str, Tensor], *row: Tensor | None) -> Tensor:
        parts = tuple(None if part is None else part[None] for part in row)
        return functional_call(module, weights, parts)[0]

    axes = (None, 0, None if condition is None else 0, 0, 0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "There is a performance drop")  # in attention, row by row
        found = vmap(grad(loss), in_dims=axes, randomness="different")(weights, x0, condition, t, eps)
    return {name.removeprefix("denoiser."): g for name, g in found.items()}


class _Loss(nn.Module):
    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser = denoiser

    def forward(self, x0: Tensor, condition: Tensor | None, t: Tensor, eps: Tensor) -> Tensor:
        return self.denoiser.loss(x0, condition, t=t, eps=eps)


def _scales(norms: Tensor, max_norm: float) -> Tensor:
    """Return what gradients of these norms (B,) are multiplied by, so that none is longer than it may be."""
    return (max_norm / norms.clamp(min=1e-12)).clamp(max=1.0)


def _add_short(
    denoiser: Denoiser, x0: Tensor, condition: Tensor | None, t: Tensor, eps: Tensor, max_norm: float
) -> Tensor:
    """Add the clipped gradients to those of the parameters; return their norms before (B,)."""
    with _Recorder({id(p) for p in _trained(denoiser).values()}) as recorder:
        losses = denoiser.loss(x0, condition, t=t, eps=eps)
    norms = recorder.squared_norms(losses).sqrt()
    scale = _scales(norms, max_norm).to(losses.dtype)
    (losses * scale.detach()).sum().backward()
    return norms


def _add_long(
    denoiser: Denoiser, x0: Tensor, condition: Tensor | None, t: Tensor, eps: Tensor, max_norm: float
) -> Tensor:
    """Do the same with each gradient by itself."""
    gradients = _single_gradients(denoiser, x0, condition, t, eps)
    norms = _norms(gradients)
    scale = _scales(norms, max_norm).float()
    for name, p in _trained(denoiser).items():
        total = torch.einsum("b,b...->...", scale.to(gradients[name].dtype), gradients[name])
        p.grad = total if p.grad is None else p.grad + total
    return norms


def clipped_gradients(
    denoiser: Denoiser,
    x0: Tensor,
    condition: Tensor | None,
    t: Tensor,
    eps: Tensor,
    max_norm: float,
    *,
    short: bool = True,
) -> Tensor:
    """Write the sum of the rows' clipped gradients into ``grad`` of the parameters.

    Parameters
    ----------
    denoiser : Denoiser
    x0, condition, t, eps
        As `Denoiser.loss` takes them; there may be no rows.
    max_norm : float
        Norm to which the gradient of each row is clipped.
    short : bool
        Whether norms are had from layers, or from each gradient by itself.

    Returns
    -------
    Tensor of shape (B,)
        Norms before.
    """
    denoiser.zero_grad(set_to_none=True)
    size, add = (CHUNK_ROWS, _add_short) if short else (SINGLE_ROWS, _add_long)
    norms = []
    for i in range(0, len(x0), size):
        part = slice(i, i + size)
        norms.append(
            add(denoiser, x0[part], None if condition is None else condition[part], t[part], eps[part], max_norm)
        )
    for p in _trained(denoiser).values():
        if p.grad is None:
            p.grad = torch.zeros_like(p)
    return torch.cat(norms) if norms else x0.new_zeros(0)


class PrivateStep:
    """A step of differentially private training, in place of a `TrainingStep`.

    Parameters
    ----------
    denoiser : Denoiser
    batches : Batches
        Each row once.
    optimizer : torch.optim.Optimizer
    ema : EMA
    generator : torch.Generator
        Source of times and diffusion noise, on the device.
    private : ClippedNoise

    Attributes
    ----------
    loss, norm : Tensor
        Zeros: what a batch lost would tell of its rows.
    is_short : bool
        Whether norms are had from layers.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        batches: Batches,
        optimizer: torch.optim.Optimizer,
        ema: EMA[Denoiser],
        *,
        generator: torch.Generator,
        private: ClippedNoise,
    ) -> None:
        self.denoiser, self.batches = denoiser, batches
        self.optimizer, self.ema, self.generator, self.private = optimizer, ema, generator, private
        device = generator.device
        # Who knows the seed of all else, by a model's stream of samples, say, must not know the noise.
        self.noise = torch.Generator(device).manual_seed(private.seed)
        self.loss, self.norm = torch.zeros((2,), device=device).unbind()
        self.is_short = self._tries_short()

    def _tries_short(self) -> bool:
        """Compare both ways on rows of which nothing but the shape is real."""
        x0 = torch.zeros_like(self.batches.data[:1]).expand(TRIED_ROWS, -1).clone()
        generator = torch.Generator(x0.device).manual_seed(0)
        n = x0.shape[1] if self.denoiser.n_continuous is None else self.denoiser.n_continuous
        x0[:, :n] = torch.randn((TRIED_ROWS, n), generator=generator, device=x0.device)
        condition = self.batches.condition
        given = None if condition is None else torch.zeros((TRIED_ROWS, condition.shape[1]), device=x0.device)
        if given is not None:
            given[::2] = math.nan
        if self.batches.draw_given is not None:
            entries = self.batches.draw_given(x0, generator)
            entries[::3] = x0[::3]
            given = entries if given is None else torch.cat([given, entries], dim=1)
        eps = torch.randn((TRIED_ROWS, *self.batches.noise_shape), generator=generator, device=x0.device)
        t = self.denoiser.schedule.t_min + torch.linspace(0.05, 0.95, TRIED_ROWS, device=x0.device) * (
            self.denoiser.schedule.t_max - self.denoiser.schedule.t_min
        )
        before = {name: p.detach().clone() for name, p in self.denoiser.named_parameters()}
        try:
            # Layers that start at zero would hide the others.
            for p in _trained(self.denoiser).values():
                p.data += 0.05 * torch.randn(p.shape, generator=generator, device=p.device)
            with torch.random.fork_rng(devices=[]):
                exact = gradient_norms(self.denoiser.eval(), x0, given, t, eps)
            short = clipped_gradients(self.denoiser, x0, given, t, eps, 1.0)
            return bool(torch.allclose(exact, short, rtol=TOLERANCE))
        except (RuntimeError, ValueError, TypeError):  # whatever a network does that one of the ways cannot follow
            return False
        finally:
            for name, p in self.denoiser.named_parameters():
                p.data.copy_(before[name])
            self.denoiser.zero_grad(set_to_none=True)
            self.denoiser.train()

    def __call__(self, learning_rate: float) -> None:
        """Do a step."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.ema.advance()
        device, n = self.generator.device, len(self.batches)
        drawn = torch.rand(n, generator=self.noise, device=device, dtype=torch.float64)
        chosen = (drawn < self.private.sample_rate).nonzero().flatten()
        x0, given = self.batches.make(chosen, self.generator)
        # Each row's by itself: of stratified times a row more would move those of all others.
        t = uniform(len(chosen), self.denoiser.schedule, self.generator, device=device)
        eps = torch.randn((len(chosen), *self.batches.noise_shape), generator=self.generator, device=device)
        clipped_gradients(self.denoiser, x0, given, t, eps, self.private.max_grad_norm, short=self.is_short)
        self.add_noise()
        self.optimizer.step()
        self.ema.move(self.denoiser)

    def add_noise(self) -> None:
        """Add noise to the sum of the gradients, and divide it."""
        deviation = self.private.noise_multiplier * self.private.max_grad_norm
        for p in _trained(self.denoiser).values():
            assert p.grad is not None
            p.grad += deviation * torch.randn(p.shape, generator=self.noise, device=p.device, dtype=p.dtype)
            p.grad /= self.private.batch_rows
