"""Softmax over the levels of each of many columns that stand side by side in one row."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

__all__ = ["ColumnBlocks"]

# A column of more levels is a block of its own: of so many, gathering costs more than an operation of their own.
LARGE = 256
# Up to so many multiplications a row, means of all columns are one matrix product, mostly of zeros: softmax over the
# few levels of a column at a time takes several times as long.
DENSE_PRODUCT = 2**16
# exp(80) times some hundred levels is still a float32, and exp(-80) beside what a denoiser's logits can be is nothing.
MAX_EXPONENT = 80.0


class ColumnBlocks(nn.Module):
    """Columns of similar size, gathered into padded blocks, so that few operations serve any number of columns.

    Logits of a row are those of the levels of the first column, then those of the second, and so on.

    Parameters
    ----------
    n_levels : sequence of int
        Number of levels of each column.
    """

    offsets: Tensor
    column: Tensor
    column_order: Tensor

    def __init__(self, n_levels: Sequence[int]) -> None:
        super().__init__()
        counts = torch.tensor(n_levels, dtype=torch.long)
        self.register_buffer("offsets", counts.cumsum(0) - counts, persistent=False)
        self.register_buffer("column", torch.repeat_interleave(counts), persistent=False)
        # Powers of four waste little on padding and make few blocks; a large column has a size of its own.
        sizes = [LARGE + 1 + j if k > LARGE else 4 ** math.ceil(math.log(max(k, 2), 4)) for j, k in enumerate(n_levels)]
        self.members = [[j for j, s in enumerate(sizes) if s == size] for size in sorted(set(sizes))]
        self._slices: list[slice | None] = []
        for b, members in enumerate(self.members):
            longest = max(n_levels[j] for j in members)
            level = torch.arange(longest)
            short = level >= counts[members, None]
            index = self.offsets[members, None] + torch.where(short, 0, level)
            start, stop = int(index[0, 0]), int(index[0, 0]) + index.numel()
            run = torch.equal(index.flatten(), torch.arange(start, stop))
            self._slices.append(slice(start, stop) if run else None)
            self.register_buffer(f"members_{b}", torch.tensor(members, dtype=torch.long), persistent=False)
            self.register_buffer(f"index_{b}", index, persistent=False)
            self.register_buffer(
                f"padding_{b}", torch.zeros(index.shape).masked_fill(short, -torch.inf), persistent=False
            )
        order = torch.tensor([j for members in self.members for j in members], dtype=torch.long)
        self.register_buffer("column_order", order.argsort(), persistent=False)

    def _block(self, values: Tensor, b: int, dim: int) -> Tensor:
        """Take what belongs to the levels of a block along a dimension, which becomes two: (columns, longest)."""
        index, run = getattr(self, f"index_{b}"), self._slices[b]
        if run is not None:
            return values.narrow(dim, run.start, index.numel()).unflatten(dim, index.shape)
        return values.index_select(dim, index.flatten()).unflatten(dim, index.shape)

    def _split(self, logits: Tensor) -> Iterator[Tensor]:
        """Cut logits (B, sum(n_levels)) into blocks (B, columns, longest), -inf where a column has no such level."""
        for b, run in enumerate(self._slices):
            block = self._block(logits, b, 1)
            yield block if run is not None else block + getattr(self, f"padding_{b}").to(logits.dtype)

    def _join(self, parts: list[Tensor]) -> Tensor:
        """Put results (B, columns, ...) of the blocks into the order of the columns."""
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)[:, self.column_order]

    def log_probabilities(self, logits: Tensor) -> Tensor:
        """Normalise logits (B, sum(n_levels)) within each column."""
        if not self.members:
            return logits
        normaliser = self._join([block.logsumexp(-1) for block in self._split(logits)])
        return logits - normaliser[:, self.column]

    def log_likelihood(self, logits: Tensor, codes: Tensor) -> Tensor:
        """Return the log-probability (B, n_columns) of codes (B, n_columns), without normalising all others."""
        parts = []
        for b, block in enumerate(self._split(logits)):
            chosen = codes.index_select(1, getattr(self, f"members_{b}"))
            parts.append(block.log_softmax(-1).gather(-1, chosen[:, :, None]).squeeze(-1))
        return self._join(parts) if parts else logits

    def expected(self, logits: Tensor, table: Tensor) -> Tensor:
        """Return the mean row of a table (sum(n_levels), e) under each column's probabilities, (B, n_columns, e)."""
        n_columns, e = len(self.column_order), table.shape[1]
        if 0 < len(table) * n_columns * (e + 1) <= DENSE_PRODUCT:
            return self._dense_expected(logits, table)
        blocks = enumerate(self._split(logits))
        parts = [torch.einsum("bcl,cle->bce", block.softmax(-1), self._block(table, b, 0)) for b, block in blocks]
        return self._join(parts) if parts else logits.new_empty((len(logits), 0, table.shape[1]))

    def _dense_expected(self, logits: Tensor, table: Tensor) -> Tensor:
        """Return the same by one product with the sums of each column's weights beside the weighted rows."""
        n_columns, e = len(self.column_order), table.shape[1]
        rows = torch.cat([table, table.new_ones(len(table), 1)], dim=1)
        wide = table.new_zeros(len(table), n_columns, e + 1)
        wide[torch.arange(len(table), device=table.device), self.column] = rows
        sums = logits.clamp(-MAX_EXPONENT, MAX_EXPONENT).exp() @ wide.flatten(1)
        sums = sums.unflatten(1, (n_columns, e + 1))
        return sums[..., :e] / sums[..., e:]
