"""Losses of rows at fixed times and noises, by which an audit asks whether a model knows its training rows."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from tabdiff.codecs.images.codec import ImageCodec
from tabdiff.codecs.tables.unseen import read_rows
from tabdiff.model.fitted import FittedModel

__all__ = ["denoising_losses"]

N_TIMES, N_DRAWS = 12, 4
BATCH_ROWS, BATCH_VALUES = 4096, 2**20


@torch.no_grad()
def denoising_losses(
    model: FittedModel,
    features: Any,
    codes: Tensor | None,
    *,
    n_times: int = N_TIMES,
    n_draws: int = N_DRAWS,
    seed: int = 0,
) -> np.ndarray:
    """Return the denoising loss of each row at fixed times, a mean over fixed noises: the same for every row.

    Parameters
    ----------
    model : FittedModel
        Of a table, an array or images.
    features : DataFrame or images
        Rows.
    codes : Tensor of shape (n, k), optional
        Their condition.
    n_times, n_draws : int
        Times, evenly from the least to the most noise, and noises for each.
    seed : int

    Returns
    -------
    losses : ndarray of shape (n, n_times) or (n, n_times + 1)
        Of a table with a last column, how much of a row was never seen at fit (see `docs/unseen.md`): whoever has the
        model has its levels too.

    Raises
    ------
    TypeError
        For other models.
    """
    codec, surprise = model.codec, None
    denoiser = copy.deepcopy(model.denoiser).cpu().float().eval()
    if isinstance(codec, ImageCodec):
        data: Tensor = codec.read(features)
    elif codec.columns_known_:
        rows = read_rows(codec, pd.DataFrame(features), model.n_samples, codes)
        data, surprise = rows.data.float(), rows.surprise
    else:
        raise TypeError(f"losses are of tables, arrays and images; the model is of {model.container}.")
    generator = torch.Generator().manual_seed(seed)
    schedule = denoiser.schedule
    t = torch.linspace(float(schedule.t_min), float(schedule.t_max), n_times + 2)[1:-1]
    if schedule.n_timesteps:
        # A chain was trained at its own times alone.
        t = (t * schedule.n_timesteps).round().clamp(1, schedule.n_timesteps) / schedule.n_timesteps
    width = model.config.width
    noise = torch.randn((n_draws, width), generator=generator)
    step = max(1, min(BATCH_ROWS, BATCH_VALUES // max(width, 1)))
    out = np.zeros((len(data), n_times))
    for start in range(0, len(data), step):
        x0 = data[start : start + step]
        condition = None if codes is None else codes[start : start + step].float()
        for k in range(n_times):
            times = t[k].expand(len(x0))
            for draw in noise:
                eps = draw.expand(len(x0), width).reshape(len(x0), *_shape(x0, width))
                loss = denoiser.loss(x0, condition, t=times, eps=eps)
                out[start : start + step, k] += loss.double().numpy() / n_draws
    return out if surprise is None else np.column_stack([out, surprise])


def _shape(x0: Tensor, width: int) -> tuple[int, ...]:
    """Shape of the noise of a row: of numbers and images that of the row, of tables with categories the network's."""
    return tuple(x0.shape[1:]) if x0[0].numel() == width else (width,)
