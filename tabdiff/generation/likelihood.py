"""What the estimator decides for images alone: the network for their size."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from tabdiff.codecs.images.codec import ImageCodec
from tabdiff.diffusion.bound import row_bound
from tabdiff.nn.unet import unet_preset
from tabdiff.utils.device import resolve_device

if TYPE_CHECKING:
    from tabdiff.estimators.generator import DiffusionGenerator

__all__ = ["check_beside", "image_log_likelihood", "image_network"]

# Channels and blocks at most, where there is no GPU: the published network for 32 × 32 pixels takes ten seconds a step
# there, this one under one.
CPU_BASE, CPU_BLOCKS = 32, 1
# Where the chain of the bound ends: with a noise of about the width of a byte's bin.
LOG_SNR_MAX = 2 * math.log(128.0)
SCORED_VALUES = 2**17


def image_network(parameters: Any, codec: ImageCodec) -> dict[str, Any]:
    """Return what a U-Net is built from.

    Parameters
    ----------
    parameters : DiffusionGenerator
    codec : object
        Fitted.
    """
    _, height, width = codec.row_size_
    network = {"shape": tuple(codec.row_size_), **unet_preset(height, width)}
    if resolve_device(parameters.device).type == "cpu":
        network["base"], network["n_blocks"] = min(network["base"], CPU_BASE), min(network["n_blocks"], CPU_BLOCKS)
    if parameters.hidden_size != "auto":
        network["base"] = int(parameters.hidden_size)
    if parameters.n_blocks != "auto":
        network["n_blocks"] = int(parameters.n_blocks)
    return network


def check_beside(parameters: Any, network: str) -> None:
    """Raise a ValueError for what does not go with a condition that is an image."""
    if network != "unet":
        raise ValueError(
            f"a condition that is an image needs denoiser='unet', however: {parameters.denoiser!r}. To others an "
            "image is a vector, image.reshape(n, -1)."
        )
    if parameters.latent_diffusion:
        raise ValueError("a condition that is an image stands beside pixels, so it needs latent_diffusion=False.")
    if parameters.augment is not None:
        raise ValueError(
            f"augment={parameters.augment!r} would move images against those of the condition; augment both before fit."
        )


@torch.no_grad()
def image_log_likelihood(gen: DiffusionGenerator, images: Any, codes: Tensor | None) -> np.ndarray:
    """Return a lower bound on the log-likelihood (n,) of each image, in nats.

    Of bytes it is the probability of the values, dequantised by uniform noise that is the same for every image (Theis
    et al., 2016, https://arxiv.org/abs/1511.01844); of floats the density, of images blurred by noise of about 1/128 of
    the range from white to grey. Times and noises are fixed, so an image's score depends on no other, but for rounding.
    """
    codec, denoiser = gen.codec_, gen.denoiser_
    device = next(denoiser.parameters()).device
    rows = codec.encode(images).to(device)
    n, d = rows.shape
    within = torch.rand((1, d), generator=torch.Generator().manual_seed(0)).to(device)
    size = max(1, SCORED_VALUES // d)
    parts = []
    for i in range(0, n, size):
        places = torch.arange(i, min(i + size, n), device=device)
        part = rows[places]
        if part.dtype == torch.uint8:
            values = part.float().add(within).div(128).sub(1)
        else:
            values = codec.prepare(part)
        condition = None if codes is None else codes[i : i + size].to(device)
        parts.append(row_bound(denoiser, values, condition, log_snr_max=LOG_SNR_MAX).cpu())
    return torch.cat(parts).numpy() + codec.log_jacobian(images, rows)
