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

__all__ = ["ConditionEmbedding", "ImageCondition", "SinusoidalEmbedding"]


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


class ImageCondition(nn.Module):
    """An image to be seen beside the noisy one, behind the embedding of other attributes if there are any.

    For the `condition_embedding` of a `tabdiff.diffusion.Denoiser` whose network is a :class:`tabdiff.nn.UNet` with
    `extra_channels`. A condition is then a row of the attributes and of the pixels, from -1 to 1;
    NaN is the null token, an image of zeros and a channel that says so.

    Parameters
    ----------
    shape : tuple of int
        ``(channels, height, width)`` of the image beside; the network needs one channel more in `extra_channels`.
    attributes : ConditionEmbedding, optional
        Of what stands before the pixels.

    Examples
    --------
    >>> import torch
    >>> condition = ImageCondition((1, 8, 8), ConditionEmbedding([10], 16))
    >>> condition(torch.zeros(5, 1 + 64)).shape
    torch.Size([5, 144])
    """

    def __init__(self, shape: tuple[int, int, int], attributes: ConditionEmbedding | None = None) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.attributes = attributes
        self.n_levels = (*(attributes.n_levels if attributes is not None else ()), *(0,) * math.prod(shape))
        self._null: Tensor
        self.register_buffer("_null", torch.full((1, 1), float("nan")), persistent=False)

    def forward(self, condition: Tensor | None, batch_size: int | None = None) -> Tensor:
        """Embed a condition.

        Parameters
        ----------
        condition : Tensor of shape (B, n_attributes + channels * height * width) or None
            NaN for the null token. None: everything is null.
        batch_size : int, optional
            B, needed when `condition` is None.

        Returns
        -------
        Tensor of shape (B, size + (channels + 1) * height * width)
        """
        if condition is None:
            if batch_size is None:
                raise ValueError("batch_size is needed when condition is None.")
            condition = self._null.expand(batch_size, len(self.n_levels))
        if condition.ndim != 2 or condition.shape[1] != len(self.n_levels):
            raise ValueError(f"condition must have shape (B, {len(self.n_levels)}), however: {tuple(condition.shape)}.")
        k = len(self.attributes.n_levels) if self.attributes is not None else 0
        pixels = condition[:, k:]
        known = ~pixels.isnan()
        shown = known.reshape(len(pixels), *self.shape).all(dim=1).flatten(1).to(pixels.dtype)
        parts = [torch.where(known, pixels, 0.0), shown]
        return torch.cat([self.attributes(condition[:, :k]), *parts] if self.attributes is not None else parts, dim=1)
