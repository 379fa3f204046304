"""The U-Net that denoises images.

Residual blocks on a pyramid of resolutions, with skip connections from the way down to the way up, and self-attention
where the maps are small (Ronneberger et al., 2015, https://arxiv.org/abs/1505.04597; Ho et al., 2020,
https://arxiv.org/abs/2006.11239; modulation by scale and shift: Dhariwal and Nichol, 2021,
https://arxiv.org/abs/2105.05233).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tabdiff.nn.dropout import Dropout
from tabdiff.nn.embeddings import SinusoidalEmbedding

__all__ = ["UNET_PRESETS", "UNet", "unet_preset"]

# By the longer side of an image at most. That of 32 is the network of Ho et al. for CIFAR-10, of 35.7 million
# parameters for three channels; the widths and depths of the others are as large as their images are worth.
UNET_PRESETS: dict[int, dict[str, Any]] = {
    12: {"base": 32, "multipliers": (1, 2), "n_blocks": 1, "attention": (4, 5, 6), "modulation": "film"},
    28: {"base": 64, "multipliers": (1, 2, 2), "n_blocks": 2, "attention": (7,), "modulation": "film"},
    48: {"base": 128, "multipliers": (1, 2, 2, 2), "n_blocks": 2, "attention": (16,), "modulation": "add"},
    64: {"base": 128, "multipliers": (1, 2, 3, 4), "n_blocks": 2, "attention": (16, 8), "modulation": "film"},
}
HEAD_SIZE = 64
MAX_GROUPS = 32


def unet_preset(height: int, width: int) -> dict[str, Any]:
    """Return the keyword arguments of :class:`UNet` that suit images of a size.

    Examples
    --------
    >>> unet_preset(32, 32)["base"], unet_preset(8, 8)["multipliers"]
    (128, (1, 2))
    """
    side = max(height, width)
    return dict(UNET_PRESETS[next((limit for limit in UNET_PRESETS if side <= limit), max(UNET_PRESETS))])


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
    modulation : {"film", "add"}, default="film"
        How a block sees time and condition: they scale and shift its normalised maps, or are added to them, as in the
        paper of 2020.
    extra_channels : int, default=0
        Channels of an image that is seen beside the noisy one; its pixels stand at the end of `c`.

    Raises
    ------
    ValueError
        If sizes are below 1, an image is too small for so many levels, or `modulation` is unknown.

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
        modulation: str = "film",
        extra_channels: int = 0,
    ) -> None:
        super().__init__()
        channels, height, width = shape
        if min(channels, height, width, base, n_blocks, len(multipliers), *multipliers) < 1:
            raise ValueError(f"sizes must be at least 1, however: {shape=} {base=} {multipliers=} {n_blocks=}")
        if modulation not in ("film", "add"):
            raise ValueError(f"modulation must be 'film' or 'add', however: {modulation!r}")
        if min(height, width) < 2 ** (len(multipliers) - 1):
            raise ValueError(
                f"images of {height} × {width} pixels are too small for {len(multipliers)} levels, each of which "
                "halves their sides; use fewer multipliers"
            )
        self.shape, self.extra_channels = tuple(shape), extra_channels
        embedding = 4 * base
        self.time = nn.Sequential(
            SinusoidalEmbedding(base + base % 2), nn.Linear(base + base % 2, embedding), nn.SiLU()
        )
        self.time_out = nn.Linear(embedding, embedding)
        self.condition_size = condition_size
        self.condition = nn.Linear(condition_size, embedding) if condition_size else None

        def block(n_in: int, n_out: int, side: int) -> Block:
            return Block(n_in, n_out, embedding, dropout, modulation == "film", attends=side in attention)

        widths = [base * m for m in multipliers]
        self.conv_in = nn.Conv2d(channels + extra_channels, base, 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        side, n, skips = max(height, width), base, [base]
        for level, n_level in enumerate(widths):
            for _ in range(n_blocks):
                self.down.append(block(n, n_level, side))
                n = n_level
                skips.append(n)
            if level < len(widths) - 1:
                self.down.append(nn.Conv2d(n, n, 3, stride=2, padding=1))
                skips.append(n)
                side = (side + 1) // 2
        sides = [max(height, width)]
        for _ in widths[1:]:
            sides.append((sides[-1] + 1) // 2)
        self.middle = nn.ModuleList(
            [Block(n, n, embedding, dropout, modulation == "film", attends=True)]
            + [Block(n, n, embedding, dropout, modulation == "film", attends=False)]
        )
        for level in reversed(range(len(widths))):
            for _ in range(n_blocks + 1):
                self.up.append(block(n + skips.pop(), widths[level], sides[level]))
                n = widths[level]
            if level > 0:
                self.up.append(nn.Conv2d(n, n, 3, padding=1))
        self.norm_out = _norm(n)
        self.conv_out = _zeroed(nn.Conv2d(n, channels, 3, padding=1))

    def forward(self, x: Tensor, t: Tensor, c: Tensor | None = None, given: Tensor | None = None) -> Tensor:
        """Map noisy rows to what is predicted of them.

        Parameters
        ----------
        x : Tensor of shape (B, channels * height * width) or (B, channels, height, width)
            Noisy images.
        t : Tensor of shape (B,)
            Times in [0, 1].
        c : Tensor of shape (B, condition_size + extra_channels * height * width), optional
            The embedded condition, and behind it the pixels of the image beside.
        given : None
            Which entries are known; this network is never told.

        Returns
        -------
        Tensor
            Of the shape of `x`.
        """
        if given is not None:
            raise ValueError("a U-Net is not told which entries are given.")
        if len(t) > 1 and t.stride(0) == 0:
            t = t[:1]  # one time for all rows, as in sampling: one embedding for all
        embedding = self.time_out(self.time(t))
        if self.condition is not None or self.extra_channels:
            if c is None:
                raise ValueError("this network was built with a condition, so it needs c.")
            if self.condition is not None:
                embedding = embedding + self.condition(c[:, : self.condition_size])
        embedding = F.silu(embedding)
        images = x.reshape(len(x), *self.shape)
        if self.extra_channels:
            assert c is not None
            beside = c[:, self.condition_size :].reshape(len(x), self.extra_channels, *self.shape[1:])
            images = torch.cat([images, beside.to(images.dtype)], dim=1)
        # Tensor cores want channels last; on a CPU group normalisation of maps in that order is many times slower.
        form = torch.channels_last if images.is_cuda else torch.contiguous_format
        images = images.contiguous(memory_format=form)
        # The ends stay in float32 under autocast: eight bits of mantissa would blur the image itself.
        with torch.autocast(x.device.type, enabled=False):
            h = self.conv_in(images)
        skips = [h]
        for layer in self.down:
            h = layer(h, embedding) if isinstance(layer, Block) else layer(h)
            skips.append(h)
        for layer in self.middle:
            h = layer(h, embedding)
        for layer in self.up:
            if isinstance(layer, Block):
                h = layer(torch.cat([h, skips.pop()], dim=1), embedding)
            else:
                # To the sides of what comes next from the way down, which halving may have rounded up.
                h = layer(F.interpolate(h, size=skips[-1].shape[2:], mode="nearest"))
        h = F.silu(self.norm_out(h))
        with torch.autocast(x.device.type, enabled=False):
            h = self.conv_out(h.to(images.dtype))
        return cast(Tensor, h.reshape(x.shape))


class Block(nn.Module):
    """``shortcut(h) + conv(dropout(silu(modulated(norm(conv(silu(norm(h))))))))``, and attention behind it."""

    def __init__(self, n_in: int, n_out: int, embedding: int, dropout: float, film: bool, attends: bool) -> None:
        super().__init__()
        self.film = film
        self.norm_in = _norm(n_in)
        self.conv_in = nn.Conv2d(n_in, n_out, 3, padding=1)
        self.modulation = nn.Linear(embedding, 2 * n_out if film else n_out)
        self.norm = _norm(n_out)
        self.dropout = Dropout(dropout)
        self.conv = _zeroed(nn.Conv2d(n_out, n_out, 3, padding=1))
        self.shortcut: Callable[[Tensor], Tensor] = nn.Identity() if n_in == n_out else nn.Conv2d(n_in, n_out, 1)
        self.attention = Attention(n_out) if attends else None

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.conv_in(F.silu(self.norm_in(x)))
        modulation = self.modulation(embedding)[:, :, None, None]
        if self.film:
            scale, shift = modulation.chunk(2, dim=1)
            h = torch.addcmul(shift, self.norm(h), 1 + scale)
        else:
            h = self.norm(h + modulation)
        h = self.shortcut(x) + self.conv(self.dropout(F.silu(h)))
        return self.attention(h) if self.attention is not None else h


class Attention(nn.Module):
    """``h + proj(attention(norm(h)))`` among the places of a map."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.n_heads = max(1, n // HEAD_SIZE) if n % max(1, n // HEAD_SIZE) == 0 else 1
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


def _norm(n: int) -> nn.GroupNorm:
    """Group normalisation in 32 groups, or in the most that divide n."""
    groups = next(g for g in range(min(MAX_GROUPS, n), 0, -1) if n % g == 0)
    return nn.GroupNorm(groups, n)


def _zeroed(layer: nn.Module) -> Any:
    """Set a layer's weights to zero, so that what it ends starts as the identity."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
