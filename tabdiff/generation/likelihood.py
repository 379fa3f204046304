"""What the estimator decides for images alone: the network for their size."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from tabdiff.diffusion.bound import row_bound

if TYPE_CHECKING:
    from tabdiff.model.fitted import FittedModel

__all__ = ["image_log_likelihood"]

# Where the chain of the bound ends: with a noise of about the width of a byte's bin.
LOG_SNR_MAX = 2 * math.log(128.0)
SCORED_VALUES = 2**17


@torch.no_grad()
def image_log_likelihood(model: FittedModel, images: Any, codes: Tensor | None) -> np.ndarray:
    """Return a lower bound on the log-likelihood (n,) of each image, in nats.

    Of bytes it is the probability of the values, dequantised by uniform noise that is the same for every image (Theis
    et al., 2016, https://arxiv.org/abs/1511.01844); of floats the density, of images blurred by noise of about 1/128 of
    the range from white to grey. Times and noises are fixed, so an image's score depends on no other, but for rounding.
    """
    codec, denoiser = model.codec, model.denoiser
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
