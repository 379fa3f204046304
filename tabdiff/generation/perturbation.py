"""Cells under another condition: which of them are controls, and what the condition changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tabdiff.evaluation import log_normalize
from tabdiff.utils.validation import did_you_mean

if TYPE_CHECKING:
    from anndata import AnnData

    from tabdiff.model.fitted import FittedModel

__all__ = ["add_effect", "control_cells"]

CONTROLS = frozenset(
    "ctrl control controls vehicle unstimulated unperturbed untreated non-targeting nontargeting dmso mock wt".split()
)


def control_cells(model: FittedModel, adata: AnnData, condition: Mapping[Any, Any], control: Any) -> AnnData:
    """Return the cells that a perturbation starts from.

    Parameters
    ----------
    model : FittedModel
        Of cells, with conditions.
    adata : AnnData
        Cells.
    condition : mapping
        What they are to be under, by name.
    control : mapping, optional
        Columns of obs and the value of the controls there. By default all cells, where they have one value of each of
        these conditions; else those whose value is named like a control, or is a dose of 0.

    Raises
    ------
    ValueError
        For columns or values that there are not, and where no control can be found.
    """
    obs = adata.obs
    if control is not None:
        if not isinstance(control, Mapping):
            raise ValueError(f"control must be a dict from columns of obs to a value; got {control!r:.60}.")
        keep = np.ones(adata.n_obs, dtype=bool)
        for name, value in control.items():
            if name not in obs:
                hint = did_you_mean(str(name), [str(column) for column in obs.columns])
                raise ValueError(f"control names {name!r}, which adata.obs lacks.{hint} Columns: {list(obs.columns)}.")
            keep &= np.asarray(obs[name] == value)
        if not keep.any():
            raise ValueError(f"control must name cells that are there; got {dict(control)!r:.80}, and no cell is that.")
        return adata[keep].copy()
    keep = np.ones(adata.n_obs, dtype=bool)
    known = [] if model.conditions is None else model.conditions.names
    for name in [name for name in condition if name in known and name in obs]:
        values = obs[name]
        if values.nunique(dropna=False) < 2:
            continue
        of_control = _is_control(values)
        if not of_control.any():
            raise ValueError(
                f"control must say which cells to start from, since {name!r} has {values.nunique()} values and none is "
                f"named like a control; got None. Pass control={{{name!r}: {values.iloc[0]!r}}}, or only control cells."
            )
        keep &= of_control
    if not keep.any():
        raise ValueError(f"control must be given: no cell is a control in all of {list(condition)}.")
    return adata[keep].copy()


def _is_control(values: pd.Series) -> np.ndarray:
    if pd.api.types.is_numeric_dtype(values.dtype) and not pd.api.types.is_bool_dtype(values.dtype):
        return np.asarray(values == 0)
    return np.asarray(values.astype(str).str.lower().isin(CONTROLS))


def add_effect(drawn: AnnData, given: Any, n_top_genes: int) -> None:
    """Write what a condition changes into drawn cells.

    ``var["effect"]`` is the difference of the mean log-normalised expression (log1p of counts per ten thousand; values
    that are no counts as they are) between them and the matrix `given` (n, n_genes), and ``uns["tabdiff"]``'s
    "top_genes" are those where it is largest, up or down.
    """
    effect = log_normalize(drawn.X).mean(axis=0) - log_normalize(given).mean(axis=0)
    drawn.var["effect"] = np.asarray(effect, dtype=np.float32)
    top = np.argsort(-np.abs(effect), kind="stable")[:n_top_genes]
    drawn.uns["tabdiff"]["top_genes"] = np.asarray(drawn.var_names[top], dtype=object)
