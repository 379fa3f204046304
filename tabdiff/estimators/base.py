"""What the estimators around a generator share: the generator that they clone and fit."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.utils import check_random_state

from tabdiff.codecs import is_anndata
from tabdiff.codecs.sequences import read_sequences
from tabdiff.estimators.generator import DiffusionGenerator
from tabdiff.io.images import looks_like_images
from tabdiff.utils.array_likes import as_known

__all__ = ["clone_generator", "refuse_all_but_tables"]


def clone_generator(generator: Any, random_state: Any, defaults: dict[str, Any]) -> DiffusionGenerator:
    """Return an unfitted generator of one's own.

    Parameters
    ----------
    generator : DiffusionGenerator or None
        What to clone; None makes one with `defaults`.
    random_state : int, RandomState or None
        Takes the place of the generator's own, unless it is None.
    defaults : dict
        Parameters for ``generator=None``.

    Raises
    ------
    TypeError
        If it is something else.
    """
    if generator is not None and not isinstance(generator, DiffusionGenerator):
        given = f"the class {generator.__name__}" if isinstance(generator, type) else repr(generator)
        raise TypeError(f"generator must be a DiffusionGenerator or None; got {given:.80}.")
    own = DiffusionGenerator(**defaults) if generator is None else clone(generator)
    if random_state is not None:
        own.set_params(random_state=int(check_random_state(random_state).randint(np.iinfo(np.int32).max)))
    return own


def refuse_all_but_tables(X: Any, what: str) -> None:
    """Raise a TypeError for an AnnData, for images and for sequences, and for what no estimator takes.

    Parameters
    ----------
    X : object
        What was given.
    what : str
        Who refuses it.
    """
    X = as_known(X)
    if is_anndata(X):
        raise TypeError(f"{what} takes arrays and DataFrames; got AnnData. Pass adata.to_df() or adata.obsm[...].")
    if looks_like_images(X):
        raise TypeError(
            f"{what} takes arrays (n, d) and DataFrames; got images. Pass rows of pixels, X.reshape(len(X), -1), "
            "or use DiffusionGenerator itself."
        )
    if read_sequences(X) is not None:
        raise TypeError(f"{what} takes arrays and DataFrames; got sequences ({type(X).__name__} of strings).")
