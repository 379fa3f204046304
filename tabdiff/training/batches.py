"""Which rows a training step sees."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["RowStream", "in_proportion"]


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
    last = int(torch.nonzero(weight)[-1])
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

    Attributes
    ----------
    waiting : Tensor
        Numbers that were drawn and not yet taken.
    """

    def __init__(self, n_rows: int, generator: torch.Generator, weight: Tensor | None = None) -> None:
        self.n_rows = n_rows
        self.generator = generator
        self.weight = weight
        self.waiting = torch.empty(0, dtype=torch.long, device=generator.device)

    def take(self, n: int) -> Tensor:
        """Return the next `n` row numbers."""
        while len(self.waiting) < n:
            self.waiting = torch.cat([self.waiting, self._stretch()])
        taken, self.waiting = self.waiting[:n], self.waiting[n:]
        return taken

    def _stretch(self) -> Tensor:
        device = self.generator.device
        order = torch.randperm(self.n_rows, generator=self.generator, device=device)
        if self.weight is None:
            return order
        start = torch.rand((), generator=self.generator, device=device, dtype=torch.float64)
        # In the order of the data, weights that come in a rhythm would favour some rows of a stretch over others.
        chosen = order[in_proportion(self.weight[order], self.n_rows, start)]
        return chosen[torch.randperm(self.n_rows, generator=self.generator, device=device)]
