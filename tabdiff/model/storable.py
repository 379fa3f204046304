"""What a model file can hold, checked before the training."""

from __future__ import annotations

from typing import Any

import pandas as pd

from tabdiff.codecs import is_anndata
from tabdiff.codecs.columns import is_storable
from tabdiff.codecs.conditions.conditions import Conditions
from tabdiff.io.modalities import Modalities
from tabdiff.io.serialization import pack

__all__ = ["check_labels", "check_describable"]


def check_labels(features: Any) -> None:
    """Raise a TypeError before a fit for names of columns, or annotations of genes, that `save` could not store.

    Parameters
    ----------
    features : ndarray, DataFrame, AnnData, Modalities, Images or Series
        What is modelled.
    """
    if isinstance(features, pd.DataFrame):
        for name in features.columns:
            if not (is_storable(name) or name != name):
                raise TypeError(
                    f"names of columns must be strings, numbers, dates or tuples of such; got {name!r:.80} of type "
                    f"{type(name).__name__}. Rename them: X.columns = X.columns.map(str)."
                )
    elif is_anndata(features):
        _check_var(features, "adata")
    elif isinstance(features, Modalities):
        for key, adata in features.mod.items():
            _check_var(adata, f"mdata[{key!r}]")


def _check_var(adata: Any, what: str) -> None:
    for name in adata.var.columns:
        try:
            pack(adata.var[name], {})
        except TypeError as error:
            raise TypeError(
                f"{what}.var[{name!r}] must hold numbers, text, dates or categories, which a model can be saved "
                f"with; got {adata.var[name].iloc[0]!r:.80}. Make it text, {what}.var[{name!r}] = "
                f"{what}.var[{name!r}].astype(str), or drop it."
            ) from error


def check_describable(codec: Any, conditions: Conditions | None) -> None:
    """Raise a TypeError, before the training, if `save` could not store what was read of the data."""
    try:
        pack({"codec": codec.state(), "conditions": conditions.state() if conditions is not None else None}, {})
    except TypeError as error:
        raise TypeError(f"a model of these data could not be saved, so it is not fitted: {error}") from error
