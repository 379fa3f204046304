"""Cells whose genes are in another order, are not all of the fit's, or are others: matched by name, or refused."""

import re

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from tabdiff import CellCodec, DiffusionGenerator
from tabdiff.cli import main
from tabdiff.codecs.cells.panel import match

GENES = 30


def make(n=160, seed=0):
    """Cells of two types; in both a factor moves even genes up and odd ones down. The last gene is silent."""
    rng = np.random.default_rng(seed)
    types = rng.choice(["B", "T"], n)
    rate = np.where((types == "B")[:, None], np.linspace(4, 20, GENES), np.linspace(20, 4, GENES))
    factor = rng.standard_normal((n, 1)) * np.where(np.arange(GENES) % 2, -0.7, 0.7)
    mean = rate * np.exp(factor) * rng.lognormal(0, 0.4, (n, 1)) * (np.arange(GENES) < GENES - 1)
    obs = pd.DataFrame({"cell_type": pd.Categorical(types), "condition": rng.choice(["ctrl", "stim"], n)})
    var = pd.DataFrame(
        {"gene_ids": [f"ENSG{j:03d}" for j in range(GENES)], "chromosome": pd.Categorical(["1", "X"] * (GENES // 2))},
        index=pd.Index([f"g{j}" for j in range(GENES)], name="symbol"),
    )
    counts = sparse.csr_matrix(rng.poisson(mean).astype(np.float32))
    return anndata.AnnData(counts, obs=obs.set_axis([f"c{i}" for i in range(n)]), var=var)


def quick(**kwargs):
    size = {"max_steps": 10, "hidden_size": 16, "n_blocks": 1, "codec": CellCodec(n_latent=2)}
    return DiffusionGenerator(**size, random_state=0, **kwargs)


@pytest.fixture(scope="module")
def cells():
    return make()


@pytest.fixture(scope="module")
def gen(cells, tmp_path_factory):
    """A model that was saved and loaded, as another laboratory would have it."""
    path = tmp_path_factory.mktemp("panel") / "cells.model"
    quick().fit(cells, condition=["cell_type", "condition"]).save(path)
    return DiffusionGenerator.load(path)


@pytest.fixture(scope="module")
def panel():
    """Other cells, of the even genes from the last to the first, and one odd one."""
    return make(seed=1)[:, [1, *range(GENES - 2, -1, -2)]].copy()


def totals(cells):
    return np.asarray(cells.X.sum(axis=1)).ravel()


def dense(cells):
    return cells.X.toarray()


def test_genes_in_another_order_are_matched_by_name(gen, cells):
    other = cells[:, np.random.default_rng(0).permutation(GENES)].copy()
    np.testing.assert_array_equal(gen.latent(other), gen.latent(cells))
    a, b = (gen.sample(like=c, random_state=0) for c in (other, cells))
    assert (a.X != b.X).nnz == 0
    a, b = (gen.predict_perturbation(c, {"condition": "stim"}, random_state=0) for c in (other, cells))
    assert (a.X != b.X).nnz == 0
    pd.testing.assert_frame_equal(a.var, b.var)


def test_a_model_says_its_genes_and_drawn_cells_carry_their_identifiers(gen, cells, tmp_path, capsys):
    assert list(gen.feature_names_in_) == list(cells.var_names)
    gen.save(tmp_path / "m")
    main(["info", str(tmp_path / "m")])
    assert "genes        g0, g1, g2, g3, g4, ...; of each: gene_ids, chromosome\n" in capsys.readouterr().out
    pd.testing.assert_frame_equal(gen.sample(3, random_state=0).var, cells.var)


def test_imputed_cells_have_all_genes_and_those_that_were_there_as_they_were(gen, cells, panel):
    before = panel.copy()
    full = gen.impute(panel, random_state=0)
    assert list(full.var_names) == list(cells.var_names) and list(full.obs_names) == list(panel.obs_names)
    assert full.X.dtype == np.int32 and sparse.isspmatrix_csr(full.X)
    np.testing.assert_array_equal(dense(full[:, panel.var_names]), dense(panel))
    np.testing.assert_array_equal(~full.var["imputed"], full.var_names.isin(panel.var_names))
    pd.testing.assert_frame_equal(full.var.drop(columns="imputed"), cells.var)
    pd.testing.assert_frame_equal(full.obs, panel.obs)
    assert full[:, "g29"].X.sum() == 0  # silent in the fit
    assert (gen.impute(panel, random_state=0).X != full.X).nnz == 0
    assert (panel.X != before.X).nnz == 0 and list(panel.var_names) == list(before.var_names)


def test_imputed_genes_follow_type_factor_and_depth(gen):
    real = make(400, seed=2)
    full = gen.impute(real[:, :15].copy(), random_state=0)
    a, b = dense(full)[:, 15:29], dense(real)[:, 15:29]
    for kind in ("B", "T"):
        own = np.asarray(real.obs["cell_type"] == kind)
        np.testing.assert_allclose(a[own].mean(axis=0), b[own].mean(axis=0), rtol=0.25)
        # Draws are as noisy as the real counts, and what they follow is the cell.
        assert np.corrcoef(a[own].sum(axis=1), b[own].sum(axis=1))[0, 1] > 0.6
        contrast = [x[own][:, 1::2].sum(axis=1) / x[own].sum(axis=1) for x in (a, b)]
        assert np.corrcoef(*contrast)[0, 1] > 0.7


def test_several_draws_differ_where_genes_were_missing_alone(gen, panel):
    one, two = gen.impute(panel, n_draws=2, random_state=0)
    assert set(np.unique((one.X != two.X).tocoo().col)) == set(np.flatnonzero(one.var["imputed"])) - {29}


def test_cells_without_a_single_count_are_shallow_as_the_fit_knows_such(gen, panel, cells):
    empty = panel.copy()
    empty.X = empty.X * 0
    drawn = totals(gen.impute(empty, random_state=0))
    assert 0 < drawn.mean() < 0.1 * totals(cells).mean()


def test_continuous_expression_is_imputed_too():
    logged = make(seed=3)
    logged.X = logged.X.log1p()
    gen = quick(layer="X").fit(logged, condition="cell_type")
    other = make(200, seed=4)
    other.X = other.X.log1p()
    full = gen.impute(other[:, :15].copy(), random_state=0)
    a, b = dense(full)[:, 15:29], dense(other)[:, 15:29]
    np.testing.assert_allclose(a.mean(axis=0), b.mean(axis=0), atol=0.2)
    np.testing.assert_allclose(dense(full)[:, :15], dense(other)[:, :15])
    assert np.corrcoef(a.mean(axis=1), b.mean(axis=1))[0, 1] > 0.6


def test_missing_genes_are_named_and_the_advice_arrives(gen, panel):
    for ask in (
        lambda c: gen.latent(c),
        lambda c: gen.sample(like=c, random_state=0),
        lambda c: gen.predict_perturbation(c, {"condition": "stim"}, random_state=0),
    ):
        with pytest.raises(ValueError, match=r"lacks 14 of the 30 genes.*'g3', 'g5', 'g7'.*gen\.impute\(adata\)"):
            ask(panel)
        assert len(ask(gen.impute(panel, random_state=0)))


def test_other_genes_are_refused_by_name_and_the_advice_arrives(gen, cells):
    others = anndata.AnnData(np.full((cells.n_obs, 1), 999.0, dtype=np.float32), obs=cells.obs[[]])
    others.var_names = ["MT-ND1"]
    adata = anndata.concat([cells, others], axis=1)
    adata.obs = cells.obs
    for ask in (gen.latent, gen.impute, lambda c: gen.sample(like=c, random_state=0)):
        with pytest.raises(ValueError, match=r"got 1 others, such as \['MT-ND1'\]") as caught:
            ask(adata)
        advice = re.search(r"Leave them out: (.*)\.$", str(caught.value)).group(1)
        assert len(ask(eval(advice, {"adata": adata, "gen": gen}))) == cells.n_obs


def test_names_of_another_kind_are_recognised(gen, cells):
    by_id = cells.copy()
    by_id.var = pd.DataFrame({"symbol": cells.var_names.to_numpy()}, index=pd.Index(cells.var["gene_ids"], name=None))
    bare = by_id.copy()
    del bare.var["symbol"]
    for adata in (by_id, bare):
        with pytest.raises(ValueError, match=r"lacks 30 of the 30 genes.*it has \['ENSG000'") as caught:
            gen.latent(adata)
        advice = re.search(r"(adata\.var_names = .*)\.$", str(caught.value)).group(1)
        exec(advice, {"adata": adata, "gen": gen})
        np.testing.assert_array_equal(gen.latent(adata), gen.latent(cells))


def test_names_that_repeat_match_nothing(gen, cells):
    twice = cells[:, ::-1].copy()
    twice.var_names = ["g0", *twice.var_names[1:]]
    with pytest.raises(ValueError, match=r"got \['g0'\] more than once.*var_names_make_unique"):
        gen.latent(twice)
    genes = np.array(["a", "b", "a"], dtype=object)
    with pytest.raises(ValueError, match="in their order, since names of these repeat"):
        match(cells, genes, pd.DataFrame(index=genes))


def test_what_impute_does_not_take_says_why(gen, panel):
    with pytest.raises(ValueError, match=r"strategy must be 'auto' or 'draw'.*n_draws=20"):
        gen.impute(panel, strategy="mean")
    with pytest.raises(ValueError, match="n_draws must be"):
        gen.impute(panel, n_draws=0)
    with pytest.raises(ValueError, match="what cells express depends on their condition"):
        gen.impute(anndata.AnnData(panel.X, var=panel.var))
    labelled = anndata.AnnData(panel.X, var=panel.var)
    assert gen.impute(labelled, condition={"cell_type": "B", "condition": "ctrl"}).shape == (160, 30)
    with pytest.raises(TypeError, match="mask is for images"):
        gen.impute(panel, mask=np.ones((160, 16), dtype=bool))
    fractions = panel.copy()
    fractions.X = fractions.X * 0.5
    with pytest.raises(ValueError, match="fitted on counts"):
        gen.impute(fractions)
