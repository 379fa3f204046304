"""Small real data sets that need no download."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from anndata import AnnData

__all__ = ["load_pbmc68k_counts", "load_penguins"]


def load_penguins() -> pd.DataFrame:
    """Load the Palmer penguins: a small table of mixed types with missing values.

    Measurements of 344 penguins of three species on three Antarctic islands (Horst, Hill and Gorman 2020;
    data by Gorman, Williams and Fraser 2014; CC0). The 19 missing cells are kept: 11 sexes, and all four
    measurements of two birds.

    Returns
    -------
    penguins : DataFrame, shape (344, 8)
        ``species``, ``island``, ``sex`` (category), ``bill_length_mm``, ``bill_depth_mm`` (float64),
        ``flipper_length_mm``, ``body_mass_g`` (Int64, which can hold missing values) and ``year`` (int64,
        2007 to 2009).

    Examples
    --------
    >>> from tabdiff.datasets import load_penguins
    >>> penguins = load_penguins()
    >>> penguins.shape
    (344, 8)
    >>> penguins["species"].value_counts().to_dict()
    {'Adelie': 152, 'Gentoo': 124, 'Chinstrap': 68}
    """
    dtypes = {
        "species": "category",
        "island": "category",
        "bill_length_mm": "float64",
        "bill_depth_mm": "float64",
        "flipper_length_mm": "Int64",
        "body_mass_g": "Int64",
        "sex": "category",
        "year": "int64",
    }
    with files("tabdiff.datasets").joinpath("data/penguins.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file, dtype=dtypes)


def load_pbmc68k_counts() -> AnnData:
    """Load 700 blood cells × 765 genes as counts, from the file that ships with scanpy.

    A subset of the 68k peripheral blood mononuclear cells of Zheng et al. (2017, Massively parallel digital
    transcriptional profiling of single cells). Scanpy's file holds log-normalised values; the counts are recovered
    from them and each cell's total, within 0.08 of an integer before rounding.

    Returns
    -------
    adata : AnnData, shape (700, 765)
        Counts in ``X`` (CSR, int32), the cell type in ``obs["bulk_labels"]`` (10 categories), the cells' total
        over all genes in ``obs["n_counts"]``.

    Examples
    --------
    >>> from tabdiff.datasets import load_pbmc68k_counts
    >>> adata = load_pbmc68k_counts()
    >>> adata.shape, adata.obs["bulk_labels"].nunique()
    ((700, 765), 10)
    """
    import warnings

    import numpy as np
    from anndata import AnnData
    from scipy import sparse

    with warnings.catch_warnings():
        # The file predates the current AnnData format, which is no concern of the caller.
        warnings.simplefilter("ignore")
        import scanpy

        source = scanpy.datasets.pbmc68k_reduced()
    total = source.obs["n_counts"].to_numpy(dtype=np.float64)
    normalised = sparse.csr_matrix(source.raw.X).astype(np.float64)
    normalised.data = np.expm1(normalised.data)
    counts = sparse.csr_matrix(sparse.diags(total / 1e4) @ normalised)
    counts.data = np.rint(counts.data)
    counts.eliminate_zeros()
    return AnnData(
        counts.astype(np.int32),
        obs=source.obs[["bulk_labels", "n_counts"]].copy(),
        var=source.raw.var[[]].copy(),
    )
