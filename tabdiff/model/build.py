"""Which network denoises which data, and how large it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import nn

from tabdiff.nn import ColumnTokens, DiT, PatchTokens, ResidualMLP, SequenceTokens, UNet
from tabdiff.nn.dit import CONDITIONING
from tabdiff.nn.embeddings import TIME_EMBEDDINGS, VectorColumns
from tabdiff.nn.mlp import MLP_CONDITIONING

if TYPE_CHECKING:
    from tabdiff.model.config import ModelSpec

__all__ = [
    "NETWORKS",
    "Sizes",
    "check_network",
    "embedding_size_of",
    "make_network",
    "network_name",
    "resolve_conditioning",
    "sizes_of",
    "token_layout",
    "waves_of",
]

NETWORKS = ("mlp", "dit", "unet")
# Tables of so many rows get a larger network.
LARGE_ROWS = 5000
# With more columns, neighbours share a token: attention among 256 is what a CPU still does in a fraction of a second.
MAX_TOKENS = 256
# Waves of each number of a large table, and how many the network sees in all at most: wide tables stay cheap.
FREQUENCIES, MAX_WAVES = 8, 512
# Entries of the embedding of a level: eight are few to tell hundreds of levels apart by. Wide tables stay cheap.
EMBEDDING_SIZE, LARGE_EMBEDDING_SIZE = 8, 32
MANY_LEVELS, MAX_EMBEDDED = 100, 2048
# The dimensions of a latent have no meaning of their own, so a few tokens are enough.
LATENT_TOKENS = 32


class Sizes(NamedTuple):
    """Width and depth of a network."""

    hidden_size: int
    n_blocks: int


# For tables of many rows, and for everything else.
SIZES = {
    "mlp": (Sizes(512, 4), Sizes(256, 3)),
    "dit": (Sizes(128, 4), Sizes(96, 3)),
}


def check_network(denoiser: Any, conditioning: str, time_embedding: str) -> None:
    """Raise a ValueError if a parameter names no network, or what that network does not have."""
    if not callable(denoiser) and denoiser not in ("auto", *NETWORKS):
        raise ValueError(f"denoiser must be 'auto', 'mlp', 'dit', 'unet' or a callable, however: {denoiser!r}.")
    if conditioning not in ("auto", *CONDITIONING):
        raise ValueError(f"conditioning must be 'auto' or one of {CONDITIONING}, however: {conditioning!r}.")
    if time_embedding not in TIME_EMBEDDINGS:
        raise ValueError(f"time_embedding must be one of {sorted(TIME_EMBEDDINGS)}, however: {time_embedding!r}.")


def network_name(denoiser: Any, codec: Any) -> str:
    """Return which network "auto" stands for: "unet" for images, "mlp" for everything else.

    Raises
    ------
    ValueError
        If a U-Net is asked for, and the data are not images.
    """
    if callable(denoiser):
        return "custom"
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
    return dict(getattr(codec, "layout_", {"kind": "columns"}))


def waves_of(codec: Any, n_continuous: int, n_rows: int) -> int:
    """Return the number of waves of each number that an MLP sees: for tables of many rows; see `FourierFeatures`.

    Few rows are smooth to the network, and short fits to them draw a little too widely with waves.
    """
    return min(FREQUENCIES, MAX_WAVES // max(n_continuous, 1)) if _is_large_table(codec, n_rows) else 0


def embedding_size_of(codec: Any, n_levels: Sequence[int], n_rows: int) -> int:
    """Return the entries of the embedding of a level: more for large tables with columns of hundreds of levels."""
    wanted = _is_large_table(codec, n_rows) and max(n_levels, default=0) > MANY_LEVELS
    return LARGE_EMBEDDING_SIZE if wanted and len(n_levels) * LARGE_EMBEDDING_SIZE <= MAX_EMBEDDED else EMBEDDING_SIZE


def sizes_of(network: str, codec: Any, n_rows: int) -> Sizes:
    """Return the width and depth that "auto" stands for."""
    large, small = SIZES.get(network, SIZES["mlp"])
    return large if _is_large_table(codec, n_rows) else small


def _is_large_table(codec: Any, n_rows: int) -> bool:
    return hasattr(codec, "mask_of_") and n_rows >= LARGE_ROWS


def resolve_conditioning(asked: str, network: str, vectors: Sequence[VectorColumns]) -> str:
    """Return how the condition enters a network; "auto" is AdaLN, and cross-attention for tokens where there is some.

    Raises
    ------
    ValueError
        For a way that the network does not have.
    """
    if asked == "auto":
        return "cross_attention" if network == "dit" and any(v[2] > 1 for v in vectors) else "adaln"
    if network == "mlp" and asked not in MLP_CONDITIONING:
        raise ValueError(
            f"conditioning={asked!r} needs attention, which the MLP has not; use denoiser='dit', or one of "
            f"{MLP_CONDITIONING}."
        )
    return asked


def make_network(spec: ModelSpec, n_outputs: int, condition_size: int, n_given: int) -> nn.Module:
    """Build the network of a specification, its weights drawn from torch's generator.

    Parameters
    ----------
    spec : ModelSpec
    n_outputs : int
        Width of its output.
    condition_size : int
        Width of the embedded condition, 0 for none.
    n_given : int
        Number of columns that it is told are given, 0 for a network that is told nothing.
    """
    shared: dict[str, Any] = {
        "n_blocks": spec.n_blocks,
        "dropout": spec.dropout,
        "conditioning": spec.conditioning,
        "time_embedding": spec.time_embedding,
    }
    if spec.network == "unet":
        return UNet(condition_size=condition_size, dropout=spec.dropout, **(spec.unet or {}))
    if spec.network != "dit":
        return ResidualMLP(
            spec.width,
            n_outputs,
            condition_size,
            hidden_size=spec.hidden_size,
            given_size=spec.width + 2 * n_given if n_given else 0,
            n_exact=spec.n_continuous,
            n_waved=spec.n_continuous if spec.n_frequencies else 0,
            n_frequencies=spec.n_frequencies,
            **shared,
        )
    return DiT(_make_tokens(spec, n_given), condition_size, **shared)


def _make_tokens(spec: ModelSpec, n_given: int) -> ColumnTokens | PatchTokens | SequenceTokens:
    layout = spec.layout
    if layout["kind"] == "sequence":
        levels = len(spec.frequencies[0])
        return SequenceTokens(
            len(spec.frequencies),
            levels,
            spec.hidden_size,
            embedding_size=spec.embedding_size,
            stride=-(-len(spec.frequencies) // MAX_TOKENS),
        )
    if layout["kind"] == "patches":
        return PatchTokens(layout["shape"], spec.hidden_size, patch=layout["patch"])
    return ColumnTokens(
        spec.n_continuous,
        [len(f) for f in spec.frequencies],
        spec.hidden_size,
        embedding_size=spec.embedding_size,
        given=n_given > 0,
        max_tokens=LATENT_TOKENS if layout["kind"] == "latent" else MAX_TOKENS,
    )
