"""The cells that the benchmarks are run on: sets, which genes are taken, which columns name the type, halves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from anndata import AnnData

BUNDLED = "pbmc68k_reduced"


@dataclass(frozen=True)
class CellSet:
    """A set of cells.

    Parameters
    ----------
    types : tuple of str
        The obs columns that name the type; several are crossed.
    genes : int, optional
        How many of the most variable genes are taken; None takes all.
    """

    types: tuple[str, ...]
    genes: int | None = None


SETS = {
    BUNDLED: CellSet(("bulk_labels",)),
    "pbmc3k": CellSet(("cell_type",), genes=2000),
    "kang_ifnb": CellSet(("cell_type", "condition")),
    "pancreas_endocrinogenesis": CellSet(("cell_type",)),
    "sciplex_a549_dex": CellSet(("dose_level",)),
    "celegans_embryo_neurons": CellSet(("cell_type",), genes=2000),
    "celegans_l2_neurons": CellSet(("cell_type",)),
}


def most_variable(adata: AnnData, n_genes: int) -> AnnData:
    """Keep the genes with the largest dispersion for their mean, in their order."""
    import scanpy as sc

    scaled = adata.copy()
    scaled.X = scaled.X.astype(np.float32)
    sc.pp.normalize_total(scaled, target_sum=1e4)
    sc.pp.log1p(scaled)
    chosen = sc.pp.highly_variable_genes(scaled, n_top_genes=n_genes, inplace=False)["highly_variable"]
    return adata[:, chosen.to_numpy()].copy()


def load_set(loader: Any, name: str, genes: int | None = None) -> AnnData:
    """Counts in X and the columns of the type and of every condition in obs; cells without a count are left out.

    `genes` overrules how many genes are taken, for trying things out.
    """
    if name == BUNDLED:
        from tabdiff.datasets import load_pbmc68k_counts

        adata = load_pbmc68k_counts()
    else:
        adata = loader.load_cells(name)
    for layer in list(adata.layers):
        del adata.layers[layer]
    n_genes = genes or SETS[name].genes
    if n_genes is not None and n_genes < adata.n_vars:
        adata = most_variable(adata, n_genes)
    counted = np.asarray(adata.X.sum(axis=1)).ravel() > 0
    return adata[counted].copy()


def catalogue(loader: Any) -> pd.DataFrame:
    """What there is: cells and genes of the source, genes taken, columns of the type."""
    known = loader.catalogue()["cells"]
    rows = []
    for name, one in SETS.items():
        found = {"cells": 700, "genes": 765} if name == BUNDLED else known[name]
        rows.append([name, found["cells"], found["genes"], one.genes or found["genes"], " × ".join(one.types)])
    rows += [
        [name, found["cells"], found["genes"], 0, "not counts, left out"]
        for name, found in known.items()
        if not found["raw_counts"]
    ]
    return pd.DataFrame(rows, columns=["set", "cells", "genes", "genes taken", "type"])


def labels(obs: pd.DataFrame, types: tuple[str, ...]) -> np.ndarray:
    return np.asarray(obs[list(types)].astype(str).agg(" / ".join, axis=1))


def random_halves(adata: AnnData, types: tuple[str, ...], seed: int) -> tuple[AnnData, AnnData]:
    """Two random halves of each type; the second has no type that the first lacks."""
    of = labels(adata.obs, types)
    order = np.lexsort((np.random.default_rng(seed).random(len(of)), of))
    first = np.zeros(len(of), dtype=bool)
    first[order[::2]] = True
    return adata[first].copy(), adata[~first & np.isin(of, of[first])].copy()
