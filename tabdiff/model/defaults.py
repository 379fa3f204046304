"""What "auto" stands for: the network and its size, batches, rates and steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tabdiff.codecs.images.codec import ImageCodec, augmentations
from tabdiff.codecs.images.latent import LatentImageCodec
from tabdiff.diffusion import LogNormal, Times
from tabdiff.model.networks import NetworkSettings, canonical
from tabdiff.nn import VectorColumns
from tabdiff.nn.unet import unet_preset, unet_sides
from tabdiff.utils.device import resolve_device

__all__ = [
    "FREQUENCIES",
    "IMAGE_STEPS_RANGE",
    "LARGE_ROWS",
    "LATENT_TOKENS",
    "SMALL_SIZE",
    "MAX_STEPS",
    "MAX_TOKENS",
    "MIN_STEPS",
    "SIZES",
    "Sizes",
    "check_image_condition",
    "embedding_size_of",
    "is_patient",
    "image_network",
    "n_frequencies_of",
    "network_name",
    "network_options",
    "resolve_batch_size",
    "resolve_conditioning",
    "resolve_condition_dropout",
    "resolve_learning_rate",
    "resolve_steps",
    "resolve_times",
    "sizes_of",
    "token_layout",
]

# Channels and blocks at most, where there is no GPU: the published network for 32 × 32 pixels takes ten seconds a step
# there, this one under one.
CPU_BASE, CPU_BLOCKS = 32, 1
MIN_STEPS, MAX_STEPS = 200, 10_000
# Tables of fewer rows get fewer steps for each row, too, and those of up to so many at least half of what others would.
FEW_ROWS, MANY_ROWS, FEWEST = 1300, 12_000, 0.5
# A U-Net needs more steps than an MLP on as many rows, and of smaller batches; without a GPU they take a second each.
IMAGE_BATCH, IMAGE_STEPS, IMAGE_STEPS_RANGE = 128, 40, (500, 2_000)
GPU_IMAGE_STEPS, GPU_IMAGE_STEPS_RANGE = 120, (2_000, 50_000)
# Tables of so many rows get a larger network.
LARGE_ROWS = 5000
# With more columns, neighbours share a token: attention among 256 is what a CPU still does in a fraction of a second.
MAX_TOKENS = 256
# The dimensions of a latent have no meaning of their own, so a few tokens are enough.
LATENT_TOKENS = 32
# Fourier features of each number of a large table, and of all numbers together at most: wide tables stay cheap.
FREQUENCIES, MAX_WAVES = 8, 512
# Entries of the embedding of a level: eight are few to tell hundreds of levels apart by. Wide tables stay cheap.
EMBEDDING_SIZE, LARGE_EMBEDDING_SIZE = 8, 32
MANY_LEVELS, MAX_EMBEDDED = 100, 2048
# Of the pixels that Karras et al. (2022) drew noise for.
EDM_DATA_STD = 0.5


class Sizes(NamedTuple):
    """Width and depth of a network."""

    hidden_size: int
    n_blocks: int


# For tables of many rows, and for everything else.
SIZES = {
    "mlp": (Sizes(512, 4), Sizes(256, 3)),
    "dit": (Sizes(128, 4), Sizes(96, 3)),
}
# Without a GPU a large table has a small MLP: what a step of a wide one learns more, narrow ones learn by more steps in
# the same time, and a row is drawn several times as fast (see docs/benchmarks). Wide rows fill more, and so do
# many rows where there is time: what small networks have learned by then is all that they will.
CPU_SIZE, CPU_LARGE_SIZE = Sizes(128, 3), Sizes(256, 3)
CPU_WIDTH = 512
CPU_LONG_TIME = 450.0
# Rows and seconds from which on a fit is after the best rows rather than after many of them.
PATIENT_ROWS, PATIENT_SECONDS = 15_000, 300.0
# Small MLPs of large tables take large steps.
SMALL_SIZE, SMALL_SIZE_RATE = 128, 3e-3


def image_network(settings: NetworkSettings, codec: ImageCodec, device: Any) -> dict[str, Any]:
    """Return what a U-Net is built from, but for dropout, time embedding and the way of a condition.

    Parameters
    ----------
    settings : UNet
    codec : ImageCodec
        Fitted.
    device : str or torch.device
        That of the fit.

    Raises
    ------
    ValueError
        For attention at sides that no level has.
    """
    _, height, width = codec.row_size_
    network = {"shape": tuple(codec.row_size_), **unet_preset(height, width)}
    del network["conditioning"]
    if resolve_device(device).type == "cpu":
        network["base"], network["n_blocks"] = min(network["base"], CPU_BASE), min(network["n_blocks"], CPU_BLOCKS)
    for name, built in settings.built.items():
        value = canonical(getattr(settings, name))
        if value != "auto" and built not in ("dropout", "time_embedding", "conditioning"):
            network[built] = value
    sides = unet_sides(height, width, len(network["multipliers"]))
    asked = canonical(settings.get_params()["attention_resolutions"])
    if asked != "auto" and not set(asked) <= set(sides):
        raise ValueError(
            f"attention_resolutions must be among the sides of the levels, {tuple(sides)} for images of {height} × "
            f"{width} pixels and channel_mult={network['multipliers']}; got {asked}. Use attention_resolutions="
            f"{tuple(side for side in asked if side in sides) or (sides[-1],)}, or another channel_mult."
        )
    return network


def check_image_condition(parameters: Any, network: str) -> None:
    """Raise a ValueError for what does not go with a condition that is an image."""
    if network != "unet":
        raise ValueError(
            f"a condition that is an image needs denoiser='unet'; got {parameters.denoiser!r}. To others an "
            "image is a vector, image.reshape(n, -1)."
        )
    if isinstance(parameters.codec, LatentImageCodec):
        raise ValueError(
            "a condition that is an image stands beside pixels, not beside latents; got codec=LatentImageCodec(). "
            "Leave codec out."
        )
    if parameters.codec is not None and augmentations(parameters.codec.augment):
        raise ValueError(
            f"augment={parameters.codec.augment!r} would move images against those of the condition; augment both "
            "before fit."
        )


def resolve_batch_size(batch_size: str | int, n_rows: int, unet: dict[str, Any] | None = None) -> int:
    """Return the rows of a batch: 512, or 128 images, fewer where there are fewer rows."""
    if batch_size != "auto":
        return int(batch_size)
    return min(512 if unet is None else IMAGE_BATCH, max(n_rows, 32))


def resolve_learning_rate(
    learning_rate: str | float, unet: dict[str, Any] | None = None, *, small_table_network: bool = False
) -> float:
    """Return the peak learning rate: 1e-3, for a wide U-Net less, down to 2e-4 at the published width.

    For an MLP of at most 128 units and a table of 5,000 rows or more, `small_table_network`, it is 3e-3.
    """
    if learning_rate != "auto":
        return float(learning_rate)
    if small_table_network:
        return SMALL_SIZE_RATE
    return 1e-3 if unet is None else min(1e-3, 2e-4 * 128 / unet["base"])


def resolve_steps(
    max_steps: str | int,
    n_rows: int,
    unet: dict[str, Any] | None = None,
    device: str = "cpu",
    is_table: bool = False,
    is_latent: bool = False,
) -> int:
    """Return the number of training steps; "auto" grows a little slower than the number of rows.

    A few hundred rows are copied when they are seen too often: on half of the penguins (172 rows) the median distance
    of a sample to the nearest of them falls from 0.95 of an unseen row's at 200 steps to 0.69 at 1,000, and nothing
    else improves. Of 669 rows of insurance policies the losses tell after 712 steps (AUC .57), hardly after 356 (.53);
    of 6,165 rows of shoppers after 3,297 (.55), less after 1,650 (.53). So a table of up to 6,000 rows has half of the
    steps that its size would give, one of up to `MANY_ROWS` more of them in proportion to its rows, and one of fewer
    than 650 fewer in that proportion. On tens of thousands of rows samples still get better at 10,000 steps.

    Latents of cells are two dozen smooth numbers: of 2,670 cells 925 steps teach about as much as 1,850, so that from
    some 2,450 cells on, steps grow with the power 0.4 of their number alone.
    """
    if max_steps != "auto":
        return int(max_steps)
    if unet is not None:
        if device == "cpu":
            return int(np.clip(IMAGE_STEPS * n_rows**0.5, *IMAGE_STEPS_RANGE))
        return int(np.clip(GPU_IMAGE_STEPS * n_rows**0.5, *GPU_IMAGE_STEPS_RANGE))
    steps = 8 * n_rows**0.69
    if is_table:
        steps *= min(n_rows / FEW_ROWS, max(n_rows / MANY_ROWS, FEWEST), 1.0)
    if is_latent:
        steps = min(steps, 77 * n_rows**0.4)
    return int(np.clip(steps, MIN_STEPS, MAX_STEPS))


def network_name(denoiser: Any, codec: Any) -> str:
    """Return which network "auto" stands for: "unet" for images, "mlp" for everything else.

    Raises
    ------
    ValueError
        If a U-Net is asked for, and the data are not images.
    """
    if callable(denoiser):
        return "custom"
    if isinstance(denoiser, NetworkSettings):
        denoiser = denoiser.network
    kind = token_layout(codec)["kind"]
    if denoiser == "unet" and kind != "patches":
        raise ValueError(
            "denoiser='unet' is for images: an array (n, h, w), (n, h, w, c) or (n, c, h, w), a list of PIL images or "
            "a folder of files. Reshape X, e.g. X.reshape(len(X), height, width), or use denoiser='auto'."
        )
    if denoiser != "auto":
        return str(denoiser)
    return "unet" if kind == "patches" else "mlp"


def token_layout(codec: Any) -> dict[str, Any]:
    """Return what the entries of a codec's rows are: columns, unless it says otherwise."""
    return dict(codec.layout_)


def n_frequencies_of(codec: Any, n_continuous: int, n_rows: int) -> int:
    """Return the Fourier features of each number that an MLP sees, for tables of many rows; see `FourierFeatures`.

    Few rows are smooth to the network, and short fits to them draw a little too widely with Fourier features.
    """
    return min(FREQUENCIES, MAX_WAVES // max(n_continuous, 1)) if _is_large_table(codec, n_rows) else 0


def embedding_size_of(codec: Any, n_levels: Sequence[int], n_rows: int) -> int:
    """Return the entries of the embedding of a level: more for large tables with columns of hundreds of levels."""
    wanted = _is_large_table(codec, n_rows) and max(n_levels, default=0) > MANY_LEVELS
    return LARGE_EMBEDDING_SIZE if wanted and len(n_levels) * LARGE_EMBEDDING_SIZE <= MAX_EMBEDDED else EMBEDDING_SIZE


def sizes_of(
    network: str, codec: Any, n_rows: int, *, width: int = 0, device: Any = "cpu", max_time: float | None = None
) -> Sizes:
    """Return the width and depth that "auto" stands for.

    Parameters
    ----------
    network : str
    codec : object
        Fitted.
    n_rows : int
        Training rows.
    width : int
        Length of a noisy row.
    device : str or torch.device
        That of the fit.
    max_time : float, optional
        Seconds of the fit at most.
    """
    large, small = SIZES.get(network, SIZES["mlp"])
    if not _is_large_table(codec, n_rows):
        return small
    if network != "mlp" or resolve_device(device).type != "cpu":
        return large
    return CPU_LARGE_SIZE if width > CPU_WIDTH or is_patient(n_rows, max_time, CPU_LONG_TIME) else CPU_SIZE


def is_patient(n_rows: int, max_time: float | None, seconds: float = PATIENT_SECONDS) -> bool:
    """Return whether a fit of many rows has so many seconds, or no limit, for what takes time and gains little."""
    return n_rows >= PATIENT_ROWS and (max_time is None or max_time >= seconds)


def _is_large_table(codec: Any, n_rows: int) -> bool:
    return codec.columns_known_ and n_rows >= LARGE_ROWS


def resolve_conditioning(asked: str, network: str, vectors: Sequence[VectorColumns], otherwise: str = "adaln") -> str:
    """Return how the condition enters a network: `asked`, where that is "auto" attention to tokens, if it has them.

    Parameters
    ----------
    asked : str
    network : str
    vectors : sequence of VectorColumns
        Those of the condition.
    otherwise : str
        What "auto" is without tokens.
    """
    asked = canonical(asked)
    if asked == "auto":
        return "cross_attention" if network in ("dit", "unet") and any(v[2] > 1 for v in vectors) else otherwise
    return asked


def network_options(settings: NetworkSettings, network: str) -> dict[str, Any]:
    """Return what an MLP or a transformer is built from beside its size; a U-Net has all of it in one place."""
    if network not in ("mlp", "dit"):
        return {}
    shared = {"hidden_size", "n_blocks", "dropout", "conditioning", "time_embedding"}
    values = {name: canonical(value) for name, value in settings.get_params().items() if name not in shared}
    return {settings.built[name]: value for name, value in values.items() if value != "auto"}


def resolve_condition_dropout(
    dropout: float | dict[Any, float], names: Sequence[Any], places: Sequence[slice]
) -> float | list[tuple[slice, float]]:
    """Return how conditions are hidden, as `tabdiff.training.train` takes it.

    Parameters
    ----------
    dropout : float or dict
        As in `DiffusionGenerator`.
    names : sequence
        Of the conditions of the fit, none where there are none.
    places : sequence of slice
        Columns of each among the codes.

    Raises
    ------
    ValueError
        If a dict names something else.
    """
    if not isinstance(dropout, dict):
        return float(dropout)
    unknown = [name for name in dropout if name not in names]
    if unknown:
        known = f"those of the fit, {list(names)}" if names else "conditions, of which this fit has none"
        raise ValueError(
            f"condition_dropout must name {known}; got {unknown}. One number hides a row's whole condition: "
            "condition_dropout=0.1"
        )
    return [(at, float(dropout[name])) for name, at in zip(names, places, strict=True) if name in dropout]


def resolve_times(times: str | Times, data_std: float) -> str | Times:
    """Return how training draws times; "log_normal" is that of EDM for data of a standard deviation.

    Karras et al. (2022) draw the logarithm of the noise round -1.2 for pixels of standard deviation 0.5: what counts is
    the noise relative to the data.
    """
    if not isinstance(times, str) or times != "log_normal":
        return times
    published = LogNormal()
    return LogNormal(published.mean + math.log(data_std / EDM_DATA_STD), published.std)
