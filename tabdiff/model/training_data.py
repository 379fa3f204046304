"""What stands before training starts: data encoded, a network to train, and which fit it is that goes on."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from sklearn.utils import check_random_state
from torch import Tensor

from tabdiff.codecs import ImageCodec, Images, is_anndata, make_codec
from tabdiff.codecs.conditions.conditions import Conditions
from tabdiff.codecs.conditions.image import KEPT
from tabdiff.codecs.inputs import FitInputs, read_fit_inputs
from tabdiff.diffusion import Denoiser, Schedule, make_loss, make_schedule
from tabdiff.model.build import build_denoiser
from tabdiff.model.config import ModelConfig
from tabdiff.model.persistence import codec_name
from tabdiff.model.sample_weights import population, take_rows, weigh
from tabdiff.training.checkpoint import CheckpointError, describe_parameters, fingerprint, read_checkpoint

if TYPE_CHECKING:
    from tabdiff.estimators.generator import DiffusionGenerator

__all__ = ["Start", "begin", "shallow_copy"]

# Rows are encoded several times over when there are few, so that the network sees the spread inside each step of the
# randomised transform and of the cells' posterior, not one draw of it.
ENCODED_ROWS = 20_000
MAX_DRAWS = 8


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
    weak: int

    @classmethod
    def of(cls, seed: int) -> Seeds:
        """Spawn them from one."""
        return cls(*(int(s) for s in np.random.SeedSequence(seed).generate_state(8)))


@dataclass
class Rows:
    """Encoded rows (m, d), with their condition (m, k) and weights (m,) where there are any."""

    data: Tensor
    condition: Tensor | None
    weight: Tensor | None

    def where(self, mask: Tensor) -> Rows:
        """Return the rows of a mask (m,)."""
        parts = (None if t is None else t[mask] for t in (self.data, self.condition, self.weight))
        return Rows(*parts)  # type: ignore[arg-type]


@dataclass
class Start:
    """A fit before its first step.

    Attributes
    ----------
    inputs : FitInputs
        What was given, without rows of weight 0.
    marks : dict
        ``n_features_in_`` and ``feature_names_in_``, as far as there are.
    seeds : Seeds
    codec : object
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
        Which fit it is, for checkpoints.
    saved : dict or None
        Where an interrupted fit stood.
    """

    inputs: FitInputs
    marks: dict[str, Any]
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

    @property
    def n_rows(self) -> int:
        """Number of rows that were given."""
        return int(self.inputs.features.shape[0])

    def joined(self, history: dict[str, list[float]]) -> dict[str, list[float]]:
        """Put a history behind that of the fits before, whose steps and seconds it goes on counting."""
        seconds = self.history.get("seconds", [0.0])[-1]
        shift = {"step": self.n_steps, "validation_step": self.n_steps, "seconds": seconds}
        joined = {key: list(values) for key, values in self.history.items()}
        for key, values in history.items():
            joined[key] = joined.get(key, []) + [v + shift.get(key, 0) for v in values]
        return joined


def shallow_copy(gen: DiffusionGenerator) -> DiffusionGenerator:
    """Return a generator with the same attributes; `copy.copy` would copy the network."""
    other = type(gen).__new__(type(gen))
    other.__dict__.update(gen.__dict__)
    return other


def begin(
    gen: DiffusionGenerator,
    X: Any,
    y: Any,
    condition: Any,
    sample_weight: Any,
    *,
    resume: bool,
    device: torch.device,
) -> Start:
    """Read the data, fit the codec, build the network; `gen` itself stays as it is.

    Raises
    ------
    ValueError
        For data that cannot be modelled, with `warm_start` for data or parameters that do not fit the fitted network,
        and with `resume` for a checkpoint of another fit.
    """
    saved = None
    if resume:
        if gen.checkpoint_dir is None:
            raise ValueError("resume=True goes on from a checkpoint, so it needs checkpoint_dir, which is None.")
        saved = read_checkpoint(gen.checkpoint_dir)
    schedule = make_schedule(gen.schedule, None if gen.n_timesteps is None else int(gen.n_timesteps))
    fitted = gen if gen.warm_start and hasattr(gen, "denoiser_") else None
    parameters = describe_parameters(gen.get_params(deep=False))
    if saved is not None:
        _check_parameters(saved["fit"], parameters, gen)
    reader = shallow_copy(gen)
    inputs = read_fit_inputs(reader, X, y, condition)
    marks = {k: v for k, v in vars(reader).items() if k in ("n_features_in_", "feature_names_in_")}
    inputs, weight = weigh(inputs, sample_weight)
    seed = _seed(gen, saved)
    seeds = Seeds.of(seed)
    n_rows = int(inputs.features.shape[0])

    if fitted is None:
        conditions = None
        if inputs.condition is not None:
            images = inputs.features if isinstance(inputs.features, Images) else None
            conditions = Conditions(inputs.condition, gen.text_encoder, None if images is None else images.size[1:])
        codes = torch.from_numpy(conditions.codes) if conditions is not None else None
        levels = conditions.n_levels if conditions is not None else []
        codec = _fit_codec(gen, inputs.features, codes, levels, weight, seeds.codec, device)
    else:
        codec, conditions = _check_same(fitted, inputs, marks, schedule)
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

    if fitted is None:
        vectors = conditions.vectors if conditions is not None else []
        beside = conditions.image.size if conditions is not None and conditions.image is not None else None
        spec = ModelConfig.of(gen, codec, levels, schedule, rows.data, n_rows, rows.weight, vectors, beside)
        denoiser = build_denoiser(spec, gen.denoiser, seeds.network).to(device)
    else:
        spec = fitted._spec
        denoiser = copy.deepcopy(fitted.denoiser_).to(device).requires_grad_(True)
        denoiser.objective = make_loss(gen.loss)
    start = Start(inputs, marks, seeds, codec, conditions, codes, weight, spec, denoiser, rows, None)
    if fitted is not None:
        start.history, start.n_steps = fitted.history_, fitted.n_steps_
    if gen.checkpoint_dir is not None:
        data = fingerprint(codec, rows.data, rows.condition, rows.weight)
        start.description = {"seed": seed, "parameters": parameters, "steps_before": start.n_steps, "data": data}
        if saved is not None:
            _check_data(saved["fit"], start.description, gen)
            start.saved = saved["training"]
    if gen.early_stopping:
        held = _held_out(n_rows, float(gen.validation_fraction), seeds.validation).repeat(n_draws)
        start.training, start.held_out = rows.where(~held), rows.where(held)
    return start


def _seed(gen: DiffusionGenerator, saved: dict[str, Any] | None) -> int:
    if saved is None or gen.random_state is not None:
        seed = int(check_random_state(gen.random_state).randint(2**31 - 1))
        if saved is not None and seed != saved["fit"]["seed"]:
            raise CheckpointError(
                f"the checkpoint in {gen.checkpoint_dir} is of a fit with another random_state than "
                f"{gen.random_state!r}. {_CHOICE}"
            )
        return seed
    return int(saved["fit"]["seed"])


def _fit_codec(
    gen: DiffusionGenerator,
    features: Any,
    codes: Tensor | None,
    levels: list[int],
    weight: np.ndarray | None,
    seed: int,
    device: torch.device,
) -> Any:
    codec = make_codec(
        features,
        categorical_features=gen.categorical_features,
        layer=gen.layer,
        dependencies=gen.dependencies,
        constraints=gen.constraints,
        augment=gen.augment,
        latent_diffusion=gen.latent_diffusion,
    )
    settings: dict[str, Any] = {"seed": seed, "device": device, "max_time": gen.max_time}
    if weight is None:
        return codec.fit(features, codes, levels, **settings)
    if is_anndata(features):
        rows = population(weight)
        return codec.fit(take_rows(features, rows), None if codes is None else codes[rows], levels, **settings)
    return codec.fit(features, codes, levels, sample_weight=weight, **settings)


def _encode(codec: Any, features: Any, codes: Tensor | None, weight: np.ndarray | None, seed: int) -> tuple[Rows, int]:
    """Encode the rows as often as there is room for, and say how often that is."""
    generator = torch.Generator().manual_seed(seed)
    if isinstance(codec, ImageCodec) and not codec.random_:  # nothing in it is random, and rows may lie in files
        return Rows(codec.encode(features), codes, None if weight is None else torch.from_numpy(weight)), 1
    n_draws = int(np.clip(ENCODED_ROWS // features.shape[0], 1, MAX_DRAWS))
    if hasattr(codec, "encode_copies"):
        data = codec.encode_copies(features, n_draws, generator)
    else:
        data = torch.cat([codec.encode(features, codes, generator) for _ in range(n_draws)])
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

_CHOICE = "Go on with what it was started with, start over without resume=True, or choose another checkpoint_dir."


def _check_parameters(saved: dict[str, Any], parameters: dict[str, str], gen: DiffusionGenerator) -> None:
    """Raise an error that names the parameters in which a checkpoint is of another fit."""
    before = saved["parameters"]
    names = sorted({*before, *parameters})
    differ = [
        f"{n} was {before.get(n)} and is {parameters.get(n)}" for n in names if before.get(n) != parameters.get(n)
    ]
    if differ:
        raise CheckpointError(
            f"the checkpoint in {gen.checkpoint_dir} is of another fit: {'; '.join(differ)}. {_CHOICE}"
        )


def _check_data(saved: dict[str, Any], description: dict[str, Any], gen: DiffusionGenerator) -> None:
    """Raise an error if a checkpoint is of a fit on other data, or one that started elsewhere."""
    if saved["steps_before"] != description["steps_before"]:
        raise CheckpointError(
            f"the checkpoint in {gen.checkpoint_dir} is of a fit that started after {saved['steps_before']} steps "
            f"(warm_start), and this one starts after {description['steps_before']}. {_CHOICE}"
        )
    if saved["data"] != description["data"]:
        raise CheckpointError(
            f"the checkpoint in {gen.checkpoint_dir} is of a fit on other data, or what the codec computes of them "
            f"differs on this machine. {_CHOICE}"
        )


def _check_same(
    fitted: DiffusionGenerator, inputs: FitInputs, marks: dict[str, Any], schedule: Schedule
) -> tuple[Any, Conditions | None]:
    """Return the codec and conditions of a fitted generator, if its network can go on with the data and parameters."""
    spec = fitted._spec
    differ = []
    # A container that is no codec's raises here what a new fit would.
    layer = fitted.layer if is_anndata(inputs.features) else None
    new = make_codec(inputs.features, layer=layer, latent_diffusion=fitted.latent_diffusion)
    if codec_name(new) != codec_name(fitted.codec_):
        differ.append(f"X was of the kind {codec_name(fitted.codec_)!r} and is {codec_name(new)!r}")
    names, before = (_names(m) for m in (marks, vars(fitted)))
    if names != before and not isinstance(inputs.features, pd.Series):  # sequences may be shorter
        differ.append(f"the columns were {_shown(before)} and are {_shown(names)}")
    given = None if inputs.condition is None else list(inputs.condition.columns)
    known = None if fitted.conditions_ is None else fitted.conditions_.names
    if given != known or inputs.source != fitted._source:
        differ.append(f"the condition was {known} (from {fitted._source!r}) and is {given} (from {inputs.source!r})")
    if schedule.config() != spec.schedule.config():
        differ.append(f"the schedule was {spec.schedule.config()} and is {schedule.config()}")
    for name in ("target", "hidden_size", "n_blocks", "dropout"):
        asked, had = getattr(fitted, name), getattr(spec, name)
        if asked not in ("auto", had):
            differ.append(f"{name} was {had!r} and is {asked!r}")
    other = isinstance(fitted.denoiser, str) and fitted.denoiser not in ("auto", spec.network)
    if callable(fitted.denoiser) != spec.custom or other:
        differ.append("the denoiser is another")
    for name in ("conditioning", "time_embedding"):
        if getattr(fitted, name) not in ("auto", getattr(spec, name)):
            differ.append(f"{name} was {getattr(spec, name)!r} and is {getattr(fitted, name)!r}")
    if differ:
        raise ValueError(
            f"warm_start=True goes on with the fitted network, which this fit does not match: {'; '.join(differ)}. "
            "Fit with warm_start=False to start over."
        )
    if fitted.conditions_ is None or inputs.condition is None:
        return fitted.codec_, None
    return fitted.codec_, fitted.conditions_.seen(inputs.condition)


def _names(marks: Mapping[str, Any]) -> list | int:
    return list(marks["feature_names_in_"]) if "feature_names_in_" in marks else int(marks["n_features_in_"])


def _shown(names: list | int) -> str:
    return f"{names} without names" if isinstance(names, int) else f"{names[:20]}{'...' if len(names) > 20 else ''}"
