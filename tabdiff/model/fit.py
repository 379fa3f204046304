"""A fit from top to bottom: what was read becomes a fitted model."""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import joblib
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from tabdiff.codecs.inputs import FitInputs
from tabdiff.diffusion import Denoiser
from tabdiff.diffusion.generate import CPU_PIECE_ROWS, PIECE_ROWS, draw, draw_in_time
from tabdiff.io.frame_source import FrameSource
from tabdiff.io.row_store import StoredColumns
from tabdiff.model.autoguidance import TIME_SHARE, fit_autoguidance, resolve_autoguidance
from tabdiff.model.defaults import (
    LARGE_ROWS,
    SMALL_SIZE,
    is_patient,
    resolve_batch_size,
    resolve_learning_rate,
    resolve_steps,
    resolve_times,
    token_layout,
)
from tabdiff.model.distillation import EVALUATIONS, distil, distillation_steps
from tabdiff.model.fitted import FittedModel
from tabdiff.model.private_data import begin_private, budget_of, check_private, private_noise, private_record
from tabdiff.model.refinement.refinement import (
    PATIENT_STEPS,
    REFINED_STEPS,
    fit_refinement,
    refinement_rows,
    wants_refinement,
)
from tabdiff.model.refinement.starting_noise import NOISE_ROWS
from tabdiff.model.sample_weights import population
from tabdiff.model.training_data import Start, begin, training_masks
from tabdiff.training import (
    Batches,
    Checkpoint,
    ProgressBar,
    Run,
    Training,
    TrainingOptions,
    TrainingResult,
    Validation,
    train,
)
from tabdiff.training.checkpoint import check_folder
from tabdiff.training.options import options_of
from tabdiff.training.vicinal import Vicinity
from tabdiff.training.world import OneProcess, WorldError, current_world
from tabdiff.utils.device import autocast_dtype, resolve_device

__all__ = ["fit_model"]

# Of the time that training leaves, for drawing rows to learn from; learning from them takes the rest. Trees take longer
# than a calibration.
DRAWN_SHARE, REFINED_DRAWN_SHARE = 0.75, 0.35
# Of the same, for learning to draw in few steps; draws take a third of their time then.
DISTILLATION_SHARE, DISTILLED_DRAWN_SHARE = 0.25, 0.2
# What follows the training of a refined model has the rest of the time, a quarter of the training's own.
TRAINING_SHARE = 0.8


def fit_model(
    inputs: FitInputs,
    sample_weight: Any,
    options: Any,
    *,
    previous: FittedModel | None = None,
    resume_from: str | os.PathLike | None = None,
    cache_dir: str | os.PathLike | None = None,
    started: float | None = None,
    as_estimator: Callable[[FittedModel], Any] = lambda model: model,
) -> FittedModel:
    """Fit a model: codec, denoiser, autoguidance, and what corrects its rows.

    Parameters
    ----------
    inputs : FitInputs
        What was read.
    sample_weight : array-like of shape (n,), optional
        Weights of the rows.
    options : object
        The parameters of `DiffusionGenerator`, by name, checked.
    previous : FittedModel, optional
        What to go on from (`warm_start`).
    resume_from : path-like, optional
        The folder of the checkpoint to go on from.
    cache_dir : path-like, optional
        Where rows of files lie encoded; by default a temporary folder.
    started : float, optional
        When the fit began, on the clock of `time.perf_counter`; by default now. ``options.max_time`` counts from it.
    as_estimator : callable
        From a model to what callbacks are given of it.

    Returns
    -------
    FittedModel

    Raises
    ------
    ValueError, TypeError, OSError
        As `DiffusionGenerator.fit` does.
    """
    started = time.perf_counter() if started is None else started
    device = resolve_device(options.device)
    for callback in options.callbacks or ():
        if isinstance(callback, Checkpoint):
            check_folder(callback.folder)
    world = current_world()
    if budget_of(options) is not None:
        check_private(
            inputs,
            sample_weight,
            options,
            previous=previous,
            resume_from=resume_from,
            cache_dir=cache_dir,
            n_processes=world.size,
        )
        return _fit_private(inputs, options, started, device)
    start = _start_together(
        world,
        inputs,
        lambda: begin(
            inputs,
            sample_weight,
            options,
            previous=previous,
            resume_from=resume_from,
            device=device,
            cache_dir=cache_dir,
        ),
        device,
    )
    scale = resolve_autoguidance(options.autoguidance, start.codec, start.spec, start.n_rows)
    refined = wants_refinement(options.refine, start.codec, start.n_rows, start.spec.vectors)
    left = None
    if options.max_time is not None:
        share = TRAINING_SHARE if refined else 1.0
        left = max(share * (options.max_time - (time.perf_counter() - started)), 1.0)
        (left,) = world.agree([left])
    batches, settings = _batches(start, options, device), _training_settings(start, options, device)

    def snapshot(training: Training) -> Any:
        """Return what callbacks sample from: the model as it is now, but for what follows training."""
        denoiser = copy.deepcopy(training.ema.model).eval()
        return as_estimator(_model(start, options, denoiser, training.history, training.step))

    result = train(
        start.denoiser,
        batches,
        **settings,
        generator=torch.Generator(device).manual_seed(start.seeds.loop),
        max_steps=resolve_steps(
            options.max_steps,
            start.n_rows,
            start.spec.unet,
            device.type,
            is_table=start.codec.columns_known_,
            is_latent=token_layout(start.codec)["kind"] == "latent",
        ),
        max_time=left * (1 - TIME_SHARE) if left is not None and scale != 1 else left,
        validation=_validation(start, options, settings["precision"], device),
        callbacks=[*([ProgressBar()] if options.verbose else []), *(options.callbacks or ())] if world.is_first else [],
        snapshot=snapshot,
        run=Run(start.description, start.saved, world),
    )
    deadline = math.inf if options.max_time is None else started + options.max_time

    def finish() -> FittedModel:
        """Return the model with all that follows the training of its denoiser."""
        return _finish(start, options, result, scale, batches, settings, refined, left, deadline, device)

    return world.from_first(finish).to(device)


def _fit_private(inputs: FitInputs, options: Any, started: float, device: torch.device) -> FittedModel:
    """Fit a model of noised counts and noised gradients: nothing else looks at the rows."""
    start, counted = begin_private(inputs, options, device)
    noise, steps = private_noise(options, counted, start.n_rows)
    # Conditions are varied by the spread of the rows' own, and copies of a row would each be clipped by itself.
    batches = replace(_batches(start, options, device), vary=None, weight=None)
    settings = _training_settings(start, options, device)
    result = train(
        start.denoiser,
        batches,
        **settings | {"precision": None},
        generator=torch.Generator(device).manual_seed(start.seeds.loop),
        max_steps=steps,
        max_time=None if options.max_time is None else max(options.max_time - (time.perf_counter() - started), 1.0),
        callbacks=[ProgressBar()] if options.verbose else [],
        run=Run(private=noise),
    )
    model = _model(start, options, result.denoiser, result.history, result.n_steps)
    return replace(model, privacy=private_record(options, counted, noise, result.n_steps)).to(device)


def _finish(
    start: Start,
    options: Any,
    result: TrainingResult,
    scale: float | None,
    batches: Batches,
    settings: dict[str, Any],
    refined: bool,
    left: float | None,
    deadline: float,
    device: torch.device,
) -> FittedModel:
    """Return the model of a trained denoiser, with autoguidance and what corrects its rows."""
    model = _model(start, options, result.denoiser, result.history, result.n_steps)
    trained = model.n_steps * batches.size * int(settings["options"].accumulation_steps)
    if scale != 1:
        model = fit_autoguidance(
            model, start, scale, batches, settings, trained=trained, refined=refined, max_time=left, device=device
        )
    steps = PATIENT_STEPS if is_patient(start.n_rows, options.max_time) else REFINED_STEPS
    wanted = refinement_rows(start.n_rows, trained, asked=options.refine is True, steps=steps) if refined else 0
    if wanted:
        return _refine(_distil(model, start, options, trained, deadline), start, wanted, deadline, steps)
    # A codec that goes on from another fit knows the rows of that one only.
    return model if start.n_steps else _calibrate(model, start, deadline)


def _distil(model: FittedModel, start: Start, options: Any, trained: int, deadline: float) -> FittedModel:
    """Return the model with a network that draws in few steps, where it is worth the time to train one."""
    steps = distillation_steps(model.n_steps)
    wanted = options_of(options.training).distillation and start.spec.network == "mlp" and not start.spec.custom
    n_timesteps = model.denoiser.schedule.n_timesteps
    if not wanted or steps == 0 or (n_timesteps is not None and n_timesteps < EVALUATIONS):
        return model
    few = distil(
        model.denoiser,
        model.guided,
        _repeated_codes(start, start.n_rows),
        width=model.config.width,
        n_steps=steps,
        trained=trained,
        precision=model.precision,
        seed=start.seeds.distillation,
        seconds=DISTILLATION_SHARE * (deadline - time.perf_counter()),
    )
    return replace(model, distilled=few)


def _start_together(world: OneProcess, inputs: FitInputs, first: Callable[[], Start], device: torch.device) -> Start:
    """Return what the first process begins with; the others get all of it but the rows that are not encoded."""
    if world.size == 1:
        return first()
    world.check_same(_digest(inputs))
    made: list[Start] = []

    def given() -> Start:
        start = first()
        made.append(start)
        others = replace(start, inputs=replace(start.inputs, features=None), n_known=start.n_rows)
        others.denoiser = copy.deepcopy(start.denoiser).cpu()
        return others

    start = world.from_first(given)
    if world.is_first:
        return made[0]
    start.denoiser.to(device)
    if isinstance(start.training.data, StoredColumns) and not start.training.data.store.path.exists():
        raise WorldError(
            f"process {world.rank} of {world.size} does not see the encoded rows in {start.training.data.store.path}. "
            "Give fit a cache_dir that all processes reach."
        )
    return start


def _digest(inputs: FitInputs) -> str:
    """Return a hash by which processes see that they were given the same data."""
    features = inputs.features
    if isinstance(features, FrameSource):
        return features.digest()
    whole = features if isinstance(features, np.ndarray | pd.DataFrame | pd.Series) else tuple(features.shape)
    return str(joblib.hash((whole, inputs.condition)))


def _batches(start: Start, options: Any, device: torch.device) -> Batches:
    """Return the rows that are learned from, and what a step makes of them."""
    rows, continuous = start.training, start.spec.continuous_attributes
    return Batches(
        rows.data,
        rows.condition,
        weight=rows.weight,
        size=resolve_batch_size(options.batch_size, start.n_rows, start.spec.unet),
        event_shape=(start.spec.width,),
        condition_dropout=start.condition_dropout,
        draw_given=training_masks(start.spec),
        vary=Vicinity(_known_codes(start), continuous, device) if rows.condition is not None and continuous else None,
        prepare=start.codec.prepare,
        epoch_rows=len(rows.data) // start.n_draws,
        block_rows=rows.data.block_rows if isinstance(rows.data, StoredColumns) else None,
    )


def _known_codes(start: Start) -> Tensor:
    """Return the conditions of the rows that are learned from, or of a sample of rows in files."""
    known = start.codes if isinstance(start.training.condition, StoredColumns) else start.training.condition
    assert known is not None
    return known


def _training_settings(start: Start, options: Any, device: torch.device) -> dict[str, Any]:
    """Return the arguments of `train` that the denoiser and a guiding one share."""
    spec = start.spec
    large_table = (
        spec.network == "mlp" and not spec.custom and start.n_rows >= LARGE_ROWS and start.codec.columns_known_
    )
    return dict(
        learning_rate=resolve_learning_rate(
            options.learning_rate, spec.unet, small_table_network=large_table and spec.hidden_size <= SMALL_SIZE
        ),
        options=_training_options(start, options),
        precision=autocast_dtype(options.precision, device),
    )


def _training_options(start: Start, options: Any) -> TrainingOptions:
    """Return the options of training with times that suit the spread of the data."""
    asked = options_of(options.training)
    return TrainingOptions(**asked.get_params(deep=False) | {"times": resolve_times(asked.times, start.spec.data_std)})


def _validation(start: Start, options: Any, precision: torch.dtype | None, device: torch.device) -> Validation | None:
    """Return the held-out rows of a fit that stops early, None for others."""
    if start.held_out is None:
        return None
    return Validation(
        start.held_out.data,
        start.held_out.condition,
        start.held_out.weight,
        denoiser=start.denoiser,
        event_shape=(start.spec.width,),
        times=_training_options(start, options).times,
        patience=int(options.n_iter_no_change),
        generator=torch.Generator(device).manual_seed(start.seeds.validation),
        precision=precision,
        prepare=start.codec.prepare,
    )


def _model(
    start: Start, options: Any, denoiser: Denoiser, history: dict[str, list[float]], n_steps: int
) -> FittedModel:
    """Return the model of a fit after so many steps, without autoguidance and refinement."""
    inputs = start.inputs
    return FittedModel(
        config=start.spec,
        codec=start.codec,
        denoiser=denoiser,
        conditions=start.conditions,
        source=inputs.source,
        columns=inputs.columns if inputs.source == "columns" else None,
        origin=inputs.origin,
        n_features=inputs.n_features,
        feature_names=inputs.feature_names,
        stream=np.random.default_rng(start.seeds.stream),
        history=start.joined(history),
        n_steps=start.n_steps + n_steps,
        n_samples=start.n_rows,
        precision=options.precision,
    )


def _refine(model: FittedModel, start: Start, wanted: int, deadline: float, steps: int) -> FittedModel:
    """Compare samples at the training conditions with the training rows; return the model with what corrects them."""
    generator = torch.Generator().manual_seed(start.seeds.calibrate)
    condition = _repeated_codes(start, wanted)
    share = REFINED_DRAWN_SHARE if model.distilled is None else DISTILLED_DRAWN_SHARE
    seconds = share * (deadline - time.perf_counter())
    # Which noise is worth a walk depends on the condition, which a single rule does not see.
    noise: list[Tensor] | None = [] if condition is None else None
    data = _samples(model, wanted, condition, generator, model.refined_settings(steps), seconds, noise)
    refinement = fit_refinement(
        model.codec,
        start.inputs.features,
        start.codes,
        data,
        None if condition is None else condition[: len(data)],
        model.config.condition_levels,
        start.seeds.calibrate,
        start.weight,
        deadline,
        next(model.denoiser.parameters()).device,
        torch.cat(noise)[-NOISE_ROWS:] if noise else None,
        steps,
    )
    return replace(model, refinement=refinement)


def _calibrate(model: FittedModel, start: Start, deadline: float) -> FittedModel:
    """Have the codec compare samples at the training conditions with the training rows, where it corrects its own."""
    if not model.codec.calibrates_:
        return model
    wanted = model.codec.calibration_rows_
    if start.codes is not None:  # several times the training rows, but no more than that
        wanted = min(wanted, 5 * len(start.codes if start.weight is None else population(start.weight)))
    generator = torch.Generator().manual_seed(start.seeds.calibrate)
    condition = _repeated_codes(start, wanted)
    seconds = DRAWN_SHARE * (deadline - time.perf_counter())
    data = _samples(model, wanted, condition, generator, {"guided": model.guided}, seconds)
    model.codec.calibrate(data, None if condition is None else condition[: len(data)], generator)
    return model


def _repeated_codes(start: Start, n: int) -> Tensor | None:
    """Return the conditions of the training rows, repeated until they are n."""
    if start.codes is None:
        return None
    codes = start.codes if start.weight is None else start.codes[population(start.weight)]
    return codes.repeat(-(-n // len(codes)), 1)[:n]


def _samples(
    model: FittedModel,
    n: int,
    condition: Tensor | None,
    generator: torch.Generator,
    settings: dict[str, Any],
    seconds: float,
    noises: list[Tensor] | None = None,
) -> Tensor:
    """Draw n encoded rows, or as many as there is time for; `noises` gets the noise of the last."""

    def some(first: int, count: int) -> Tensor:
        noise = None
        if noises is not None:
            noise = torch.randn((count, model.config.width), generator=generator)
            noises.append(noise)
            while sum(map(len, noises[1:])) >= NOISE_ROWS:
                del noises[0]
        return draw(
            model.denoiser,
            count,
            None if condition is None else condition[first : first + count],
            width=model.config.width,
            generator=generator,
            **settings,
            precision=model.precision,
            noise=noise,
        )

    device = next(model.denoiser.parameters()).device
    return draw_in_time(some, n, seconds, CPU_PIECE_ROWS if device.type == "cpu" else PIECE_ROWS)
