"""Which codec is for which container, and under which name a model file keeps it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import clone

from tabdiff.codecs.base import Codec
from tabdiff.codecs.cells.codec import CellCodec
from tabdiff.codecs.cells.multimodal import MultimodalCodec
from tabdiff.codecs.images.codec import ImageCodec
from tabdiff.codecs.images.latent import LatentImageCodec
from tabdiff.codecs.sequences import SequenceCodec
from tabdiff.codecs.tables.array import ArrayCodec
from tabdiff.codecs.tables.codec import TableCodec
from tabdiff.io.images import Images
from tabdiff.io.modalities import Modalities

__all__ = ["CODECS", "codec_name", "container_name", "is_anndata", "make_codec"]

CODECS: dict[str, Any] = {
    "array": ArrayCodec,
    "table": TableCodec,
    "cells": CellCodec,
    "latent_images": LatentImageCodec,
    "images": ImageCodec,
    "sequences": SequenceCodec,
    "multimodal": MultimodalCodec,
}


def is_anndata(X: Any) -> bool:
    """Whether X is an AnnData, told without importing anndata.

    Parameters
    ----------
    X : object
        Any container.

    Returns
    -------
    bool
        Whether it is one.

    Examples
    --------
    >>> import numpy as np
    >>> from anndata import AnnData
    >>> from tabdiff.codecs import is_anndata
    >>> is_anndata(AnnData(np.ones((2, 3)))), is_anndata(np.ones((2, 3)))
    (True, False)
    """
    return any(t.__name__ == "AnnData" and t.__module__.startswith("anndata") for t in type(X).__mro__)


# Facts about data that are parameters of the estimator too, and what they are where nobody has set them.
FLAT: dict[str, Any] = {"categorical_features": "auto", "constraints": None, "layer": None}


def make_codec(X: Any, codec: Codec | None = None, **flat: Any) -> Any:
    """Return the unfitted codec for a container: ndarray, DataFrame, cells, images or a Series of sequences.

    Parameters
    ----------
    X : ndarray, DataFrame, AnnData, Modalities, Images or Series
        The data, of which only the kind matters here.
    codec : Codec, optional
        One with settings, which is cloned; by default the codec of the container as it comes.
    **flat
        `categorical_features`, `constraints` and `layer`, as the estimator has them.

    Returns
    -------
    Codec
        An unfitted codec.

    Raises
    ------
    ValueError
        If `codec` is for another container; for a setting that is given twice, or that the codec does not have.
    TypeError
        For another container.

    Examples
    --------
    >>> import pandas as pd
    >>> from tabdiff.codecs import make_codec
    >>> make_codec(pd.DataFrame({"a": [1, 2]}))
    TableCodec()
    """
    kinds = _kinds_for(X)
    if codec is not None and type(codec) not in kinds:
        names = " or ".join(f"{kind.__name__}()" for kind in kinds)
        raise ValueError(
            f"codec must be one for X, which is a {_name(X)}; got {codec!r}. Use codec={names}, or leave it out."
        )
    own: Any = kinds[0]() if codec is None else clone(codec)
    for name, value in flat.items():
        if _is_default(name, value):
            continue
        _check_taken(name, value, kinds[0], X)
        inside = getattr(own, name)
        if not _is_default(name, inside) and inside != value:
            raise ValueError(
                f"{name} must be left out where codec has it; got {name}={value!r} beside {codec!r}. Use "
                f"codec={type(own).__name__}({name}={value!r})."
            )
        setattr(own, name, value)
    return own


def _kinds_for(X: Any) -> tuple[type[Codec], ...]:
    """Return the codecs that take a container, that by default first."""
    if is_anndata(X):
        return (CellCodec,)
    if isinstance(X, Modalities):
        return (MultimodalCodec,)
    if isinstance(X, Images):
        return (ImageCodec, LatentImageCodec)
    if isinstance(X, pd.DataFrame):
        return (TableCodec,)
    if isinstance(X, pd.Series):
        return (SequenceCodec,)
    if isinstance(X, np.ndarray):
        return (ArrayCodec,)
    raise TypeError(f"X must be an array, a DataFrame or an AnnData; got {type(X).__name__}.")


def _name(X: Any) -> str:
    return "MuData" if isinstance(X, Modalities) else type(X).__name__


def _is_default(name: str, value: Any) -> bool:
    if name == "constraints" and value is not None and not isinstance(value, str):
        return len(value) == 0
    return value is None if FLAT[name] is None else isinstance(value, str) and value == FLAT[name]


def _check_taken(name: str, value: Any, kind: type[Codec], X: Any) -> None:
    """Raise a ValueError for a fact about data of another kind."""
    if name == "constraints" and kind is not TableCodec:
        raise ValueError(f"constraints={value!r} name columns, so X must be a DataFrame; got {_name(X)}.")
    if name == "layer" and kind is not CellCodec:
        fix = " Copy the counts of each modality, mdata[name].layers['counts'] = ..." if kind is MultimodalCodec else ""
        raise ValueError(f"layer={value!r} is for AnnData, but X is a {_name(X)}.{fix}")
    if name == "categorical_features" and kind not in (TableCodec, ArrayCodec):
        raise ValueError(f"categorical_features={value!r} are columns, but X is a {_name(X)}.")


def codec_name(codec: Any) -> str:
    """Return the name of a codec in `CODECS`.

    Parameters
    ----------
    codec : Codec
        A codec, fitted or not.

    Returns
    -------
    str
        Its name in `CODECS`.

    Examples
    --------
    >>> from tabdiff.codecs import TableCodec, codec_name
    >>> codec_name(TableCodec())
    'table'
    """
    return next(name for name, kind in CODECS.items() if type(codec) is kind)


def container_name(codec: Any) -> str:
    """Return what a codec is for: "array", "table", "cells", "multimodal", "images" or "sequences".

    Parameters
    ----------
    codec : Codec
        A codec, fitted or not.

    Returns
    -------
    str
        The kind of container.

    Examples
    --------
    >>> from tabdiff.codecs import CellCodec, container_name
    >>> container_name(CellCodec())
    'cells'
    """
    name = codec_name(codec)
    return "images" if name == "latent_images" else name
