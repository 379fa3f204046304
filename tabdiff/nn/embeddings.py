"""Embeddings of what a denoiser is told beside the noisy data: the time and the condition.

A condition is one float tensor with a column per attribute. A class attribute holds codes ``0 .. n_levels - 1``, a
continuous one standardised values; NaN stands for the null token, "nothing is known", which classifier-free guidance
(Ho and Salimans, 2022, https://arxiv.org/abs/2207.12598) needs both in training and in sampling. A vector, or a few of
them, takes as many columns as it has entries.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

__all__ = [
    "TIME_CONDITIONING",
    "TIME_EMBEDDINGS",
    "ConditionEmbedding",
    "Context",
    "FourierEmbedding",
    "FourierFeatures",
    "ImageCondition",
    "SinusoidalEmbedding",
    "TableEmbedding",
    "VectorColumns",
    "make_time_embedding",
]

# How a network is told of the time: by adaptive normalisation, added to what its blocks work on, or as further inputs.
TIME_CONDITIONING = ("adaln", "addition", "concatenation")


class SinusoidalEmbedding(nn.Module):
    r"""Sinusoidal features of a scalar, as for positions in "Attention is all you need" and for time in DDPM.

    .. math:: \cos(\omega_i\, s\, t),\ \sin(\omega_i\, s\, t), \qquad \omega_i = P^{-i / (d/2)}

    Parameters
    ----------
    size : int
        Number of features d, an even number.
    scale : float, default=1000.0
        The factor s of time, which runs from 0 to 1 here and from 0 to 1000 in the papers.
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
            raise ValueError(f"size must be an even number of at least 2; got {size=}")
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


class FourierEmbedding(nn.Module):
    r"""Features :math:`\cos(\omega_i t + \phi_i)` of a scalar with frequencies and phases that are learned.

    The frequencies are learned on a logarithmic scale, on which they start evenly between 1 and `max_frequency`.

    Parameters
    ----------
    size : int
        Number of features.
    max_frequency : float, default=1000.0
        The largest frequency at the start, in radians per unit of time.

    References
    ----------
    Li et al., "Learnable Fourier Features for Multi-Dimensional Spatial Positional Encoding", 2021,
    https://arxiv.org/abs/2106.02795.

    Examples
    --------
    >>> import torch
    >>> FourierEmbedding(64)(torch.tensor([0.0, 0.5])).shape
    torch.Size([2, 64])
    """

    def __init__(self, size: int, *, max_frequency: float = 1000.0) -> None:
        super().__init__()
        if size < 2:
            raise ValueError(f"size must be at least 2; got {size=}")
        self.log_frequency = nn.Parameter(torch.linspace(0, math.log(max_frequency), size))
        # A quarter turn between neighbours, so that each frequency starts with a sine and a cosine nearby.
        self.phase = nn.Parameter(torch.arange(size) % 2 * (math.pi / 2))

    def forward(self, t: Tensor) -> Tensor:
        """Map times (B,) to features (B, size)."""
        return (t[:, None] * self.log_frequency.exp() + self.phase).cos() * math.sqrt(2)


class TableEmbedding(nn.Module):
    """A learned vector for each time ``k / n_timesteps`` of a discrete schedule, k from 1 on.

    Between these times, where some samplers ask, it is interpolated.

    Parameters
    ----------
    size : int
        Length of a vector.
    n_timesteps : int
        Number of times, at least 2.

    Examples
    --------
    >>> import torch
    >>> TableEmbedding(64, 1000)(torch.tensor([0.001, 1.0])).shape
    torch.Size([2, 64])
    """

    def __init__(self, size: int, n_timesteps: int) -> None:
        super().__init__()
        if size < 1 or n_timesteps < 2:
            raise ValueError(f"size must be at least 1 and n_timesteps at least 2; got {size=} {n_timesteps=}")
        self.table = nn.Embedding(n_timesteps, size)

    def forward(self, t: Tensor) -> Tensor:
        """Map times (B,) to vectors (B, size)."""
        n = self.table.num_embeddings
        place = t * n - 1
        nearest = place.round()
        # A float32 k / n is to find its own vector, and no other is to learn from it.
        place = torch.where((place - nearest).abs() < 2e-7 * n, nearest, place).clamp(0, n - 1)
        left = place.floor().clamp(max=n - 2)
        index, share = left.long(), (place - left)[:, None]
        return self.table(index) * (1 - share) + self.table(index + 1) * share


TIME_EMBEDDINGS = ("sinusoidal", "learned", "table")


def make_time_embedding(kind: str, size: int, n_timesteps: int | None = None) -> nn.Module:
    """Return features of the time by name.

    Parameters
    ----------
    kind : {"sinusoidal", "learned", "table"}
        Fixed sines, sines of learned frequencies, or a learned vector for each of `n_timesteps` times.
    size : int
        Number of features.
    n_timesteps : int, optional
        That of the schedule; None is continuous time, for which there is no table.

    Raises
    ------
    ValueError
        If the name is unknown, or a table is asked for in continuous time.
    """
    if kind not in TIME_EMBEDDINGS:
        raise ValueError(f"time_embedding must be one of {TIME_EMBEDDINGS}; got {kind!r}.")
    if kind == "table":
        if n_timesteps is None:
            raise ValueError(
                "time_embedding must be 'sinusoidal' or 'learned' in continuous time; got 'table', which has a vector "
                "for each step of a discrete schedule. Set n_timesteps, such as n_timesteps=1000."
            )
        return TableEmbedding(size, n_timesteps)
    return SinusoidalEmbedding(size) if kind == "sinusoidal" else FourierEmbedding(size)


class VectorColumns(NamedTuple):
    """Which columns of a condition hold a vector, or tokens.

    Parameters
    ----------
    start : int
        The first of them.
    skip : int
        How many of them, at the start, the network does not see.
    n_tokens : int
        Number of vectors; of several, those that are NaN are absent.
    width : int
        Length of a vector.

    Examples
    --------
    >>> from tabdiff.nn import VectorColumns
    >>> VectorColumns(start=1, skip=1, n_tokens=1, width=8).width
    8
    """

    start: int
    skip: int
    n_tokens: int
    width: int

    @property
    def stop(self) -> int:
        """The column behind the last."""
        return self.start + self.skip + self.n_tokens * self.width

    @property
    def columns(self) -> range:
        """All of them."""
        return range(self.start, self.stop)


class Context(NamedTuple):
    """An embedded condition as one vector, and as tokens.

    Parameters
    ----------
    pooled : Tensor of shape (B, size)
        All attributes in one.
    tokens : Tensor of shape (B, n_tokens, size)
        One for each attribute, as many as there are for one of tokens.
    mask : Tensor of shape (B, n_tokens)
        Boolean: which tokens there are.

    Examples
    --------
    >>> import torch
    >>> from tabdiff.nn import Context
    >>> Context(torch.zeros(2, 8), torch.zeros(2, 3, 8), torch.ones(2, 3, dtype=torch.bool)).tokens.shape
    torch.Size([2, 3, 8])
    """

    pooled: Tensor
    tokens: Tensor
    mask: Tensor


class ConditionEmbedding(nn.Module):
    """Sum of one embedding per attribute, each with a learned null token, through a small network.

    The sum lets the embedding of a combination that was never seen be put together from its parts.

    Parameters
    ----------
    n_levels : sequence of int
        For each column of the condition the number of its classes, or 0 for numbers.
    size : int
        Width of the embedding.
    vectors : sequence of VectorColumns, default=()
        Columns that make up one attribute each. Tokens are embedded one by one, and their mean is the attribute's.
    tokens : bool, default=False
        Whether to return a `Context`, for networks that attend to the condition.

    Examples
    --------
    A class of three and a dose; the second row has no known dose.

    >>> import torch
    >>> embedding = ConditionEmbedding([3, 0], size=16)
    >>> embedding(torch.tensor([[2.0, 0.4], [1.0, float("nan")]])).shape
    torch.Size([2, 16])
    """

    def __init__(
        self, n_levels: Sequence[int], size: int, *, vectors: Sequence[VectorColumns] = (), tokens: bool = False
    ) -> None:
        super().__init__()
        if not n_levels or any(k < 0 for k in n_levels):
            raise ValueError(f"n_levels needs an entry >= 0 for each attribute; got {n_levels=}")
        self.n_levels = tuple(int(k) for k in n_levels)
        self.n_attributes = len(self.n_levels)
        self.size = size
        self.vectors = tuple(VectorColumns(*v) for v in vectors)
        self.tokens = tokens
        inside = {j for v in self.vectors for j in v.columns}
        self._scalars = [(j, k) for j, k in enumerate(self.n_levels) if j not in inside]
        scalars = [k for _, k in self._scalars]
        # The last row of each table, and the second half of a continuous attribute's, is the null token.
        self.classes = nn.ModuleList(nn.Embedding(k + 1, size) for k in scalars if k > 0)
        self.values = nn.ModuleList(
            nn.Sequential(nn.Linear(1, size), nn.SiLU(), nn.Linear(size, size)) for k in scalars if k == 0
        )
        self.null_values = nn.ParameterList(nn.Parameter(torch.randn(size)) for k in scalars if k == 0)
        self.mix = nn.Sequential(nn.Linear(size, size), nn.SiLU(), nn.Linear(size, size))

        self.projections = nn.ModuleList(
            nn.Sequential(nn.Linear(v.width, size), nn.SiLU(), nn.Linear(size, size)) for v in self.vectors
        )
        self.null_vectors = nn.ParameterList(nn.Parameter(torch.randn(size)) for _ in self.vectors)

    def forward(self, condition: Tensor | None, batch_size: int | None = None) -> Tensor | Context:
        """Embed a condition.

        Parameters
        ----------
        condition : Tensor of shape (B, n_columns) or None
            Codes and values, NaN for the null token. None: every attribute is null.
        batch_size : int, optional
            B, needed when `condition` is None.

        Returns
        -------
        Tensor of shape (B, size), or Context
        """
        if condition is None:
            if batch_size is None:
                raise ValueError("batch_size is needed when condition is None.")
            weight = next(self.mix.parameters())
            condition = weight.new_full((batch_size, self.n_attributes), float("nan"))
        elif condition.ndim != 2 or condition.shape[1] != self.n_attributes:
            raise ValueError(f"condition must have shape (B, {self.n_attributes}); got {tuple(condition.shape)}.")
        parts: list[Tensor] = []
        classes: Iterator[Any] = iter(self.classes)
        values: Iterator[Any] = iter(self.values)
        nulls = iter(self.null_values)
        for j, k in self._scalars:
            column = condition[:, j]
            known = ~column.isnan()
            if k > 0:
                part = next(classes)(torch.where(known, column, float(k)).long())
            else:
                value = torch.where(known, column, 0.0)
                part = torch.where(known[:, None], next(values)(value[:, None]), next(nulls))
            parts.append(part)
        tokens = [part[:, None] for part in parts]
        present = [torch.ones_like(part[:, :1], dtype=torch.bool) for part in parts]
        for columns, project, null in zip(self.vectors, self.projections, self.null_vectors):
            embedded, mask = self._embed_vectors(condition, columns, project, null)
            parts.append((embedded * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True))
            tokens.append(embedded)
            present.append(mask)
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        mixed: Tensor = self.mix(total)
        return Context(mixed, torch.cat(tokens, dim=1), torch.cat(present, dim=1)) if self.tokens else mixed

    @staticmethod
    def _embed_vectors(
        condition: Tensor, columns: VectorColumns, project: nn.Module, null: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the embedded tokens (B, n_tokens, size) of an attribute, and which there are; the null one if none."""
        block = condition[:, columns.start + columns.skip : columns.stop].unflatten(1, (columns.n_tokens, -1))
        mask = ~block.isnan().any(2)
        none = ~mask.any(1)
        embedded = project(block.masked_fill(~mask[:, :, None], 0.0))
        embedded = torch.where(none[:, None, None], null.to(embedded.dtype), embedded)
        first = torch.zeros_like(mask)
        first[:, 0] = True
        return embedded, mask | (none[:, None] & first)


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
        self.n_attributes = len(self.n_levels)
        self._null: Tensor
        self.register_buffer("_null", torch.full((1, 1), float("nan")), persistent=False)

    def forward(self, condition: Tensor | None, batch_size: int | None = None) -> Tensor | Context:
        """Embed a condition.

        Parameters
        ----------
        condition : Tensor of shape (B, n_attributes + channels * height * width) or None
            NaN for the null token. None: everything is null.
        batch_size : int, optional
            B, needed when `condition` is None.

        Returns
        -------
        Tensor of shape (B, size + (channels + 1) * height * width), or Context
            A `Context` where the attributes' embedding is one; the pixels stand behind its pooled vector.
        """
        if condition is None:
            if batch_size is None:
                raise ValueError("batch_size is needed when condition is None.")
            condition = self._null.expand(batch_size, self.n_attributes)
        if condition.ndim != 2 or condition.shape[1] != self.n_attributes:
            raise ValueError(f"condition must have shape (B, {self.n_attributes}); got {tuple(condition.shape)}.")
        k = self.attributes.n_attributes if self.attributes is not None else 0
        pixels = condition[:, k:]
        known = ~pixels.isnan()
        shown = known.reshape(len(pixels), *self.shape).all(dim=1).flatten(1).to(pixels.dtype)
        parts = [torch.where(known, pixels, 0.0), shown]
        if self.attributes is None:
            return torch.cat(parts, dim=1)
        embedded = self.attributes(condition[:, :k])
        if isinstance(embedded, Context):
            return embedded._replace(pooled=torch.cat([embedded.pooled, *parts], dim=1))
        return torch.cat([embedded, *parts], dim=1)
