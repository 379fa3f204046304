"""The U-Net that denoises images.

Residual blocks on a pyramid of resolutions, with skip connections from the way down to the way up, and self-attention
where the maps are small (Ronneberger et al., 2015, https://arxiv.org/abs/1505.04597; Ho et al., 2020,
https://arxiv.org/abs/2006.11239; modulation by scale and shift: Dhariwal and Nichol, 2021,
https://arxiv.org/abs/2105.05233; attention to the tokens of a condition: Rombach et al., 2022,
https://arxiv.org/abs/2112.10752).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tabdiff.nn.dit import CONDITIONING
from tabdiff.nn.dit import Attention as TokenAttention
from tabdiff.nn.dropout import Dropout
from tabdiff.nn.embeddings import TIME_CONDITIONING, Context, make_time_embedding

__all__ = ["UNET_PRESETS", "UNet", "unet_preset", "unet_sides"]

# By the longer side of an image at most. That of 32 is the network of Ho et al. for CIFAR-10, of 35.7 million
# parameters for three channels; the widths and depths of the others are as large as their images are worth.
UNET_PRESETS: dict[int, dict[str, Any]] = {
    12: {"base": 32, "multipliers": (1, 2), "n_blocks": 1, "attention": (4, 5, 6), "time_conditioning": "adaln"},
    28: {"base": 64, "multipliers": (1, 2, 2), "n_blocks": 2, "attention": (7,), "time_conditioning": "adaln"},
    48: {"base": 128, "multipliers": (1, 2, 2, 2), "n_blocks": 2, "attention": (16,), "time_conditioning": "addition"},
    64: {"base": 128, "multipliers": (1, 2, 3, 4), "n_blocks": 2, "attention": (16, 8), "time_conditioning": "adaln"},
}
HEAD_SIZE = 64
MAX_GROUPS = 32


def unet_preset(height: int, width: int) -> dict[str, Any]:
    """Return the keyword arguments of :class:`UNet` that suit images of a size; a condition enters as the time does.

    Examples
    --------
    >>> unet_preset(32, 32)["base"], unet_preset(8, 8)["multipliers"]
    (128, (1, 2))
    """
    side = max(height, width)
    preset = UNET_PRESETS[next((limit for limit in UNET_PRESETS if side <= limit), max(UNET_PRESETS))]
    return {**preset, "conditioning": preset["time_conditioning"]}


def unet_sides(height: int, width: int, n_levels: int) -> list[int]:
    """Return the longer side of the maps of each level.

    Examples
    --------
    >>> unet_sides(28, 28, 4)
    [28, 14, 7, 4]
    """
    sides = [max(height, width)]
    while len(sides) < n_levels:
        sides.append((sides[-1] + 1) // 2)
    return sides


class UNet(nn.Module):
    """U-Net with residual blocks, attention, and modulation by time and condition.

    It maps rows of pixels, channel by channel, to rows of the same form, so that everything around it (samplers,
    guidance, likelihoods) treats an image as it treats a row of a table. On a GPU maps are in channels-last memory.

    Parameters
    ----------
    shape : tuple of int
        ``(channels, height, width)`` of an image. Sides need not be powers of two, nor equal.
    condition_size : int, default=0
        Width of the embedded condition `c`; 0 for a network without condition, which has no layers for one.
    base : int, default=128
        Channels of the first level.
    multipliers : sequence of int, default=(1, 2, 2, 2)
        Channels of each level over `base`; each level halves the sides of the one before.
    n_blocks : int, default=2
        Residual blocks a level on the way down; there is one more on the way up.
    attention : collection of int, default=(16, 8)
        Attention follows the blocks of levels whose longer side is one of these, and is in the middle.
    dropout : float, default=0.0
        Dropout rate inside the blocks.
    time_conditioning : {"adaln", "addition", "concatenation"}, default="adaln"
        How the network sees the time: it scales and shifts the normalised maps of each block (adaptive group
        normalisation, FiLM); it is added to them, as in the paper of 2020; or it makes further channels of the noisy
        image, `base` of them, the same in every pixel.
    conditioning : {"adaln", "addition", "concatenation", "cross_attention"}, default="adaln"
        How it sees the condition: in one of these ways, or the maps attend to its tokens wherever they attend to
        themselves.
    extra_channels : int, default=0
        Channels of an image that is seen beside the noisy one; its pixels stand at the end of `c`.
    n_heads : int, optional
        Heads of attention; by default heads of 64 channels, or one.
    time_embedding : {"sinusoidal", "learned", "table"}, default="sinusoidal"
        See `tabdiff.nn.embeddings.make_time_embedding`.
    n_timesteps : int, optional
        Number of times of a discrete schedule, for "table".
    n_per_value : int, default=1
        Outputs of a value: an image of them, then as many again; 2 for a prediction and its variance.
    group_size : int, default=4
        Fewest channels of a group of the normalisation that follows an "addition": of a single channel it takes away
        what was added. The network of the paper has 4 at its first level.

    Raises
    ------
    ValueError
        If sizes are below 1, an image is too small for so many levels, a name is unknown, or `n_heads` does not divide
        the channels of a map with attention.

    Examples
    --------
    >>> import torch
    >>> network = UNet((1, 7, 7), base=8, multipliers=(1, 2), n_blocks=1, attention=(4,))
    >>> network(torch.zeros(3, 49), torch.rand(3)).shape
    torch.Size([3, 49])
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        condition_size: int = 0,
        *,
        base: int = 128,
        multipliers: Sequence[int] = (1, 2, 2, 2),
        n_blocks: int = 2,
        attention: Collection[int] = (16, 8),
        dropout: float = 0.0,
        time_conditioning: str = "adaln",
        conditioning: str = "adaln",
        extra_channels: int = 0,
        n_heads: int | None = None,
        time_embedding: str = "sinusoidal",
        n_timesteps: int | None = None,
        n_per_value: int = 1,
        group_size: int = 4,
    ) -> None:
        super().__init__()
        channels, height, width = shape
        if min(channels, height, width, base, n_blocks, len(multipliers), *multipliers) < 1:
            raise ValueError(f"sizes must be at least 1; got {shape=} {base=} {multipliers=} {n_blocks=}")
        if time_conditioning not in TIME_CONDITIONING:
            raise ValueError(f"time_conditioning must be one of {TIME_CONDITIONING}; got {time_conditioning!r}.")
        if conditioning not in CONDITIONING:
            raise ValueError(f"conditioning must be one of {CONDITIONING}; got {conditioning!r}.")
        if min(height, width) < 2 ** (len(multipliers) - 1):
            raise ValueError(
                f"images of {height} × {width} pixels are too small for {len(multipliers)} levels, each of which "
                "halves their sides; use fewer multipliers"
            )
        self.shape, self.extra_channels = tuple(shape), extra_channels
        self.time_conditioning, self.conditioning = time_conditioning, conditioning if condition_size else "none"
        ways = (self.time_conditioning, self.conditioning)
        embedding, n_features = 4 * base, base + base % 2
        sizes = {"concatenation": base}  # channels of their own; all else is as wide as what modulates the blocks
        self.time = nn.Sequential(
            make_time_embedding(time_embedding, n_features, n_timesteps), nn.Linear(n_features, embedding), nn.SiLU()
        )
        self.time_out = nn.Linear(embedding, sizes.get(time_conditioning, embedding))
        self.condition_size = condition_size
        attending = self.conditioning == "cross_attention"
        self.condition = (
            nn.Linear(condition_size, sizes.get(conditioning, embedding)) if condition_size and not attending else None
        )

        def block(n_in: int, n_out: int, attends: bool) -> Block:
            return Block(
                n_in,
                n_out,
                dropout,
                film_size=embedding if "adaln" in ways else 0,
                added_size=embedding if "addition" in ways else 0,
                attends=attends,
                n_heads=n_heads,
                context_size=condition_size if attending else 0,
                group_size=group_size,
            )

        widths = [base * m for m in multipliers]
        beside = extra_channels + base * ways.count("concatenation")
        self.conv_in = nn.Conv2d(channels + beside, base, 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        n, skips = base, [base]
        attends = [side in attention for side in unet_sides(height, width, len(widths))]
        for level, n_level in enumerate(widths):
            for _ in range(n_blocks):
                self.down.append(block(n, n_level, attends[level]))
                n = n_level
                skips.append(n)
            if level < len(widths) - 1:
                self.down.append(nn.Conv2d(n, n, 3, stride=2, padding=1))
                skips.append(n)
        self.middle = nn.ModuleList([block(n, n, True), block(n, n, False)])
        for level in reversed(range(len(widths))):
            for _ in range(n_blocks + 1):
                self.up.append(block(n + skips.pop(), widths[level], attends[level]))
                n = widths[level]
            if level > 0:
                self.up.append(nn.Conv2d(n, n, 3, padding=1))
        self.norm_out = _norm(n)
        self.conv_out = _zeroed(nn.Conv2d(n, n_per_value * channels, 3, padding=1))

    def forward(self, x: Tensor, t: Tensor, c: Tensor | Context | None = None, given: Tensor | None = None) -> Tensor:
        """Map noisy rows to what is predicted of them.

        Parameters
        ----------
        x : Tensor of shape (B, channels * height * width) or (B, channels, height, width)
            Noisy images.
        t : Tensor of shape (B,)
            Times in [0, 1].
        c : Tensor of shape (B, condition_size + extra_channels * height * width) or Context, optional
            The embedded condition, and behind it the pixels of the image beside. Of a `Context` "cross_attention" uses
            the tokens, and everything else the pooled vector; without one that vector is the only token.
        given : None
            Which entries are known; this network is never told.

        Returns
        -------
        Tensor
            Of the shape of `x`, but for `n_per_value` times as many entries, or channels.
        """
        if given is not None:
            raise ValueError("a U-Net is not told which entries are given.")
        if len(t) > 1 and t.stride(0) == 0:
            t = t[:1]  # one time for all rows, as in sampling: one embedding for all
        images = x.reshape(len(x), *self.shape)
        entering = [(self.time_conditioning, self.time_out(self.time(t)))]
        tokens = mask = None
        if self.condition_size or self.extra_channels:
            if c is None:
                raise ValueError("this network was built with a condition, so it needs c.")
            pooled = c.pooled if isinstance(c, Context) else c
            attributes = pooled[:, : self.condition_size]
            if self.condition is not None:
                entering.append((self.conditioning, self.condition(attributes)))
            elif isinstance(c, Context):
                tokens, mask = c.tokens, c.mask
            elif self.condition_size:
                tokens = attributes[:, None]
            if self.extra_channels:
                beside = pooled[:, self.condition_size :].reshape(len(x), self.extra_channels, *self.shape[1:])
                images = torch.cat([images, beside.to(images.dtype)], dim=1)
        modulating, added, channels = ([v for way, v in entering if way == name] for name in TIME_CONDITIONING)
        film = F.silu(sum(modulating[1:], modulating[0])) if modulating else None
        addition = F.silu(sum(added[1:], added[0])) if added else None
        for values in channels:
            places = values[:, :, None, None].expand(len(x), -1, *self.shape[1:])
            images = torch.cat([images, places.to(images.dtype)], dim=1)
        # Tensor cores want channels last; on a CPU group normalisation of maps in that order is many times slower.
        form = torch.channels_last if images.is_cuda else torch.contiguous_format
        images = images.contiguous(memory_format=form)
        # The ends stay in float32 under autocast: eight bits of mantissa would blur the image itself.
        with torch.autocast(x.device.type, enabled=False):
            h = self.conv_in(images)
        skips = [h]
        for layer in self.down:
            h = layer(h, film, addition, tokens, mask) if isinstance(layer, Block) else layer(h)
            skips.append(h)
        for layer in self.middle:
            h = layer(h, film, addition, tokens, mask)
        for layer in self.up:
            if isinstance(layer, Block):
                h = layer(torch.cat([h, skips.pop()], dim=1), film, addition, tokens, mask)
            else:
                # To the sides of what comes next from the way down, which halving may have rounded up.
                h = layer(F.interpolate(h, size=skips[-1].shape[2:], mode="nearest"))
        h = F.silu(self.norm_out(h))
        with torch.autocast(x.device.type, enabled=False):
            out: Tensor = self.conv_out(h.to(images.dtype))
        return out.flatten(1) if x.dim() == 2 else out


class Block(nn.Module):
    """``shortcut(h) + conv(dropout(silu(modulated(norm(conv(silu(norm(h))))))))``, and attention behind it.

    Parameters
    ----------
    n_in, n_out : int
        Channels.
    dropout : float
    film_size, added_size : int
        Width of the embedding that scales and shifts the normalised maps, ``norm(h) (1 + scale) + shift``, and of the
        one that is added to them; 0 for none.
    attends : bool
        Whether there is attention.
    n_heads : int or None
        Its heads.
    context_size : int
        Width of the tokens of a condition to which the maps attend too, if they attend at all; 0 for none.
    group_size : int
        Fewest channels of a group that is normalised after the addition.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        dropout: float,
        *,
        film_size: int,
        added_size: int = 0,
        attends: bool = False,
        n_heads: int | None = None,
        context_size: int = 0,
        group_size: int = 4,
    ) -> None:
        super().__init__()
        self.norm_in = _norm(n_in)
        self.conv_in = nn.Conv2d(n_in, n_out, 3, padding=1)
        self.film = film_size > 0
        # Alone, either goes by this name.
        self.modulation = _linear(film_size, 2 * n_out) if self.film else _linear(added_size, n_out)
        self.addition = _linear(added_size, n_out) if self.film else None
        self.norm = _norm(n_out, group_size if added_size else 1)
        self.dropout = Dropout(dropout)
        self.conv = _zeroed(nn.Conv2d(n_out, n_out, 3, padding=1))
        self.shortcut: Callable[[Tensor], Tensor] = nn.Identity() if n_in == n_out else nn.Conv2d(n_in, n_out, 1)
        self.attention = Attention(n_out, n_heads) if attends else None
        self.cross_attention = CrossAttention(n_out, n_heads, context_size) if attends and context_size else None

    def forward(
        self,
        x: Tensor,
        film: Tensor | None,
        added: Tensor | None = None,
        tokens: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Map maps (B, n_in, h, w) to (B, n_out, h, w); the embeddings have a row for each of them, or one for all."""
        h = self.conv_in(F.silu(self.norm_in(x)))
        adding = self.addition if self.film else self.modulation
        if adding is not None and added is not None:
            h = h + adding(added)[:, :, None, None]
        h = self.norm(h)
        if self.film and self.modulation is not None and film is not None:
            scale, shift = self.modulation(film)[:, :, None, None].chunk(2, dim=1)
            h = torch.addcmul(shift, h, 1 + scale)
        h = self.shortcut(x) + self.conv(self.dropout(F.silu(h)))
        if self.attention is not None:
            h = self.attention(h)
        if self.cross_attention is not None and tokens is not None:
            h = self.cross_attention(h, tokens, mask)
        return h


class Attention(nn.Module):
    """``h + proj(attention(norm(h)))`` among the places of a map."""

    def __init__(self, n: int, n_heads: int | None = None) -> None:
        super().__init__()
        self.n_heads = _heads(n, n_heads)
        self.norm = _norm(n)
        self.to_qkv = nn.Linear(n, 3 * n)
        self.proj = _zeroed(nn.Linear(n, n))

    def forward(self, x: Tensor) -> Tensor:
        b, n, height, width = x.shape
        places = self.norm(x).permute(0, 2, 3, 1).reshape(b, height * width, n)
        q, k, v = self.to_qkv(places).unflatten(2, (3, self.n_heads, -1)).permute(2, 0, 3, 1, 4)
        if q.dtype == torch.bfloat16 and not x.is_cuda:  # that kernel is several times slower on CPUs
            q, k, v = q.float(), k.float(), v.float()
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, height * width, n)
        return x + self.proj(mixed).reshape(b, height, width, n).permute(0, 3, 1, 2)


class CrossAttention(nn.Module):
    """``h + attention(norm(h), tokens)``: the places of a map attend to the tokens of a condition."""

    def __init__(self, n: int, n_heads: int | None, context_size: int) -> None:
        super().__init__()
        self.norm = _norm(n)
        self.context = nn.Linear(context_size, n)
        self.attention = TokenAttention(n, _heads(n, n_heads), qk_norm=False)
        _zeroed(self.attention.out)

    def forward(self, x: Tensor, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        b, n, height, width = x.shape
        places = self.norm(x).permute(0, 2, 3, 1).reshape(b, height * width, n)
        mixed = self.attention(places, self.context(tokens), mask)
        return x + mixed.reshape(b, height, width, n).permute(0, 3, 1, 2)


def _heads(n: int, n_heads: int | None) -> int:
    """Return the heads of attention among maps of n channels: so many, or heads of 64 channels."""
    if n_heads is None:
        return max(1, n // HEAD_SIZE) if n % max(1, n // HEAD_SIZE) == 0 else 1
    if n_heads < 1 or n % n_heads:
        raise ValueError(f"n_heads must divide the channels of each map with attention, such as {n}; got {n_heads}.")
    return n_heads


def _linear(n_in: int, n_out: int) -> nn.Linear | None:
    return nn.Linear(n_in, n_out) if n_in else None


def _norm(n: int, group_size: int = 1) -> nn.GroupNorm:
    """Group normalisation in 32 groups, or in the most that divide n and have so many channels."""
    groups = next((g for g in range(min(MAX_GROUPS, n // group_size), 0, -1) if n % g == 0), 1)
    return nn.GroupNorm(groups, n)


def _zeroed(layer: nn.Module) -> Any:
    """Set a layer's weights to zero, so that what it ends starts as the identity."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
