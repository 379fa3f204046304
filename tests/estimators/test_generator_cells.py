import copy
import warnings

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from tabdiff import DiffusionGenerator


@pytest.fixture(scope="module")
def adata():
    rng = np.random.default_rng(0)
    n, genes = 120, 30
    cell_type = rng.choice(["B cell", "T cell"], size=n)
    dose = rng.choice([0.0, 1.0, 10.0], size=n)
    rate = np.exp(rng.normal(size=genes)) * np.where((cell_type == "B cell")[:, None], np.arange(genes) < 15, 1.0)
    counts = rng.poisson(rate * (1 + dose[:, None] / 10))
    obs = pd.DataFrame(
        {
            "cell_type": pd.Categorical(cell_type, categories=["unused", "T cell", "B cell"]),
            "batch": np.where(rng.random(n) < 0.5, "one", "two"),
            "dose": dose,
        },
        index=[f"cell{i}" for i in range(n)],
    )
    var = pd.DataFrame({"chromosome": pd.Categorical(["1", "X"] * 15)}, index=[f"gene{j}" for j in range(genes)])
    return anndata.AnnData(sparse.csr_matrix(counts.astype(np.float32)), obs=obs, var=var)


def quick(**kwargs):
    return DiffusionGenerator(**{"max_steps": 20, "hidden_size": 32, "n_blocks": 1, "random_state": 0, **kwargs})


@pytest.fixture(scope="module")
def fitted(adata):
    return quick().fit(adata, condition=["cell_type", "dose"])


@pytest.mark.slow
def test_fit_and_sample_as_a_biologist_types_it(adata):
    gen = quick().fit(adata, condition="cell_type")
    cells = gen.sample(30, condition="B cell")
    assert isinstance(cells, anndata.AnnData) and cells.shape == (30, 30)
    assert sparse.issparse(cells.X) and cells.X.format == "csr" and cells.X.dtype == np.int32 and cells.X.min() >= 0
    assert list(cells.obs["cell_type"]) == ["B cell"] * 30
    assert list(cells.obs["cell_type"].cat.categories) == ["unused", "T cell", "B cell"]
    assert list(cells.var_names) == list(adata.var_names)
    pd.testing.assert_frame_equal(cells.var, adata.var)
    assert cells.obs_names[0] == "synthetic-0" and cells.obsm["X_tabdiff"].shape[0] == 30
    assert cells.uns["tabdiff"]["guidance_scale"] == 1.0
    # B cells lack the second half of the genes.
    assert cells.X[:, 15:].sum() < 0.05 * cells.X[:, :15].sum()


@pytest.mark.slow
def test_a_dose_that_was_never_measured(fitted):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cells = fitted.sample(20, condition={"cell_type": "T cell", "dose": 5.0})
    assert np.allclose(cells.obs["dose"], 5.0) and (cells.obs["cell_type"] == "T cell").all()
    with pytest.warns(UserWarning, match=r"dose.*outside"):
        fitted.sample(2, condition={"cell_type": "T cell", "dose": 500.0})


def test_composition_is_drawn_or_exact(fitted, adata):
    drawn = fitted.sample(400).obs["cell_type"].value_counts(normalize=True)
    real = adata.obs["cell_type"].value_counts(normalize=True)
    assert abs(drawn["B cell"] - real["B cell"]) < 0.1
    exact = fitted.sample(condition={"cell_type": {"B cell": 7, "T cell": 3}}).obs["cell_type"].value_counts()
    assert exact["B cell"] == 7 and exact["T cell"] == 3


@pytest.mark.slow
def test_strings_in_obs_come_back_as_categories_and_files_open(adata, tmp_path):
    cells = quick().fit(adata, condition="batch").sample(10)
    assert list(cells.obs["batch"].cat.categories) == ["one", "two"]
    cells.write_h5ad(tmp_path / "cells.h5ad")
    again = anndata.read_h5ad(tmp_path / "cells.h5ad")
    assert (again.X != cells.X).nnz == 0


@pytest.mark.slow
def test_views_backed_files_and_layers_work_and_stay_as_they_are(adata, tmp_path):
    adata.write_h5ad(tmp_path / "a.h5ad")
    backed = anndata.read_h5ad(tmp_path / "a.h5ad", backed="r")
    layered = adata.copy()
    layered.layers["counts"] = layered.X.copy()
    layered.X = layered.X.log1p()
    before = copy.deepcopy(layered)
    for given in (adata[:60], backed, layered):
        cells = quick(max_steps=2).fit(given, condition="cell_type").sample(5)
        assert cells.X.dtype == np.int32
    assert (layered.X != before.X).nnz == 0
    pd.testing.assert_frame_equal(layered.obs, before.obs)


def test_continuous_expression(adata):
    logged = adata.copy()
    logged.X = logged.X.log1p()
    with pytest.warns(UserWarning, match="X looks log-transformed.*layers") as caught:
        gen = quick().fit(logged, condition="cell_type")
    assert caught[0].filename == __file__  # it points at the line of the user
    assert gen.schema_["kind"][0] == "continuous"
    assert np.issubdtype(gen.sample(5).X.dtype, np.floating)


def test_saved_models_draw_the_same_cells(fitted, tmp_path):
    fitted.save(tmp_path / "m")
    other = DiffusionGenerator.load(tmp_path / "m")
    a, b = (g.sample(8, random_state=3) for g in (fitted, other))
    assert (a.X != b.X).nnz == 0
    pd.testing.assert_frame_equal(a.obs, b.obs)
    pd.testing.assert_frame_equal(a.var, b.var)


def test_bad_input_says_what_and_where(adata, fitted):
    with pytest.raises(ValueError, match=r"'celltype'.*obs lacks.*Did you mean 'cell_type'"):
        quick().fit(adata, condition="celltype")
    with pytest.raises(ValueError, match=r"0 cells"):
        quick().fit(adata[:0])
    broken = adata.copy()
    broken.X = broken.X.toarray()
    broken.X[3, 7] = np.nan
    with pytest.raises(ValueError, match="gene7"):
        quick().fit(broken)
    with pytest.raises(ValueError, match="layer"):
        quick(layer="spliced").fit(adata)
    with pytest.raises(ValueError, match="for AnnData"):
        quick(layer="counts").fit(np.ones((5, 2)))
    with pytest.raises(TypeError, match="not available for AnnData"):
        fitted.score_samples(adata)
    with pytest.raises(TypeError, match="fitted on an AnnData"):
        fitted.score_samples(np.ones((3, 30)))


@pytest.mark.slow
def test_counts_of_half_precision_give_no_warning():
    counts = np.random.default_rng(0).poisson(1, (40, 6)).astype(np.float16)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        gen = DiffusionGenerator(max_steps=2, hidden_size=8, random_state=0).fit(anndata.AnnData(counts))
    assert gen.sample(3).X.dtype == np.int32
