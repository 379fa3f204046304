"""Log-likelihoods of rows and images under a fitted model."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from tabdiff.codecs.conditions.conditions import resolve_condition
from tabdiff.codecs.tables.unseen import least_likely, log_jacobian, read_rows
from tabdiff.diffusion import flow_log_likelihood
from tabdiff.diffusion.bound import row_bound
from tabdiff.diffusion.mixed_denoiser import MixedDenoiser
from tabdiff.model.fitted import FittedModel

__all__ = ["image_log_likelihood", "log_likelihood"]

SCORE_BATCH = 2048

# Where the chain of the bound ends: with a noise of about the width of a byte's bin.
LOG_SNR_MAX = 2 * math.log(128.0)
SCORED_VALUES = 2**17


def log_likelihood(
    model: FittedModel, features: Any, own: pd.DataFrame | None, *, condition: Any, method: str
) -> np.ndarray:
    """Return the log-likelihood (n,) of each row, or a bound on it; see `DiffusionGenerator.score_samples`.

    Parameters
    ----------
    model : FittedModel
    features : ndarray, DataFrame, Series or Images of n rows
        Checked, without condition columns.
    own : DataFrame or None
        Their condition, where what was given carries it.
    condition : optional
        In the forms of `sample`.
    method : {"bound", "flow"}
    """
    if model.container == "cells":
        raise TypeError("score_samples is not available for AnnData; fit on a DataFrame or array to score rows.")
    if model.codec.random_:
        raise TypeError("score_samples is not available with latent_diffusion=True; fit without it to score images.")
    codes = None
    n = int(features.shape[0])
    if condition is not None:
        codes = resolve_condition(model.conditions, n, condition, 1.0, np.random.default_rng(0))
    elif own is not None and model.conditions is not None:
        codes = torch.from_numpy(model.conditions.encode(own))
    if method not in ("bound", "flow"):
        raise ValueError(f"method must be 'bound' or 'flow', however: {method!r}.")
    if model.container == "images":
        if method == "flow":
            raise ValueError("method='flow' is for rows of numbers, not for images; use method='bound'.")
        return image_log_likelihood(model, features, codes)
    table = model.codec.columns_known_
    if table:
        rows = read_rows(model.codec, pd.DataFrame(features), model.n_samples, codes)
    data = rows.data if table else model.codec.encode(features, codes, None)
    if method == "flow" and isinstance(model.denoiser, MixedDenoiser):
        raise ValueError("method='flow' needs numbers without missing values; use method='bound'.")
    log_density: Callable[..., Tensor] = row_bound if method == "bound" else flow_log_likelihood
    exact = copy.deepcopy(model.denoiser).cpu().double()

    def score(data: Tensor, where: np.ndarray) -> np.ndarray:
        theirs = None if codes is None else codes[torch.from_numpy(where)]
        parts = [
            log_density(exact, data[i : i + SCORE_BATCH].double(), _part(theirs, i)).detach()
            for i in range(0, len(data), SCORE_BATCH)
        ]
        return torch.cat(parts).numpy()

    if not table:
        return score(data, np.arange(n)) + model.codec.log_jacobian(features, data)
    return least_likely(model.codec, rows, score) + log_jacobian(model.codec, rows)


def _part(codes: Tensor | None, i: int) -> Tensor | None:
    return codes[i : i + SCORE_BATCH].double() if codes is not None else None


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
