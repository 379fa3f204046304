"""Reports of several modalities: what they share is seen, and so is what only each by itself has."""

import warnings

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from tabdiff import evaluate
from tabdiff.evaluation import compare, modality_agreement

mudata = pytest.importorskip("mudata")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:mudata", "ignore::FutureWarning:mudata")


def counts(n, seed):
    """Genes and proteins that follow the same three levels inside each of two types."""
    truth, rng = np.random.default_rng(9), np.random.default_rng(seed)
    types, level = rng.integers(2, size=n), rng.gamma(2.0, 0.5, (n, 3))
    weights = truth.dirichlet(np.full(3, 0.3), 20)
    base = truth.gamma(2.0, 6.0, (2, 20))
    rate = base[types] * (level @ weights.T)
    return rng.poisson(rate[:, :12]), rng.poisson(3 * rate[:, 12:]), np.array(["a", "b"])[types]


def mdata(genes, proteins, types):
    obs = pd.DataFrame({"type": pd.Categorical(types)}, index=[f"c{i}" for i in range(len(types))])
    parts = {}
    for name, x in (("rna", genes), ("prot", proteins)):
        var = pd.DataFrame(index=[f"{name}{j}" for j in range(x.shape[1])])
        parts[name] = AnnData(x.astype("float32"), obs=obs[[]].copy(), var=var)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = mudata.MuData(parts)
    found.obs["type"] = obs["type"]
    return found


def apart(genes, proteins, types, seed=5):
    """The same cells, proteins of another cell of the type."""
    rng, other = np.random.default_rng(seed), np.arange(len(types))
    for label in np.unique(types):
        other[types == label] = rng.permutation(other[types == label])
    return genes, proteins[other], types


def test_agreement_sees_what_modalities_share_and_nothing_else():
    real, fresh = counts(400, 0), counts(400, 1)
    split = apart(*fresh)

    def score(cells):
        return modality_agreement(real[:2], cells[:2], real_labels=real[2], synthetic_labels=cells[2])

    assert score(real) == pytest.approx(1)
    assert score(fresh) > 0.9 and abs(score(split)) < 0.4
    # Types alone make features of modalities that are drawn apart agree, where no labels are given.
    assert modality_agreement(real[:2], split[:2]) > score(split) + 0.2


def test_agreement_is_the_correlation_of_correlations_by_hand():
    rng = np.random.default_rng(0)
    pairs = [(rng.normal(size=(50, 4)), rng.normal(size=(50, 3))) for _ in range(2)]
    # Values with negatives are no counts, and are taken as they are.
    blocks = [np.corrcoef(a.T, b.T)[:4, 4:].ravel() for a, b in pairs]
    assert modality_agreement(*pairs) == pytest.approx(np.corrcoef(*blocks)[0, 1], abs=1e-6)


def test_bad_pairs():
    x, y = np.ones((5, 2)), np.ones((4, 3))
    with pytest.raises(ValueError, match="synthetic must be two modalities of the same cells; got 5 and 4"):
        modality_agreement((x, x), (x, y))
    with pytest.raises(ValueError, match="the same features; got 2 and 3"):
        modality_agreement((y, x[:4]), (y, y))


@pytest.mark.slow
def test_report_tells_modalities_that_were_drawn_apart(tmp_path):
    real, holdout, fresh = (counts(120, seed) for seed in range(3))
    reports = []
    for name, cells in (("apart", apart(*fresh)), ("fresh", fresh)):
        reports.append(
            evaluate(mdata(*real), mdata(*cells), holdout=mdata(*holdout), condition="type", random_state=0).named(name)
        )
    row = reports[0].to_frame().iloc[0]
    assert row["metric"] == "modality_agreement (rna and prot)"
    assert row["synthetic"] < 0.4 < 0.8 < row["floor"] and abs(row["independent"]) < 0.4
    good = reports[1].to_frame().set_index("metric")
    assert good.loc[row["metric"], "low"] < good.loc[row["metric"], "synthetic"] < good.loc[row["metric"], "high"]
    assert {"rf_auc (rna)", "rf_auc (prot)"} <= set(good.index)
    assert {"genes (rna)", "types (prot)"} <= set(reports[1].details)
    assert compare(reports).index[0] == "fresh"
    page = reports[1].to_html(tmp_path / "report.html")
    assert "between modalities, correlation (rna and prot)" in page and "Genes (prot)" in page
    again = evaluate(mdata(*real), mdata(*fresh), holdout=mdata(*holdout), condition="type", random_state=0)
    pd.testing.assert_frame_equal(again.to_frame(), reports[1].to_frame())


def test_bad_reports():
    real, other = mdata(*counts(30, 0)), mdata(*counts(30, 1))
    with pytest.raises(TypeError, match="real is a MuData, but synthetic is of type AnnData; give MuData"):
        evaluate(real, other["rna"])
    with pytest.raises(
        ValueError, match=r"synthetic must have the modalities of real, \['rna', 'prot'\]; got \['rna'\]"
    ):
        evaluate(real, mudata.MuData({"rna": other["rna"]}))
    with pytest.raises(ValueError, match=r"real.obs has no \['typ'\]"):
        evaluate(real, other, condition="typ")
    with pytest.raises(TypeError, match="target= is not for cells, and real is a MuData"):
        evaluate(real, other, target="type")
