"""Encoded rows of a table in which nothing fits together."""

from typing import Any

import torch
from torch import Tensor


def noise(codec: Any, n: int, seed: int = 0) -> Tensor:
    """Draw numbers and codes independently of each other: the hardest case for a relation between columns."""
    g = torch.Generator().manual_seed(seed)
    numbers = torch.randn((n, codec.n_continuous_), generator=g)
    codes = [torch.randint(0, k, (n, 1), generator=g).float() for k in codec.n_levels_]
    return torch.cat([numbers, *codes], 1)


__all__ = ["noise"]
