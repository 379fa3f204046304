r"""Autoencoder of images, in whose latent maps diffusion is cheap (Rombach et al., 2022).

The encoder gives a normal distribution for each entry of a map of a quarter of the sides, the decoder an image.
Training minimises

.. math:: \frac{D}{2} \log \sigma^2 + \beta \, \mathrm{KL}, \qquad
    \sigma^2 = \frac{1}{D} \mathbb{E} \lVert x - \hat x \rVert^2

for images of D values. With :math:`\beta = 1` it is the evidence lower bound under the noise of the decoder that fits
best (Rybkin, Daniilidis and Levine, 2021, https://arxiv.org/abs/2006.13202), which blurs: the latents of 8 × 8 digits
then miss .07 of the range of pixels, and .02 with a tenth. What the prior lacks of them, diffusion learns.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tabdiff.utils.seeding import borrowed_rng

__all__ = ["ImageAutoencoder", "latent_factor", "train_image_autoencoder"]

CHANNELS = 4
# A latent smaller than this has no room for a picture.
MIN_SIDE = 4
GROUPS = 8
MIN_VARIANCE = 1e-6
KL_WEIGHT = 0.1


def latent_factor(height: int, width: int) -> int:
    """Return by how much the sides of images shrink: 4, or 2 for those under 16 pixels.

    Raises
    ------
    ValueError
        If the sides do not divide by it, or are too short.

    Examples
    --------
    >>> latent_factor(28, 28), latent_factor(8, 8)
    (4, 2)
    """
    factor = 4 if min(height, width) >= 4 * MIN_SIDE else 2
    if height % factor or width % factor or min(height, width) < factor * MIN_SIDE:
        raise ValueError(
            f"Latents of images need at least {2 * MIN_SIDE} pixels a side, and sides that divide by "
            f"{factor}, got {height} × {width}. Crop or pad them, or leave codec out."
        )
    return factor


class ImageAutoencoder(nn.Module):
    """Convolutional autoencoder with a normal posterior.

    Parameters
    ----------
    shape : tuple of int
        ``(channels, height, width)`` of an image.
    width : int
        Channels inside.
    n_blocks : int
        Residual blocks of the encoder, and of the decoder.

    Examples
    --------
    >>> import torch
    >>> model = ImageAutoencoder((1, 28, 28), width=16, n_blocks=1)
    >>> model.latent_shape, model.decode(model.encode(torch.zeros(2, 784))[0]).shape
    ((4, 7, 7), torch.Size([2, 784]))
    """

    def __init__(self, shape: tuple[int, int, int], *, width: int = 64, n_blocks: int = 2) -> None:
        super().__init__()
        channels, height, side = shape
        factor = latent_factor(height, side)
        self.shape = tuple(shape)
        self.latent_shape = (CHANNELS, height // factor, side // factor)
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(factor),
            nn.Conv2d(channels * factor**2, width, 3, padding=1),
            *(_Residual(width) for _ in range(n_blocks)),
            nn.GroupNorm(GROUPS, width),
            nn.SiLU(),
            nn.Conv2d(width, 2 * CHANNELS, 3, padding=1),
        )
        # Where patches meet, the last layer at the images' own scale smooths.
        fine = max(width // factor, 8)
        self.decoder = nn.Sequential(
            nn.Conv2d(CHANNELS, width, 3, padding=1),
            *(_Residual(width) for _ in range(n_blocks)),
            nn.GroupNorm(GROUPS, width),
            nn.SiLU(),
            nn.Conv2d(width, fine * factor**2, 3, padding=1),
            nn.PixelShuffle(factor),
            nn.SiLU(),
            nn.Conv2d(fine, channels, 3, padding=1),
        )

    def encode(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return means and log variances of the latents of rows of pixels (B, d), each (B, k)."""
        mean, log_variance = self.encoder(rows.reshape(len(rows), *self.shape)).chunk(2, dim=1)
        return mean.flatten(1), log_variance.flatten(1).clamp(-20, 10)

    def decode(self, latents: Tensor) -> Tensor:
        """Return rows of pixels (B, d) of latents (B, k)."""
        out: Tensor = self.decoder(latents.reshape(len(latents), *self.latent_shape))
        return out.flatten(1)

    def loss(self, rows: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return the negative evidence lower bound per value, up to a constant, and the mean squared error."""
        mean, log_variance = self.encode(rows)
        drawn = self.decode(mean + noise * torch.exp(0.5 * log_variance))
        error = F.mse_loss(drawn, rows)
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean()
        return 0.5 * torch.log(error + MIN_VARIANCE) + KL_WEIGHT * kl / rows.shape[1], error


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.GroupNorm(GROUPS, width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.GroupNorm(GROUPS, width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )

    def forward(self, h: Tensor) -> Tensor:
        out: Tensor = h + self.body(h)
        return out


def train_image_autoencoder(
    shape: tuple[int, int, int],
    load: Callable[[Tensor], Tensor],
    n_rows: int,
    *,
    max_steps: int,
    batch_size: int,
    width: int,
    seed: int,
    device: torch.device,
    learning_rate: float = 2e-3,
    max_time: float | None = None,
) -> ImageAutoencoder:
    """Build and train an autoencoder, by Adam with a short warm-up and cosine decay.

    Parameters
    ----------
    shape : tuple of int
        ``(channels, height, width)``.
    load : callable
        From numbers of rows (B,) to their pixels (B, d) from -1 to 1.
    n_rows : int
    max_steps, batch_size, width
    seed : int
        Of the first weights, the batches and the noise.
    device : torch.device
        Where it trains; it comes back on the CPU.
    max_time : float, optional
        Seconds after which it stops.
    """
    with borrowed_rng(seed):
        model = ImageAutoencoder(shape, width=width).to(device)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    started = time.monotonic()
    size = int(math.prod(model.latent_shape))
    for step in range(max_steps):
        # Where time runs out first, the decay follows the clock.
        done = step / max_steps
        if max_time is not None:
            done = max(done, (time.monotonic() - started) / max_time)
        if done >= 1:
            break
        rate = learning_rate * min((step + 1) / 20, 0.5 * (1 + math.cos(math.pi * done)) + 1e-3)
        for group in optimizer.param_groups:
            group["lr"] = rate
        rows = load(torch.randint(n_rows, (min(batch_size, n_rows),), generator=generator)).to(device)
        noise = torch.randn(len(rows), size, generator=generator).to(device)
        loss, _ = model.loss(rows, noise)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model.cpu().eval().requires_grad_(False)


def autoencoder_from_weights(shape: tuple[int, int, int], weights: dict[str, Any]) -> ImageAutoencoder:
    """Return the autoencoder of these weights, its sizes read from them.

    Raises
    ------
    ValueError
        If they are not finite or do not fit together.
    """
    tensors = {name: torch.as_tensor(value) for name, value in weights.items()}
    broken = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise ValueError(f"weights {broken[:5]} of the autoencoder are not finite")
    blocks = {name.split(".")[1] for name in tensors if name.startswith("encoder.") and ".body." in name}
    with borrowed_rng(0):
        model = ImageAutoencoder(shape, width=int(tensors["encoder.1.weight"].shape[0]), n_blocks=len(blocks))
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(f"weights of the autoencoder do not fit: {str(error)[:200]}") from error
    return model.eval().requires_grad_(False)
