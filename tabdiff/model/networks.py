"""Settings of the networks: what `denoiser=` takes where a name says too little."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator, clone

from tabdiff.nn.dit import CONDITIONING
from tabdiff.nn.embeddings import TIME_CONDITIONING, TIME_EMBEDDINGS
from tabdiff.nn.mlp import MLP_CONDITIONING
from tabdiff.utils.validation import is_integer, is_number

__all__ = [
    "MLP",
    "NETWORKS",
    "DiT",
    "NetworkSettings",
    "UNet",
    "canonical",
    "check_denoiser",
    "settings_from_state",
    "settings_of",
    "settings_to_state",
]

NETWORKS = ("mlp", "dit", "unet")
# Parameters of the estimator that say something of the network.
FLAT = ("hidden_size", "n_blocks")
# What the settings of every network have.
SHARED = (*FLAT, "dropout", "time_embedding", "conditioning", "time_conditioning")


class NetworkSettings(BaseEstimator):
    """What the settings of all networks share.

    Attributes
    ----------
    network : str
        The network's name.
    flat : dict
        For each parameter of the estimator that says the same its name here.
    built : dict
        For each name here that of the argument of the module in `tabdiff.nn`.
    ways : tuple of str
        How a condition may enter.
    """

    network: ClassVar[str]
    flat: ClassVar[dict[str, str]] = {name: name for name in FLAT}
    built: ClassVar[dict[str, str]]
    ways: ClassVar[tuple[str, ...]] = CONDITIONING
    dropout: float
    conditioning: str
    time_embedding: str

    def check(self) -> None:
        """Raise a ValueError that names the first setting out of range and what is allowed."""
        settings = self.get_params()
        for name in ("hidden_size", "n_blocks", "n_heads", "model_channels", "num_res_blocks", "num_heads"):
            if name in settings and not (_is_auto(settings[name]) or is_integer(settings[name], 1)):
                self._refuse(name, "'auto' or an integer of at least 1")
        for name in ("channel_mult", "attention_resolutions"):
            value = settings.get(name, "auto")
            if not _is_auto(value) and not (
                isinstance(value, Sequence | np.ndarray) and all(is_integer(v, 1) for v in value)
            ):
                self._refuse(name, "'auto' or integers of at least 1, such as (1, 2, 4)")
        dropout = settings["dropout"]
        if not is_number(dropout) or not 0 <= dropout < 1:
            self._refuse("dropout", "a number in [0, 1)")
        ratio = settings.get("mlp_ratio", 1.0)
        if not is_number(ratio) or not ratio > 0:
            self._refuse("mlp_ratio", "a number above 0")
        for name in ("qk_norm", "swiglu"):
            if not isinstance(settings.get(name, False), bool | np.bool_):
                self._refuse(name, "True or False")
        if settings["time_embedding"] not in TIME_EMBEDDINGS:
            self._refuse("time_embedding", f"one of {TIME_EMBEDDINGS}")
        if canonical(settings["time_conditioning"]) not in ("auto", *TIME_CONDITIONING):
            self._refuse("time_conditioning", f"'auto' or one of {TIME_CONDITIONING}")
        way = canonical(settings["conditioning"])
        if way not in ("auto", *self.ways):
            attention = (
                f", or use denoiser=DiT(conditioning={way!r}), which has attention" if way in CONDITIONING else ""
            )
            self._refuse("conditioning", f"'auto' or one of {self.ways}{attention}")

    def _refuse(self, name: str, allowed: str) -> None:
        raise ValueError(f"{name} of {type(self).__name__} must be {allowed}; got {getattr(self, name)!r}.")


class MLP(NetworkSettings):
    """A residual MLP, with settings: for ``denoiser=``.

    Parameters
    ----------
    hidden_size, n_blocks : "auto" or int, default="auto"
        Width, and number of residual blocks; see `DiffusionGenerator`.
    dropout : float, default=0.0
        Dropout inside the blocks, in [0, 1).
    conditioning : {"auto", "adaln", "addition", "concatenation"}, default="auto"
        Where the condition enters: it modulates the blocks (adaptive layer normalisation, by scale and shift, as FiLM:
        "film" is the same); it is added to what each block works on; or it stands beside the noisy row, as inputs.
    time_conditioning : {"auto", "adaln", "addition", "concatenation"}, default="auto"
        Where the time enters, likewise. "auto" is "adaln".
    time_embedding : {"sinusoidal", "learned", "table"}, default="sinusoidal"
        What the network is told of the time: sines of fixed frequencies, sines of ones that are learned, or a learned
        vector for each of the `n_timesteps` of the estimator.

    See Also
    --------
    tabdiff.nn.ResidualMLP : The module.

    Examples
    --------
    >>> from tabdiff import MLP, DiffusionGenerator
    >>> gen = DiffusionGenerator(denoiser=MLP(hidden_size=128, time_conditioning="concatenation"))
    >>> gen.set_params(denoiser__n_blocks=2).denoiser
    MLP(hidden_size=128, n_blocks=2, time_conditioning='concatenation')
    """

    network = "mlp"
    ways = MLP_CONDITIONING
    built: ClassVar[dict[str, str]] = {name: name for name in SHARED}

    def __init__(
        self,
        *,
        hidden_size: str | int = "auto",
        n_blocks: str | int = "auto",
        dropout: float = 0.0,
        conditioning: str = "auto",
        time_conditioning: str = "auto",
        time_embedding: str = "sinusoidal",
    ) -> None:
        self.hidden_size = hidden_size
        self.n_blocks = n_blocks
        self.dropout = dropout
        self.conditioning = conditioning
        self.time_conditioning = time_conditioning
        self.time_embedding = time_embedding


class DiT(NetworkSettings):
    """A diffusion transformer (Peebles and Xie, 2023), with settings: for ``denoiser=``.

    Parameters
    ----------
    hidden_size, n_blocks : "auto" or int, default="auto"
        Length of a token, and number of blocks; see `DiffusionGenerator`.
    n_heads : "auto" or int, default="auto"
        Heads of attention, a divisor of `hidden_size`; "auto" are heads of 32.
    mlp_ratio : float, default=2.0
        Width of the feed-forward layers over `hidden_size`; 4 in the paper.
    dropout : float, default=0.0
        Dropout behind attention and feed-forward layers, in [0, 1).
    qk_norm, swiglu : bool, default=False
        Whether queries and keys are normalised, and feed-forward layers gated.
    conditioning : {"auto", "adaln", "addition", "concatenation", "cross_attention"}, default="auto"
        Where the condition enters: it modulates the blocks (AdaLN-Zero; "film" is the same); it is added to every
        token; it makes tokens beside those of the row; or tokens that each block attends to. "auto" is
        "cross_attention" for conditions of several vectors a row, else "adaln".
    time_conditioning : {"auto", "adaln", "addition", "concatenation"}, default="auto"
        Where the time enters, likewise. "auto" is "adaln".
    time_embedding : {"sinusoidal", "learned", "table"}, default="sinusoidal"
        What the network is told of the time: sines of fixed frequencies, sines of ones that are learned, or a learned
        vector for each of the `n_timesteps` of the estimator.

    See Also
    --------
    tabdiff.nn.DiT : The module.

    Examples
    --------
    >>> from tabdiff import DiffusionGenerator, DiT
    >>> DiffusionGenerator(denoiser=DiT(hidden_size=96, n_heads=3, qk_norm=True)).denoiser
    DiT(hidden_size=96, n_heads=3, qk_norm=True)
    """

    network = "dit"
    built: ClassVar[dict[str, str]] = {name: name for name in (*SHARED, "n_heads", "mlp_ratio", "qk_norm", "swiglu")}

    def __init__(
        self,
        *,
        hidden_size: str | int = "auto",
        n_blocks: str | int = "auto",
        n_heads: str | int = "auto",
        mlp_ratio: float = 2.0,
        dropout: float = 0.0,
        qk_norm: bool = False,
        swiglu: bool = False,
        conditioning: str = "auto",
        time_conditioning: str = "auto",
        time_embedding: str = "sinusoidal",
    ) -> None:
        self.hidden_size = hidden_size
        self.n_blocks = n_blocks
        self.n_heads = n_heads
        self.mlp_ratio = mlp_ratio
        self.dropout = dropout
        self.qk_norm = qk_norm
        self.swiglu = swiglu
        self.conditioning = conditioning
        self.time_conditioning = time_conditioning
        self.time_embedding = time_embedding


class UNet(NetworkSettings):
    """A U-Net for images, with settings under the names of the published code: for ``denoiser=``.

    What is "auto" suits the size of the images (`tabdiff.nn.unet.UNET_PRESETS`), with at most 32 channels and one block
    on a CPU.

    Parameters
    ----------
    model_channels : "auto" or int, default="auto"
        Channels of the first level.
    num_res_blocks : "auto" or int, default="auto"
        Residual blocks of each level on the way down; there is one more on the way up.
    attention_resolutions : "auto" or tuple of int, default="auto"
        Sides of the maps with self-attention, in pixels; it is in the middle too.
    channel_mult : "auto" or tuple of int, default="auto"
        Channels of each level over `model_channels`; each level halves the sides of the one before.
    num_heads : "auto" or int, default="auto"
        Heads of attention; "auto" are heads of 64 channels, or one.
    dropout : float, default=0.0
        Dropout inside the blocks, in [0, 1).
    conditioning : {"auto", "film", "addition", "concatenation", "cross_attention"}, default="auto"
        Where the condition enters: it scales and shifts the normalised maps of each block ("adaln" is the same); it is
        added to them; it makes further channels of the noisy image; or the maps attend to its tokens wherever they
        attend to themselves (Rombach et al., 2022). "auto" is "cross_attention" for conditions of several vectors a
        row, such as the tokens of texts, and else as `time_conditioning`.
    time_conditioning : {"auto", "film", "addition", "concatenation"}, default="auto"
        Where the time enters, likewise. "auto" is "addition" for images of 29 to 48 pixels, as Ho et al. (2020) had it,
        and else "film".
    time_embedding : {"sinusoidal", "learned", "table"}, default="sinusoidal"
        What the network is told of the time: sines of fixed frequencies, sines of ones that are learned, or a learned
        vector for each of the `n_timesteps` of the estimator.

    See Also
    --------
    tabdiff.nn.UNet : The module.

    Examples
    --------
    The network of Ho et al. (2020) for CIFAR-10, of 35.7 million weights, and a smaller one:

    >>> from tabdiff import DiffusionGenerator, UNet
    >>> published = UNet(
    ...     model_channels=128, num_res_blocks=2, attention_resolutions=(16,), channel_mult=(1, 2, 2, 2), dropout=0.1
    ... )
    >>> gen = DiffusionGenerator(denoiser=published).set_params(denoiser__model_channels=32)
    >>> gen.denoiser.model_channels, gen.denoiser.channel_mult
    (32, (1, 2, 2, 2))
    """

    network = "unet"
    flat: ClassVar[dict[str, str]] = {"hidden_size": "model_channels", "n_blocks": "num_res_blocks"}
    built: ClassVar[dict[str, str]] = {
        "model_channels": "base",
        "num_res_blocks": "n_blocks",
        "attention_resolutions": "attention",
        "channel_mult": "multipliers",
        "num_heads": "n_heads",
        "dropout": "dropout",
        "conditioning": "conditioning",
        "time_conditioning": "time_conditioning",
        "time_embedding": "time_embedding",
    }

    def __init__(
        self,
        *,
        model_channels: str | int = "auto",
        num_res_blocks: str | int = "auto",
        attention_resolutions: str | tuple[int, ...] = "auto",
        channel_mult: str | tuple[int, ...] = "auto",
        num_heads: str | int = "auto",
        dropout: float = 0.0,
        conditioning: str = "auto",
        time_conditioning: str = "auto",
        time_embedding: str = "sinusoidal",
    ) -> None:
        self.model_channels = model_channels
        self.num_res_blocks = num_res_blocks
        self.attention_resolutions = attention_resolutions
        self.channel_mult = channel_mult
        self.num_heads = num_heads
        self.dropout = dropout
        self.conditioning = conditioning
        self.time_conditioning = time_conditioning
        self.time_embedding = time_embedding


SETTINGS: dict[str, type[NetworkSettings]] = {"mlp": MLP, "dit": DiT, "unet": UNet}


def canonical(value: Any) -> Any:
    """Return a setting as the modules know it: adaptive normalisation by one name, sequences of integers as tuples."""
    if isinstance(value, str):
        return "adaln" if value == "film" else value
    return tuple(int(v) for v in value) if isinstance(value, Sequence | np.ndarray) else value


def settings_of(parameters: Any, network: str) -> NetworkSettings:
    """Return the settings of an estimator's network: those in its `denoiser`, and its own size where that has none.

    Parameters
    ----------
    parameters : object
        Those of `DiffusionGenerator`, by name.
    network : str
        Which network it is; "custom" for one of the user's own, of which size and names alone are known.
    """
    given = parameters.denoiser
    settings = clone(given) if isinstance(given, NetworkSettings) else SETTINGS.get(network, MLP)()
    for flat, name in settings.flat.items():
        if _is_auto(getattr(settings, name)):
            setattr(settings, name, getattr(parameters, flat))
    return settings


def check_denoiser(parameters: Any) -> None:
    """Raise a ValueError if an estimator's parameters name no network, or two that differ, or one out of range."""
    denoiser = parameters.denoiser
    if isinstance(denoiser, type) and issubclass(denoiser, NetworkSettings):
        raise ValueError(
            f"denoiser must be an object with settings; got the class {denoiser.__name__}. Use "
            f"denoiser={denoiser.__name__}()."
        )
    if isinstance(denoiser, NetworkSettings):
        denoiser.check()
        for flat, name in denoiser.flat.items():
            value, inside = getattr(parameters, flat), getattr(denoiser, name)
            if not _is_auto(value) and not _is_auto(inside) and value != inside:
                raise ValueError(
                    f"{flat} must be left out where the denoiser says another; got {flat}={value!r} beside "
                    f"{name}={inside!r} in {type(denoiser).__name__}. Use denoiser={type(denoiser).__name__}"
                    f"({name}={value!r})."
                )
        return
    if not callable(denoiser) and not (isinstance(denoiser, str) and denoiser in ("auto", *NETWORKS)):
        raise ValueError(
            "denoiser must be 'auto', 'mlp', 'dit', 'unet', an object such as tabdiff.UNet(), or a callable; got "
            f"{denoiser!r}. Use denoiser='auto'."
        )


def settings_to_state(settings: NetworkSettings) -> dict[str, Any]:
    """Return a plain description, for persistence."""
    return {"network": settings.network, **{k: canonical(v) for k, v in settings.get_params().items()}}


def settings_from_state(state: Mapping[str, Any]) -> NetworkSettings:
    """Inverse of `settings_to_state`."""
    return SETTINGS[state["network"]](**{k: v for k, v in state.items() if k != "network"})


def _is_auto(value: Any) -> bool:
    return isinstance(value, str) and value == "auto"
