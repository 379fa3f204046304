"""From parameters and data to what a denoiser is built from: sizes, and checks of what belongs together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np
from torch import Tensor

from tabdiff.codecs.tables.layout import missing_levels, presence_columns
from tabdiff.diffusion import Loss, Schedule, make_loss, schedule_from_config
from tabdiff.diffusion.mixed_denoiser import MixedDenoiser
from tabdiff.model.defaults import (
    Sizes,
    check_image_condition,
    embedding_size_of,
    image_network,
    n_frequencies_of,
    network_name,
    network_options,
    resolve_conditioning,
    sizes_of,
    token_layout,
)
from tabdiff.model.networks import settings_of
from tabdiff.nn import VectorColumns
from tabdiff.training.options import options_of

__all__ = ["ModelConfig"]

# Share of the rows of a complete table of which a random part is given in training. Half of the rows would take as much
# from the quality of samples again, and gain little where every cell is there to learn from.
OBSERVED_MASKS = 0.25


@dataclass
class ModelConfig:
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
        Fourier features of each number that the network sees; see `FourierFeatures`.
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
    options : dict
        Further arguments of an MLP or a transformer.
    variance : str
        "fixed", or "learned": then the network returns two values for each number.
    data_std : float
        Standard deviation of the entries of encoded rows: 1 but for images, whose pixels are not standardised.
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
    options: dict[str, Any] = field(default_factory=dict)
    variance: str = "fixed"
    data_std: float = 1.0

    @property
    def n_per_number(self) -> int:
        """Outputs of the network for each number."""
        return 2 if self.variance == "learned" else 1

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
        """Decide everything for a fit.

        Parameters
        ----------
        parameters : object
            Those of `DiffusionGenerator`, by name, checked.
        codec : Codec
            Fitted.
        levels : sequence of int
            See `condition_levels`.
        schedule : Schedule
        data : Tensor of shape (m, d)
            The rows encoded, once or several times.
        n_rows : int
            Number of rows, each counted once.
        weight : Tensor of shape (m,), optional
            Their weights.
        vectors : sequence of VectorColumns
        beside : tuple of int, optional

        Raises
        ------
        ValueError
            For what does not go with the network, the schedule or the data.
        """
        n_levels = list(codec.n_levels_)
        n_continuous = data.shape[1] - len(n_levels)
        shares = None if weight is None else (weight.double() * (len(weight) / weight.double().sum())).numpy()
        frequencies = [
            np.bincount(data[:, n_continuous + j].long().numpy(), weights=shares, minlength=k)[:k] / len(data)
            for j, k in enumerate(n_levels)
        ]
        training = options_of(parameters.training)
        masks = training.observed_masks != 0 and codec.columns_known_ and not callable(parameters.denoiser)
        missing = missing_levels(codec) if masks else None
        network = network_name(parameters.denoiser, codec)
        settings = settings_of(parameters, network)
        _check_steps(settings.time_embedding, parameters.variance, schedule, len(n_levels))
        embedding_size = embedding_size_of(codec, n_levels, n_rows)
        width = MixedDenoiser.width_of(n_continuous, len(n_levels), embedding_size)
        sizes = sizes_of(network, codec, n_rows, width=width, device=parameters.device, max_time=parameters.max_time)
        unet = image_network(settings, codec, parameters.device) if network == "unet" else None
        if beside is not None:
            check_image_condition(parameters, network)
            assert unet is not None
            unet["extra_channels"] = beside[0] + 1  # and one that says whether there is an image
        asked = {flat: getattr(settings, name) for flat, name in settings.flat.items()}
        if unet is not None:
            sizes, asked["hidden_size"], asked["n_blocks"] = Sizes(unet["base"], unet["n_blocks"]), "auto", "auto"
        way = "adaln" if unet is None else unet["time_conditioning"]
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
            hidden_size=sizes.hidden_size if asked["hidden_size"] == "auto" else int(asked["hidden_size"]),
            n_blocks=sizes.n_blocks if asked["n_blocks"] == "auto" else int(asked["n_blocks"]),
            dropout=float(settings.dropout),
            missing_levels=missing,
            presence=presence_columns(codec) if masks else [],
            equalities=codec.equality_positions_ if masks else [],
            observed_masks=_observed_share(
                training.observed_masks,
                data,
                n_continuous,
                missing,
                codec.n_masks_ + len(codec.equality_positions_) if masks else 0,
            ),
            n_frequencies=n_frequencies_of(codec, n_continuous, n_rows),
            unet=unet,
            network=network,
            layout=token_layout(codec),
            conditioning=resolve_conditioning(settings.conditioning, network, vectors, way),
            time_embedding=settings.time_embedding,
            vectors=[list(v) for v in vectors],
            beside=None if beside is None else list(beside),
            embedding_size=embedding_size,
            options=network_options(settings, network),
            variance=parameters.variance,
            data_std=codec.data_std(data),
        )

    def state(self) -> dict:
        """Plain description, for persistence."""
        return {**vars(self), "schedule": self.schedule.config(), "loss": asdict(self.loss)}

    @classmethod
    def from_state(cls, state: dict) -> Self:
        """Inverse of :meth:`state`."""
        schedule = schedule_from_config(state["schedule"])
        unet = state.get("unet")
        if unet is not None and "modulation" in unet:
            # Of earlier versions, in which a U-Net took neither `conditioning` nor `time_embedding` into account.
            way = {"film": "adaln", "add": "addition"}[unet["modulation"]]
            rest = {name: value for name, value in unet.items() if name != "modulation"}
            state = {**state, "unet": {**rest, "time_conditioning": way, "group_size": 1}}
            state |= {"conditioning": way, "time_embedding": "sinusoidal"}
        return cls(**{**state, "schedule": schedule, "loss": Loss(**state["loss"])})


def _check_steps(time_embedding: str, variance: str, schedule: Schedule, n_categories: int) -> None:
    """Raise a ValueError for what needs the steps of a discrete schedule, or numbers alone, and has them not."""
    if schedule.n_timesteps is None and (time_embedding == "table" or variance == "learned"):
        name, value, other = "variance", "learned", "fixed"
        if time_embedding == "table":
            name, value, other = "time_embedding", "table", "learned"
        raise ValueError(
            f"{name} must be {other!r} in continuous time; got {value!r}, which belongs to the steps of a discrete "
            f"schedule. Set n_timesteps, such as n_timesteps=1000, or use {name}={other!r}."
        )
    if variance == "learned" and n_categories:
        raise ValueError(
            "variance must be 'fixed' for data with categories, or with missing values or values that come so often "
            f"that a category tells them; got 'learned' for {n_categories} columns of categories. Use variance='fixed'."
        )


def _bounds(codec: Any, data: Tensor, n_continuous: int, target: str) -> np.ndarray | None:
    """Return the smallest and the largest value of each column, missing ones left out, shape (2, d); None for none."""
    if codec.bounds_ is not None:
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
