"""MuData in, MuData out: one latent, a library size for each modality, counts that stay counts."""

import builtins
import contextlib
import re
import warnings

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from tabdiff import CellCodec, DiffusionGenerator, MultimodalCodec
from tabdiff.cli import main

mudata = pytest.importorskip("mudata")
# Of names that modalities share, as they do here on purpose, and of what its next version will do.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:mudata", "ignore::FutureWarning:mudata")

GENES, PROTEINS = 24, 6
TYPES = ["B", "T"]


def put_together(**mod):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return mudata.MuData(mod)


def make(n=240, seed=0):
    """Cells of two types. A factor moves genes and proteins together; depths of the modalities correlate at .5.

    Proteins are counted some twenty times as often as genes. Gene 0 and protein 0 have one name; gene 23 is silent.
    """
    rng = np.random.default_rng(seed)
    types, z = rng.integers(0, 2, n), rng.standard_normal((n, 1))
    depth = np.exp(rng.multivariate_normal([0, 0], [[0.09, 0.06], [0.06, 0.16]], n))
    base = np.stack([np.linspace(1, 9, GENES), np.linspace(9, 1, GENES)])[types]
    loading = 0.6 * np.where(np.arange(GENES) < 8, 1, np.where(np.arange(GENES) < 16, -1, 0))
    genes = rng.poisson(base * np.exp(z * loading) * depth[:, :1] * (np.arange(GENES) < GENES - 1))
    base = np.stack([[40, 900, 30, 200, 60, 400], [700, 50, 30, 200, 60, 400]])[types]
    mean = base * np.exp(z * [0, 0, 0.6, -0.6, 0, 0]) * depth[:, 1:]
    proteins = rng.poisson(rng.gamma(12.0, mean / 12.0))
    var = pd.DataFrame(
        {"gene_ids": [f"ENSG{g}" for g in range(GENES)]}, index=["CD3", *(f"g{g}" for g in range(1, GENES))]
    )
    names = [f"c{i}" for i in range(n)]
    rna = AnnData(sparse.csr_matrix(genes.astype(np.float32)), obs=pd.DataFrame(index=names), var=var)
    prot = AnnData(proteins.astype(np.int64), obs=pd.DataFrame(index=names))
    prot.var_names = ["CD3", *(f"p{p}" for p in range(1, PROTEINS))]
    mdata = put_together(rna=rna, prot=prot)
    mdata.obs["cell_type"] = pd.Categorical(np.array(TYPES)[types])
    mdata.uns["cell_type_colors"] = ["#111111", "#222222"]
    return mdata


def quick(**kwargs):
    size = {"max_steps": 60, "hidden_size": 32, "n_blocks": 1, "codec": MultimodalCodec(n_latent=2)}
    return DiffusionGenerator(**(size | kwargs), random_state=0)


def brief(**kwargs):
    """A fit that is over at once, for what does not depend on it."""
    return quick(**({"max_steps": 2, "max_time": 0.2} | kwargs))


def dense(adata):
    return adata.X.toarray() if sparse.issparse(adata.X) else np.asarray(adata.X)


def totals(adata):
    return dense(adata).sum(axis=1)


@pytest.fixture(scope="module")
def cells():
    return make()


@pytest.fixture(scope="module")
def gen(cells):
    return quick().set_params(random_state=4).fit(cells, condition="cell_type")


@pytest.fixture(scope="module")
def drawn(gen, cells):
    return gen.sample(condition=np.repeat(cells.obs["cell_type"].to_numpy(), 4), random_state=0)


def test_mudata_comes_out_as_it_went_in(gen, cells, drawn):
    assert isinstance(drawn, mudata.MuData) and list(drawn.mod) == ["rna", "prot"]
    for key in ("rna", "prot"):
        assert sparse.isspmatrix_csr(drawn[key].X) and drawn[key].X.dtype == np.int32 and drawn[key].X.min() >= 0
        pd.testing.assert_frame_equal(drawn[key].var, cells[key].var)
        assert list(drawn[key].obs_names) == list(drawn.obs_names)
    assert drawn.obs_names[0] == "synthetic-0" and list(drawn.obs.columns) == ["cell_type"]
    assert list(drawn.obs["cell_type"].cat.categories) == TYPES
    assert list(drawn.uns["cell_type_colors"]) == ["#111111", "#222222"]
    assert drawn.uns["tabdiff"]["guidance_scale"] == 1.0
    assert len(drawn.obsm["X_tabdiff"]) == drawn.n_obs and drawn["rna"][:, "g23"].X.sum() == 0
    assert gen.schema_.set_index("modality")["features"].to_dict() == {"rna": GENES, "prot": PROTEINS}
    assert gen.n_features_in_ == GENES + PROTEINS and gen.feature_names_in_[GENES] == "prot:CD3"


def test_each_modality_has_its_own_depth(cells, drawn):
    for key in ("rna", "prot"):
        own, real = np.log(totals(drawn[key])), np.log(totals(cells[key]))
        assert abs(own.mean() - real.mean()) < 0.1 and 0.85 < own.std() / real.std() < 1.15
    both = [np.corrcoef(np.log(totals(m["rna"])), np.log(totals(m["prot"])))[0, 1] for m in (drawn, cells)]
    assert abs(both[0] - both[1]) < 0.2


def test_marginals_and_what_modalities_share_survive(cells, drawn):
    real_type, own_type = (m.obs["cell_type"].to_numpy() for m in (cells, drawn))
    for kind in TYPES:
        a, b = (dense(m["prot"])[t == kind] for m, t in ((drawn, own_type), (cells, real_type)))
        np.testing.assert_allclose(np.log1p(a).mean(axis=0), np.log1p(b).mean(axis=0), atol=0.15)
        np.testing.assert_allclose(np.log1p(a).std(axis=0), np.log1p(b).std(axis=0), rtol=0.25)
    shares = []
    for m, t in ((drawn, own_type), (cells, real_type)):
        genes, proteins = dense(m["rna"]), np.log1p(dense(m["prot"]))
        contrast = genes[:, :8].sum(axis=1) / np.maximum(genes[:, :16].sum(axis=1), 1)
        within = [
            np.corrcoef(contrast[t == kind], (proteins[:, 2] - proteins[:, 3])[t == kind])[0, 1] for kind in TYPES
        ]
        shares.append(within)
    # A factor that moves genes and proteins; independent modalities would have no correlation within a type.
    assert np.mean(shares[1]) > 0.5 and np.mean(shares[0]) > 0.75 * np.mean(shares[1])


def test_the_same_seed_gives_the_same_cells_and_saved_models_do_too(gen, cells, tmp_path, capsys):
    gen.save(tmp_path / "m")
    again = DiffusionGenerator.load(tmp_path / "m")
    first, found = (g.sample(30, random_state=3) for g in (gen, again))
    assert all((found[key].X != first[key].X).nnz == 0 for key in ("rna", "prot"))
    np.testing.assert_array_equal(gen.latent(cells), again.latent(cells))
    first, found = (g.impute(put_together(rna=cells["rna"]), condition="B", random_state=1) for g in (gen, again))
    assert (first["prot"].X != found["prot"].X).nnz == 0
    main(["info", str(tmp_path / "m")])
    out = capsys.readouterr().out
    assert "multimodal of 30 features" in out and "prot counts     X         6" in out


@pytest.mark.slow
def test_the_same_seed_fits_the_same_model(cells):
    first, found = (quick(max_steps=5).fit(cells, condition="cell_type").sample(9, random_state=0) for _ in range(2))
    assert all((found[key].X != first[key].X).nnz == 0 for key in ("rna", "prot"))


def test_like_and_library_sizes_go_by_modality(gen, cells):
    other = make(60, seed=5)
    copied = gen.sample(like=other, random_state=0)
    assert list(copied.obs["cell_type"]) == list(other.obs["cell_type"])
    for kind in TYPES:
        own = np.asarray(other.obs["cell_type"] == kind)
        for key in ("rna", "prot"):
            np.testing.assert_array_equal(np.sort(totals(copied[key])[own]), np.sort(totals(other[key])[own]))
    few = gen.sample(20, library_size={"prot": 300}, random_state=0)
    free = gen.sample(20, random_state=0)
    assert (totals(few["prot"]) == 300).all()
    assert abs(np.log(totals(few["rna"])).mean() - np.log(totals(free["rna"])).mean()) < 0.3
    matched = gen.sample(40, library_size="match", random_state=0)
    for key in ("rna", "prot"):
        assert set(totals(matched[key])) <= set(totals(cells[key]).astype(int))
    with pytest.raises(ValueError, match=r"dict from some of \['rna', 'prot'\].*library_size=\{'rna': 5000\}"):
        gen.sample(5, library_size=500)
    with pytest.raises(ValueError, match="has 3 values, but 5 cells"):
        gen.sample(5, library_size={"rna": [10, 10, 10]})
    with pytest.raises(TypeError, match="like must be a MuData"):
        gen.sample(like=cells["rna"])


def test_a_modality_that_was_not_measured_is_drawn_given_the_other(gen):
    truth = make(300, seed=7)
    given = put_together(rna=truth["rna"][:, ::-1].copy())
    given.obs["cell_type"] = truth.obs["cell_type"]
    full = gen.impute(given, random_state=0)
    assert list(full.mod) == ["rna", "prot"] and list(full["prot"].var_names) == list(truth["prot"].var_names)
    np.testing.assert_array_equal(dense(full["rna"]), dense(truth["rna"]))
    assert full["prot"].var["imputed"].all() and not full["rna"].var["imputed"].any()
    assert list(full.obs["cell_type"]) == list(truth.obs["cell_type"])
    own, real = (np.log1p(dense(m["prot"])) for m in (full, truth))
    for kind in TYPES:
        rows = np.asarray(truth.obs["cell_type"] == kind)
        np.testing.assert_allclose(own[rows].mean(axis=0), real[rows].mean(axis=0), atol=0.2)
        contrast = [(x[:, 2] - x[:, 3])[rows] for x in (own, real)]
        assert np.corrcoef(*contrast)[0, 1] > 0.3  # of two noisy draws
    depths = [np.log(totals(full[key])) for key in ("rna", "prot")]
    assert 0.3 < np.corrcoef(*depths)[0, 1] < 0.65  # .5 in truth: cells deep in one are deep in the other
    with pytest.raises(ValueError, match=r"lacks the modalities \['prot'\].*gen\.impute\(mdata\)"):
        gen.latent(given)
    assert len(gen.latent(full)) == 300


def test_cells_in_another_order_in_each_modality_are_matched_by_name(gen, cells):
    order = np.random.default_rng(0).permutation(cells.n_obs)
    mixed = put_together(rna=cells["rna"].copy(), prot=cells["prot"][order].copy())
    mixed.obs["cell_type"] = cells.obs["cell_type"]
    np.testing.assert_array_equal(gen.latent(mixed), gen.latent(cells))


@pytest.mark.slow
def test_a_mudata_of_one_modality_is_one_in_and_out(cells):
    alone = put_together(rna=cells["rna"].copy())
    alone.obs["cell_type"] = cells.obs["cell_type"]
    gen = quick(max_steps=5).fit(alone, condition="cell_type")
    few = gen.sample(12, random_state=0)
    assert isinstance(few, mudata.MuData) and list(few.mod) == ["rna"] and few["rna"].shape == (12, GENES)
    # It is the model of the AnnData.
    plain = cells["rna"].copy()
    plain.obs["cell_type"] = cells.obs["cell_type"]
    other = quick(max_steps=5, codec=CellCodec(n_latent=2)).fit(plain, condition="cell_type").sample(12, random_state=0)
    assert (other.X != few["rna"].X).nnz == 0
    assert (totals(gen.sample(like=alone, random_state=0)["rna"]).sum()) == totals(alone["rna"]).sum()


def test_conditions_of_a_modality_and_vectors_go_back_to_where_they_were():
    mdata = make(60)
    mdata["rna"].obs["batch"] = np.where(np.arange(60) % 2, "one", "two")
    mdata.obs["rna:batch"] = mdata["rna"].obs["batch"]
    mdata.obsm["where"] = np.random.default_rng(0).normal(size=(60, 2)).astype(np.float32)
    few = brief().fit(mdata, condition=["rna:batch", "where"]).sample(9, random_state=0)
    assert list(few.obs["rna:batch"]) == list(few["rna"].obs["batch"]) and set(few.obs["rna:batch"]) == {"one", "two"}
    assert few.obsm["where"].shape == (9, 2)


def test_weights_repeat_cells(cells):
    weight = np.where(cells.obs["cell_type"] == "B", 2.0, 0.0)
    only = brief().fit(cells, condition="cell_type", sample_weight=weight)
    assert set(only.sample(20, random_state=0).obs["cell_type"]) == {"B"}
    two = np.where(np.arange(cells.n_obs) % 2, 2.0, 1.0)
    assert brief().fit(cells, sample_weight=two).n_samples_fit_ == cells.n_obs


@pytest.mark.slow
def test_a_combination_that_was_never_shown_gets_the_effect_of_the_others_in_both():
    mdata = make(320, seed=3)
    rng = np.random.default_rng(0)
    given = rng.choice(["ctrl", "stim"], 320)
    mdata.obs["condition"] = given
    x = dense(mdata["prot"])
    x[given == "stim", 4] *= 6
    mdata.mod["prot"].X = x
    unseen = np.asarray((mdata.obs["cell_type"] == "B") & (given == "stim"))
    gen = quick(max_steps=20).fit(mdata[~unseen].copy(), condition=["cell_type", "condition"])
    found = gen.sample(200, condition={"cell_type": "B", "condition": "stim"}, random_state=0)
    assert abs(np.log(dense(found["prot"])[:, 4].mean() / x[unseen, 4].mean())) < 0.5
    assert abs(np.log(dense(found["prot"])[:, 1].mean() / x[unseen, 1].mean())) < 0.5


# ---------------------------------------------------------------- refused


def advised(error, pattern):
    return re.search(pattern, str(error.value)).group(1)


def test_modalities_without_counts_are_refused_and_the_advice_arrives(cells):
    logged = cells.copy()
    counts = dense(logged["prot"])
    centred = np.log1p(counts) - np.log1p(counts).mean(axis=1, keepdims=True)
    logged.mod["prot"] = AnnData(centred.astype(np.float32), obs=logged["prot"].obs, var=logged["prot"].var)
    with pytest.raises(ValueError, match=r"modality 'prot' must hold raw counts.*scaled or centred") as caught:
        quick().fit(logged, condition="cell_type")
    line = advised(caught, r"looked for, (mdata\['prot'\]\.layers\['counts'\] = )")
    exec(f"{line}counts", {"mdata": logged, "counts": counts})
    few = brief().fit(logged, condition="cell_type").sample(3)
    assert few["prot"].X.dtype == np.int32
    with pytest.raises(ValueError, match=r"layer='counts' is for AnnData, but X is a MuData.*layers\['counts'\]"):
        quick(layer="counts").fit(cells)


def test_cells_that_a_modality_lacks_are_refused_and_the_advice_arrives(cells):
    some = put_together(rna=cells["rna"][:200].copy(), prot=cells["prot"][10:].copy())
    with pytest.raises(ValueError, match=r"got 40 of 240 that 'rna' lacks.*muon\.pp\.intersect_obs") as caught:
        quick().fit(some)
    line = advised(caught, r"that all have: (.*\.copy\(\)),")
    both = eval(line, {"mdata": some})
    assert both.n_obs == 190 and len(brief().fit(both).sample(3)) == 3


def test_features_and_modalities_that_the_fit_did_not_have_are_refused_and_the_advice_arrives(gen, cells):
    atac = AnnData(np.ones((cells.n_obs, 3), dtype=np.float32), obs=pd.DataFrame(index=cells.obs_names))
    more = put_together(rna=cells["rna"].copy(), prot=cells["prot"].copy(), atac=atac)
    more.obs["cell_type"] = cells.obs["cell_type"]
    with pytest.raises(ValueError, match=r"alone, \['rna', 'prot'\]; got \['atac'\] too") as caught:
        gen.latent(more)
    line = advised(caught, r"Leave them out: (.*)\.$")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fewer = eval(line, {"mdata": more, "mudata": mudata})
    fewer.obs["cell_type"] = cells.obs["cell_type"]
    np.testing.assert_array_equal(gen.latent(fewer), gen.latent(cells))
    wide = cells.copy()
    prot = AnnData(np.c_[dense(cells["prot"]), np.ones(cells.n_obs)].astype(np.float32), obs=cells["prot"].obs)
    prot.var_names = [*cells["prot"].var_names, "IgG1"]
    wide.mod["prot"] = prot
    with pytest.raises(ValueError, match=r"mdata\['prot'\] must have genes of the fit alone.*\['IgG1'\]") as caught:
        gen.latent(wide)
    line = advised(caught, r"Leave them out: (.*)\.$")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(line, {"mdata": wide, "gen": gen})
    np.testing.assert_array_equal(gen.latent(wide), gen.latent(cells))


def test_what_is_not_there_for_mudata_says_so(gen, cells, tmp_path):
    with pytest.raises(TypeError, match="score_samples is not available for MuData"):
        gen.score_samples(cells)
    with pytest.raises(TypeError, match=r"predict_perturbation is not available for MuData; gen\.sample"):
        gen.predict_perturbation(cells, {"cell_type": "B"})
    with pytest.raises(ValueError, match=r"gen\.sample\(n\)\.write_h5mu\(path\)"):
        gen.sample_to(tmp_path / "cells.h5mu", 5)
    with pytest.raises(TypeError, match="fitted on a MuData, so X must be one too; got AnnData"):
        gen.latent(cells["rna"])
    own = cells.copy()
    own["rna"].obs["batch"] = "one"
    with pytest.raises(ValueError, match=r"mdata.obs lacks. A modality has it: (mdata.obs.*)\. Columns") as caught:
        quick().fit(own, condition="batch")
    exec(advised(caught, r"has it: (mdata.obs.*)\. Columns"), {"mdata": own})
    assert set(own.obs["batch"]) == {"one"}
    table = DiffusionGenerator(max_steps=2, hidden_size=8).fit(pd.DataFrame({"a": np.arange(30.0)}))
    with pytest.raises(TypeError, match="fitted on a DataFrame, and X is a MuData"):
        table.score_samples(cells)


def test_the_command_line_says_how_cells_are_written_and_the_advice_arrives(gen, tmp_path, capsys, monkeypatch):
    gen.save(tmp_path / "m")
    monkeypatch.chdir(tmp_path)
    with contextlib.suppress(SystemExit):
        main(["sample", "m", "-n", "7", "-o", "cells.h5ad"])
    ending = re.search(r"are written as (\.\w+); got \.h5ad", capsys.readouterr().err).group(1)
    assert not (tmp_path / "cells.h5ad").exists()
    main(["sample", "m", "-n", "7", "-o", f"cells{ending}"])
    assert mudata.read_h5mu("cells.h5mu").n_obs == 7


def test_drawing_needs_mudata_and_says_how_to_install_it(gen, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "mudata":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r'pip install "tabdiff\[multimodal\]"'):
        gen.sample(2)
