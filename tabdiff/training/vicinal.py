"""Continuous conditions between the values that training has."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["Vicinity"]

MOVED = 0.5  # share of rows whose value moves, half of them to each side


class Vicinity:
    r"""Moves some rows towards the neighbouring values of a continuous condition, so that there are rows between.

    A network sees a dose at its few values only and is free to do anything between. A row of value v moves to a place
    between v and its neighbour w with a density that falls linearly to zero at w: the rows at a place are then those
    of both neighbours in proportion to how near each is, which is linear interpolation of distributions, and at v
    itself there are rows of v alone. Where values lie close together, nothing is changed worth mentioning. It is the
    vicinal risk of Ding et al. (2021, CcGAN: continuous conditional generative adversarial networks) with a kernel as
    wide as the gap.

    Parameters
    ----------
    condition : Tensor of shape (n, k)
        Encoded conditions of the training rows, NaN for null.
    columns : sequence of int
        Those that are continuous.
    device : torch.device or str, default="cpu"
        That of the batches.

    Examples
    --------
    >>> import torch
    >>> doses = torch.tensor([[0.0], [0.0], [1.0], [1.0]])
    >>> moved = Vicinity(doses, [0])(doses, torch.Generator().manual_seed(0))
    >>> bool(((moved >= 0) & (moved <= 1)).all())
    True
    """

    def __init__(self, condition: Tensor, columns: Sequence[int], device: torch.device | str = "cpu") -> None:
        values = {j: condition[:, j][~condition[:, j].isnan()].unique() for j in columns}
        self.values = {j: v.to(device) for j, v in values.items() if len(v) > 1}

    def __call__(self, condition: Tensor, generator: torch.Generator) -> Tensor:
        """Return the conditions (B, k) of a batch, some of them moved."""
        out = condition.clone()
        for j, values in self.values.items():
            column = condition[:, j]
            side, place = torch.rand(2, len(column), generator=generator, device=column.device)
            at = torch.searchsorted(values, column.nan_to_num().contiguous())
            step = torch.where(side < MOVED / 2, -1, 1) * (side < MOVED)
            # Null stays null, and at the ends nothing moves outwards.
            neighbour = values[(at + step).clamp(0, len(values) - 1)]
            out[:, j] = column + (neighbour - column) * (1 - place.sqrt())
        return out
