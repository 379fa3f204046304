"""The genes of a fit and those of other cells: matched by name, in any order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from anndata import AnnData

__all__ = ["align", "match"]


def align(adata: AnnData, genes: np.ndarray, var: pd.DataFrame, modality: str | None = None) -> AnnData:
    """Cells with the genes of a fit in their order.

    Parameters
    ----------
    adata : AnnData
        With these genes in any order.
    genes : object array (n_genes,)
        Names of the genes of the fit.
    var : DataFrame of n_genes rows
        What the fit knows of them, for a hint where other identifiers are used.
    modality : str, optional
        Name of the modality of a MuData that they are, for errors.

    Raises
    ------
    ValueError
        For genes that are missing, that the fit did not have, or whose names repeat.
    """
    if np.array_equal(np.asarray(adata.var_names, dtype=object), genes):
        return adata
    places = match(adata, genes, var, modality)
    if (places < 0).any():
        missing = [str(gene) for gene in genes[places < 0]]
        cells = "adata" if modality is None else "mdata"
        raise ValueError(
            f"{_called(modality)} lacks {len(missing)} of the {len(genes)} genes of the fit, such as {missing[:3]}. "
            f"Give the cells that gen.impute({cells}) returns, in which these are drawn given the others."
        )
    return adata[:, places]


def match(adata: AnnData, genes: np.ndarray, var: pd.DataFrame, modality: str | None = None) -> np.ndarray:
    """Position (n_genes,) of each gene of a fit in other cells, -1 where they lack it; see `align`.

    Raises
    ------
    ValueError
        For genes that the fit did not have, if there is none that it had, or for names that repeat.
    """
    given, known, name = adata.var_names, pd.Index(genes), _called(modality)
    if given.equals(known):
        return np.arange(len(genes))
    if known.has_duplicates:
        raise ValueError(
            f"{name} must have the genes of the fit in their order, since names of these repeat, such as "
            f"{_some(known[known.duplicated()])}. Fit again after adata.var_names_make_unique() to give them in any."
        )
    if given.has_duplicates:
        raise ValueError(
            f"{name} must have unique names of genes, by which they are matched; got {_some(given[given.duplicated()])}"
            f" more than once. Use {name}.var_names_make_unique()."
        )
    places = given.get_indexer(known)
    if (places < 0).all():
        raise ValueError(
            f"{name} lacks {len(genes)} of the {len(genes)} genes of the fit, such as {_some(known)}; it has "
            f"{_some(given)}.{_other_names(adata, known, var, modality)}"
        )
    others = given[~given.isin(known)]
    if len(others):
        start, end = ("", "") if modality is None else (f"mdata.mod[{modality!r}] = ", ".copy(); mdata.update()")
        raise ValueError(
            f"{name} must have genes of the fit alone; got {len(others)} others, such as {_some(others)}. Leave them "
            f"out: {start}{name}[:, {name}.var_names.isin({_fit_var(modality)}.index)]{end}."
        )
    return places


def _some(names: Any) -> list[str]:
    return [str(name) for name in names[:3]]


def _called(modality: str | None) -> str:
    return "adata" if modality is None else f"mdata[{modality!r}]"


def _fit_var(modality: str | None) -> str:
    """Where the fit's ``var`` is, for lines to type."""
    return "gen.codec_.var_" if modality is None else f"gen.codec_.vars_[{modality!r}]"


def _other_names(adata: AnnData, known: pd.Index, var: pd.DataFrame, modality: str | None) -> str:
    """A hint if the genes are there under names of another kind, which columns of var hold."""
    name, own = _called(modality), _fit_var(modality)
    for column in adata.var.columns:
        if known.isin(adata.var[column].astype(object)).any():
            return f" Its {name}.var[{column!r}] has these: {name}.var_names = {name}.var[{column!r}].astype(str)."
    for column in var.columns:
        if pd.Index(var[column].astype(object)).isin(adata.var_names).any():
            names = f"dict(zip({own}[{column!r}], {own}.index))"
            return f" Those are the fit's {column!r}: {name}.var_names = {name}.var_names.map({names})."
    return ""
