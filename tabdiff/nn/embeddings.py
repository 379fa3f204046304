"""Embeddings of what a denoiser is told beside the noisy data: the time and the condition.

A condition is one float tensor with a column per attribute. A class attribute holds codes ``0 .. n_levels - 1``, a
continuous one standardised values; NaN stands for the null token, "nothing is known", which classifier-free guidance
(Ho and Salimans, 2022, https://arxiv.org/abs/2207.12598) needs both in training and in sampling.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["ConditionEmbedding", "FourierFeatures", "SinusoidalEmbedding"]


class SinusoidalEmbedding(nn.Module):
    r"""Sinusoidal features of a scalar, as for positions in "Attention is all you need" and for time in DDPM.

    .. math:: \cos(\omega_i\, s\, t),\ \sin(\omega_i\, s\, t), \qquad \omega_i = P^{-i / (d/2)}

    Parameters
    ----------
    size : int
        Number of features d, an even number.
    scale : float, default=1000.0
        s. Time runs from 0 to 1 here and from 0 to 1000 in the papers.
    max_period : float, default=10000.0
        P, in units of ``1 / scale``.

    References
    ----------
    Vaswani et al., 2017, https://arxiv.org/abs/1706.03762; Ho et al., 2020, https://arxiv.org/abs/2006.11239.

    Examples
    --------
    >>> import torch
    >>> SinusoidalEmbedding(64)(torch.tensor([0.0, 0.5])).shape
    torch.Size([2, 64])
    """

    frequencies: Tensor

    def __init__(self, size: int, *, scale: float = 1000.0, max_period: float = 10_000.0) -> None:
        super().__init__()
        if size < 2 or size % 2:
            raise ValueError(f"size must be an even number of at least 2, however: {size=}")
        half = size // 2
        frequencies = torch.exp(-math.log(max_period) * torch.arange(half, dtype=torch.float64) / half)
        self.register_buffer("frequencies", (scale * frequencies).float(), persistent=False)

    def forward(self, t: Tensor) -> Tensor:
        """Map times (B,) to features (B, size)."""
        angles = t[:, None] * self.frequencies.to(t.dtype)
        return torch.cat([angles.cos(), angles.sin()], dim=-1)


class FourierFeatures(nn.Module):
    r"""Waves of a few frequencies of each number, by which a network sees small differences between numbers.

    .. math:: g_k(c) \sin(2 \pi f_k x),\ g_k(c) \cos(2 \pi f_k x), \qquad f_k = 2^{k - 3}

    A network of plain numbers learns functions that change fast last of all (Tancik et al., 2020,
    https://arxiv.org/abs/2006.10739; for columns of tables Gorishniy et al., 2022, https://arxiv.org/abs/2203.05556).
    Under much noise the fast waves are noise themselves, so each frequency has a gate g that the time decides.

    Parameters
    ----------
    n_numbers : int
        Number of numbers in a row, each of about unit variance.
    n_frequencies : int
        Waves of a number; the slowest has period 8.
    embedding_size : int
        Width of the embedding c that opens the gates, all of which start at 1.

    Examples
    --------
    >>> import torch
    >>> FourierFeatures(5, 8, 64)(torch.zeros(2, 5), torch.zeros(2, 64)).shape
    torch.Size([2, 80])
    """

    frequencies: Tensor

    def __init__(self, n_numbers: int, n_frequencies: int, embedding_size: int) -> None:
        super().__init__()
        self.size = 2 * n_numbers * n_frequencies
        self.gate = nn.Linear(embedding_size, n_frequencies)
        nn.init.zeros_(self.gate.weight)
        nn.init.ones_(self.gate.bias)
        self.register_buffer("frequencies", 2 * math.pi * 2.0 ** (torch.arange(n_frequencies) - 3), persistent=False)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """Map numbers x (B, n_numbers) and an embedding c (B, embedding_size) or (1, embedding_size) to (B, size)."""
        gate = self.gate(c.to(x.dtype))[:, None]
        angle = x[:, :, None] * self.frequencies.to(x.dtype)
        return torch.cat([angle.sin() * gate, angle.cos() * gate], dim=2).flatten(1)


class ConditionEmbedding(nn.Module):
    """Sum of one embedding per attribute, each with a learned null token, through a small network.

    The sum lets the embedding of a combination that was never seen be put together from its parts.

    Parameters
    ----------
    n_levels : sequence of int
        For each attribute the number of its classes, or 0 for a continuous attribute.
    size : int
        Width of the embedding.

    Examples
    --------
    A class of three and a dose; the second row has no known dose.

    >>> import torch
    >>> embedding = ConditionEmbedding([3, 0], size=16)
    >>> embedding(torch.tensor([[2.0, 0.4], [1.0, float("nan")]])).shape
    torch.Size([2, 16])
    """

    def __init__(self, n_levels: Sequence[int], size: int) -> None:
        super().__init__()
        if not n_levels or any(k < 0 for k in n_levels):
            raise ValueError(f"n_levels needs an entry >= 0 for each attribute, however: {n_levels=}")
        self.n_levels = tuple(int(k) for k in n_levels)
        self.size = size
        # The last row of each table, and the second half of a continuous attribute's, is the null token.
        self.classes = nn.ModuleList(nn.Embedding(k + 1, size) for k in self.n_levels if k > 0)
        self.values = nn.ModuleList(
            nn.Sequential(nn.Linear(1, size), nn.SiLU(), nn.Linear(size, size)) for k in self.n_levels if k == 0
        )
        self.null_values = nn.ParameterList(nn.Parameter(torch.randn(size)) for k in self.n_levels if k == 0)
        self.mix = nn.Sequential(nn.Linear(size, size), nn.SiLU(), nn.Linear(size, size))

    def forward(self, condition: Tensor | None, batch_size: int | None = None) -> Tensor:
        """Embed a condition.

        Parameters
        ----------
        condition : Tensor of shape (B, n_attributes) or None
            Codes and values, NaN for the null token. None: every attribute is null.
        batch_size : int, optional
            B, needed when `condition` is None.

        Returns
        -------
        Tensor of shape (B, size)
        """
        if condition is None:
            if batch_size is None:
                raise ValueError("batch_size is needed when condition is None.")
            weight = next(self.mix.parameters())
            condition = weight.new_full((batch_size, len(self.n_levels)), float("nan"))
        elif condition.ndim != 2 or condition.shape[1] != len(self.n_levels):
            raise ValueError(f"condition must have shape (B, {len(self.n_levels)}), however: {tuple(condition.shape)}.")
        total: Tensor | None = None
        classes: Iterator[Any] = iter(self.classes)
        values: Iterator[Any] = iter(self.values)
        nulls = iter(self.null_values)
        for j, k in enumerate(self.n_levels):
            column = condition[:, j]
            known = ~column.isnan()
            if k > 0:
                part = next(classes)(torch.where(known, column, float(k)).long())
            else:
                value = torch.where(known, column, 0.0)
                part = torch.where(known[:, None], next(values)(value[:, None]), next(nulls))
            total = part if total is None else total + part
        assert total is not None
        mixed: Tensor = self.mix(total)
        return mixed
