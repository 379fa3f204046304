"""Images as latents of an autoencoder, in which diffusion costs a fraction of what it costs in pixels."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from tabdiff.codecs.images.codec import ImageCodec
from tabdiff.io.images import as_images
from tabdiff.nn.image_autoencoder import (
    ImageAutoencoder,
    autoencoder_from_weights,
    latent_factor,
    train_image_autoencoder,
)

__all__ = ["LatentImageCodec"]

# Rows of one call of the autoencoder.
CHUNK = 512
BATCH = 128
STEPS, STEPS_RANGE = 30, (400, 2_000)
GPU_STEPS_RANGE = (4_000, 20_000)
WIDTH, GPU_WIDTH = 64, 128
# Images that only judge the autoencoder, and the share of a fit's time that it gets.
MAX_HELD_OUT, TIME_SHARE = 1_000, 0.4


class LatentImageCodec(ImageCodec):
    """Encode images as standardised draws from an autoencoder's posterior (Rombach et al., 2022).

    Takes what :class:`ImageCodec` takes; see `tabdiff.nn.image_autoencoder`.

    Parameters
    ----------
    augment : str, list of str or None
        "flip" mirrors a random half of the training images left to right, "crop" shifts them by up to an eighth of
        their sides, repeating what is at their edges; both before encoding.

    Attributes
    ----------
    autoencoder_ : ImageAutoencoder
    reconstruction_rmse_ : float
        Root mean squared error of images that it has not learned from, after encoding and decoding, where pixels go
        from 0 to 1: what no model of the latents can undercut.

    Examples
    --------
    >>> import numpy as np, torch
    >>> images = np.random.default_rng(0).random((30, 8, 8))
    >>> codec = LatentImageCodec().fit(images, seed=0, device=torch.device("cpu"), max_time=1.0)
    >>> codec.encode(images).shape, codec.reconstruct(images).shape
    (torch.Size([30, 64]), (30, 8, 8))
    """

    random_ = True
    constant_ = False

    def fit(
        self,
        images: Any,
        condition: Tensor | None = None,
        levels: Any = (),
        *,
        seed: int,
        device: torch.device,
        max_time: float | None = None,
        sample_weight: np.ndarray | None = None,
    ) -> Self:
        """Train the autoencoder.

        Parameters
        ----------
        images : Images, or what `read_images` takes
        condition, levels : optional
            Not used: one autoencoder for all classes.
        seed : int
        device : torch.device
            Where it trains.
        max_time : float, optional
            Seconds of the whole fit, of which it takes less than half.
        sample_weight : ndarray of shape (n,), optional
            Not used: weights matter to the distribution of latents, not to how they are decoded.

        Raises
        ------
        ValueError
            If the sides of the images do not divide by the factor that latents are smaller by.
        """
        images = as_images(images)
        super().fit(images)
        latent_factor(*self.size_[1:])
        rows = super().encode(images)
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
        n_held_out = min(len(images) // 10, MAX_HELD_OUT)
        held_out, training = order[:n_held_out], order[n_held_out:]
        augmenting = torch.Generator().manual_seed(seed + 1)
        on_gpu = device.type != "cpu"
        self.autoencoder_: ImageAutoencoder = train_image_autoencoder(
            self.size_,
            lambda chosen: super(LatentImageCodec, self).prepare(rows[training[chosen]], augmenting),
            len(training),
            max_steps=int(np.clip(STEPS * len(training) ** 0.5, *(GPU_STEPS_RANGE if on_gpu else STEPS_RANGE))),
            batch_size=BATCH,
            width=GPU_WIDTH if on_gpu else WIDTH,
            seed=seed,
            device=device,
            max_time=None if max_time is None else TIME_SHARE * max_time,
        )
        self._standardise(rows, training)
        judged = held_out if n_held_out else training
        errors = []
        for part in judged.split(CHUNK):
            pixels = super().prepare(rows[part])
            errors.append((self.autoencoder_.decode(self.autoencoder_.encode(pixels)[0]).clamp(-1, 1) - pixels) / 2)
        self.reconstruction_rmse_ = float(torch.cat(errors).square().mean().sqrt())
        return self

    def _standardise(self, rows: Any, training: Tensor) -> None:
        """Learn mean and spread of each channel of the latents, over places and images."""
        total = [
            self.autoencoder_.encode(super(LatentImageCodec, self).prepare(rows[p])) for p in training.split(CHUNK)
        ]
        channels = self.row_size_[0]
        mean = torch.cat([m for m, _ in total]).reshape(len(training), channels, -1)
        variance = torch.cat([v for _, v in total]).exp().reshape(mean.shape)
        self.center_ = mean.mean((0, 2))
        self.spread_ = (mean.var((0, 2), correction=0) + variance.mean((0, 2))).sqrt().clamp_min(1e-6)

    @property
    def row_size_(self) -> tuple[int, int, int]:
        """``(c, h, w)`` of what is diffused: the latent map."""
        return self.autoencoder_.latent_shape

    @property
    def bounds_(self) -> None:
        """Latents have no smallest or largest value."""
        return None

    @property
    def schema_(self) -> pd.DataFrame:
        """What was found, and how well the autoencoder gives images back."""
        c, h, w = self.row_size_
        found = {"latent": f"{c} × {h} × {w}", "reconstruction_rmse": self.reconstruction_rmse_}
        return super().schema_.assign(**found)

    def encode(self, images: Any, condition: Tensor | None = None, generator: Any = None) -> Tensor:
        """Map images to rows of latents (n, k): draws with a generator, and else means."""
        rows = super().encode(images)
        parts = []
        for places in torch.arange(len(rows)).split(CHUNK):
            mean, log_variance = self.autoencoder_.encode(super().prepare(rows[places], generator))
            if generator is not None:
                mean = mean + torch.exp(0.5 * log_variance) * torch.randn(mean.shape, generator=generator)
            parts.append(mean)
        latents = torch.cat(parts).reshape(len(rows), self.row_size_[0], -1)
        return ((latents - self.center_[:, None]) / self.spread_[:, None]).flatten(1)

    def prepare(self, rows: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return rows of latents as they are."""
        return rows

    def decode(self, rows: Tensor, condition: Tensor | None = None, generator: Any = None) -> Any:
        """Map rows of latents (n, k) to images in the container of the fit."""
        latents = rows.float().reshape(len(rows), self.row_size_[0], -1)
        latents = (latents * self.spread_[:, None] + self.center_[:, None]).flatten(1)
        pixels = [self.autoencoder_.decode(part) for part in latents.split(CHUNK)]
        return super().decode(torch.cat(pixels) if pixels else latents.new_empty((0, int(np.prod(self.size_)))))

    def reconstruct(self, images: Any) -> Any:
        """Return images as they are after encoding and decoding."""
        return self.decode(self.encode(images))

    def state(self) -> dict:
        """Plain description, for persistence."""
        return {
            **super().state(),
            "autoencoder": {name: w.detach().cpu().numpy() for name, w in self.autoencoder_.state_dict().items()},
            "center": self.center_.numpy(),
            "spread": self.spread_.numpy(),
            "reconstruction_rmse": self.reconstruction_rmse_,
        }

    @classmethod
    def from_state(cls, state: dict) -> Self:
        """Inverse of :meth:`state`."""
        codec = cls._of_pixels(state)
        codec.autoencoder_ = autoencoder_from_weights(codec.size_, state["autoencoder"])
        codec.center_, codec.spread_ = (torch.as_tensor(np.array(state[k])) for k in ("center", "spread"))
        codec.reconstruction_rmse_ = float(state["reconstruction_rmse"])
        return codec
