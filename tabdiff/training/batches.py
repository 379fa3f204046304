"""Which rows a training step sees, and what it makes of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from tabdiff.io.row_store import GROUP_BLOCKS

__all__ = ["Batches", "RowStream", "in_proportion"]


def in_proportion(weight: Tensor, n: int, start: float | Tensor = 0.5) -> Tensor:
    """Return `n` row numbers, in order, in which row i stands ``n * weight[i] / weight.sum()`` times.

    Where that is no integer, it is the one above or below; averaged over `start`, the numbers are exact (systematic
    sampling: Madow and Madow, 1944).

    Parameters
    ----------
    weight : Tensor of shape (m,)
        At least 0, not all 0.
    n : int
        How many row numbers.
    start : float or Tensor, default=0.5
        Place of the first inside its step, in [0, 1).

    Returns
    -------
    Tensor of shape (n,)
        int64.

    Examples
    --------
    >>> import torch
    >>> in_proportion(torch.tensor([2.0, 0.0, 1.0, 3.0]), 6)
    tensor([0, 0, 2, 3, 3, 3])
    """
    total = weight.double().cumsum(0)
    places = (torch.arange(n, dtype=torch.float64, device=weight.device) + start) * (total[-1] / n)
    # Rounding may carry the last place to the end of the sum, behind which there is no row.
    last = torch.where(weight != 0, torch.arange(len(weight), device=weight.device), 0).max()
    return torch.searchsorted(total, places, right=True).clamp(max=last)


class RowStream:
    """Endless stream of row numbers: one random permutation of the rows after another.

    So every row is seen equally often, whatever the batch size. With weights, a row stands in each stretch of `n_rows`
    numbers as often as its weight asks for, which leaves the variance of a step's gradient as it is; a weighted loss
    would let it grow with the spread of the weights.

    Parameters
    ----------
    n_rows : int
        Number of rows.
    generator : torch.Generator
        Source of the permutations; the numbers are on its device.
    weight : Tensor of shape (n_rows,), optional
        Not negative.
    block_rows : int, optional
        Rows of files lie in blocks of so many, which are quick to read: blocks come in random order, and the rows of a
        group of them are shuffled with each other.

    Attributes
    ----------
    waiting : Tensor
        Numbers that were drawn and not yet taken.
    blocks : Tensor
        Blocks of this permutation that are still to come.
    """

    def __init__(
        self, n_rows: int, generator: torch.Generator, weight: Tensor | None = None, block_rows: int | None = None
    ) -> None:
        self.n_rows = n_rows
        self.generator = generator
        self.weight = weight
        self.block_rows = block_rows
        self.blocks = torch.empty(0, dtype=torch.long, device=generator.device)
        self.waiting = torch.empty(0, dtype=torch.long, device=generator.device)

    def take(self, n: int) -> Tensor:
        """Return the next `n` row numbers."""
        while len(self.waiting) < n:
            self.waiting = torch.cat([self.waiting, self._stretch()])
        taken, self.waiting = self.waiting[:n], self.waiting[n:]
        return taken

    def _stretch(self) -> Tensor:
        device = self.generator.device
        if self.block_rows is not None:
            return self._group(self.block_rows)
        order = torch.randperm(self.n_rows, generator=self.generator, device=device)
        if self.weight is None:
            return order
        start = torch.rand((), generator=self.generator, device=device, dtype=torch.float64)
        # In the order of the data, weights that come in a rhythm would favour some rows of a stretch over others.
        chosen = order[in_proportion(self.weight[order], self.n_rows, start)]
        return chosen[torch.randperm(self.n_rows, generator=self.generator, device=device)]

    def _group(self, size: int) -> Tensor:
        """Return the rows of the next blocks, shuffled."""
        device = self.generator.device
        if not len(self.blocks):
            self.blocks = torch.randperm(-(-self.n_rows // size), generator=self.generator, device=device)
        group, self.blocks = self.blocks[:GROUP_BLOCKS], self.blocks[GROUP_BLOCKS:]
        rows = (group[:, None] * size + torch.arange(size, device=device)).flatten()
        rows = rows[rows < self.n_rows]
        return rows[torch.randperm(len(rows), generator=self.generator, device=device)]


@dataclass(frozen=True)
class Batches:
    """Training rows, and how a batch of them becomes what the denoiser is shown.

    Parameters
    ----------
    data : Tensor of shape (n, *)
        Encoded rows; or any object with a length that gives rows for row numbers and goes to a device.
    condition : Tensor of shape (n, k) or None
        Encoded conditions.
    weight : Tensor of shape (n,) or None
        Rows are drawn in proportion to it; alike where it is None.
    size : int
        Rows of a batch.
    event_shape : tuple of int or None
        Shape of the noise of one row, where it differs from the row's own (embedded categories).
    condition_dropout : float or sequence of (slice, float)
        Probability with which a row's condition is replaced by the null token; or columns that are replaced together,
        each group by itself, with the probability of each.
    draw_given : callable or None
        ``draw_given(rows, generator)`` says which entries of a batch are given; see `tabdiff.diffusion.masks`.
    vary : callable or None
        ``vary(condition, generator)`` changes the conditions of a batch, before some are dropped.
    prepare : callable or None
        ``prepare(rows, generator)`` makes the rows that the network sees of a batch of `data`, which may then be of a
        smaller dtype.
    epoch_rows : int or None
        Rows of an epoch, where `data` holds each of them several times; None is all of `data`.
    block_rows : int or None
        See `RowStream`.

    Examples
    --------
    >>> import torch
    >>> batches = Batches(torch.arange(6.0).reshape(3, 2), torch.ones(3, 1), size=2, condition_dropout=0.0)
    >>> batches.make(torch.tensor([2, 0]), torch.Generator())
    (tensor([[4., 5.],
            [0., 1.]]), tensor([[1.],
            [1.]]))
    """

    data: Any
    condition: Any = None
    _: KW_ONLY
    weight: Tensor | None = None
    size: int = 512
    event_shape: tuple[int, ...] | None = None
    condition_dropout: float | Sequence[tuple[slice, float]] = 0.1
    draw_given: Callable[[Tensor, torch.Generator], Tensor] | None = None
    vary: Callable[[Tensor, torch.Generator], Tensor] | None = None
    prepare: Callable[[Tensor, torch.Generator], Tensor] | None = None
    epoch_rows: int | None = None
    block_rows: int | None = None

    def __len__(self) -> int:
        return len(self.data)

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """Shape of the noise of one row."""
        return self.event_shape if self.event_shape is not None else tuple(self.data.shape[1:])

    def to(self, device: torch.device) -> Batches:
        """Return the same batches with their rows on a device."""
        condition, weight = (None if part is None else part.to(device) for part in (self.condition, self.weight))
        return replace(self, data=self.data.to(device), condition=condition, weight=weight)

    def make(self, chosen: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """Return clean rows and what is known of them, for row numbers (B,).

        Parameters
        ----------
        chosen : Tensor of shape (B,)
            Row numbers, on the device of the rows.
        generator : torch.Generator
            Source of every draw, on that device.

        Returns
        -------
        rows : Tensor of shape (B, *)
        given : Tensor of shape (B, *) or None
            The condition, some of it hidden, and beside it the entries that are given.
        """
        rows = self.data[chosen]
        if self.prepare is not None:
            rows = self.prepare(rows, generator)
        given = None
        if self.condition is not None:
            given = self.condition[chosen]
            if self.vary is not None:
                given = self.vary(given, generator)
            given = _drop(given, self.condition_dropout, generator)
        if self.draw_given is not None:
            entries = self.draw_given(rows, generator)
            given = entries if given is None else torch.cat([given, entries], dim=1)
        return rows, given


def _drop(condition: Tensor, dropout: float | Sequence[tuple[slice, float]], generator: torch.Generator) -> Tensor:
    """Replace conditions of a random share of the rows by the null token, whole or each group of columns by itself."""
    groups = [(slice(None), dropout)] if isinstance(dropout, float | int) else dropout
    uniform = torch.rand(len(condition), len(groups), generator=generator, device=condition.device)
    hidden = torch.zeros_like(condition, dtype=torch.bool)
    for j, (columns, probability) in enumerate(groups):
        hidden[:, columns] |= uniform[:, j : j + 1] < probability
    return condition.masked_fill(hidden, float("nan"))
