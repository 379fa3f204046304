r"""Negative-binomial autoencoder for count data.

A count :math:`x_{ig}` of feature g in row i follows a negative binomial distribution with mean
:math:`\mu_{ig}` and inverse dispersion :math:`\theta`, so that its variance is
:math:`\mu + \mu^2 / \theta`. The mean is the row total times a rate,

.. math:: \mu_{ig} = s_i \, \mathrm{softmax}_g\big(o_{c(i), g} + f_g(z_i, y_i)\big),

where :math:`o_c` is the fixed log rate of the row's class, :math:`z_i` a latent vector and :math:`y_i` the
row's condition. Without the latent this is the independent negative binomial of each class. Where features come in
blocks, such as genes and surface proteins, totals and softmax are those of each block, so that a row has a total in
each and the counts of one do not swamp those of another; the latent is one. Training maximises the evidence lower bound
(Kingma and Welling, 2014, Auto-encoding variational Bayes) with the likelihood of Lopez
et al. (2018, Deep generative modeling for single-cell transcriptomics).
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tabdiff.nn.negative_binomial import nb_row_log_prob
from tabdiff.utils.seeding import borrowed_rng

# Standard deviations of the Gaussian priors on weights, in units of log rate and log dispersion.
LOADING_SD = 0.4
OUTPUT_SD = 0.02
EFFECT_SD = 0.05
CLASS_SHIFT_SD = 0.1  # the rates that a class starts at are shrunk as far as they deserve already
THETA_SD = 10.0
CLASS_THETA_SD = 1.0


class ConditionEmbedding(nn.Module):
    """Sum of class embeddings and a smooth map of continuous attributes.

    Because embeddings add over attributes, combinations that were never seen get one too.

    Parameters
    ----------
    levels : sequence of int
        Number of classes of each attribute, 0 for a continuous one.
    size : int
        Length of the embedding.
    """

    def __init__(self, levels: Sequence[int], size: int) -> None:
        super().__init__()
        self.levels = tuple(levels)
        self.size = size
        self.classes = nn.ModuleList(nn.Embedding(n + 1, size) for n in self.levels if n > 0)
        for table in self.classes:
            nn.init.normal_(table.weight, std=0.1)  # type: ignore[arg-type]
        n_continuous = sum(n == 0 for n in self.levels)
        self.smooth = (
            nn.Sequential(nn.Linear(2 * n_continuous, size), nn.SiLU(), nn.Linear(size, size)) if n_continuous else None
        )

    def forward(self, condition: Tensor | None, like: Tensor) -> Tensor:
        """Embed a condition (B, k) with NaN for null, in the dtype of `like` (B, *); None gives zeros (B, size)."""
        out = like.new_zeros(len(like), self.size)
        if condition is None or not self.levels:
            return out
        tables = iter(self.classes)
        for column, n in zip(condition.unbind(1), self.levels, strict=True):
            if n > 0:
                codes = torch.where(column.isnan(), torch.full_like(column, n), column).long()
                out = out + next(tables)(codes)
        if self.smooth is not None:
            values = condition[:, [j for j, n in enumerate(self.levels) if n == 0]]
            null = values.isnan()
            out = out + self.smooth(torch.cat([values.nan_to_num(), null.to(values)], dim=1).to(out))
        return out


class CountAutoencoder(nn.Module):
    r"""Latent-variable model of counts whose decoder starts at a per-class negative binomial.

    The decoder is :math:`f(z, y) = W z + B e(y) + H([z, e(y)])` with an embedding e of the condition and a small
    network H; B is there for continuous attributes alone. The encoder has no weights of its own: the posterior of
    z is the Laplace approximation around the mode for :math:`f \approx W z + B e(y) + H([0, e(y)])`, found by
    Newton steps with the Fisher information

    .. math:: \Lambda = I + \sum_g \frac{\mu_g}{1 + \mu_g / \theta_g} (w_g - \bar w)(w_g - \bar w)^\top,

    where :math:`\bar w` is the mean loading weighted by rates (the softmax's share). So there is nothing to
    overfit in the encoder, which matters for some hundreds of cells, and the posterior has full covariance.

    Parameters
    ----------
    class_log_rate : Tensor (n_classes, n_features)
        Log rate of each class, rates summing to one over features.
    class_log_theta : Tensor (n_classes, n_features)
        Initial log inverse dispersion of each class.
    levels : sequence of int
        Number of classes of each condition attribute, 0 for a continuous one.
    input_features : Tensor of int64
        The features that the posterior is computed from; the decoder returns all.
    n_latent, hidden_size : int
        Length of the latent vector, width of H.
    generator : torch.Generator, optional
        Source of the initial weights.
    blocks : sequence of int, optional
        Numbers of features, in their order, whose rates sum to one; by default all features are one block.
    """

    def __init__(
        self,
        class_log_rate: Tensor,
        class_log_theta: Tensor,
        levels: Sequence[int],
        input_features: Tensor,
        *,
        n_latent: int = 16,
        hidden_size: int = 64,
        generator: torch.Generator | None = None,
        blocks: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        n_features = class_log_rate.shape[1]
        self.blocks = [n_features] if blocks is None else [int(n) for n in blocks]
        self.n_latent = n_latent
        self.hidden_size = hidden_size
        self.class_log_rate: Tensor
        self.start_log_theta: Tensor
        self.input_features: Tensor
        self.register_buffer("class_log_rate", class_log_rate)
        self.register_buffer("start_log_theta", class_log_theta)
        self.register_buffer("input_features", input_features)
        self.class_shift = nn.Parameter(torch.zeros_like(class_log_rate))
        self.theta_shift = nn.Parameter(torch.zeros(n_features))
        self.class_theta_shift = nn.Parameter(torch.zeros_like(class_log_theta))
        with borrowed_rng():  # layers draw a start from the global stream, before `_reset` gives them theirs
            self.embedding = ConditionEmbedding(levels, 16)
            self.loadings = nn.Linear(n_latent, n_features, bias=False)
            self.hidden = nn.Linear(n_latent + self.embedding.size, hidden_size)
            self.output = nn.Linear(hidden_size, n_features)
            # Class attributes are in the offsets already; continuous ones act through this.
            smooth = self.embedding.smooth is not None
            self.effect = nn.Linear(self.embedding.size, n_features, bias=False) if smooth else None
        self._reset(generator)

    def _reset(self, generator: torch.Generator | None) -> None:
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.1, generator=generator)
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=module.in_features**-0.5, generator=generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.normal_(self.loadings.weight, std=0.1, generator=generator)
        nn.init.zeros_(self.output.weight)
        if self.effect is not None:
            nn.init.zeros_(self.effect.weight)

    def log_theta(self, classes: Tensor) -> Tensor:
        """Log inverse dispersion (B, n_features) of the given classes (B,)."""
        return F.embedding(classes, self.start_log_theta + self.theta_shift + self.class_theta_shift)

    def offset(self, classes: Tensor) -> Tensor:
        """Log rates (B, n_features) of the given classes (B,), as trained."""
        return F.embedding(classes, self.class_log_rate + self.class_shift)

    def log_rate(self, z: Tensor, class_log_rate: Tensor, condition: Tensor | None) -> Tensor:
        """Log rates (B, n_features) at latents z (B, n_latent), given the log rates of each row's class."""
        weight, inputs = self._linear(z, condition)
        logits = torch.addmm(class_log_rate + self.output.bias, inputs, weight.T)
        return self._by_block(lambda own: torch.log_softmax(own, dim=1), logits)

    def _linear(self, z: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor]:
        """Weights (n_features, m) and inputs (B, m) whose product is what z and the condition add to log rates."""
        y = self.embedding(condition, z)
        # One matrix product for both parts: the sums of (B, n_features) tensors cost more than the arithmetic.
        weights = [self.loadings.weight, self.output.weight]
        inputs = [z, F.silu(self.hidden(torch.cat([z, y], dim=1)))]
        if self.effect is not None:
            weights.append(self.effect.weight)
            inputs.append(y)
        return torch.cat(weights, dim=1), torch.cat(inputs, dim=1)

    def _by_block(self, function: Callable[[Tensor], Tensor], values: Tensor) -> Tensor:
        """Apply a function to the features (B, n) of each block of values (B, n_features)."""
        if len(self.blocks) == 1:
            return function(values)
        return torch.cat([function(own) for own in values.split(self.blocks, dim=1)], dim=1)

    def _parts(self, genes: Tensor) -> list[slice]:
        """Where the features of each block are among `genes`, sorted."""
        if len(self.blocks) == 1:
            return [slice(0, len(genes))]
        ends = torch.searchsorted(genes, torch.tensor(self.blocks, device=genes.device).cumsum(0)).tolist()
        return [slice(start, end) for start, end in zip([0, *ends[:-1]], ends, strict=True) if end > start]

    def posterior(
        self,
        counts: Tensor,
        classes: Tensor,
        condition: Tensor | None,
        *,
        n_steps: int = 3,
        genes: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Gaussian posterior of z given counts (B, n_features), class indices (B,) and condition.

        It is computed from the features `genes`, by default `input_features`; `counts` may be those of these alone.

        Returns
        -------
        mean : Tensor (B, n_latent)
        cholesky : Tensor (B, n_latent, n_latent)
            Lower Cholesky factor of the posterior *precision*.
        """
        genes, k = self.input_features if genes is None else genes, self.n_latent
        x = counts if len(genes) == counts.shape[1] else counts[:, genes]
        y = self.embedding(condition, x)
        hidden = F.silu(self.hidden(torch.cat([y.new_zeros(len(y), k), y], dim=1)))
        offset = F.embedding(classes, (self.class_log_rate + self.class_shift)[:, genes])
        # `index_select`, whose gradient adds rows up in a fraction of the time that indexing's takes.
        offset = offset + F.linear(hidden, self.output.weight.index_select(0, genes), self.output.bias[genes])
        if self.effect is not None:
            offset = offset + F.linear(y, self.effect.weight.index_select(0, genes))
        theta = (self.start_log_theta + self.theta_shift + self.class_theta_shift)[:, genes].detach()
        inverse_theta = F.embedding(classes, torch.exp(-theta))
        w = self.loadings.weight.index_select(0, genes)
        row, column = torch.tril_indices(k, k, device=w.device)
        identity = torch.eye(k, dtype=w.dtype, device=w.device)
        products = (w @ identity[:, row]) * (w @ identity[:, column])  # columns of w: a gradient without indexing

        parts = [(part, x[:, part].sum(1, keepdim=True)) for part in self._parts(genes)]

        def of_block(mean: Tensor, part: slice, library: Tensor) -> tuple[Tensor, Tensor]:
            """What the features of one block say: their information and their gradient."""
            own = w[part]
            rate = torch.softmax(offset[:, part] + mean @ own.T, dim=1)
            mu = rate * library
            shrink = 1 / (1 + mu * inverse_theta[:, part])
            information, residual = mu * shrink, (x[:, part] - mu) * shrink
            centre, total, first = rate @ own, information.sum(1)[:, None, None], information @ own
            precision = x.new_zeros(len(x), k, k)
            precision[:, row, column] = precision[:, column, row] = information @ products[part]
            cross = centre[:, :, None] * first[:, None, :]
            precision = precision - cross - cross.mT + total * centre[:, :, None] * centre[:, None, :]
            return precision, residual @ own - centre * residual.sum(1, keepdim=True)

        def newton(mean: Tensor) -> tuple[Tensor, Tensor]:
            terms = [of_block(mean, part, library) for part, library in parts]
            precision, gradient = terms[0]
            for information, slope in terms[1:]:
                precision, gradient = precision + information, gradient + slope
            cholesky = torch.linalg.cholesky(precision + (1 + 1e-4) * identity)
            gradient = gradient - mean
            step = torch.cholesky_solve(gradient[:, :, None], cholesky)[:, :, 0]
            longest = 2 * math.sqrt(k)  # the expansion is good for steps of the prior's size, not for leaps
            step = step * (longest / step.norm(dim=1, keepdim=True).clamp_min(longest))
            return mean + step, cholesky

        mean = x.new_zeros(len(x), k)
        with torch.no_grad():  # at the mode the gradient passes through the last step alone
            for _ in range(n_steps - 1):
                mean, _ = newton(mean)
        return newton(mean)

    def sample_posterior(
        self, counts: Tensor, classes: Tensor, condition: Tensor | None, eps: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Posterior draws (B, n_latent) from standard normal `eps`, and KL divergences (B,) from the prior."""
        mean, cholesky = self.posterior(counts, classes, condition)
        z = mean + torch.linalg.solve_triangular(cholesky.mT, eps[:, :, None], upper=True)[:, :, 0]
        log_determinant = 2 * torch.log(torch.diagonal(cholesky, dim1=1, dim2=2)).sum(1)
        trace = torch.diagonal(torch.cholesky_inverse(cholesky), dim1=1, dim2=2).sum(1)
        return z, 0.5 * (trace + mean.square().sum(1) - self.n_latent + log_determinant)

    def elbo(self, counts: Tensor, classes: Tensor, condition: Tensor | None, eps: Tensor) -> tuple[Tensor, Tensor]:
        """Log-likelihood at a posterior draw (up to terms in counts alone) and KL divergence, each (B,)."""
        z, kl = self.sample_posterior(counts, classes, condition, eps)
        return self.log_likelihood(counts, classes, condition, z), kl

    def log_likelihood(self, counts: Tensor, classes: Tensor, condition: Tensor | None, z: Tensor) -> Tensor:
        """Log-likelihood (B,) of counts at latents z, up to terms in counts alone; its gradient can be taken once."""
        weight, inputs = self._linear(z, condition)
        offset = self.class_log_rate + self.class_shift + self.output.bias
        log_theta = self.start_log_theta + self.theta_shift + self.class_theta_shift
        logits, keep = F.linear(inputs, weight), torch.is_grad_enabled()
        values = (value.split(self.blocks, dim=1) for value in (logits, offset, counts, log_theta))
        found = [
            nb_row_log_prob(own, shift, x, theta, classes, gradient=keep)
            for own, shift, x, theta in zip(*values, strict=True)
        ]
        return found[0] if len(found) == 1 else torch.stack(found).sum(0)

    @torch.no_grad()
    def pull_to_prior(self, n_rows: int) -> None:
        """Add to the weights' gradients those of a Gaussian penalty in nats, divided by a number of rows.

        Where all weights are zero, the model is the per-class negative binomial.
        """
        scales = [
            (self.loadings.weight, LOADING_SD),
            (self.class_shift, CLASS_SHIFT_SD),
            (self.theta_shift, THETA_SD),
            (self.class_theta_shift, CLASS_THETA_SD),
            (self.output.weight, OUTPUT_SD),
            (self.output.bias, CLASS_SHIFT_SD),
            (self.hidden.weight, 1.0),
        ]
        if self.effect is not None:
            scales.append((self.effect.weight, EFFECT_SD))
        for weight, scale in scales:
            if weight.requires_grad:
                weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
                weight.grad.add_(weight, alpha=1 / (scale**2 * n_rows))


@dataclass
class AutoencoderHistory:
    """What `train_autoencoder` did.

    Attributes
    ----------
    n_steps, best_step : int
        Steps taken, and the step whose weights were kept (0: the start).
    start_loss : float
        Held-out loss of the per-class negative binomial, without any latent.
    losses : list of (step, train, held-out)
        Negative evidence lower bound per row in nats, up to a constant of the data.
    """

    n_steps: int
    best_step: int
    start_loss: float
    losses: list[tuple[int, float, float]]


def train_autoencoder(
    model: CountAutoencoder,
    load: Callable[[Tensor], tuple[Tensor, Tensor, Tensor | None]],
    train: Tensor,
    held_out: Tensor,
    *,
    max_steps: int,
    batch_size: int,
    learning_rate: float,
    generator: torch.Generator,
    eval_every: int = 50,
    keep_gain: float = 0.5,
    max_time: float | None = None,
    callback: Callable[[dict[str, float | int | str]], object] | None = None,
) -> AutoencoderHistory:
    """Maximise the evidence lower bound, watched on held-out rows.

    NOTE: the step kept is the last one whose held-out gain over the latent-free start is at least `keep_gain` of the
    best gain, rather than the best. The best step shrinks loadings until correlations between genes come
    out at half their strength: a held-out row pays for the noise of loadings, a simulated population hardly does.

    Parameters
    ----------
    load : callable
        ``load(rows) -> (counts (B, n), class indices (B,), condition (B, k) or None)`` on the model's device.
    train, held_out : Tensor of int64
        Row numbers; with no held-out rows the last step is kept.
    max_steps, batch_size, learning_rate
        Of Adam, with a short warm-up and cosine decay.
    generator : torch.Generator
        On the CPU, for batches and posterior noise.
    max_time : float, optional
        Seconds after which training stops.
    callback : callable, optional
        Called at every evaluation with a dict of stage, step, n_steps, loss and held_out_loss.
    """
    device = model.class_log_rate.device
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate, fused=device.type in ("cpu", "cuda"))
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / 20, 0.5 * (1 + math.cos(math.pi * step / max_steps)) + 1e-3)
    )
    eval_eps = torch.randn(len(held_out), model.n_latent, generator=generator)

    @torch.no_grad()
    def held_out_loss(latent: bool) -> float:
        total = 0.0
        for rows, eps in zip(held_out.split(512), eval_eps.split(512), strict=True):
            batch = load(rows)
            if latent:
                likelihood, kl = model.elbo(*batch, eps.to(device))
                total -= float((likelihood - kl).sum(dtype=torch.float64))
            else:
                likelihood = model.log_likelihood(*batch, torch.zeros_like(eps).to(device))
                total -= float(likelihood.sum(dtype=torch.float64))
        return total / max(len(held_out), 1)

    start_time = time.monotonic()
    start_loss = held_out_loss(False) if len(held_out) else math.nan
    best, kept_step, kept = start_loss, 0, copy.deepcopy(model.state_dict())
    losses: list[tuple[int, float, float]] = []
    running, n_running, step = 0.0, 0, 0
    while step < max_steps:
        rows = train[torch.randint(len(train), (min(batch_size, len(train)),), generator=generator)]
        eps = torch.randn(len(rows), model.n_latent, generator=generator)
        likelihood, kl = model.elbo(*load(rows), eps.to(device))
        bound = (kl - likelihood).mean()
        optimizer.zero_grad(set_to_none=True)
        bound.backward()
        model.pull_to_prior(len(train))
        nn.utils.clip_grad_norm_(model.parameters(), 100.0)
        optimizer.step()
        scheduler.step()
        step += 1
        running, n_running = running + float(bound.detach()), n_running + 1
        out_of_time = max_time is not None and time.monotonic() - start_time > max_time
        if step % eval_every == 0 or step == max_steps or out_of_time:
            loss = running / n_running
            held = held_out_loss(True) if len(held_out) else math.nan
            losses.append((step, loss, held))
            running, n_running = 0.0, 0
            if callback is not None:
                report: dict[str, float | int | str] = {
                    "stage": "autoencoder",
                    "step": step,
                    "n_steps": max_steps,
                    "loss": loss,
                }
                callback({**report, "held_out_loss": held})
            best = min(best, held) if len(held_out) else best
            if not len(held_out) or (held < start_loss and start_loss - held >= keep_gain * (start_loss - best)):
                kept_step, kept = step, copy.deepcopy(model.state_dict())
        if out_of_time:
            break
    if kept_step == 0:
        nn.init.zeros_(model.loadings.weight)
        kept["loadings.weight"].zero_()
    model.load_state_dict(kept)
    return AutoencoderHistory(step, kept_step, start_loss, losses)
