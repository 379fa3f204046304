"""Single-cell metrics: closed forms, invariances, and the order of copies, baselines and noise."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import scanpy
import torch
from anndata import AnnData
from scipy import sparse

from tabdiff import evaluate
from tabdiff.datasets import load_penguins
from tabdiff.evaluation.cell_summary import cell_scorecard, cell_scores
from tabdiff.evaluation.cells import (
    gene_correlation_agreement,
    gene_mean_correlation,
    log_fold_change_error,
    log_normalize,
    nb_baseline,
    rbf_mmd,
    rf_auc,
    wasserstein2,
    within_type_correlation,
    zero_fraction_gap,
)
from tabdiff.evaluation.markers import rank_genes


def cells(n: int = 200, genes: int = 30, seed: int = 0) -> AnnData:
    """Two types; genes 0 to 9 move together inside a type."""
    rng = np.random.default_rng(seed)
    types = np.where(np.arange(n) % 2 == 0, "a", "b")
    rate = np.where((types == "a")[:, None], np.linspace(1, 6, genes), np.linspace(6, 1, genes))
    rate = rate * np.where(np.arange(genes) < 10, np.exp(0.8 * rng.standard_normal((n, 1))), 1.0)
    obs = pd.DataFrame({"type": pd.Categorical(types)}, index=[f"c{i}" for i in range(n)])
    return AnnData(sparse.csr_matrix(rng.poisson(rate).astype(np.float32)), obs=obs)


def test_log_normalize_is_log1p_of_counts_per_ten_thousand() -> None:
    x = log_normalize(np.array([[1.0, 3.0], [0.0, 0.0]]))
    np.testing.assert_allclose(x, [[np.log1p(2500), np.log1p(7500)], [0, 0]], rtol=1e-6)


def test_log_normalize_leaves_normalised_values() -> None:
    x = np.array([[0.5, -1.0], [2.0, 0.0]], dtype=np.float32)
    np.testing.assert_array_equal(log_normalize(x), x)


def test_sparse_and_dense_score_alike() -> None:
    a, b = cells(seed=1), cells(seed=2)
    dense = (a.X.toarray(), b.X.toarray())
    assert rbf_mmd(a, b) == pytest.approx(rbf_mmd(*dense))
    assert zero_fraction_gap(a, b) == pytest.approx(zero_fraction_gap(*dense))


def test_identical_cells_are_perfect() -> None:
    a = cells()
    labels = {"real_labels": "type", "synthetic_labels": "type"}
    assert rbf_mmd(a, a) == pytest.approx(0, abs=1e-6)
    assert wasserstein2(a, a, **labels) == pytest.approx(0, abs=1e-3)
    assert within_type_correlation(a, a, **labels) == pytest.approx(1)
    assert gene_mean_correlation(a, a) == pytest.approx(1)
    assert zero_fraction_gap(a, a) == 0
    assert log_fold_change_error(a, a, **labels) == 0


def test_forest_cannot_split_one_source_but_splits_two() -> None:
    assert abs(rf_auc(cells(seed=1), cells(seed=2), n_repeats=2) - 0.5) < 0.1
    shifted = cells(seed=2)
    shifted.X = sparse.csr_matrix(shifted.X.toarray()[:, np.r_[15:30, 0:15]])
    assert rf_auc(cells(seed=1), shifted, n_repeats=1) > 0.9


def test_wasserstein_of_a_shift_is_the_shift() -> None:
    x = np.random.default_rng(0).normal(size=(60, 5))
    assert wasserstein2(x, x + np.array([3.0, 0, 0, 0, 4.0])) == pytest.approx(5, rel=1e-4)


def test_wasserstein_needs_a_shared_type() -> None:
    a = cells()
    with pytest.raises(ValueError, match="No type"):
        wasserstein2(a, a, real_labels=np.full(200, "x"), synthetic_labels=np.full(200, "y"))


def test_zero_fraction_gap_is_in_points() -> None:
    assert zero_fraction_gap(np.ones((2, 2)), np.array([[0.0, 1], [1, 1]])) == 25


def test_fold_change_error_in_a_closed_form() -> None:
    a = AnnData(np.array([[3.0, 1.0]] * 3 + [[1.0, 3.0]] * 3, dtype=np.float32))
    swapped = AnnData(a.X[::-1].copy())
    label = np.repeat(["t", "u"], 3)
    change = np.log2(7500.1) - np.log2(2500.1)
    assert log_fold_change_error(a, swapped, real_labels=label, synthetic_labels=label) == pytest.approx(
        2 * change, rel=1e-4
    )


def test_within_type_correlation_ignores_differences_between_types() -> None:
    independent = nb_baseline(cells(400), "type")
    score = within_type_correlation(cells(400, seed=3), independent, real_labels="type", synthetic_labels="type")
    real = within_type_correlation(cells(400, seed=3), cells(400, seed=4), real_labels="type", synthetic_labels="type")
    assert abs(score) < 0.3 < 0.7 < real


def test_gene_correlation_agreement_is_the_correlation_of_correlations() -> None:
    a, b = cells(300, seed=1), cells(300, seed=2)
    triangle = np.triu_indices(30, 1)
    expected = [np.corrcoef(log_normalize(x), rowvar=False)[triangle] for x in (a, b)]
    assert gene_correlation_agreement(a, b) == pytest.approx(np.corrcoef(*expected)[0, 1], abs=1e-6)


def test_gene_correlation_agreement_sees_what_types_share_and_what_they_do_not() -> None:
    real, independent = cells(400, seed=3), nb_baseline(cells(400), "type")
    other = gene_correlation_agreement(real, cells(400, seed=4))
    assert 0.5 < gene_correlation_agreement(real, independent) < other - 0.02
    shuffled = AnnData(np.random.default_rng(0).permuted(real.X.toarray(), axis=0))
    assert abs(gene_correlation_agreement(real, shuffled)) < 0.2


def test_baseline_keeps_means_and_variances_by_type() -> None:
    train = cells(600)
    drawn = nb_baseline(train, "type", labels=["a"] * 3000, seed=1)
    assert drawn.shape == (3000, 30) and drawn.X.dtype == np.int32 and set(drawn.obs["type"]) == {"a"}
    own = train[train.obs["type"] == "a"].X.toarray()
    np.testing.assert_allclose(drawn.X.toarray().mean(axis=0), own.mean(axis=0), rtol=0.12)
    ratio = drawn.X.toarray().var(axis=0) / own.var(axis=0)
    assert 0.7 < np.median(ratio) < 1.4


def test_baseline_repeats_by_seed_and_names_unknown_types() -> None:
    train = cells(60)
    assert (nb_baseline(train, "type", seed=3).X != nb_baseline(train, "type", seed=3).X).nnz == 0
    with pytest.raises(ValueError, match=r"\['z'\]"):
        nb_baseline(train, "type", labels=["z"])


def test_mismatched_genes_are_an_error() -> None:
    with pytest.raises(ValueError, match="30 genes and synthetic 29"):
        rf_auc(cells(), cells(genes=29))


@pytest.mark.slow
def test_scorecard_has_floor_and_baseline() -> None:
    real, synthetic, floor = cells(seed=1), cells(seed=2), cells(seed=3)
    table = cell_scorecard(real, synthetic, by="type", floor=floor)
    assert list(table.columns) == ["ideal", "synthetic", "real half", "NB baseline"]
    assert table.notna().all(axis=None)
    row = table.loc["within-type correlation"]
    assert row["synthetic"] > 0.5 > abs(row["NB baseline"])
    assert list(cell_scorecard(real, synthetic, by=["type"]).columns) == ["ideal", "synthetic"]


def test_scores_without_labels_leave_out_what_needs_types() -> None:
    scores = cell_scores(cells(seed=1), cells(seed=2))
    assert set(scores) == {
        *("rf_auc", "rbf_mmd", "wasserstein2"),
        *("gene_correlation_agreement", "gene_mean_correlation", "zero_fraction_gap"),
    }


class TestEvaluate:
    @pytest.mark.slow
    def test_fresh_cells_score_like_the_floor_and_independent_genes_do_not(self) -> None:
        train, unseen, fresh = (cells(400, seed=seed) for seed in (1, 2, 3))
        scores = evaluate(train, fresh, condition="type", holdout=unseen).to_frame().set_index("metric")
        sides = ["synthetic", "low", "high", "floor", "independent"]
        assert list(scores.columns) == [*sides, "better", "meaning"]
        assert scores["better"].to_dict() == {
            "rf_auc": "near 0.5",
            "rbf_mmd": "lower",
            "wasserstein2": "lower",
            "within_type_correlation": "higher",
            "gene_correlation_agreement": "higher",
            "gene_mean_correlation": "higher",
            "zero_fraction_gap": "near 0",
            "log_fold_change_error": "lower",
            "mean_variance_error": "lower",
            "dropout_error": "lower",
            "mixing": "near 1",
            "marker_precision": "higher",
            "marker_direction": "higher",
            "fold_change_correlation": "higher",
            "type_recall": "higher",
        }
        assert (scores["low"] <= scores["synthetic"]).all() and (scores["synthetic"] <= scores["high"]).all()
        for metric in ("rf_auc", "rbf_mmd", "within_type_correlation", "gene_correlation_agreement"):
            synthetic, floor, independent = scores.loc[metric, ["synthetic", "floor", "independent"]].astype(float)
            assert abs(synthetic - floor) < abs(independent - floor), metric

    @pytest.mark.slow
    def test_without_a_holdout_both_halves_of_the_real_cells_stand_in(self) -> None:
        real = cells(400, seed=1)
        scores = evaluate(real, cells(400, seed=2), condition="type").to_frame().set_index("metric")
        assert scores.loc["rf_auc", "floor"] == pytest.approx(0.5, abs=0.1)
        assert scores.loc["rf_auc", "independent"] > scores.loc["rf_auc", "synthetic"]
        # Copies of the real cells: half of them are in the half that they are compared with.
        assert evaluate(real, real, condition="type").to_frame().set_index("metric").loc["rbf_mmd", "synthetic"] > 0

    @pytest.mark.slow
    def test_the_same_seed_gives_the_same_frame(self) -> None:
        real, synthetic = cells(100, seed=1), cells(100, seed=2)
        first, second, other = (evaluate(real, synthetic, condition="type", random_state=s) for s in (0, 0, 1))
        pd.testing.assert_frame_equal(first.to_frame(), second.to_frame())
        assert not first.to_frame().equals(other.to_frame())

    @pytest.mark.slow
    def test_counts_are_found_where_a_fit_finds_them_and_nothing_changes(self) -> None:
        real, synthetic = cells(100, seed=1), cells(100, seed=2)
        plain = evaluate(real, synthetic, condition="type").to_frame()
        layered = real.copy()
        layered.layers["counts"] = real.X.copy()
        layered.X = log_normalize(real)
        before = layered.X.copy()
        pd.testing.assert_frame_equal(evaluate(layered, synthetic, condition="type").to_frame(), plain)
        np.testing.assert_array_equal(layered.X, before)

    @pytest.mark.slow
    def test_numbers_are_types_or_bins_of_the_real_range(self) -> None:
        real, synthetic = cells(120, seed=1), cells(120, seed=2)
        real.obs["dose"], synthetic.obs["dose"] = np.repeat([0, 1, 2], 40), np.repeat([0.0, 1.0, 2.0], 40)
        by_dose = evaluate(real, synthetic, condition=["type", "dose"]).to_frame()
        assert by_dose["synthetic"].notna().all()
        real.obs["time"], synthetic.obs["time"] = np.linspace(0, 1, 120), np.linspace(0.01, 1.02, 120)
        assert evaluate(real, synthetic, condition="time").to_frame()["synthetic"].notna().all()

    @pytest.mark.slow
    def test_continuous_values_have_a_baseline_without_dependence_too(self) -> None:
        real, fresh = cells(300, seed=1), cells(300, seed=2)
        for one in (real, fresh):
            one.X = log_normalize(one) - 1
        scores = evaluate(real, fresh, condition="type").to_frame().set_index("metric")
        assert abs(scores.loc["within_type_correlation", "independent"]) < 0.3
        assert scores.loc["within_type_correlation", "synthetic"] > 0.5
        fold_changes = scores.loc["log_fold_change_error"]
        assert fold_changes["independent"] < 2 * fold_changes["floor"]

    def test_max_rows_bounds_the_cells(self, monkeypatch) -> None:
        seen = []

        def record(real, synthetic, **kwargs):
            if kwargs.get("forest", True):
                seen.append((real.shape[0], synthetic.shape[0]))
            return {"rf_auc": 0.5}

        monkeypatch.setattr("tabdiff.evaluation.cell_report.cell_scores", record)
        evaluate(cells(200), cells(200), max_rows=30)
        evaluate(cells(200), cells(300))
        assert seen == [(30, 30)] * 3 + [(100, 100)] * 3

    def test_what_does_not_fit_together_is_refused(self) -> None:
        real = cells(60)
        with pytest.raises(TypeError, match="real is an AnnData, but synthetic is a ndarray"):
            evaluate(real, real.X.toarray())
        with pytest.raises(TypeError, match="target= is for tables"):
            evaluate(real, real, target="type")
        with pytest.raises(TypeError, match="condition='species' is for AnnData"):
            evaluate(load_penguins(), load_penguins(), condition="species")
        with pytest.raises(ValueError, match=r"synthetic.obs has no \['batch'\]"):
            evaluate(AnnData(real.X, obs=real.obs.assign(batch="a")), real, condition=["type", "batch"])
        with pytest.raises(ValueError, match=r"give synthetic\[:, real.var_names\]"):
            evaluate(real, real[:, ::-1], condition="type")
        log = real.copy()
        log.X = log_normalize(real)
        with pytest.raises(ValueError, match="real holds counts, but synthetic does not"):
            evaluate(real, log)


def test_threads_stay_as_they_were_whatever_scanpy_makes_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    ranks, before = scanpy.tl.rank_genes_groups, torch.get_num_threads()

    def rank_genes_groups(*args: Any, **kwargs: Any) -> None:
        ranks(*args, **kwargs)
        torch.set_num_threads(before + 1)  # as numba does in some processes, for all runtimes of OpenMP

    monkeypatch.setattr(scanpy.tl, "rank_genes_groups", rank_genes_groups)
    found = rank_genes(np.random.default_rng(0).random((40, 8)), np.repeat(["a", "b"], 20))
    assert set(found) == {"a", "b"} and torch.get_num_threads() == before
