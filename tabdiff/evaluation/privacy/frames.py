"""Cells and images as tables of principal components, in which an audit looks for neighbours."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA

from tabdiff.codecs import is_anndata
from tabdiff.evaluation.expression import log_normalize
from tabdiff.evaluation.frames import check_frames
from tabdiff.io.expression import find_expression
from tabdiff.io.images import read_images

__all__ = ["as_frames"]

N_COMPONENTS = 30


def as_frames(synthetic: Any, train: Any, holdout: Any) -> tuple[list[pd.DataFrame], str]:
    """Return the three as frames of the same columns, and what the columns are: "table", "cells" or "images".

    Raises
    ------
    TypeError
        If they are of several kinds, or of none that is known.
    """
    given = {"train": train, "synthetic": synthetic, "holdout": holdout}
    if any(is_anndata(value) for value in given.values()):
        other = next((name for name, value in given.items() if not is_anndata(value)), None)
        if other is not None:
            raise TypeError(f"{other} is a {type(given[other]).__name__}, but others are AnnData; give AnnData.")
        arrays = [log_normalize(find_expression(value, None)[0]) for value in given.values()]
        return _components(arrays), "cells"
    images = [read_images(value, name) for name, value in given.items()]
    if all(found is not None for found in images):
        return _components([f.array().reshape(len(f), -1) for f in images if f is not None]), "images"
    frames = check_frames(real=train, called="train", synthetic=synthetic, holdout=holdout)
    return [frame.reset_index(drop=True) for frame in frames], "table"


def _components(arrays: list[np.ndarray]) -> list[pd.DataFrame]:
    """Principal components of all: fitted on one alone, they would hold its noise and set it apart."""
    widths = {a.shape[1] for a in arrays}
    if len(widths) > 1:
        raise ValueError(f"train, synthetic and holdout must have the same genes or pixels; got {sorted(widths)}.")
    both = np.concatenate(arrays).astype(np.float64)
    k = min(N_COMPONENTS, *both.shape)
    places = PCA(k, svd_solver="randomized", random_state=0).fit_transform(both)
    ends = np.cumsum([len(a) for a in arrays])[:-1]
    return [pd.DataFrame(part, columns=[f"component {j + 1}" for j in range(k)]) for part in np.split(places, ends)]
