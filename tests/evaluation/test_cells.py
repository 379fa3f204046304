"""Single-cell metrics: closed forms, invariances, and the order of copies, baselines and noise."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from tabdiff.evaluation.cells import (
    cell_scorecard,
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


def test_scorecard_has_floor_and_baseline() -> None:
    real, synthetic, floor = cells(seed=1), cells(seed=2), cells(seed=3)
    table = cell_scorecard(real, synthetic, by="type", floor=floor)
    assert list(table.columns) == ["ideal", "synthetic", "real half", "NB baseline"]
    assert table.notna().all(axis=None)
    row = table.loc["within-type correlation"]
    assert row["synthetic"] > 0.5 > abs(row["NB baseline"])
    assert list(cell_scorecard(real, synthetic, by=["type"]).columns) == ["ideal", "synthetic"]
