"""Tokenisers: rows of a table, images and sequences as the tokens of a transformer, and tokens as outputs.

A tokeniser has ``embed(x, given)``, from noisy rows to tokens (B, n_tokens, hidden_size), and ``project(tokens)``, from
tokens to the network's output. Both stay in float32 under autocast: eight bits of mantissa would blur the rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["ColumnTokens", "PatchTokens", "Positions", "SequenceTokens"]

POSITIONS = ("learned", "sinusoidal")


class Positions(nn.Module):
    """What tells tokens apart: a vector for each place, learned or sinusoidal.

    Parameters
    ----------
    shape : tuple of int
        Number of places along each axis: ``(n,)`` for a sequence, ``(rows, columns)`` for patches.
    size : int
        Length of a vector.
    kind : {"learned", "sinusoidal"}
        Sinusoidal vectors are fixed; each axis has its share of the entries (Dosovitskiy et al., 2021).

    Examples
    --------
    >>> Positions((4, 4), 8, "sinusoidal")().shape
    torch.Size([16, 8])
    """

    table: Tensor

    def __init__(self, shape: Sequence[int], size: int, kind: str = "learned") -> None:
        super().__init__()
        if kind not in POSITIONS:
            raise ValueError(f"positions must be one of {POSITIONS}; got {kind!r}.")
        if kind == "learned":
            self.table = nn.Parameter(torch.randn(math.prod(shape), size))
            return
        places = torch.cartesian_prod(*[torch.arange(n) for n in shape]).reshape(-1, len(shape))
        half = max(size // (2 * len(shape)), 1)
        frequencies = torch.exp(-math.log(10_000) * torch.arange(half) / half)
        angles = (places[:, :, None] * frequencies).flatten(1)
        table = torch.cat([angles.sin(), angles.cos()], dim=1)[:, :size]
        table = nn.functional.pad(table, (0, size - table.shape[1]))
        self.register_buffer("table", table * math.sqrt(2), persistent=False)

    def forward(self) -> Tensor:
        """Return the vectors (n_places, size)."""
        return self.table


class ColumnTokens(nn.Module):
    """A token for each column of a table, or for a few neighbouring ones where there are many.

    A number enters as its value times a learned vector, a category by a linear map of its noisy embedding; each
    column has weights, a bias and an output of its own, so that their order means nothing. All columns go through one
    product of padded blocks. What is given of a row is added by maps without bias, so that a row of which nothing is
    given is as it would be without them.

    Parameters
    ----------
    n_continuous : int
        Number of leading numbers of a row.
    n_levels : sequence of int
        Number of levels of each categorical column that follows.
    hidden_size : int
        Length of a token.
    embedding_size : int, default=8
        Length of a noisy embedding of a level.
    given : bool, default=False
        Whether `embed` is told which entries are given.
    max_tokens : int, default=256
        About how many tokens there are at most: with more columns, neighbours share one.
    n_per_number : int, default=1
        Outputs of a number: those of all numbers, then as many again; 2 for a prediction and its variance.

    References
    ----------
    Gorishniy et al., "Revisiting Deep Learning Models for Tabular Data", 2021, https://arxiv.org/abs/2106.11959.

    Examples
    --------
    Two numbers and a category of three levels.

    >>> import torch
    >>> tokens = ColumnTokens(2, [3], 16)
    >>> embedded = tokens.embed(torch.zeros(5, 2 + 8))
    >>> embedded.shape, tokens.project(embedded).shape
    (torch.Size([5, 3, 16]), torch.Size([5, 5]))
    """

    inputs: Tensor
    given_inputs: Tensor
    order: Tensor

    def __init__(
        self,
        n_continuous: int,
        n_levels: Sequence[int],
        hidden_size: int,
        *,
        embedding_size: int = 8,
        given: bool = False,
        max_tokens: int = 256,
        n_per_number: int = 1,
    ) -> None:
        super().__init__()
        n_columns = n_continuous + len(n_levels)
        if n_columns < 1 or hidden_size < 1 or max_tokens < 1:
            raise ValueError(
                f"there must be at least one column; got {n_continuous=} {n_levels=} {hidden_size=} {max_tokens=}"
            )
        width = n_continuous + embedding_size * len(n_levels)
        starts = [n_continuous + embedding_size * j for j in range(len(n_levels))]
        entries = [[j] for j in range(n_continuous)] + [list(range(s, s + embedding_size)) for s in starts]
        place = n_per_number * n_continuous
        outputs = [list(range(j, place, n_continuous)) for j in range(n_continuous)]
        for k in n_levels:
            outputs.append(list(range(place, place + k)))
            place += k
        together = -(-n_columns // max_tokens)
        groups = _runs(0, n_continuous, together) + _runs(n_continuous, n_columns, together)
        self.n_tokens, self.n_outputs, self.hidden_size = len(groups), place, hidden_size

        self._register("inputs", [[e for j in g for e in entries[j]] for g in groups], width)
        self.weight = _fan_in(self.inputs != width, hidden_size)
        self.bias = nn.Parameter(torch.randn(self.n_tokens, hidden_size))
        self.given_weight: nn.Parameter | None = None
        if given:
            # `given` is the clean row (width entries), then two marks for each column: held, present.
            marks = [[width + j, width + n_columns + j] for j in range(n_columns)]
            told = [[e for j in g for e in entries[j] + marks[j]] for g in groups]
            self._register("given_inputs", told, width + 2 * n_columns)
            self.given_weight = _fan_in(self.given_inputs != width + 2 * n_columns, hidden_size)

        # Tokens of similarly many outputs go through one padded product each.
        sizes = [sum(len(outputs[j]) for j in g) for g in groups]
        buckets = [max(1, 4 ** math.ceil(math.log(max(k, 1), 4) - 1e-9)) for k in sizes]
        self.head_weights, self.head_biases = nn.ParameterList(), nn.ParameterList()
        order, position = torch.empty(place, dtype=torch.long), 0
        for i, bucket in enumerate(sorted(set(buckets))):
            members = [t for t, b in enumerate(buckets) if b == bucket]
            longest = max(sizes[t] for t in members)
            for row, t in enumerate(members):
                places = [e for j in groups[t] for e in outputs[j]]
                order[places] = position + row * longest + torch.arange(len(places))
            position += len(members) * longest
            self.head_weights.append(nn.Parameter(torch.zeros(len(members), hidden_size, longest)))
            self.head_biases.append(nn.Parameter(torch.zeros(len(members), longest)))
            self.register_buffer(f"members_{i}", torch.tensor(members), persistent=False)
        self.register_buffer("order", order, persistent=False)

    def _register(self, name: str, lists: list[list[int]], padding: int) -> None:
        """Keep which entries each token reads, (n_tokens, longest); `padding` is the place of a zero."""
        longest = max(len(entries) for entries in lists)
        index = torch.full((len(lists), longest), padding)
        for row, entries in enumerate(lists):
            index[row, : len(entries)] = torch.tensor(entries)
        self.register_buffer(name, index, persistent=False)

    def embed(self, x: Tensor, given: Tensor | None = None) -> Tensor:
        """Map noisy rows (B, width), and what is given of them, to tokens (B, n_tokens, hidden_size)."""
        with torch.autocast(x.device.type, enabled=False):
            tokens = self.bias + _blocks(x, self.inputs, self.weight)
            if given is not None and self.given_weight is not None:
                tokens = tokens + _blocks(given, self.given_inputs, self.given_weight)
        return tokens

    def project(self, tokens: Tensor) -> Tensor:
        """Map tokens (B, n_tokens, hidden_size) to outputs (B, n_outputs): numbers, then logits of each column."""
        with torch.autocast(tokens.device.type, enabled=False):
            tokens = tokens if tokens.dtype == self.bias.dtype else tokens.to(self.bias.dtype)
            parts = []
            for i, (weight, bias) in enumerate(zip(self.head_weights, self.head_biases)):
                chosen = tokens[:, getattr(self, f"members_{i}")]
                parts.append((torch.einsum("bth,tho->bto", chosen, weight) + bias).flatten(1))
        return torch.cat(parts, dim=1)[:, self.order]


class PatchTokens(nn.Module):
    """A token for each square patch of an image, all with the same weights.

    Parameters
    ----------
    shape : tuple of int
        Channels, height and width of an image.
    hidden_size : int
        Length of a token.
    patch : int, default=2
        Side of a patch in pixels, which must divide height and width.
    positions : {"learned", "sinusoidal"}, default="sinusoidal"
        See `Positions`.
    n_per_value : int, default=1
        Outputs of a value: an image of them, then as many again; 2 for a prediction and its variance.

    References
    ----------
    Peebles and Xie, "Scalable Diffusion Models with Transformers", 2023, https://arxiv.org/abs/2212.09748.

    Examples
    --------
    >>> import torch
    >>> patches = PatchTokens((3, 8, 8), 32, patch=4)
    >>> patches.embed(torch.zeros(2, 3, 8, 8)).shape, patches.project(torch.zeros(2, 4, 32)).shape
    (torch.Size([2, 4, 32]), torch.Size([2, 192]))
    """

    def __init__(
        self,
        shape: Sequence[int],
        hidden_size: int,
        *,
        patch: int = 2,
        positions: str = "sinusoidal",
        n_per_value: int = 1,
    ) -> None:
        super().__init__()
        channels, height, width = shape
        if patch < 1 or height % patch or width % patch:
            raise ValueError(f"patch={patch} must divide the height and the width of images of shape {tuple(shape)}.")
        self.shape, self.patch, self.hidden_size = (channels, height, width), patch, hidden_size
        self.grid = (height // patch, width // patch)
        self.n_channels = n_per_value * channels
        self.n_tokens, self.n_outputs = self.grid[0] * self.grid[1], self.n_channels * height * width
        self.read = nn.Linear(channels * patch**2, hidden_size)
        self.positions = Positions(self.grid, hidden_size, positions)
        self.write = nn.Linear(hidden_size, self.n_channels * patch**2)
        nn.init.zeros_(self.write.weight)
        nn.init.zeros_(self.write.bias)

    def embed(self, x: Tensor, given: Tensor | None = None) -> Tensor:
        """Map images (B, c, h, w), or such rows laid flat (B, c h w), to tokens; nothing can be given of them."""
        (c, _, _), (rows, columns), p = self.shape, self.grid, self.patch
        with torch.autocast(x.device.type, enabled=False):
            cut = x.reshape(len(x), c, rows, p, columns, p).permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
            tokens: Tensor = self.read(cut) + self.positions()
        return tokens

    def project(self, tokens: Tensor) -> Tensor:
        """Map tokens (B, n_tokens, hidden_size) to images laid flat (B, n_per_value c h w)."""
        c, (rows, columns), p = self.n_channels, self.grid, self.patch
        with torch.autocast(tokens.device.type, enabled=False):
            cut = self.write(tokens.to(self.write.weight.dtype))
        return cut.reshape(len(tokens), rows, columns, c, p, p).permute(0, 3, 1, 4, 2, 5).flatten(1)


class SequenceTokens(nn.Module):
    """A token for each position of a sequence, or for a few neighbouring ones, all with the same weights.

    Parameters
    ----------
    n_positions : int
        Length of a row.
    n_levels : int
        Number of levels of each position.
    hidden_size : int
        Length of a token.
    embedding_size : int, default=8
        Length of a noisy embedding of a level.
    stride : int, default=1
        Number of neighbouring positions that share a token.
    positions : {"learned", "sinusoidal"}, default="learned"
        See `Positions`.

    Examples
    --------
    >>> import torch
    >>> tokens = SequenceTokens(6, 4, 16)
    >>> tokens.embed(torch.zeros(2, 6 * 8)).shape, tokens.project(torch.zeros(2, 6, 16)).shape
    (torch.Size([2, 6, 16]), torch.Size([2, 24]))
    """

    def __init__(
        self,
        n_positions: int,
        n_levels: int,
        hidden_size: int,
        *,
        embedding_size: int = 8,
        stride: int = 1,
        positions: str = "learned",
    ) -> None:
        super().__init__()
        if min(n_positions, n_levels, hidden_size, stride) < 1:
            raise ValueError(f"sizes must be at least 1; got {n_positions=} {n_levels=} {hidden_size=} {stride=}")
        self.n_tokens, self.hidden_size = -(-n_positions // stride), hidden_size
        self.n_outputs = n_positions * n_levels
        self._padding = (self.n_tokens * stride - n_positions) * embedding_size
        self.read = nn.Linear(stride * embedding_size, hidden_size)
        self.positions = Positions((self.n_tokens,), hidden_size, positions)
        self.write = nn.Linear(hidden_size, stride * n_levels)
        nn.init.zeros_(self.write.weight)
        nn.init.zeros_(self.write.bias)

    def embed(self, x: Tensor, given: Tensor | None = None) -> Tensor:
        """Map noisy rows (B, n_positions * embedding_size) to tokens; nothing can be given of them."""
        with torch.autocast(x.device.type, enabled=False):
            cut = nn.functional.pad(x, (0, self._padding)).reshape(len(x), self.n_tokens, -1)
            tokens: Tensor = self.read(cut) + self.positions()
        return tokens

    def project(self, tokens: Tensor) -> Tensor:
        """Map tokens (B, n_tokens, hidden_size) to logits (B, n_positions * n_levels)."""
        with torch.autocast(tokens.device.type, enabled=False):
            logits: Tensor = self.write(tokens.to(self.write.weight.dtype))
        return logits.flatten(1)[:, : self.n_outputs]


def _runs(start: int, stop: int, length: int) -> list[list[int]]:
    """Cut the numbers from `start` to `stop` into runs of at most `length`."""
    return [list(range(i, min(i + length, stop))) for i in range(start, stop, length)]


def _fan_in(real: Tensor, hidden_size: int) -> nn.Parameter:
    """Return weights (n_tokens, n_entries, hidden_size) that keep the variance, 0 where an entry is padding."""
    weight = torch.randn(*real.shape, hidden_size) / real.sum(1).sqrt()[:, None, None]
    return nn.Parameter(weight * real[:, :, None])


def _blocks(x: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    """Multiply the entries (B, d) of each token by its own matrix, (B, n_tokens, hidden_size)."""
    entries = nn.functional.pad(x, (0, 1))[:, index]
    return torch.einsum("bte,teh->bth", entries, weight)
