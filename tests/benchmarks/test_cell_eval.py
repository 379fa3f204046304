"""The virtual-cell challenge's metrics: baselines as cells, effects by type, scores, and our cells as they are."""

import importlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def cell_eval(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = importlib.import_module("cell_eval")
    monkeypatch.setattr(module, "TYPES", ("A", "B", "C"))
    return module


@pytest.fixture(scope="module")
def cells():
    """Three types of 60 control and 60 stimulated cells, of which the last responds in other genes."""
    rng = np.random.default_rng(0)
    types, given = np.repeat(list("ABC"), 120), np.tile(np.repeat(["ctrl", "stim"], 60), 3)
    log_rate = rng.normal(0, 0.5, (3, 60)).repeat(120, axis=0) + 1.0
    for label, genes in (("A", slice(0, 12)), ("B", slice(0, 12)), ("C", slice(12, 24))):
        log_rate[(types == label) & (given == "stim"), genes] += 1.5
    counts = sparse.csr_matrix(rng.poisson(np.exp(log_rate)).astype(np.float32))
    obs = pd.DataFrame({"cell_type": types, "condition": given}, index=[f"c{i}" for i in range(360)])
    return AnnData(counts, obs=obs)


def test_control_cells_are_moved_to_a_profile_and_stay_counts(cell_eval, cells):
    control, held = cell_eval.of_type(cells, "A")
    assert set(control.obs["condition"]) == {"ctrl"} and held.n_obs == 60
    wanted = cell_eval.shares(held)
    moved = cell_eval.moved(control, wanted, 2000, seed=0)
    assert np.corrcoef(cell_eval.shares(moved), wanted)[0, 1] > 0.99
    values = moved.X.toarray()
    assert (values == np.rint(values)).all() and (values >= 0).all()
    assert set(moved.obs["condition"]) == {"stim"} and moved.obs_names.is_unique


def test_the_mean_response_is_that_of_the_other_types(cell_eval, cells):
    predicted, _ = cell_eval.predict("shift", cells, "C", 0, 1.0)
    control, _ = cell_eval.of_type(cells, "C")
    change = np.log(cell_eval.shares(predicted) / cell_eval.shares(control))
    assert change[:12].mean() > 0.8 and change[12:24].mean() < 0  # a share of what the others gain


@pytest.mark.slow
def test_an_effect_is_told_from_those_of_other_types(cell_eval, cells):
    pytest.importorskip("cell_eval2")
    real = cell_eval.effects([cell_eval.of_type(cells, label) for label in "ABC"], 5e4)
    assert set(cell_eval.discrimination(real, real).values()) == {1.0}
    exchanged = cell_eval.discrimination(real[[2, 1, 0]], real)
    assert exchanged["A"] <= 0.5 and exchanged["C"] <= 0.5 and exchanged["B"] == 1.0


def test_scores_are_between_the_mean_response_and_the_replicate(cell_eval):
    assert cell_eval.scaled(0.6, "pds_cosine", 0.5, 0.9) == pytest.approx(0.25)
    assert cell_eval.scaled(0.5, "de_wilcoxon_lfc_nmae", 0.9, 0.4) == pytest.approx(0.8)
    assert cell_eval.scaled(0.4, "pds_cosine", 0.5, 0.9) == pytest.approx(-0.25)
    assert cell_eval.scaled(1.0, "de_wilcoxon_lfc_nmae", 0.9, 0.4) == pytest.approx(-0.2)
    assert np.isnan(cell_eval.scaled(0.5, "pds_cosine", 0.9, 0.92))


@pytest.mark.slow
def test_our_cells_are_judged_as_they_are(cell_eval, cells):
    pytest.importorskip("cell_eval2")
    from tabdiff import DiffusionGenerator

    control, held = cell_eval.of_type(cells, "B")
    seen = cells[~cells.obs_names.isin(held.obs_names)].copy()
    gen = DiffusionGenerator(max_steps=30, random_state=0).fit(seen, condition=["cell_type", "condition"])
    predicted = gen.predict_perturbation(control, {"condition": "stim"}, n_samples=60, random_state=0)
    config = cell_eval.configuration()
    ours = cell_eval.judge(predicted, control, held, config)
    unchanged = cell_eval.judge(cell_eval.moved(control, cell_eval.shares(control), 60, 0), control, held, config)
    same = cell_eval.judge(held, control, held, config)
    assert same["de_wilcoxon_sig_jaccard"] == 1.0 and unchanged["de_wilcoxon_sig_jaccard"] < 0.2
    assert ours["de_wilcoxon_sig_jaccard"] > 0.5 and ours["de_wilcoxon_lfc_nmae"] < 0.9
    assert ours["expr_mse_unbiased_capped"] < 0.9 * unchanged["expr_mse_unbiased_capped"]
