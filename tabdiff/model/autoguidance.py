"""Autoguidance of tables: numbers are led away from what a small, briefly trained network makes of them.

What is left of a network's error on numbers after minutes of training is that it is too careful: given everything else
in a row, the numbers that it draws are spread too widely. A smaller network is more so, in the same places, and away
from it lies what more training would have found (Karras et al., 2024, https://arxiv.org/abs/2406.02507). Categories are
not led: their shares would move. How far is right depends on how far both networks got, and too far makes numbers
follow too closely; so the scale is the one at which trees tell drawn rows from real ones least.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from tabdiff.diffusion import Denoiser
from tabdiff.diffusion.generate import draw
from tabdiff.model.build import build_denoiser
from tabdiff.model.config import ModelConfig
from tabdiff.model.defaults import LARGE_ROWS, SMALL_SIZE
from tabdiff.model.refinement.density_ratio import DensityRatio
from tabdiff.model.refinement.refinement import (
    REFINED_STEPS,
    TRAINING_EVALUATIONS,
    MarginalMap,
    feature_levels,
    frame_features,
    refined_steps,
    row_features,
)
from tabdiff.model.sample_weights import population, take_rows
from tabdiff.training import Batches, train

if TYPE_CHECKING:
    from tabdiff.model.fitted import FittedModel
    from tabdiff.model.training_data import Start

__all__ = ["TIME_SHARE", "build_guiding_denoiser", "fit_autoguidance", "resolve_autoguidance"]

# A quarter of the width, half of the blocks, and a quarter of the steps, up to these: a twentieth of the time. One of
# half the width that was trained for 1,000 steps, and one of full size, lead as far and cost more.
GUIDING_STEPS = 1250
TIME_SHARE = 0.05
# What is tried, in this order, on how many rows, and for what share of the time that a fit is given.
SCALES = (1.0, 1.5, 1.25, 2.0)
TRIAL_SHARE = 0.1
TRIED_ROWS = 8000
# Fewer rows do not tell one scale from another: after a training so short that trials would take more than their share
# of it, there is none.
MIN_TRIED_ROWS = 1000


def build_guiding_denoiser(spec: ModelConfig, seed: int = 0) -> Denoiser:
    """Build the small network that guides that of a configuration."""
    size, n_blocks = max(spec.hidden_size // 4, 1), max(spec.n_blocks // 2, 1)
    small = dataclasses.replace(spec, hidden_size=size, n_blocks=n_blocks)
    return build_denoiser(small, small.network, seed)


def fit_autoguidance(
    model: FittedModel,
    start: Start,
    scale: float | None,
    batches: Batches,
    settings: dict[str, Any],
    *,
    trained: int,
    refined: bool,
    max_time: float | None,
    device: torch.device,
) -> FittedModel:
    """Train the guiding denoiser beside a trained one; return the model with it and the scale.

    Parameters
    ----------
    model : FittedModel
    start : Start
        Its fit.
    scale : float, optional
        By default it is chosen; where that is 1, the guiding denoiser is dropped.
    batches : Batches
        What both networks learn from.
    settings : dict
        Arguments of `tabdiff.training.train` that both share.
    trained : int
        Rows that all training steps saw together, by which the choice of a scale is cut short after a short training.
    refined : bool
        Whether rows will be refined.
    max_time : float, optional
        Seconds that both may take together.
    device : torch.device
    """
    tried = _tried_rows(trained)
    if scale is None and tried < MIN_TRIED_ROWS:
        return model
    guiding = build_guiding_denoiser(model.config, start.seeds.guiding).to(device)
    # Both see the same noisy rows, in which levels stand by their embeddings.
    guiding.share_levels(model.denoiser)
    result = train(
        guiding,
        batches,
        **settings,
        max_steps=max(1, min(GUIDING_STEPS, model.n_steps // 4)),
        max_time=None if max_time is None else TIME_SHARE * max_time,
        generator=torch.Generator(device).manual_seed(start.seeds.guiding),
    )
    guiding = result.denoiser.requires_grad_(False)
    if scale is None:
        deadline = math.inf if max_time is None else time.perf_counter() + TRIAL_SHARE * max_time
        scale = choose_scale(
            model, guiding, start, start.seeds.guiding, n_rows=tried, refined=refined, deadline=deadline
        )
    return model.with_autoguidance(scale, guiding)


def _tried_rows(trained: int) -> int:
    """Return how many rows are drawn with each scale after training steps that saw so many rows together."""
    affordable = TRIAL_SHARE * TRAINING_EVALUATIONS * trained / (len(SCALES) * REFINED_STEPS)
    return min(TRIED_ROWS, int(affordable))


def choose_scale(
    model: FittedModel,
    guiding: Denoiser,
    start: Start,
    seed: int,
    *,
    n_rows: int,
    refined: bool,
    deadline: float,
) -> float:
    """Return the scale for a trained network and a guiding one: rows of each are compared with training rows.

    Rows are drawn at the conditions of the training rows that they are compared with, all from the same noise, and
    their numbers get standard normal marginals where a refinement will give them these too.
    """
    every = np.arange(start.inputs.features.shape[0]) if start.weight is None else population(start.weight)
    chosen = np.random.default_rng(seed).permutation(every)[:n_rows]
    condition = None if start.codes is None else start.codes[torch.from_numpy(chosen)]

    def drawn(scale: float) -> np.ndarray:
        rows = draw(
            model.denoiser,
            len(chosen),
            condition,
            width=model.config.width,
            generator=torch.Generator().manual_seed(seed),
            guided=model.with_autoguidance(scale, guiding).guided,
            steps=refined_steps(model.denoiser.schedule),
            precision=model.precision,
        )
        if refined:
            rows = MarginalMap(rows[:, : model.config.n_continuous].numpy()).rows(rows)
        return row_features(model.codec, rows, condition)

    real = frame_features(model.codec, take_rows(start.inputs.features, chosen), condition)
    return least_distinct(real, drawn, feature_levels(model.codec, model.config.condition_levels), seed, deadline)


def least_distinct(
    real: np.ndarray,
    drawn: Callable[[float], np.ndarray],
    n_levels: list[int],
    seed: int,
    deadline: float = math.inf,
) -> float:
    """Return the scale at which boosted trees tell drawn rows from real ones least.

    Parameters
    ----------
    real : ndarray of shape (n, d)
        Features of real rows: numbers, NaN where missing, with columns of level codes.
    drawn : callable
        From a scale to the features (m, d) of rows that are drawn with it.
    n_levels : list of int, length d
        Number of levels of each column, 0 for numbers.
    seed : int
        Of the halves of the rows that trees learn from, and are tested on.
    deadline : float
        A scale whose trial would end later is not tried, on the clock of `time.perf_counter`.
    """
    areas: list[float] = []
    began = time.perf_counter()
    for scale in SCALES:
        areas.append(_distinct(real, drawn(scale), n_levels, seed))
        now = time.perf_counter()
        if now + (now - began) / len(areas) > deadline:
            break
    return SCALES[int(np.argmin(areas))]


def _distinct(real: np.ndarray, drawn: np.ndarray, n_levels: list[int], seed: int) -> float:
    """Return the mean area under the ROC curve of two classifiers, each of the half that the other learned from."""
    rng = np.random.default_rng(seed)
    halves = [(rng.permutation(len(rows)) % 2).astype(bool) for rows in (real, drawn)]
    areas = []
    for flip in (False, True):
        a, b = (half ^ flip for half in halves)
        ratio = DensityRatio(max_leaf_nodes=15, max_iter=200, min_samples_leaf=20)
        ratio.fit(real[a], drawn[b], n_levels, seed=seed)
        scores = [ratio.log_ratio(rows) for rows in (real[~a], drawn[~b])]
        areas.append(roc_auc_score(np.repeat([1, 0], [len(s) for s in scores]), np.concatenate(scores)))
    return float(np.mean(areas))


def resolve_autoguidance(asked: str | float, codec: Any, spec: ModelConfig, n_rows: int) -> float | None:
    """Return the scale of the autoguidance of numbers, 1 for none, None for one to be chosen.

    By default a small network is left alone: a smaller one costs nearly as much and leads it nowhere better.

    Raises
    ------
    ValueError
        If one was asked for where there are no numbers of a table, or no MLP to draw them.
    """
    possible = spec.network == "mlp" and not spec.custom and codec.columns_known_ and spec.n_continuous > 0
    if isinstance(asked, str):
        return None if possible and n_rows >= LARGE_ROWS and spec.hidden_size > SMALL_SIZE else 1.0
    if asked != 1 and not possible:
        raise ValueError(
            f"autoguidance={asked!r} leads numbers of a table or array that denoiser='mlp' draws, and here are none. "
            "Use autoguidance='auto' or 1."
        )
    return float(asked)
