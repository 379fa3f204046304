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
missing values are filled under the assumption that they are missing at random.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["LEFT_OUT", "PRESENT", "DrawGiven", "given_inputs"]

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


class DrawGiven:
    """Draws which entries of training rows are given.

    In a chosen row each column is held with a probability that is itself uniform on [0, 1], so that subsets of every
    size are as frequent as another. Where data are missing, half of the chosen rows learn to fill missing values (what
    is missing is left out, what is drawn is known to be present) and half to draw rows with missing values in them.

    Parameters
    ----------
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

    Examples
    --------
    >>> import torch
    >>> draw = DrawGiven(n_continuous=2, missing_levels=[], presence=[-1, -1], share=1.0)
    >>> draw(torch.ones(3, 2), torch.Generator().manual_seed(0))
    tensor([[1., 1.],
            [1., nan],
            [1., 1.]])
    """

    def __init__(
        self,
        *,
        n_continuous: int,
        missing_levels: Sequence[int],
        presence: Sequence[int],
        share: float,
        never: Sequence[int] = (),
    ) -> None:
        self.share = share
        n = n_continuous + len(missing_levels)
        telling = sorted({j for j in presence if j >= 0})
        self.incomplete = bool(telling) or max(missing_levels, default=-1) >= 0
        levels = torch.tensor([-2] * n_continuous + [k if k >= 0 else -2 for k in missing_levels])
        tells, drawn = torch.zeros(2, n, dtype=torch.bool)
        tells[telling], drawn[list(never)] = True, True
        # Which numbers each telling column is about; n stands for none, where columns tell of differently many.
        about = [[i for i, p in enumerate(presence) if p == j] for j in telling]
        longest = max((len(numbers) for numbers in about), default=0)
        numbers = torch.tensor([part + [n] * (longest - len(part)) for part in about], dtype=torch.long)
        fixed = (levels, tells, drawn, torch.tensor(telling, dtype=torch.long), numbers)
        self._fixed: dict[torch.device, tuple[Tensor, ...]] = {torch.device("cpu"): fixed}

    def _on(self, device: torch.device) -> tuple[Tensor, ...]:
        """Return what does not change on a device, where it is copied once."""
        if device not in self._fixed:
            self._fixed[device] = tuple(part.to(device) for part in self._fixed[torch.device("cpu")])
        return self._fixed[device]

    def __call__(self, data: Tensor, generator: torch.Generator) -> Tensor:
        """Draw which entries are given.

        Parameters
        ----------
        data : Tensor
            Shape (B, d): numbers, NaN where missing, then codes.
        generator : torch.Generator
            Source of the draws, on the device of `data`.

        Returns
        -------
        Tensor
            Shape (B, d), all NaN in rows that are not chosen.
        """
        levels, tells, never, telling, numbers = self._on(data.device)
        uniform = torch.rand((len(data), data.shape[1] + 3), generator=generator, device=data.device)
        chosen, size, fills, each = uniform[:, :1] < self.share, uniform[:, 1:2], uniform[:, 2:3] < 0.5, uniform[:, 3:]
        held = each < size
        absent = data.isnan() | (data == levels)
        if len(telling):
            # Whether a number is missing is given with the number itself: it cannot be seen otherwise.
            seen = nn.functional.pad(held, (0, 1)).index_select(1, numbers.flatten())
            held = held.index_copy(1, telling, seen.unflatten(1, numbers.shape).any(dim=2))
        drawn = data.new_full((), torch.nan)
        conditioning = torch.where(held & ~data.isnan(), data, drawn)
        filling = torch.where(held, data, data.new_full((), PRESENT))
        filling = torch.where(absent | tells, data.new_full((), LEFT_OUT), filling)
        given = torch.where(fills, filling, conditioning) if self.incomplete else conditioning
        return torch.where(chosen & ~never, given, drawn)
