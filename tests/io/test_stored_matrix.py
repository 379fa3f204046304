"""Matrices in files give the rows, sums and fits that those in memory give."""

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from tabdiff import DiffusionGenerator
from tabdiff.io import expression
from tabdiff.io.stored_matrix import StoredMatrix


def counts(n=300, genes=40, seed=0):
    rng = np.random.default_rng(seed)
    return sparse.csr_matrix(
        rng.poisson(rng.lognormal(0, 1, genes), (n, genes)) * (rng.random((n, genes)) < 0.5)
    ).astype(np.float32)


@pytest.mark.parametrize("genes", [40, 70_000])
def test_rows_in_any_order(genes):
    matrix = sparse.random(200, genes, density=0.05 if genes < 100 else 0.0005, format="csr", random_state=0)
    matrix = matrix.astype(np.float32)
    stored = StoredMatrix(matrix)
    rng = np.random.default_rng(0)
    for rows in (
        slice(0, 50),
        slice(190, 400),
        slice(5, 5),
        slice(None, None, 7),
        rng.integers(200, size=90),
        rng.random(200) < 0.3,
    ):
        assert (stored[rows] != matrix[rows]).nnz == 0 and stored[rows].shape == matrix[rows].shape
    np.testing.assert_allclose(stored.sum(axis=1), np.asarray(matrix.sum(axis=1)).reshape(-1), rtol=1e-6)
    np.testing.assert_array_equal(stored.max(axis=0), matrix.max(axis=0).toarray().reshape(-1))
    assert stored.max() == matrix.max() and stored.is_sparse and not StoredMatrix(matrix[:3].toarray()).is_sparse
    assert (stored.to_memory() != matrix).nnz == 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["counts", "log"])
def test_a_backed_fit_is_that_of_memory(tmp_path, monkeypatch, kind):
    matrix = counts() if kind == "counts" else counts().log1p()
    adata = anndata.AnnData(matrix, obs=pd.DataFrame({"t": ["a", "b", "c"] * 100}, index=[f"c{i}" for i in range(300)]))
    adata.write_h5ad(tmp_path / "cells.h5ad")
    settings = {"max_steps": 5, "hidden_size": 8, "n_blocks": 1, "random_state": 0}
    settings |= {"layer": "X"} if kind == "log" else {}
    a = DiffusionGenerator(**settings).fit(adata, condition="t").sample(30, random_state=0)
    monkeypatch.setattr(expression, "MEMORY_VALUES", 1000)
    made = []
    real = expression.StoredMatrix.__init__
    monkeypatch.setattr(expression.StoredMatrix, "__init__", lambda self, m: (made.append(1), real(self, m))[1])
    backed = anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    b = DiffusionGenerator(**settings).fit(backed, condition="t").sample(30, random_state=0)
    assert made == [1]  # for fit and encode together
    np.testing.assert_array_equal(
        a.X.toarray() if sparse.issparse(a.X) else a.X, b.X.toarray() if sparse.issparse(b.X) else b.X
    )
    size = len(expression._stored)
    backed.file.close()
    del backed
    import gc

    gc.collect()
    assert len(expression._stored) < size  # the file goes with the AnnData


def test_a_disk_that_is_full_is_told(monkeypatch):
    class Full:
        def write(self, content):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("tabdiff.io.stored_matrix.tempfile.TemporaryFile", lambda **_: Full())
    with pytest.raises(OSError, match=r"No space left on device.*TMPDIR"):
        StoredMatrix(counts())


@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
@pytest.mark.slow
def test_paths_of_cells_are_fitted(tmp_path, monkeypatch, kind):
    obs = pd.DataFrame({"t": ["a", "b", "c"] * 100}, index=[f"c{i}" for i in range(300)])
    adata = anndata.AnnData(counts(), obs=obs, layers={"counts": counts()})
    path = tmp_path / f"cells.{kind}"
    adata.write_h5ad(path) if kind == "h5ad" else adata.write_zarr(path)
    settings = {"max_steps": 3, "hidden_size": 8, "n_blocks": 1, "random_state": 0}
    whole = DiffusionGenerator(**settings).fit(adata, condition="t").sample(10, random_state=0)
    monkeypatch.setattr(expression, "MEMORY_VALUES", 1000)
    gen = DiffusionGenerator(**settings).fit(path, condition="t")
    assert (gen.sample(10, random_state=0).X != whole.X).nnz == 0
    with pytest.raises((TypeError, ValueError), match="none"):
        DiffusionGenerator(**settings).fit(tmp_path / f"none.{kind}")
    (tmp_path / "bad.h5ad").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"bad.h5ad cannot be read as AnnData"):
        DiffusionGenerator(**settings).fit(tmp_path / "bad.h5ad")


def test_genes_taken_of_a_file_are_those_of_memory():
    matrix = counts()
    stored = StoredMatrix(matrix)
    genes = np.array([0, 3, 4, 17, 39])
    taken = stored.take_genes(genes)
    assert taken.shape == (300, 5) and stored.shape == (300, 40)
    assert (taken[np.array([5, 2, 9])] != matrix[[5, 2, 9]][:, genes]).nnz == 0
    np.testing.assert_array_equal(taken.sum(axis=1), np.asarray(matrix[:, genes].sum(axis=1)).reshape(-1))
    np.testing.assert_array_equal(taken.max(axis=0), matrix[:, genes].max(axis=0).toarray().reshape(-1))
    assert (stored.to_memory() != matrix).nnz == 0


@pytest.mark.parametrize("kind", ["csr", "dense", "file"])
def test_genes_that_no_cell_counts_cost_nothing_and_come_back_as_zeros(kind):
    inner = counts(n=120, genes=20)
    places = np.sort(np.random.default_rng(0).permutation(400)[:20])
    wide = sparse.csr_matrix((inner.data, places[inner.indices], inner.indptr), shape=(120, 400))
    matrix = {"csr": wide, "dense": wide.toarray(), "file": StoredMatrix(wide)}[kind]
    genes = expression.expressed_genes(matrix)
    np.testing.assert_array_equal(genes, places)
    taken = expression.take_genes(matrix, genes)
    np.testing.assert_array_equal(expression.dense_rows(taken, slice(0, 120)), inner.toarray())
    assert (expression.spread_genes(inner, genes, 400) != wide).nnz == 0
    assert expression.expressed_genes(taken) is None
    assert expression.take_genes(matrix, None) is matrix and expression.spread_genes(inner, None, 20) is inner
