"""What stands before a differentially private training starts, and what it spends."""

from __future__ import annotations

import os
import secrets
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.base import clone
from sklearn.utils import check_random_state

from tabdiff.codecs import TableCodec
from tabdiff.codecs.conditions.conditions import Conditions
from tabdiff.codecs.inputs import FitInputs
from tabdiff.codecs.tables.noised import NoisedFrame, check_declared, n_histograms, noised_frame
from tabdiff.diffusion import make_schedule
from tabdiff.model.build import build_denoiser
from tabdiff.model.config import ModelConfig
from tabdiff.model.defaults import resolve_condition_dropout
from tabdiff.model.fitted import FittedModel
from tabdiff.model.storable import check_describable, check_labels
from tabdiff.model.training_data import Rows, Seeds, Start
from tabdiff.training import ClippedNoise
from tabdiff.training.options import options_of
from tabdiff.training.privacy import (
    THRESHOLD_SHARE,
    Mechanism,
    PrivacyBudget,
    accounted_delta,
    counting_noise,
    spent_epsilon,
    training_noise,
)
from tabdiff.utils.validation import is_integer

__all__ = ["begin_private", "budget_of", "check_private", "private_noise", "private_record", "private_steps"]

# Large batches make the most of noise that does not grow with them.
BATCHES_PER_EPOCH, BATCH_RANGE = 16, (64, 4096)
EPOCHS, STEPS_RANGE = 60, (200, 5_000)


def budget_of(options: Any) -> PrivacyBudget | None:
    """Return the privacy budget of a fit, None for an ordinary one."""
    return options_of(options.training).privacy


def check_private(
    inputs: FitInputs,
    sample_weight: Any,
    options: Any,
    *,
    previous: FittedModel | None,
    resume_from: str | os.PathLike | None,
    cache_dir: str | os.PathLike | None,
    n_processes: int,
) -> None:
    """Raise a ValueError or TypeError for what a privacy budget does not cover, before anything is computed."""
    if not isinstance(inputs.features, pd.DataFrame):
        raise TypeError(
            f"a privacy budget covers DataFrames in memory; got {type(inputs.features).__name__}. Make a DataFrame of "
            "it, or leave privacy out."
        )
    training = options_of(options.training)
    refused = [
        ("sample_weight", sample_weight is not None, "leave it out: a row may count once"),
        ("resume_from", resume_from is not None, "fit anew: a checkpoint holds what was not noised"),
        ("cache_dir", cache_dir is not None, "leave it out: rows must be in memory"),
        ("warm_start=True", options.warm_start or previous is not None, "fit anew, with one budget for all steps"),
        ("early_stopping=True", bool(options.early_stopping), "bound max_steps: losses of held-out rows tell of them"),
        ("callbacks", bool(options.callbacks), "leave them out: they see losses and weights that are not noised"),
        ("refine=True", options.refine is True, "use refine='auto' or False: a refinement looks at the rows"),
        (
            f"autoguidance={options.autoguidance!r}",
            not isinstance(options.autoguidance, str) and options.autoguidance != 1,
            "use autoguidance='auto' or 1",
        ),
        ("constraints", bool(options.constraints), "leave them out: they are checked on the rows"),
        ("text_encoder", options.text_encoder is not None, "make the text a category"),
        (f"precision={options.precision!r}", options.precision not in ("auto", "float32"), "use precision='float32'"),
        (
            "training=TrainingOptions(accumulation_steps=...)",
            int(training.accumulation_steps) != 1,
            "use a larger batch_size",
        ),
        (
            "training=TrainingOptions(times=...)",
            training.times not in ("stratified", "uniform"),
            "leave it out: times are uniform, each row's by itself",
        ),
        ("training=TrainingOptions(compile=...)", training.compile not in ("auto", False), "leave it out"),
        (f"{n_processes} processes", n_processes > 1, "fit in one"),
        (
            f"codec={options.codec!r:.60}",
            options.codec is not None and type(options.codec) is not TableCodec,
            "use codec=TableCodec() or None",
        ),
    ]
    for name, given, fix in refused:
        if given:
            raise ValueError(f"a privacy budget does not go with {name}: {fix}.")
    check_declared(_whole(inputs), dict(_budget(options).public or {}))


def _budget(options: Any) -> PrivacyBudget:
    budget = budget_of(options)
    assert budget is not None
    return budget


def _whole(inputs: FitInputs) -> pd.DataFrame:
    """Return features and conditions beside each other: a row of both is one row to hide."""
    parts = [inputs.features.reset_index(drop=True)]
    if inputs.condition is not None:
        parts.append(inputs.condition.reset_index(drop=True))
    return pd.concat(parts, axis=1)


def begin_private(inputs: FitInputs, options: Any, device: torch.device) -> tuple[Start, dict[str, Any]]:
    """Count the columns with noise, fit the codec on what was counted, encode the rows, build the network.

    Returns
    -------
    start : Start
        Of whose parts but `training` none has seen the rows.
    record : dict
        What was spent on counts.
    """
    budget = _budget(options)
    check_labels(inputs.features)
    # A seed that others can guess must not be that of the noise.
    chosen = options.random_state is not None
    seed = int(check_random_state(options.random_state).randint(2**31 - 1)) if chosen else secrets.randbits(31)
    seeds = Seeds.of(seed)
    rng = np.random.default_rng([seed, 1] if chosen else secrets.randbits(128))
    whole, public = _whole(inputs), dict(budget.public or {})
    multiplier = counting_noise(budget)
    noised = noised_frame(
        whole, public, noise_multiplier=multiplier, delta=THRESHOLD_SHARE * float(budget.delta), rng=rng
    )
    width = inputs.features.shape[1]
    conditions, codes = _conditions(noised, whole.columns[width:])
    names = whole.columns[:width]
    frame, rows = noised.frame[names], noised.rows[names]
    frame.columns = rows.columns = inputs.features.columns
    codec = TableCodec() if options.codec is None else clone(options.codec)
    settings = {"dependencies": False}
    if options.categorical_features != "auto":
        settings["categorical_features"] = options.categorical_features
    codec.set_params(**settings).fit(frame)
    check_describable(codec, conditions)
    encode = torch.Generator().manual_seed(seeds.encode)
    sample, data = codec.encode(frame, None, encode), codec.encode(rows, None, encode)
    schedule = make_schedule(options.schedule, None if options.n_timesteps is None else int(options.n_timesteps))
    levels = conditions.n_levels if conditions is not None else []
    spec = ModelConfig.of(options, codec, levels, schedule, sample, noised.n_rows)
    denoiser = build_denoiser(spec, options.denoiser, seeds.network).to(device)
    _freeze_tables(denoiser)
    # The rows themselves go no further than the training steps.
    public_inputs = replace(inputs, features=frame, origin=None)
    start = Start(public_inputs, seeds, codec, conditions, None, None, spec, denoiser, Rows(data, codes, None), None)
    dropout = resolve_condition_dropout(
        options.condition_dropout,
        [] if conditions is None else conditions.names,
        [] if conditions is None else conditions.places,
    )
    start.condition_dropout, start.n_known = dropout, noised.n_rows
    record = {
        "counting_noise_multiplier": multiplier,
        "count_deviation": noised.deviation,
        "histograms": n_histograms(whole, public),
        "columns": [[name, text] for name, text in noised.columns.items()],
        "noise_seed": None if not chosen else seed,
    }
    return start, record


def _conditions(noised: NoisedFrame, names: pd.Index) -> tuple[Conditions | None, torch.Tensor | None]:
    """Return the conditions as the noised counts have them, and the codes of the rows."""
    if not len(names):
        return None, None
    conditions = Conditions(noised.frame[names])
    codes = torch.from_numpy(conditions.encode(noised.rows[names]))
    return conditions, codes


def _freeze_tables(denoiser: torch.nn.Module) -> None:
    """Leave vectors of levels and null tokens as they were drawn: noise would drown what they could learn."""
    for name, p in denoiser.named_parameters():
        if name == "levels" or ".null_values." in f".{name}":
            p.requires_grad_(False)


def private_steps(options: Any, n_rows: int) -> tuple[int, int]:
    """Return the rows of a batch on average, and the steps, of a noised number of rows."""
    low, high = BATCH_RANGE
    asked = is_integer(options.batch_size, 1)
    size = int(options.batch_size) if asked else int(np.clip(n_rows // BATCHES_PER_EPOCH, low, high))
    size = max(1, min(size, n_rows))
    if is_integer(options.max_steps, 1):
        return size, int(options.max_steps)
    return size, int(np.clip(EPOCHS * n_rows / size, *STEPS_RANGE))


def private_noise(options: Any, record: dict[str, Any], n_rows: int) -> tuple[ClippedNoise, int]:
    """Return how gradients are clipped and noised, and the number of steps for which that is within the budget."""
    budget = _budget(options)
    size, steps = private_steps(options, n_rows)
    rate = min(size / n_rows, 1.0)
    multiplier = training_noise(budget, record["counting_noise_multiplier"], rate, steps)
    seed = record["noise_seed"]
    noise_seed = secrets.randbits(63) if seed is None else int(np.random.SeedSequence([seed, 2]).generate_state(1)[0])
    return ClippedNoise(float(budget.max_grad_norm), multiplier, rate, size, noise_seed), steps


def private_record(options: Any, record: dict[str, Any], noise: ClippedNoise, steps: int) -> dict[str, Any]:
    """Return what was spent, for `privacy_` and the model's file."""
    budget = _budget(options)
    counting = record["counting_noise_multiplier"]
    mechanisms: list[Mechanism] = [(counting, 1.0, 1), (noise.noise_multiplier, noise.sample_rate, steps)]
    return {
        "epsilon": spent_epsilon(mechanisms, accounted_delta(budget)),
        "delta": float(budget.delta),
        "neighbours": "tables of which one has a row more",
        "accountant": "Rényi divergences (Opacus)",
        "max_grad_norm": noise.max_grad_norm,
        "noise_multiplier": noise.noise_multiplier,
        "sample_rate": noise.sample_rate,
        "steps": steps,
        "counting_noise_multiplier": counting,
        "count_deviation": record["count_deviation"],
        "histograms": record["histograms"],
        "columns": deepcopy(record["columns"]),
    }
