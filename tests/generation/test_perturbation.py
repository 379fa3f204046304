import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from tabdiff import DiffusionGenerator
from tabdiff.evaluation import log_normalize

GENES = 40


def make(seed=0, n=60):
    """Cells of four types with and without a stimulus that raises the first five genes tenfold."""
    rng = np.random.default_rng(seed)
    rate = np.exp(np.random.default_rng(7).normal(0, 1, (4, GENES)))
    types, given = np.repeat(list("ABCD"), 2 * n), np.tile(np.repeat(["ctrl", "stim"], n), 4)
    mean = rate[pd.Categorical(types).codes]
    mean[given == "stim", :5] *= 10
    x = rng.poisson(mean * rng.lognormal(1, 0.3, (len(types), 1)))
    obs = pd.DataFrame({"cell_type": types, "condition": given}, index=[f"c{i}" for i in range(len(types))])
    adata = anndata.AnnData(
        sparse.csr_matrix(x.astype(np.float32)), obs=obs, var=pd.DataFrame(index=[f"g{j}" for j in range(GENES)])
    )
    adata.obs["cell_type"] = adata.obs["cell_type"].astype("category")
    adata.uns["cell_type_colors"] = ["#111111", "#222222", "#333333", "#444444"]
    return adata


@pytest.fixture(scope="module")
def cells():
    return make()


@pytest.fixture(scope="module")
def held(cells):
    return np.asarray((cells.obs["cell_type"] == "B") & (cells.obs["condition"] == "stim"))


@pytest.fixture(scope="module")
def gen(cells, held):
    gen = DiffusionGenerator(max_steps=60, hidden_size=32, n_blocks=1, random_state=0)
    return gen.fit(cells[~held].copy(), condition=["cell_type", "condition"])


def test_a_type_that_was_never_stimulated(gen, cells, held):
    profile = log_normalize(gen.sample(600, condition={"cell_type": "B", "condition": "stim"}, random_state=0)).mean(0)
    truth = log_normalize(cells[held]).mean(0)
    control = log_normalize(cells[(cells.obs["cell_type"] == "B") & ~held]).mean(0)
    assert np.sqrt(np.mean((profile - truth) ** 2)) < 0.35 * np.sqrt(np.mean((control - truth) ** 2))
    assert (np.sign(profile - control) == np.sign(truth - control))[:5].all()


def test_what_is_predicted_does_not_depend_on_how_many_are_drawn(gen):
    asked = pd.DataFrame({"cell_type": ["B"] * 4 + ["A"] * 4, "condition": ["stim"] * 8})
    both = gen.sample(condition=asked, random_state=3)
    few = gen.sample(condition=asked, random_state=3, batch_size=2)
    assert (both.X != few.X).nnz == 0


def test_saved_models_predict_the_same(gen, tmp_path):
    gen.save(tmp_path / "model.safetensors")
    again = DiffusionGenerator.load(tmp_path / "model.safetensors")
    asked = {"cell_type": "B", "condition": "stim"}
    a, b = (g.sample(20, condition=asked, random_state=1) for g in (gen, again))
    assert (a.X != b.X).nnz == 0
    # Colours are as scanpy knows them: one for each category.
    assert list(b.uns["cell_type_colors"]) == ["#111111", "#222222", "#333333", "#444444"]
    assert "condition_colors" not in b.uns


def test_predict_perturbation_finds_controls_by_name(gen, cells, held):
    found = gen.predict_perturbation(cells[~held], {"condition": "stim"}, random_state=0)
    start = cells[cells.obs["condition"] == "ctrl"]
    assert list(found.obs["cell_type"]) == list(start.obs["cell_type"])
    assert set(found.obs["condition"]) == {"stim"}
    totals = [np.sort(np.asarray(x.X.sum(axis=1)).ravel()) for x in (found, start)]
    np.testing.assert_array_equal(*totals)
    assert set(found.uns["tabdiff"]["top_genes"][:5]) == set(cells.var_names[:5])
    assert len(found.uns["tabdiff"]["top_genes"]) == GENES and (found.var["effect"].iloc[:5] > 0).all()
    assert "effect" not in cells.var


def test_like_takes_a_condition_beside_it(gen, cells):
    start = cells[(cells.obs["cell_type"] == "B") & (cells.obs["condition"] == "ctrl")]
    drawn = gen.sample(like=start, condition={"condition": "stim"}, random_state=0)
    assert set(drawn.obs["cell_type"]) == {"B"} and set(drawn.obs["condition"]) == {"stim"}
    with pytest.raises(ValueError, match="condition beside like must name conditions"):
        gen.sample(like=start, condition={"dose": 1.0})
    with pytest.raises(ValueError, match="one value, or one for each of 60 cells; got 2"):
        gen.sample(like=start, condition={"condition": ["stim", "ctrl"]})


def test_controls_that_cannot_be_found(gen, cells):
    renamed = cells.copy()
    renamed.obs["condition"] = renamed.obs["condition"].replace({"ctrl": "rest"})
    with pytest.raises(ValueError, match="control must say which cells to start from"):
        gen.predict_perturbation(renamed, {"condition": "stim"})
    with pytest.raises(ValueError, match=r"control names 'conditon', which adata.obs lacks\. Did you mean 'condition'"):
        gen.predict_perturbation(cells, {"condition": "stim"}, control={"conditon": "ctrl"})
    with pytest.raises(ValueError, match="no cell is that"):
        gen.predict_perturbation(cells, {"condition": "stim"}, control={"condition": "none"})
    with pytest.raises(TypeError, match="condition must be a dict"):
        gen.predict_perturbation(cells, "stim")
    picked = gen.predict_perturbation(
        cells, {"condition": "stim"}, control={"cell_type": "A", "condition": "ctrl"}, n_samples=7, random_state=0
    )
    assert picked.n_obs == 7 and set(picked.obs["cell_type"]) == {"A"}


def test_other_models_refuse():
    gen = DiffusionGenerator(max_steps=2, hidden_size=8, random_state=0).fit(
        np.random.default_rng(0).normal(size=(20, 2))
    )
    with pytest.raises(TypeError, match="models of AnnData"):
        gen.predict_perturbation(np.zeros((2, 2)), {"a": 1})
