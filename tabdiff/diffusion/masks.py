r"""Rows of which some entries are given: what a network is told about them, in training and in sampling.

A network that is to draw any columns given any others sees in training, for a share of the rows, a random subset of
their entries as they are, without noise, and learns to denoise the rest (Tashiro et al., 2021, for time series,
https://arxiv.org/abs/2107.03502; Zheng and Charoenphakdee, 2022, for tables, https://arxiv.org/abs/2210.17128).

What is given stands in a tensor (B, d) beside the condition, an entry per column of the data:

============  ==========================================================================
a number      the entry is held at this value, or code
NaN           the entry is drawn
`PRESENT`     the entry is drawn, and known not to be missing
`LEFT_OUT`    the entry is neither given nor drawn: the network sees nothing of it
============  ==========================================================================

With the last two, missing values of a training row are passed over and what says where they are is hidden, so that
holes are filled under the assumption that they are missing at random.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["LEFT_OUT", "PRESENT", "draw_given", "given_inputs"]

PRESENT = -torch.inf
LEFT_OUT = torch.inf


def given_inputs(given: Tensor) -> tuple[Tensor, Tensor]:
    """Return what is known of each entry.

    Parameters
    ----------
    given : Tensor
        Shape (B, d), as the module says.

    Returns
    -------
    seen : Tensor
        Boolean, shape (B, d): True where the network sees no noise, because the entry is held or left out.
    marks : Tensor
        Shape (B, 2 d): ones for the entries that are held, and for those known to be present.
    """
    held, present = given.isfinite(), given == PRESENT
    return held | (given == LEFT_OUT), torch.cat([held, present], dim=1).to(given.dtype)


def draw_given(
    data: Tensor,
    generator: torch.Generator,
    *,
    n_continuous: int,
    missing_levels: Sequence[int],
    presence: Sequence[int],
    share: float,
    never: Sequence[int] = (),
) -> Tensor:
    """Draw which entries of training rows are given.

    In a chosen row each column is held with a probability that is itself uniform on [0, 1], so that subsets of every
    size are as frequent as another. Where data are missing, half of the chosen rows learn to fill holes (what is
    missing is left out, what is drawn is known to be present) and half to draw rows with missing values in them.

    Parameters
    ----------
    data : Tensor
        Shape (B, d): numbers, NaN where missing, then codes.
    generator : torch.Generator
        Source of the draws, on the device of `data`.
    n_continuous : int
        Number of leading numbers.
    missing_levels : sequence of int
        For each column of codes, the code of a missing value or -1.
    presence : sequence of int
        For each number the column that says whether it is missing, or -1.
    share : float
        Share of the rows to choose, in [0, 1].
    never : sequence of int
        Columns that are always drawn.

    Returns
    -------
    Tensor
        Shape (B, d), all NaN in rows that are not chosen.
    """
    device = data.device
    uniform = torch.rand((len(data), data.shape[1] + 3), generator=generator, device=device)
    chosen, size, fills, each = uniform[:, :1] < share, uniform[:, 1:2], uniform[:, 2:3] < 0.5, uniform[:, 3:]
    held = each < size
    absent = data.isnan()
    levels = torch.tensor([-2] * n_continuous + [k if k >= 0 else -2 for k in missing_levels], device=device)
    absent = absent | (data == levels)
    tells = torch.zeros(data.shape[1], dtype=torch.bool, device=device)
    tells[[j for j in presence if j >= 0]] = True
    for j in set(presence) - {-1}:
        # Whether a number is missing is given with the number itself: it cannot be seen otherwise.
        held[:, j] = held[:, [i for i, p in enumerate(presence) if p == j]].any(dim=1)
    drawn = data.new_full((), torch.nan)
    conditioning = torch.where(held & ~data.isnan(), data, drawn)
    filling = torch.where(held, data, data.new_full((), PRESENT))
    filling = torch.where(absent | tells, data.new_full((), LEFT_OUT), filling)
    incomplete = bool(tells.any()) or max(missing_levels, default=-1) >= 0
    given = torch.where(fills, filling, conditioning) if incomplete else conditioning
    given[:, list(never)] = drawn
    return torch.where(chosen, given, drawn)
