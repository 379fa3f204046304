"""From parameters and data to a denoiser: sizes, checks, and the network's seeded start."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from tabdiff.codecs.conditions.vector import check_text_encoder
from tabdiff.codecs.images.codec import ImageCodec, augmentations
from tabdiff.codecs.tables.layout import missing_levels, presence_columns
from tabdiff.diffusion import Denoiser, Loss, Schedule, make_loss, make_times, schedule_from_config
from tabdiff.diffusion.mixed_denoiser import MixedDenoiser
from tabdiff.generation.likelihood import check_beside, image_network
from tabdiff.model.build import (
    LARGE_ROWS,
    Sizes,
    check_network,
    embedding_size_of,
    make_network,
    network_name,
    resolve_conditioning,
    sizes_of,
    token_layout,
    waves_of,
)
from tabdiff.nn import ConditionEmbedding, ImageCondition, VectorColumns
from tabdiff.training.callbacks import Callback
from tabdiff.utils.seeding import borrowed_rng

__all__ = ["ModelSpec", "build_denoiser", "check_parameters", "resolve_autoguidance", "resolve_steps"]

CONDITION_SIZE = 64
# Share of the rows of a complete table of which a random part is given in training. Half of the rows would take as much
# from the quality of samples again, and gain little where every cell is there to learn from.
OBSERVED_MASKS = 0.25
MIN_STEPS, MAX_STEPS = 200, 10_000
# A U-Net needs more steps than an MLP on as many rows, and of smaller batches; without a GPU they take a second each.
IMAGE_BATCH, IMAGE_STEPS, IMAGE_STEPS_RANGE = 128, 40, (500, 2_000)
GPU_IMAGE_STEPS, GPU_IMAGE_STEPS_RANGE = 120, (2_000, 50_000)


@dataclass
class ModelSpec:
    """What a denoiser is built from.

    Attributes
    ----------
    width : int
        Length of a noisy row.
    n_continuous : int
        Number of numeric columns.
    frequencies : list of ndarray
        Share of each level, for each categorical column; empty for purely numeric data.
    condition_levels : list of int
        Number of classes of each attribute of the condition, 0 for continuous ones.
    schedule : Schedule
    target : str
    loss : Loss
    bounds : ndarray of shape (2, n_continuous) or None
        Range of the numbers, for targets whose estimates need clipping.
    custom : bool
        Whether the network was built by the user's callable.
    hidden_size, n_blocks : int
    dropout : float
    missing_levels : list of int or None
        For each categorical column the code of a missing value, -1 where it has none. None for a network that is not
        told which entries of a row are given.
    presence : list of int
        For each number the column that says whether it is missing, -1 where there is none.
    equalities : list of int
        Columns of codes that are never given, because they say which numbers equal another one.
    observed_masks : float
        Share of the training rows of which a random part is given.
    n_frequencies : int
        Waves of each number that the network sees; see `FourierFeatures`.
    unet : dict or None
        What a U-Net is built from, where the network is one.
    network : str
        Name of the network, as `tabdiff.model.build` knows it.
    layout : dict
        What the entries of a row are, for networks of tokens: ``{"kind": "columns"}``, unless the codec has another
        `layout_`.
    conditioning, time_embedding : str
        See `DiffusionGenerator`.
    vectors : list of list of int
        Columns of the condition that make up a vector; see `tabdiff.nn.VectorColumns`.
    beside : list of int or None
        ``[c, h, w]`` of an image that is a condition; its pixels are the last columns.
    embedding_size : int
        Entries of the embedding of a level.
    """

    width: int
    n_continuous: int
    frequencies: list[np.ndarray]
    condition_levels: list[int]
    schedule: Schedule
    target: str
    loss: Loss
    bounds: np.ndarray | None
    custom: bool
    hidden_size: int
    n_blocks: int
    dropout: float
    missing_levels: list[int] | None = None
    presence: list[int] = field(default_factory=list)
    equalities: list[int] = field(default_factory=list)
    observed_masks: float = 0.0
    n_frequencies: int = 0
    unet: dict[str, Any] | None = None
    network: str = "mlp"
    layout: dict = field(default_factory=lambda: {"kind": "columns"})
    conditioning: str = "adaln"
    time_embedding: str = "sinusoidal"
    vectors: list[list[int]] = field(default_factory=list)
    beside: list[int] | None = None
    embedding_size: int = 8  # that of models saved before it could differ

    @property
    def attribute_levels(self) -> list[int]:
        """Levels of the columns of the condition but for pixels, which stand last and are no attributes to embed."""
        return self.condition_levels[: len(self.condition_levels) - math.prod(self.beside or (0,))]

    @property
    def continuous_attributes(self) -> list[int]:
        """Columns of the condition that are a number each, rather than a class, a vector or pixels."""
        inside = {j for v in self.vectors for j in VectorColumns(*v).columns}
        return [j for j, n in enumerate(self.attribute_levels) if n == 0 and j not in inside]

    @classmethod
    def of(
        cls,
        parameters: Any,
        codec: Any,
        levels: Sequence[int],
        schedule: Schedule,
        data: Tensor,
        n_rows: int,
        weight: Tensor | None = None,
        vectors: Sequence[VectorColumns] = (),
        beside: tuple[int, int, int] | None = None,
    ) -> Self:
        """Decide sizes for encoded data (m, d) of `n_rows` rows, encoded once or several times, with weights (m,)."""
        n_levels = list(getattr(codec, "n_levels_", []))
        n_continuous = data.shape[1] - len(n_levels)
        shares = None if weight is None else (weight.double() * (len(weight) / weight.double().sum())).numpy()
        frequencies = [
            np.bincount(data[:, n_continuous + j].long().numpy(), weights=shares, minlength=k)[:k] / len(data)
            for j, k in enumerate(n_levels)
        ]
        masks = parameters.observed_masks != 0 and hasattr(codec, "mask_of_") and not callable(parameters.denoiser)
        missing = missing_levels(codec) if masks else None
        network = network_name(parameters.denoiser, codec)
        sizes = sizes_of(network, codec, n_rows)
        embedding_size = embedding_size_of(codec, n_levels, n_rows)
        width = MixedDenoiser.width_of(n_continuous, len(n_levels), embedding_size)
        unet = image_network(parameters, codec) if network == "unet" else None
        if beside is not None:
            check_beside(parameters, network)
            assert unet is not None
            unet["extra_channels"] = beside[0] + 1  # and one that says whether there is an image
        if unet is not None:
            sizes = Sizes(unet["base"], unet["n_blocks"])
        return cls(
            width=width,
            n_continuous=n_continuous,
            frequencies=frequencies,
            condition_levels=[int(k) for k in levels],
            schedule=schedule,
            target=parameters.target,
            loss=make_loss(parameters.loss),
            bounds=_bounds(codec, data, n_continuous, parameters.target),
            custom=callable(parameters.denoiser),
            hidden_size=sizes.hidden_size if parameters.hidden_size == "auto" else int(parameters.hidden_size),
            n_blocks=sizes.n_blocks if parameters.n_blocks == "auto" else int(parameters.n_blocks),
            dropout=float(parameters.dropout),
            missing_levels=missing,
            presence=presence_columns(codec) if masks else [],
            equalities=codec.equality_positions_ if masks else [],
            observed_masks=_observed_share(
                parameters.observed_masks,
                data,
                n_continuous,
                missing,
                codec.n_masks_ + len(codec.equality_positions_) if masks else 0,
            ),
            n_frequencies=waves_of(codec, n_continuous, n_rows),
            unet=unet,
            network=network,
            layout=token_layout(codec),
            conditioning=resolve_conditioning(parameters.conditioning, network, vectors),
            time_embedding=parameters.time_embedding,
            vectors=[list(v) for v in vectors],
            beside=None if beside is None else list(beside),
            embedding_size=embedding_size,
        )

    def state(self) -> dict:
        """Plain description, for persistence."""
        return {**vars(self), "schedule": self.schedule.config(), "loss": asdict(self.loss)}

    @classmethod
    def from_state(cls, state: dict) -> Self:
        """Inverse of :meth:`state`."""
        schedule = schedule_from_config(state["schedule"])
        return cls(**{**state, "schedule": schedule, "loss": Loss(**state["loss"])})


def build_denoiser(spec: ModelSpec, denoiser: str | Callable[[int, int, int], nn.Module], seed: int) -> Denoiser:
    """Build a denoiser with freshly drawn weights, the same for the same seed.

    Parameters
    ----------
    spec : ModelSpec
        Sizes, schedule and target.
    denoiser : str or callable
        A callable builds the network; otherwise the specification names it.
    seed : int
        Of the weights.

    Raises
    ------
    TypeError
        If a callable returns something other than an nn.Module.
    """
    attributes = spec.attribute_levels
    condition_size = CONDITION_SIZE if attributes else 0
    n_outputs = spec.n_continuous + sum(len(f) for f in spec.frequencies)
    n_given = spec.n_continuous + len(spec.frequencies) if spec.missing_levels is not None else 0
    with borrowed_rng(seed):
        if callable(denoiser):
            network = denoiser(spec.width, n_outputs, condition_size)
            if not isinstance(network, nn.Module):
                raise TypeError(f"the callable denoiser must return an nn.Module, however: {type(network).__name__}.")
        else:
            network = make_network(spec, n_outputs, condition_size, n_given)
        embedding: nn.Module | None = None
        if condition_size:
            tokens = spec.conditioning in ("concatenation", "cross_attention") and spec.network == "dit"
            embedding = ConditionEmbedding(
                attributes, condition_size, vectors=[VectorColumns(*v) for v in spec.vectors], tokens=tokens
            )
        if spec.beside is not None:
            c, h, w = spec.beside
            embedding = ImageCondition((c, h, w), embedding)  # type: ignore[arg-type]
        bounds = None if spec.bounds is None else torch.from_numpy(np.array(spec.bounds))
        if not spec.frequencies:
            return Denoiser(
                network, spec.schedule, spec.target, embedding, loss=spec.loss, bounds=bounds, n_given=n_given
            )
        frequencies = [torch.from_numpy(np.asarray(f, dtype=np.float64)) for f in spec.frequencies]
        return MixedDenoiser(
            network,
            spec.schedule,
            frequencies,
            spec.n_continuous,
            spec.target,
            embedding,
            embedding_size=spec.embedding_size,
            loss=spec.loss,
            bounds=bounds,
            missing_levels=spec.missing_levels,
            shared=spec.layout["kind"] == "sequence",
        )


def _bounds(codec: Any, data: Tensor, n_continuous: int, target: str) -> np.ndarray | None:
    """Return the smallest and the largest value of each column, missing ones left out, shape (2, d); None for none."""
    if isinstance(codec, ImageCodec) and codec.bounds_ is not None:
        # Known whatever the target, and where guidance leaves them, colours burn.
        return np.array(codec.bounds_, dtype=np.float32)[:, None]
    if target not in ("eps", "score"):
        return None
    values = data[:, :n_continuous].numpy()
    return np.stack([np.nanmin(values, axis=0), np.nanmax(values, axis=0)])


def _observed_share(
    asked: str | float, data: Tensor, n_continuous: int, missing: list[int] | None, n_extra: int
) -> float:
    """Return the share of rows of which a random part is given in training; more where more is to be filled in."""
    if missing is None:
        return 0.0
    if not isinstance(asked, str):
        return float(asked)
    codes = [(data[:, n_continuous + j] == code).sum().item() for j, code in enumerate(missing) if code >= 0]
    absent = data[:, :n_continuous].isnan().sum().item() + sum(codes)
    n_columns = n_continuous + len(missing) - n_extra
    return min(OBSERVED_MASKS + absent / (len(data) * n_columns), 0.75)


def resolve_autoguidance(asked: str | float, codec: Any, spec: ModelSpec, n_rows: int) -> float | None:
    """Return the scale of the autoguidance of numbers (see `tabdiff.model.autoguidance`), 1 for none, None for one to be chosen.

    Raises
    ------
    ValueError
        If one was asked for where there are no numbers of a table, or no MLP to draw them.
    """
    possible = spec.network == "mlp" and not spec.custom and hasattr(codec, "mask_of_") and spec.n_continuous > 0
    if isinstance(asked, str):
        return None if possible and n_rows >= LARGE_ROWS else 1.0
    if asked != 1 and not possible:
        raise ValueError(
            f"autoguidance={asked!r} leads numbers of a table or array that denoiser='mlp' draws, and here are none. "
            "Use autoguidance='auto' or 1."
        )
    return float(asked)


def resolve_batch_size(batch_size: str | int, n_rows: int, unet: dict[str, Any] | None = None) -> int:
    """Return the rows of a batch: 512, or 128 images, fewer where there are fewer rows."""
    if batch_size != "auto":
        return int(batch_size)
    return min(512 if unet is None else IMAGE_BATCH, max(n_rows, 32))


def resolve_learning_rate(learning_rate: str | float, unet: dict[str, Any] | None = None) -> float:
    """Return the peak learning rate: 1e-3, for a wide U-Net less, down to 2e-4 at the published width."""
    if learning_rate != "auto":
        return float(learning_rate)
    return 1e-3 if unet is None else min(1e-3, 2e-4 * 128 / unet["base"])


def resolve_steps(max_steps: str | int, n_rows: int, unet: dict[str, Any] | None = None, device: str = "cpu") -> int:
    """Return the number of training steps; "auto" grows a little slower than the number of rows.

    A few hundred rows are copied when they are seen too often: on half of the penguins (172 rows) the median distance
    of a sample to the nearest of them falls from 0.95 of an unseen row's at 200 steps to 0.69 at 1,000, and nothing
    else improves. On tens of thousands of rows samples still get better at 10,000 steps.
    """
    if max_steps != "auto":
        return int(max_steps)
    if unet is not None:
        if device == "cpu":
            return int(np.clip(IMAGE_STEPS * n_rows**0.5, *IMAGE_STEPS_RANGE))
        return int(np.clip(GPU_IMAGE_STEPS * n_rows**0.5, *GPU_IMAGE_STEPS_RANGE))
    return int(np.clip(8 * n_rows**0.69, MIN_STEPS, MAX_STEPS))


def check_parameters(parameters: Any) -> None:
    """Raise a ValueError that names the first parameter out of range and what is allowed."""
    p = parameters
    check_network(p.denoiser, p.conditioning, p.time_embedding)
    check_text_encoder(p.text_encoder)
    make_times(p.times)  # these two raise where a name is unknown
    make_loss(p.loss)
    for name in ("hidden_size", "n_blocks", "max_steps", "batch_size"):
        value = getattr(p, name)
        if value != "auto" and not _is_positive_integer(value):
            raise ValueError(f"{name} must be 'auto' or an integer of at least 1, however: {value!r}.")
    if not isinstance(p.refine, bool | np.bool_) and p.refine != "auto":
        raise ValueError(f"refine must be 'auto', True or False, however: {p.refine!r}.")
    if p.n_timesteps is not None and not (_is_positive_integer(p.n_timesteps) and p.n_timesteps > 1):
        raise ValueError(f"n_timesteps must be None or an integer of at least 2, however: {p.n_timesteps!r}.")
    augmentations(p.augment)
    if not _is_positive_integer(p.accumulation_steps):
        raise ValueError(f"accumulation_steps must be an integer of at least 1, however: {p.accumulation_steps!r}.")
    if p.learning_rate_schedule not in ("cosine", "constant"):
        raise ValueError(
            f"learning_rate_schedule must be 'cosine' or 'constant', however: {p.learning_rate_schedule!r}."
        )
    rate = () if isinstance(p.learning_rate, str) and p.learning_rate == "auto" else ("learning_rate",)
    for name in ("dropout", "ema_decay", "condition_dropout", *rate, "weight_decay"):
        _check_number(name, getattr(p, name))
    if isinstance(p.observed_masks, str) and p.observed_masks != "auto":
        raise ValueError(f"observed_masks must be 'auto' or a number in [0, 1], however: {p.observed_masks!r}.")
    if not isinstance(p.observed_masks, str):
        _check_number("observed_masks", p.observed_masks)
    for name in ("max_time", "clip_grad_norm"):
        if getattr(p, name) is not None:
            _check_number(name, getattr(p, name))
    for name in ("dropout", "ema_decay"):
        if not 0 <= getattr(p, name) < 1:
            raise ValueError(f"{name} must lie in [0, 1), however: {getattr(p, name)!r}.")
    if isinstance(p.autoguidance, str):
        allowed = p.autoguidance == "auto"
    else:
        _check_number("autoguidance", p.autoguidance)
        allowed = p.autoguidance >= 0
    if not allowed:
        raise ValueError(f"autoguidance must be 'auto' or a number of at least 0, however: {p.autoguidance!r}.")
    for name in ("condition_dropout", *(["observed_masks"] if p.observed_masks != "auto" else [])):
        if not 0 <= getattr(p, name) <= 1:
            raise ValueError(f"{name} must lie in [0, 1], however: {getattr(p, name)!r}.")
    if rate and not p.learning_rate > 0:
        raise ValueError(f"learning_rate must be positive, however: {p.learning_rate!r}.")
    _check_training(p)
    if not p.weight_decay >= 0:
        raise ValueError(f"weight_decay must be at least 0, however: {p.weight_decay!r}.")
    for name in ("max_time", "clip_grad_norm"):
        value = getattr(p, name)
        if value is not None and not value > 0:
            raise ValueError(f"{name} must be None or positive, however: {value!r}.")


def _check_training(p: Any) -> None:
    """Check what says when training stops, and who watches it."""
    for name in ("early_stopping", "warm_start", "latent_diffusion"):
        if not isinstance(getattr(p, name), bool | np.bool_):
            raise ValueError(f"{name} must be True or False, however: {getattr(p, name)!r}.")
    _check_number("validation_fraction", p.validation_fraction)
    if not 0 < p.validation_fraction < 1:
        raise ValueError(f"validation_fraction must lie in (0, 1), however: {p.validation_fraction!r}.")
    if not _is_positive_integer(p.patience):
        raise ValueError(f"patience must be an integer of at least 1, however: {p.patience!r}.")
    _check_number("checkpoint_every", p.checkpoint_every)
    if not p.checkpoint_every >= 0:
        raise ValueError(f"checkpoint_every must be at least 0 seconds, however: {p.checkpoint_every!r}.")
    if p.checkpoint_dir is not None and not isinstance(p.checkpoint_dir, str | os.PathLike):
        raise ValueError(f"checkpoint_dir must be None or the path of a folder, however: {p.checkpoint_dir!r}.")
    if p.callbacks is not None and not isinstance(p.callbacks, list | tuple):
        raise ValueError(f"callbacks must be None or a list of callbacks, however: {p.callbacks!r}.")
    for callback in p.callbacks or ():
        missing = [name for name in vars(Callback) if name.startswith("on_") and not hasattr(callback, name)]
        if missing or isinstance(callback, type):
            raise ValueError(
                "each of callbacks must be an object with the methods of tabdiff.training.Callback, however: "
                f"{callback!r}{' is a class; make an object of it' if not missing else f' lacks {missing}'}."
            )


def _check_number(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not np.isfinite(value):
        raise ValueError(f"{name} must be a finite number, however: {value!r}.")


def _is_positive_integer(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and bool(value >= 1)
