r"""Diffusion of rows that mix numbers and categories, in one Gaussian process.

Each level of a categorical column has a learned embedding of fixed length, and the noisy row is the noisy numbers
followed by the noisy embeddings. For the numbers the network predicts the schedule's target; for each category it
returns logits, and the estimate of the clean embedding is their expectation,

.. math:: \hat x_0 = \sum_k p_k e_k,

so that one sampler and one guidance rule serve every column ("score interpolation": Dieleman et al., 2022,
https://arxiv.org/abs/2211.15089; Mueller, Gruber and Fok, 2025, https://arxiv.org/abs/2312.10431). The loss of a
category is its cross-entropy divided by the entropy of the column, so that each column starts at about 1, as a
standardised number does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tabdiff.diffusion.denoiser import Denoiser, LikelihoodParts, coefficients
from tabdiff.diffusion.losses import Loss
from tabdiff.diffusion.masks import PRESENT, given_inputs
from tabdiff.diffusion.schedules.registry import Schedule
from tabdiff.diffusion.segment_softmax import ColumnBlocks
from tabdiff.diffusion.targets import _to_x0, target_of
from tabdiff.utils.random import RowStreams

__all__ = ["MixedDenoiser"]

# Logits are bent smoothly into this range, so that no level's probability underflows beside another column's.
MAX_LOGIT = 30.0
# A nearly constant column would otherwise weigh its rare levels without bound.
MIN_ENTROPY = 0.1
# Taken from the logit of a level that is excluded.
EXCLUDED = 1e4


class MixedDenoiser(Denoiser):
    """Denoiser of rows of numbers and category codes.

    Data are tensors (B, n_continuous + n_columns): numbers, NaN where missing, then codes. Noisy rows are tensors
    (B, `width`) with ``width = n_continuous + n_columns * embedding_size``. The network maps rows of that width to
    ``n_continuous + sum(n_levels)`` outputs.

    Parameters
    ----------
    network : nn.Module
        Called as ``network(x, t, c)``.
    schedule : Schedule
        The noise schedule.
    frequencies : sequence of Tensor of shape (n_levels,)
        For each categorical column the share of each level in the data. Logits start there.
    n_continuous : int
        Number of leading numeric columns.
    target : str
        What the network predicts for the numbers; categories are always predicted as logits.
    condition_embedding : nn.Module, optional
        See `Denoiser`.
    embedding_size : int
        Length of a level's embedding.
    loss : str or Loss
        Weighting of the numbers' loss over time.
    bounds : Tensor of shape (2, n_continuous), optional
        Smallest and largest value of each number; see `Denoiser`.
    missing_levels : sequence of int, optional
        For each categorical column the code that stands for a missing value, or -1. With it the network can be told
        which entries are given; see `tabdiff.diffusion.masks`.
    shared : bool, default=False
        Whether all columns have the same levels, and so the same embeddings: the positions of a sequence.

    Attributes
    ----------
    width : int
        Length of a noisy row.
    """

    has_levels = True
    n_continuous: int
    log_frequency: Tensor
    entropy: Tensor
    missing_level: Tensor

    def __init__(
        self,
        network: nn.Module,
        schedule: Schedule,
        frequencies: Sequence[Tensor],
        n_continuous: int,
        target: str = "v",
        condition_embedding: nn.Module | None = None,
        *,
        embedding_size: int = 8,
        loss: str | Loss = "simple",
        bounds: Tensor | None = None,
        missing_levels: Sequence[int] | None = None,
        shared: bool = False,
    ) -> None:
        n_given = n_continuous + len(frequencies) if missing_levels is not None else 0
        super().__init__(network, schedule, target, condition_embedding, loss=loss, bounds=bounds, n_given=n_given)
        self.n_continuous = n_continuous
        self.n_levels = [len(f) for f in frequencies]
        self.embedding_size = embedding_size
        self.width = self.width_of(n_continuous, len(self.n_levels), embedding_size)
        self.blocks = ColumnBlocks(self.n_levels)
        missing = torch.zeros(sum(self.n_levels), dtype=torch.bool)
        for offset, code in zip(self.blocks.offsets.tolist(), missing_levels or (), strict=False):
            missing[offset + code : offset + code + (code >= 0)] = True
        self.register_buffer("missing_level", missing, persistent=False)
        shares = torch.cat([f.double() for f in frequencies]).clamp(min=1e-6)
        self.register_buffer("log_frequency", shares.log().float())
        entropy = torch.tensor([float(-(f.double() * f.double().clamp(min=1e-12).log()).sum()) for f in frequencies])
        self.register_buffer("entropy", entropy.clamp(min=MIN_ENTROPY))
        if shared and len(set(self.n_levels)) > 1:
            raise ValueError(f"columns that share their levels must have as many; got {self.n_levels}")
        self._copies = len(self.n_levels) if shared else 1
        self.levels = nn.Parameter(torch.randn(sum(self.n_levels) // self._copies, embedding_size))

    @property
    def n_drawn_levels(self) -> int:  # type: ignore[override]
        """Random numbers that `finish` takes for a row: one for each level."""
        return sum(self.n_levels)

    @staticmethod
    def width_of(n_continuous: int, n_columns: int, embedding_size: int) -> int:
        """Return the length of a noisy row."""
        return n_continuous + n_columns * embedding_size

    def embeddings(self) -> Tensor:
        """Return the level embeddings, all of length sqrt(embedding_size), shape (sum(n_levels), embedding_size)."""
        levels = nn.functional.normalize(self.levels, dim=1) * math.sqrt(self.embedding_size)
        return levels.repeat(self._copies, 1)

    def to_x0(self, data: Tensor) -> Tensor:
        """Map data (B, n_continuous + n_columns) to clean rows (B, width); a missing number becomes 0."""
        numbers = data[:, : self.n_continuous].nan_to_num()
        index = data[:, self.n_continuous :].long() + self.blocks.offsets
        return torch.cat([numbers, self.embeddings()[index].flatten(1)], dim=1)

    def share_levels(self, other: Denoiser) -> None:
        """Take the embeddings of levels of another denoiser of the same rows, and keep them: both see them alike."""
        if isinstance(other, MixedDenoiser):
            self.levels.data.copy_(other.levels.data)
            self.levels.requires_grad_(False)

    def likelihood_parts(self, data: Tensor, condition: Tensor | None) -> LikelihoodParts:
        """Return clean rows, which numbers of them are known, and the log-probabilities of their levels."""
        n = self.n_continuous
        clean = self.to_x0(data)
        number = torch.zeros_like(clean, dtype=torch.bool)
        number[:, :n] = True
        known = ~number
        known[:, :n] = ~data[:, :n].isnan()
        levels = data[:, n:].long() + self.blocks.offsets

        def log_decoder(noisy: Tensor, t: Tensor) -> Tensor:
            return self.log_probabilities(noisy, t, condition).gather(1, levels).double().sum(1)

        return LikelihoodParts(clean, known, number, log_decoder)

    def _clean(self, given: Tensor) -> Tensor:
        held = given.isfinite()
        return torch.where(self._widen(held), self.to_x0(torch.where(held, given, 0.0)), 0.0)

    def _widen(self, mask: Tensor) -> Tensor:
        n = self.n_continuous
        return torch.cat([mask[:, :n], mask[:, n:].repeat_interleave(self.embedding_size, dim=1)], dim=1)

    def _output(self, x_t: Tensor, t: Tensor, condition: Tensor | None) -> Tensor:
        """Return the network's output, in float32 at least."""
        output = self.raw(x_t, t, condition)
        return output if output.dtype == torch.float64 else output.float()

    def _predict(self, x_t: Tensor, t: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the prediction of the target of the numbers, and logits (B, sum(n_levels))."""
        output = self._output(x_t, t, condition)
        raw = output[:, self.n_continuous :]
        logits = torch.add(self.log_frequency, torch.tanh(raw / MAX_LOGIT), alpha=MAX_LOGIT)
        given = self.split(condition)[1]
        if given is not None:
            present = (given[:, self.n_continuous :] == PRESENT)[:, self.blocks.column]
            logits = logits - EXCLUDED * (present & self.missing_level)
        return self._target(output, x_t, t), logits

    def _target(self, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """Return the prediction of the target of the numbers, from the network's output."""
        numbers = output[:, : self.n_continuous]
        return numbers / coefficients(self.schedule, t, x_t)[1] if self.target == "score" else numbers

    def _clean_numbers(self, prediction: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """Estimate clean numbers from the prediction of their target."""
        alpha, sigma = coefficients(self.schedule, t, x_t)
        noisy = x_t[:, : self.n_continuous]
        return self.clip(_to_x0(prediction, noisy, alpha, sigma, self.target, self.sigma_data))

    def numbers(self, x_t: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """Estimate the clean numbers alone, (B, n_continuous), as `forward` does, without the work on categories."""
        numbers = self._clean_numbers(self._target(self._output(x_t, t, condition), x_t, t), x_t, t)
        given = self.split(condition)[1]
        if given is None:
            return numbers
        held = given[:, : self.n_continuous]
        return torch.where(held.isfinite(), held.to(numbers.dtype), numbers)

    def _expected(self, logits: Tensor) -> Tensor:
        """Return the expected embedding of each column, shape (B, n_columns * embedding_size)."""
        # Autocast would round the estimate itself to eight bits.
        with torch.autocast(logits.device.type, enabled=False):
            return self.blocks.expected(logits, self.embeddings().to(logits.dtype)).flatten(1)

    def forward(self, x_t: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """Estimate clean rows (B, width) from noisy ones at time `t`, 0-d or (B,)."""
        prediction, logits = self._predict(x_t, t, condition)
        numbers = self._clean_numbers(prediction, x_t, t)
        return self.hold(torch.cat([numbers, self._expected(logits.to(x_t.dtype))], dim=1), condition)

    def log_probabilities(self, x_t: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return the log-probability of every level of every column, (B, sum(n_levels)), given noisy rows."""
        return self.blocks.log_probabilities(self._predict(x_t, t, condition)[1])

    def loss(self, x0: Tensor, condition: Tensor | None = None, *, t: Tensor, eps: Tensor) -> Tensor:
        """Return the training loss of each row, (B,): the mean over its columns, missing numbers left out.

        Parameters
        ----------
        x0 : Tensor
            Data, shape (B, n_continuous + n_columns).
        condition : Tensor, optional
            Shape (B, k), NaN for a null entry.
        t : Tensor
            Times, shape (B,).
        eps : Tensor
            Standard normal noise, shape (B, width).
        """
        known = ~x0[:, : self.n_continuous].isnan()
        given = self.split(condition)[1]
        seen = given_inputs(given)[0] if given is not None else torch.zeros_like(x0, dtype=torch.bool)
        clean = self.to_x0(x0)
        alpha, sigma = coefficients(self.schedule, t, clean)
        # A missing number is pure noise to the network, as it will be in sampling, where nothing holds it.
        signal = alpha * clean
        noise_scale = sigma.expand_as(clean).clone()
        marginal = (alpha.square() + sigma.square()).sqrt().expand_as(known)
        signal[:, : self.n_continuous] = torch.where(known, signal[:, : self.n_continuous], 0.0)
        noise_scale[:, : self.n_continuous] = torch.where(known, noise_scale[:, : self.n_continuous], marginal)
        x_t = signal + noise_scale * eps
        prediction, logits = self._predict(x_t, t, condition)
        total = x0.new_zeros(len(x0))
        n_columns = self.n_continuous + len(self.n_levels)
        if self.n_continuous:
            numbers, noise = clean[:, : self.n_continuous], eps[:, : self.n_continuous]
            target = target_of(numbers, noise, alpha, sigma, self.target, sigma_data=self.sigma_data)
            error = torch.where(known & ~seen[:, : self.n_continuous], prediction - target, 0.0)
            rows = self.objective(error, self.schedule, t, self.target, sigma_data=self.sigma_data)
            total = total + rows * (self.n_continuous / n_columns)
        if self.n_levels:
            surprise = -self.blocks.log_likelihood(logits, x0[:, self.n_continuous :].long()) / self.entropy
            surprise = surprise.masked_fill(seen[:, self.n_continuous :], 0.0)
            total = total + surprise.sum(1) / n_columns
        return total

    def finish(
        self, rows: Tensor, condition: Tensor | None = None, generator: torch.Generator | RowStreams | None = None
    ) -> Tensor:
        """Return data for rows (B, width) at which a sampler ended that did not take the last step; see `to_data`."""
        return self.to_data(rows, torch.tensor(self.schedule.t_min, dtype=torch.float64), condition, generator)

    @torch.no_grad()
    def to_data(
        self,
        x_t: Tensor,
        t: Tensor,
        condition: Tensor | None = None,
        generator: torch.Generator | RowStreams | None = None,
    ) -> Tensor:
        """Take the last step, from slightly noisy rows to data: estimate the numbers, draw the categories.

        Parameters
        ----------
        x_t : Tensor
            Rows at time `t`, shape (B, width).
        t : Tensor
            A time near the clean end, 0-d.
        condition : Tensor, optional
            Shape (B, k).
        generator : torch.Generator or RowStreams, optional
            Draws the levels; on the CPU.

        Returns
        -------
        Tensor
            Data, shape (B, n_continuous + n_columns).
        """
        prediction, logits = self._predict(x_t, t, condition)
        numbers = self._clean_numbers(prediction, x_t, t)
        # Gumbel's trick: the largest of the logits plus Gumbel noise is a draw from their softmax.
        if isinstance(generator, RowStreams):
            uniform = generator.uniform(logits.shape[1])
        else:
            uniform = torch.rand(logits.shape, generator=generator).clamp(min=1e-20)
        scores = logits - (-uniform.to(logits.device).log()).log()
        codes = [part.argmax(1) for part in scores.split(self.n_levels, dim=1)]
        return torch.cat([numbers, *(c[:, None].to(numbers.dtype) for c in codes)], dim=1)
