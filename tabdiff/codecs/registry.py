"""Which codec is for which container, and under which name a model file keeps it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from tabdiff.codecs.cells.codec import CellCodec
from tabdiff.codecs.images.codec import ImageCodec
from tabdiff.codecs.images.latent import LatentImageCodec
from tabdiff.codecs.sequences import SequenceCodec
from tabdiff.codecs.tables.array import ArrayCodec
from tabdiff.codecs.tables.codec import TableCodec
from tabdiff.io.images import Images

__all__ = ["CODECS", "codec_name", "container_name", "is_anndata", "make_codec"]

CODECS: dict[str, Any] = {
    "array": ArrayCodec,
    "table": TableCodec,
    "cells": CellCodec,
    "latent_images": LatentImageCodec,
    "images": ImageCodec,
    "sequences": SequenceCodec,
}


def is_anndata(X: Any) -> bool:
    """Whether X is an AnnData, told without importing anndata."""
    return any(t.__name__ == "AnnData" and t.__module__.startswith("anndata") for t in type(X).__mro__)


def make_codec(
    X: Any,
    *,
    categorical_features: Any = "auto",
    layer: str | None = None,
    dependencies: bool = True,
    constraints: Any = None,
    augment: Any = None,
    latent_diffusion: bool = False,
) -> Any:
    """Return the unfitted codec for a container: ndarray, DataFrame, AnnData, images or a Series of sequences.

    Raises
    ------
    ValueError
        If `layer` is given without an AnnData, `constraints` without a DataFrame, or `augment` or `latent_diffusion`
        without images.
    TypeError
        For another container.
    """
    if constraints is not None and len(constraints) and not isinstance(X, pd.DataFrame):
        raise ValueError(
            f"constraints={constraints!r} name columns, so X must be a DataFrame, however: {type(X).__name__}."
        )
    if augment is not None and not isinstance(X, Images):
        raise ValueError(f"augment={augment!r} is for images, but X is a {type(X).__name__}.")
    if latent_diffusion and not isinstance(X, Images):
        raise ValueError(f"latent_diffusion=True is for images, but X is a {type(X).__name__}.")
    if is_anndata(X):
        return CellCodec(layer=layer)
    if layer is not None:
        raise ValueError(f"layer={layer!r} is for AnnData, but X is a {type(X).__name__}.")
    if isinstance(X, Images):
        return LatentImageCodec(augment) if latent_diffusion else ImageCodec(augment)
    if isinstance(X, pd.DataFrame):
        return TableCodec(categorical_features=categorical_features, dependencies=dependencies, constraints=constraints)
    if isinstance(X, pd.Series):
        return SequenceCodec()
    if isinstance(X, np.ndarray):
        return ArrayCodec(categorical_features=categorical_features)
    raise TypeError(f"X must be an array, a DataFrame or an AnnData, however: {type(X).__name__}.")


def codec_name(codec: Any) -> str:
    """Return the name of a codec in `CODECS`."""
    return next(name for name, kind in CODECS.items() if type(codec) is kind)


def container_name(codec: Any) -> str:
    """Return what a codec is for: "array", "table", "cells", "images" or "sequences"."""
    name = codec_name(codec)
    return "images" if name == "latent_images" else name
