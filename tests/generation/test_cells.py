import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from tabdiff import DiffusionGenerator


def make(n=150, genes=40, seed=0):
    rng = np.random.default_rng(seed)
    cell_type = rng.choice(["B", "T", "NK"], size=n, p=[0.5, 0.3, 0.2])
    rates = np.exp(np.random.default_rng(9).normal(size=(3, genes)))[pd.Categorical(cell_type).codes]
    depth = rng.lognormal(5.5, 0.4, size=(n, 1))
    x = rng.poisson(rates / rates.sum(axis=1, keepdims=True) * depth)
    obs = pd.DataFrame(
        {"cell_type": pd.Categorical(cell_type), "batch": rng.choice(["one", "two"], size=n), "age": rng.random(n)},
        index=[f"cell{i}" for i in range(n)],
    )
    return anndata.AnnData(
        sparse.csr_matrix(x.astype(np.float32)), obs=obs, var=pd.DataFrame(index=[f"g{j}" for j in range(genes)])
    )


def totals(cells):
    return np.asarray(cells.X.sum(axis=1)).ravel()


@pytest.fixture(scope="module")
def adata():
    return make()


@pytest.fixture(scope="module")
def gen(adata):
    gen = DiffusionGenerator(max_steps=60, hidden_size=32, n_blocks=1, random_state=0)
    return gen.fit(adata, condition=["cell_type", "batch"])


@pytest.mark.slow
def test_obs_gives_conditions_and_stays(gen):
    obs = pd.DataFrame({"donor": ["x", "y", "z"], "cell_type": ["T", "B", "NK"]}, index=["a", "b", "c"])
    before = obs.copy()
    cells = gen.sample(obs=obs, random_state=0)
    assert list(cells.obs_names) == ["a", "b", "c"] and list(cells.obs["donor"]) == ["x", "y", "z"]
    assert list(cells.obs["cell_type"]) == ["T", "B", "NK"] and cells.obs["cell_type"].dtype == "category"
    assert set(cells.obs["batch"]) <= {"one", "two"}
    pd.testing.assert_frame_equal(obs, before)


def test_like_copies_composition_and_depth(gen):
    other = make(n=90, seed=5)
    cells = gen.sample(like=other, random_state=0)
    assert list(cells.obs["cell_type"]) == list(other.obs["cell_type"])
    for key, rows in other.obs.groupby(["cell_type", "batch"], observed=True).indices.items():
        np.testing.assert_array_equal(np.sort(totals(cells)[rows]), np.sort(totals(other)[rows]), err_msg=str(key))
    more = gen.sample(500, like=other, random_state=0)
    share = other.obs["cell_type"].value_counts(normalize=True)
    drawn = more.obs["cell_type"].value_counts(normalize=True)
    assert more.n_obs == 500 and (drawn - share).abs().max() < 0.08
    assert set(totals(more)) <= set(totals(other))


@pytest.mark.parametrize("size", [40, 5000, "array"])
def test_library_size_is_exact(gen, size):
    size = np.arange(20, 60) if size == "array" else size
    cells = gen.sample(40, library_size=size, random_state=0)
    np.testing.assert_array_equal(totals(cells), np.broadcast_to(size, 40))
    assert cells.X.dtype == np.int32


def test_deeper_cells_are_the_same_cells(gen):
    sizes = (20_000, 60, None)
    deep, shallow, own = (gen.sample(60, {"cell_type": "B"}, library_size=s, random_state=1) for s in sizes)
    # Reads are only added or taken away, and the profile stays that of the type.
    assert (deep.X - own.X).min() >= 0 and (own.X - shallow.X).min() >= 0
    profile = [np.asarray(c.X.sum(axis=0)).ravel() / c.X.sum() for c in (deep, own)]
    assert np.corrcoef(*profile)[0, 1] > 0.99


def test_match_draws_totals_of_the_class(gen, adata):
    cells = gen.sample(400, {"cell_type": "T", "batch": "one"}, library_size="match", random_state=0)
    own = (adata.obs["cell_type"] == "T") & (adata.obs["batch"] == "one")
    assert set(totals(cells)) <= set(totals(adata[own.to_numpy()]))
    assert len(set(totals(cells))) > 0.8 * len(set(totals(adata[own.to_numpy()])))


def test_latents_tell_types_apart_and_repeat(gen, adata):
    z = gen.latent(adata)
    assert z.dtype == np.float32 and z.shape[0] == adata.n_obs and np.isfinite(z).all()
    np.testing.assert_array_equal(z, gen.latent(adata))
    np.testing.assert_allclose(z[::3], gen.latent(adata[::3]), atol=1e-4)
    cells = gen.sample(60, random_state=0)
    assert gen.latent(cells).shape == cells.obsm["X_tabdiff"].shape
    from sklearn.neighbors import KNeighborsClassifier

    knn = KNeighborsClassifier(5).fit(z, adata.obs["cell_type"])
    assert knn.score(cells.obsm["X_tabdiff"], cells.obs["cell_type"]) > 0.9


def test_latents_take_the_condition_of_cells_without_labels(gen, adata):
    bare = anndata.AnnData(adata.X, var=adata.var)
    with pytest.raises(ValueError, match="lacks one of \\['cell_type', 'batch'\\]"):
        gen.latent(bare)
    labels = adata.obs[["cell_type", "batch"]]
    np.testing.assert_array_equal(gen.latent(bare, condition=labels), gen.latent(adata))


def test_a_saved_model_answers_the_same(gen, tmp_path):
    gen.save(tmp_path / "m")
    other = DiffusionGenerator.load(tmp_path / "m")
    a, b = (g.sample(20, library_size="match", random_state=0) for g in (gen, other))
    assert (a.X != b.X).nnz == 0
    np.testing.assert_array_equal(a.obsm["X_tabdiff"], b.obsm["X_tabdiff"])


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_cells_are_written_in_chunks(gen, tmp_path, suffix):
    path = tmp_path / f"cells.{suffix}"
    read = anndata.read_h5ad if suffix == "h5ad" else anndata.read_zarr
    for n in (50, 7):  # a second run replaces the first
        gen.sample_to(path, n, {"cell_type": "B"}, random_state=0, shard_size=20)
        cells = read(path)
        assert cells.shape == (n, 40) and sparse.issparse(cells.X) and cells.X.dtype == np.int32
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    whole = gen.sample(7, {"cell_type": "B"}, random_state=0)
    assert (cells.X != whole.X).nnz == 0
    pd.testing.assert_frame_equal(cells.obs, whole.obs)
    pd.testing.assert_frame_equal(cells.var, whole.var)
    assert cells.uns["tabdiff"]["seed"] == whole.uns["tabdiff"]["seed"]


def test_chunks_keep_exact_composition_and_names(gen, tmp_path):
    other = make(n=90, seed=5)
    gen.sample_to(tmp_path / "a.h5ad", like=other, random_state=0, shard_size=25)
    cells = anndata.read_h5ad(tmp_path / "a.h5ad")
    assert list(cells.obs["cell_type"]) == list(other.obs["cell_type"]) and cells.obs_names.is_unique
    np.testing.assert_array_equal(np.sort(totals(cells)), np.sort(totals(other)))


def test_a_failed_write_leaves_the_old_file(gen, tmp_path, monkeypatch):
    path = tmp_path / "cells.h5ad"
    gen.sample_to(path, 5, random_state=0)
    before = path.read_bytes()

    def fail(*args, **kwargs):
        raise OSError("No space left on device")

    monkeypatch.setattr(anndata.io, "write_elem", fail)
    with pytest.raises(OSError, match="No space"):
        gen.sample_to(path, 50, random_state=0, shard_size=20)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["cells.h5ad"]


def test_wrong_requests_say_why(gen, adata, tmp_path):
    with pytest.raises(ValueError, match="condition and like were both given"):
        gen.sample(condition=["B"], like=adata)
    with pytest.raises(TypeError, match="obs must be a DataFrame"):
        gen.sample(obs={"cell_type": ["B"]})
    with pytest.raises(ValueError, match=r"obs has none of the conditions \['cell_type', 'batch'\]"):
        gen.sample(obs=pd.DataFrame({"type": ["B"]}))
    with pytest.raises(ValueError, match="must not repeat"):
        gen.sample(obs=pd.DataFrame({"cell_type": ["B", "B"]}, index=["a", "a"]))
    with pytest.raises(ValueError, match="obs has 1 rows, but n_samples=3"):
        gen.sample(3, obs=pd.DataFrame({"cell_type": ["B"]}))
    with pytest.raises(TypeError, match="like must be an AnnData"):
        gen.sample(like=adata.obs)
    with pytest.raises(ValueError, match="lacks 40 of the 40 genes"):
        gen.sample(like=anndata.AnnData(adata.X, obs=adata.obs))
    for wrong in (0, -5, [100, np.nan], "median", [[1.0]]):
        with pytest.raises(ValueError, match="library_size must be"):
            gen.sample(2, library_size=wrong)
    with pytest.raises(ValueError, match="library_size has 3 values, but 2 cells"):
        gen.sample(2, library_size=[100, 100, 100])
    with pytest.raises(ValueError, match=r"must end in '.h5ad' or '.zarr'"):
        gen.sample_to(tmp_path / "cells.csv", 5)
    with pytest.raises(FileNotFoundError, match="missing does not exist"):
        gen.sample_to(tmp_path / "missing" / "cells.h5ad", 5)


def test_tables_and_continuous_expression_have_none_of_it(adata, tmp_path):
    table = DiffusionGenerator(max_steps=2, hidden_size=8, n_blocks=1).fit(pd.DataFrame({"a": np.arange(30.0)}))
    for name, value in (("obs", adata.obs), ("like", adata), ("library_size", 100)):
        with pytest.raises(TypeError, match=f"{name} is for models of AnnData"):
            table.sample(3, **{name: value})
    with pytest.raises(ValueError, match=r"must end in '\.parquet', '\.csv'"):
        table.sample_to(tmp_path / "a.h5ad", 3)
    with pytest.raises(TypeError, match="latent is for models of AnnData"):
        table.latent(adata)
    logged = adata.copy()
    logged.X = logged.X.log1p()
    gen = DiffusionGenerator(max_steps=2, hidden_size=8, n_blocks=1, layer="X").fit(logged, condition="cell_type")
    with pytest.raises(ValueError, match="needs a model of counts"):
        gen.sample(3, library_size=100)
    gen.sample_to(tmp_path / "logged.h5ad", 9, random_state=0, shard_size=4)
    cells = anndata.read_h5ad(tmp_path / "logged.h5ad")
    assert cells.X.dtype == gen.sample(2).X.dtype and cells.shape == (9, 40) and cells.X.max() > 0
    cells = gen.sample(like=logged[:20], random_state=0)
    assert list(cells.obs["cell_type"]) == list(logged.obs["cell_type"][:20])
    assert gen.latent(logged).shape[0] == logged.n_obs
