"""What stands before training starts: data encoded, a network to train, and which fit it is that goes on."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.utils import check_random_state
from torch import Tensor

from tabdiff.codecs import Images, codec_name, is_anndata, make_codec
from tabdiff.codecs.conditions.conditions import Conditions
from tabdiff.codecs.conditions.image import KEPT
from tabdiff.codecs.inputs import FitInputs
from tabdiff.codecs.tables.survey import TableSurvey
from tabdiff.diffusion import Denoiser, Schedule, make_loss, make_schedule
from tabdiff.diffusion.masks import DrawGiven
from tabdiff.io.frame_source import FrameSource
from tabdiff.io.modalities import Modalities
from tabdiff.model.build import build_denoiser, new_codec
from tabdiff.model.config import ModelConfig
from tabdiff.model.defaults import resolve_condition_dropout
from tabdiff.model.fitted import FittedModel
from tabdiff.model.networks import NetworkSettings, canonical, settings_of
from tabdiff.model.sample_weights import population, take_rows, weigh
from tabdiff.model.storable import check_describable, check_labels
from tabdiff.model.stream_data import (
    Folder,
    check_stream,
    encode_stream,
    fit_table_codec,
    in_memory,
    stream_folder,
    survey_rows,
)
from tabdiff.training import Checkpoint, CheckpointError
from tabdiff.training.checkpoint import describe_parameters, fingerprint, read_checkpoint
from tabdiff.training.options import options_of

__all__ = ["Start", "begin", "training_masks"]

# Rows are encoded several times over when there are few, so that the network sees the spread inside each step of the
# randomised transform and of the cells' posterior, not one draw of it.
ENCODED_ROWS = 20_000
MAX_DRAWS = 8
# Of rows in files, which are many: as many as tell when to stop.
HELD_OUT_ROWS = 20_000


@dataclass
class Seeds:
    """A seed for each part of a fit; a new one goes to the end, so that the others stay what they are."""

    codec: int
    network: int
    loop: int
    encode: int
    calibrate: int
    stream: int
    validation: int
    guiding: int
    distillation: int

    @classmethod
    def of(cls, seed: int) -> Seeds:
        """Spawn them from one."""
        return cls(*(int(s) for s in np.random.SeedSequence(seed).generate_state(9)))


@dataclass
class Rows:
    """Encoded rows (m, d), with their condition (m, k) and weights (m,) where there are any."""

    data: Any
    condition: Any
    weight: Tensor | None

    def where(self, mask: Tensor) -> Rows:
        """Return the rows of a mask (m,)."""
        parts = (None if t is None else t[mask] for t in (self.data, self.condition, self.weight))
        return Rows(*parts)


@dataclass
class Start:
    """A fit before its first step.

    Attributes
    ----------
    inputs : FitInputs
        What was given, without rows of weight 0.
    seeds : Seeds
    codec : Codec
        Fitted.
    conditions : Conditions or None
    codes : Tensor of shape (n, k) or None
        The condition of each row.
    weight : ndarray of shape (n,) or None
    spec : ModelConfig
    denoiser : Denoiser
        New, or with `warm_start` that of the fit before.
    training, held_out : Rows
        What is learned from, and what decides when to stop; None without early stopping.
    history : dict of list
        That of the fits before, with `warm_start`.
    n_steps : int
        Their steps.
    description : dict
        Which fit it is, for checkpoints; empty where none are wanted.
    n_draws : int
        How often each row was encoded.
    saved : dict or None
        Where an interrupted fit stood.
    condition_dropout : float or list of (slice, float)
        See `tabdiff.training.Batches`.
    n_known : int or None
        Number of rows where `inputs` holds a sample of them, or none.
    """

    inputs: FitInputs
    seeds: Seeds
    codec: Any
    conditions: Conditions | None
    codes: Tensor | None
    weight: np.ndarray | None
    spec: ModelConfig
    denoiser: Denoiser
    training: Rows
    held_out: Rows | None
    history: dict[str, list[float]] = field(default_factory=dict)
    n_steps: int = 0
    description: dict[str, Any] = field(default_factory=dict)
    saved: dict[str, Any] | None = None
    n_draws: int = 1
    condition_dropout: float | list[tuple[slice, float]] = 0.1
    n_known: int | None = None

    @property
    def n_rows(self) -> int:
        """Number of rows that were given."""
        return int(self.inputs.features.shape[0]) if self.n_known is None else self.n_known

    def joined(self, history: dict[str, list[float]]) -> dict[str, list[float]]:
        """Put a history behind that of the fits before, whose steps and seconds it goes on counting."""
        seconds = self.history.get("seconds", [0.0])[-1]
        shift = {"step": self.n_steps, "validation_step": self.n_steps, "seconds": seconds}
        joined = {key: list(values) for key, values in self.history.items()}
        for key, values in history.items():
            joined[key] = joined.get(key, []) + [v + shift.get(key, 0) for v in values]
        return joined


def begin(
    inputs: FitInputs,
    sample_weight: Any,
    options: Any,
    *,
    previous: FittedModel | None,
    resume_from: str | os.PathLike | None,
    device: torch.device,
    cache_dir: str | os.PathLike | None = None,
) -> Start:
    """Fit the codec, encode the data, build the network.

    Parameters
    ----------
    inputs : FitInputs
        What was read.
    sample_weight : array-like of shape (n,), optional
    options : object
        The parameters of `DiffusionGenerator`, by name.
    previous : FittedModel, optional
        What to go on from (`warm_start`); it stays as it is.
    resume_from : path-like, optional
        The folder of the checkpoint to go on from.
    device : torch.device
    cache_dir : path-like, optional
        Where rows of files lie encoded.

    Raises
    ------
    ValueError
        For data that cannot be modelled, with `warm_start` for data or parameters that do not fit the fitted network,
        and with `resume_from` for a checkpoint of another fit.
    FileNotFoundError
        If `resume_from` holds no checkpoint, and this fit writes none there.
    """
    folders = [callback.folder for callback in options.callbacks or () if isinstance(callback, Checkpoint)]
    saved = None if resume_from is None else _read_saved(resume_from, folders)
    schedule = make_schedule(options.schedule, None if options.n_timesteps is None else int(options.n_timesteps))
    parameters = describe_parameters({**vars(options), "training": options_of(options.training)})
    if saved is not None:
        _check_parameters(saved["fit"], parameters, resume_from)
    seed = _seed(options, saved, resume_from)
    seeds = Seeds.of(seed)
    if isinstance(inputs.features, FrameSource):
        check_stream(sample_weight, previous)
        folder = stream_folder(inputs, options, seed, cache_dir)
        names = [] if inputs.condition is None else list(inputs.condition.columns)
        survey = survey_rows(inputs.features, names, seeds.codec, folder, options.verbose)
        if survey.n_rows > survey.size:
            found = _begin_stream(inputs, options, survey, folder, seeds, schedule, device)
            return _describe(found, seed, parameters, folders, saved, resume_from)
        inputs = in_memory(inputs, survey)
    check_labels(inputs.features)
    inputs, weight = weigh(inputs, sample_weight)
    n_rows = int(inputs.features.shape[0])

    if previous is None:
        conditions = None
        if inputs.condition is not None:
            images = inputs.features if isinstance(inputs.features, Images) else None
            conditions = Conditions(inputs.condition, options.text_encoder, None if images is None else images.size[1:])
        codes = torch.from_numpy(conditions.codes) if conditions is not None else None
        levels = conditions.n_levels if conditions is not None else []
        dropout = _dropout(options, conditions)
        codec = _fit_codec(options, inputs.features, codes, levels, weight, seeds.codec, device)
        check_describable(codec, conditions)
    else:
        codec, conditions = _check_same(previous, inputs, options, schedule)
        dropout = _dropout(options, conditions)
        codes = torch.from_numpy(conditions.codes) if conditions is not None else None
        levels = conditions.n_levels if conditions is not None else []
    if conditions is not None and weight is not None:
        # What is not asked for at sampling is drawn from these.
        conditions.codes = conditions.codes[population(weight)]
    if conditions is not None and conditions.image is not None:
        # Images are large, and are saved with the model: some are enough.
        some = np.random.default_rng(seeds.codec).permutation(len(conditions.codes))[:KEPT]
        conditions.codes = conditions.codes[some]
    rows, n_draws = _encode(codec, inputs.features, codes, weight, seeds.encode)

    if previous is None:
        vectors = conditions.vectors if conditions is not None else []
        beside = conditions.image.size if conditions is not None and conditions.image is not None else None
        spec = ModelConfig.of(options, codec, levels, schedule, rows.data, n_rows, rows.weight, vectors, beside)
        denoiser = build_denoiser(spec, options.denoiser, seeds.network).to(device)
    else:
        spec = previous.config
        denoiser = copy.deepcopy(previous.denoiser).to(device).requires_grad_(True)
        denoiser.objective = make_loss(options.loss)
    start = Start(inputs, seeds, codec, conditions, codes, weight, spec, denoiser, rows, None, n_draws=n_draws)
    start.condition_dropout = dropout
    if previous is not None:
        start.history, start.n_steps = previous.history, previous.n_steps
    _describe(start, seed, parameters, folders, saved, resume_from)
    if options.early_stopping:
        held = _held_out(n_rows, float(options.validation_fraction), seeds.validation).repeat(n_draws)
        start.training, start.held_out = rows.where(~held), rows.where(held)
    return start


def _describe(
    start: Start,
    seed: int,
    parameters: dict[str, str],
    folders: list[Any],
    saved: dict[str, Any] | None,
    resume_from: Any,
) -> Start:
    """Say which fit it is, where it writes checkpoints or goes on from one."""
    if folders or saved is not None:
        rows = start.training
        data = fingerprint(start.codec, rows.data, rows.condition, rows.weight)
        start.description = {"seed": seed, "parameters": parameters, "steps_before": start.n_steps, "data": data}
        if saved is not None:
            _check_data(saved["fit"], start.description, resume_from)
            start.saved = saved["training"]
    return start


# ------------------------------------------------- rows that lie in files


def _begin_stream(
    inputs: FitInputs,
    options: Any,
    survey: TableSurvey,
    folder: Folder,
    seeds: Seeds,
    schedule: Schedule,
    device: torch.device,
) -> Start:
    """Fit the codec on what a survey found, encode the rows into a file, build the network."""
    source = inputs.features
    codec, conditions, inputs, codes = fit_table_codec(inputs, options, survey, seeds.codec, device)
    check_labels(inputs.features)
    check_describable(codec, conditions)
    held_out = min(float(options.validation_fraction), HELD_OUT_ROWS / survey.n_rows) if options.early_stopping else 0.0
    encoded = encode_stream(
        source,
        survey,
        codec,
        conditions,
        seed=seeds.encode,
        folder=folder,
        held_out=held_out,
        verbose=options.verbose,
    )
    levels = conditions.n_levels if conditions is not None else []
    vectors = conditions.vectors if conditions is not None else []
    sample = codec.encode(inputs.features, None, torch.Generator().manual_seed(seeds.encode))
    spec = ModelConfig.of(options, codec, levels, schedule, sample, survey.n_rows, None, vectors, None)
    spec = replace(spec, frequencies=encoded.frequencies)
    denoiser = build_denoiser(spec, options.denoiser, seeds.network).to(device)
    rows = Rows(encoded.data, encoded.condition, None)
    held = None if encoded.held_out is None else Rows(*encoded.held_out, None)
    start = Start(inputs, seeds, codec, conditions, codes, None, spec, denoiser, rows, held)
    start.condition_dropout, start.n_known = _dropout(options, conditions), survey.n_rows
    return start


def _dropout(options: Any, conditions: Conditions | None) -> float | list[tuple[slice, float]]:
    names, places = ([], []) if conditions is None else (conditions.names, conditions.places)
    return resolve_condition_dropout(options.condition_dropout, names, places)


def _read_saved(path: str | os.PathLike, folders: list[str | os.PathLike]) -> dict[str, Any] | None:
    """Read the checkpoint that a fit is to go on from; None to start where it writes the first one itself."""
    if not isinstance(path, str | os.PathLike):
        raise TypeError(
            f"resume_from must be the path of a folder of checkpoints, or of one of them; got {path!r}. Give it the "
            "folder of the callback Checkpoint."
        )
    saved = read_checkpoint(path)
    if saved is None and not any(os.path.abspath(folder) == os.path.abspath(path) for folder in folders):
        raise FileNotFoundError(
            f"resume_from must hold a checkpoint; got {os.fspath(path)!r}, where there is none. Fit with "
            f"callbacks=[Checkpoint({os.fspath(path)!r})] to start one that writes there, or leave resume_from out."
        )
    return saved


def _seed(options: Any, saved: dict[str, Any] | None, where: Any) -> int:
    if saved is None or options.random_state is not None:
        seed = int(check_random_state(options.random_state).randint(2**31 - 1))
        if saved is not None and seed != saved["fit"]["seed"]:
            raise CheckpointError(
                f"the checkpoint in {where} is of a fit with another random_state than {options.random_state!r}. "
                f"{_CHOICE}"
            )
        return seed
    return int(saved["fit"]["seed"])


def _fit_codec(
    options: Any,
    features: Any,
    codes: Tensor | None,
    levels: list[int],
    weight: np.ndarray | None,
    seed: int,
    device: torch.device,
) -> Any:
    codec = new_codec(options, features)
    settings: dict[str, Any] = {"seed": seed, "device": device, "max_time": options.max_time}
    if weight is None:
        return codec.fit(features, codes, levels, **settings)
    if is_anndata(features) or isinstance(features, Modalities):
        rows = population(weight)
        return codec.fit(take_rows(features, rows), None if codes is None else codes[rows], levels, **settings)
    return codec.fit(features, codes, levels, sample_weight=weight, **settings)


def _encode(codec: Any, features: Any, codes: Tensor | None, weight: np.ndarray | None, seed: int) -> tuple[Rows, int]:
    """Encode the rows as often as there is room for, and say how often that is."""
    generator = torch.Generator().manual_seed(seed)
    if codec.constant_:  # its rows may lie in files
        return Rows(codec.encode(features), codes, None if weight is None else torch.from_numpy(weight)), 1
    n_draws = int(np.clip(ENCODED_ROWS // features.shape[0], 1, MAX_DRAWS))
    data = codec.encode_copies(features, n_draws, generator, codes)
    repeated = codes.repeat(n_draws, 1) if codes is not None else None
    return Rows(data, repeated, torch.from_numpy(weight).repeat(n_draws) if weight is not None else None), n_draws


def _held_out(n_rows: int, fraction: float, seed: int) -> Tensor:
    """Return which rows (n_rows,) training does not see: at least one, and not all."""
    n = int(np.clip(round(fraction * n_rows), 1, n_rows - 1))
    order = torch.randperm(n_rows, generator=torch.Generator().manual_seed(seed))
    held = torch.zeros(n_rows, dtype=torch.bool)
    held[order[:n]] = True
    return held


# ----------------------------------------------------- the fit that goes on

_CHOICE = "Go on with what it was started with, start over without resume_from, or choose another folder."


def _check_parameters(saved: dict[str, Any], parameters: dict[str, str], where: Any) -> None:
    """Raise an error that names the parameters in which a checkpoint is of another fit."""
    before = saved["parameters"]
    names = sorted({*before, *parameters})
    differ = [
        f"{n} was {before.get(n)} and is {parameters.get(n)}" for n in names if before.get(n) != parameters.get(n)
    ]
    if differ:
        raise CheckpointError(f"the checkpoint in {where} is of another fit: {'; '.join(differ)}. {_CHOICE}")


def _check_data(saved: dict[str, Any], description: dict[str, Any], where: Any) -> None:
    """Raise an error if a checkpoint is of a fit on other data, or one that started elsewhere."""
    if saved["steps_before"] != description["steps_before"]:
        raise CheckpointError(
            f"the checkpoint in {where} is of a fit that started after {saved['steps_before']} steps "
            f"(warm_start), and this one starts after {description['steps_before']}. {_CHOICE}"
        )
    if saved["data"] != description["data"]:
        raise CheckpointError(
            f"the checkpoint in {where} is of a fit on other data, or what the codec computes of them "
            f"differs on this machine. {_CHOICE}"
        )


def _check_same(
    previous: FittedModel, inputs: FitInputs, options: Any, schedule: Schedule
) -> tuple[Any, Conditions | None]:
    """Return the codec and conditions of a fitted model, if its network can go on with the data and parameters."""
    spec = previous.config
    differ = []
    # A container that is no codec's raises here what a new fit would.
    layer = options.layer if is_anndata(inputs.features) else None
    new = make_codec(inputs.features, options.codec, layer=layer)
    if codec_name(new) != codec_name(previous.codec):
        differ.append(f"X was of the kind {codec_name(previous.codec)!r} and is {codec_name(new)!r}")
    names = _names(inputs.feature_names, inputs.n_features)
    before = _names(previous.feature_names, previous.n_features)
    if names != before and not isinstance(inputs.features, pd.Series):  # sequences may be shorter
        differ.append(f"the columns were {_shown(before)} and are {_shown(names)}")
    given = None if inputs.condition is None else list(inputs.condition.columns)
    known = None if previous.conditions is None else previous.conditions.names
    if given != known or inputs.source != previous.source:
        differ.append(f"the condition was {known} (from {previous.source!r}) and is {given} (from {inputs.source!r})")
    if schedule.config() != spec.schedule.config():
        differ.append(f"the schedule was {spec.schedule.config()} and is {schedule.config()}")
    for name in ("target", "variance"):
        asked, had = vars(options)[name], vars(spec)[name]
        if asked != had:
            differ.append(f"{name} was {had!r} and is {asked!r}")
    differ += _network_differences(options, spec)
    if differ:
        raise ValueError(
            f"warm_start=True goes on with the fitted network, which this fit does not match: {'; '.join(differ)}. "
            "Fit with warm_start=False to start over."
        )
    if previous.conditions is None or inputs.condition is None:
        return previous.codec, None
    return previous.codec, previous.conditions.seen(inputs.condition)


def _network_differences(options: Any, spec: ModelConfig) -> list[str]:
    """Return what parameters say of its network that the network is not."""
    denoiser = options.denoiser
    name = denoiser.network if isinstance(denoiser, NetworkSettings) else denoiser
    if callable(denoiser) != spec.custom or (isinstance(name, str) and name not in ("auto", spec.network)):
        return ["the denoiser is another"]
    settings = settings_of(options, spec.network)
    shown = {} if isinstance(denoiser, NetworkSettings) else {inside: flat for flat, inside in settings.flat.items()}
    # What stands nowhere is as it is by default.
    defaults = {settings.built[inside]: value for inside, value in type(settings)().get_params().items()}
    built = {**defaults, "time_conditioning": "adaln", **vars(spec), **spec.options, **(spec.unet or {})}
    differ = []
    for inside, module in settings.built.items():
        asked, had = canonical(getattr(settings, inside)), built[module]
        if asked not in ("auto", had):
            differ.append(f"{shown.get(inside, inside)} was {had!r} and is {asked!r}")
    return differ


def _names(names: np.ndarray | None, n: int) -> list | int:
    return n if names is None else list(names)


def _shown(names: list | int) -> str:
    return f"{names} without names" if isinstance(names, int) else f"{names[:20]}{'...' if len(names) > 20 else ''}"


def training_masks(spec: ModelConfig) -> Callable[[Tensor, torch.Generator], Tensor] | None:
    """Return what draws the given entries of a training batch, None for a network that is not told of any."""
    if spec.missing_levels is None:
        return None
    return DrawGiven(
        n_continuous=spec.n_continuous,
        missing_levels=spec.missing_levels,
        presence=spec.presence,
        never=spec.equalities,
        share=spec.observed_masks,
    )
