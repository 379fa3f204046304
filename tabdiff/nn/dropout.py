"""Dropout that draws from a generator of its own."""

import torch
from torch import Tensor, nn

__all__ = ["Dropout"]


class Dropout(nn.Module):
    """Dropout whose masks come from `generator`, so that a seeded fit repeats without touching torch's global state.

    Parameters
    ----------
    p : float
        Share of entries set to zero in training, in [0, 1).

    Attributes
    ----------
    generator : torch.Generator or None
        Set by the training loop; None draws from torch's global generator.

    Examples
    --------
    >>> import torch
    >>> dropout = Dropout(0.5)
    >>> dropout.generator = torch.Generator().manual_seed(0)
    >>> sorted(set(dropout(torch.ones(100)).tolist()))
    [0.0, 2.0]
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"dropout must lie in [0, 1), got {p!r}")
        self.p = p
        self.generator: torch.Generator | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return x with entries dropped in training, x itself in evaluation."""
        if not self.training or self.p == 0:
            return x
        keep = torch.rand(x.shape, generator=self.generator, device=x.device) >= self.p
        return x * keep / (1 - self.p)
