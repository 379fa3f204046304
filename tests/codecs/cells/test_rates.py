import numpy as np
import pytest
import torch
from scipy import sparse

from tabdiff.codecs.cells.classes import CellClasses
from tabdiff.codecs.cells.rates import ClassRates, fit_dispersion, group_sum, overdispersed_genes, prior_counts


def simulate(seed=0, n=240, genes=400, n_classes=3, changed=40):
    """Counts of classes in which the first `changed` genes differ by a factor of about four, the others not at all."""
    rng = np.random.default_rng(seed)
    base = rng.gamma(0.5, 1.0, size=genes) + 0.02
    factor = np.ones((n_classes, genes))
    factor[:, :changed] = np.exp(rng.normal(0, 1.4, size=(n_classes, changed)))
    rate = base * factor
    rate /= rate.sum(axis=1, keepdims=True)
    code = rng.integers(n_classes, size=n)
    library = rng.lognormal(6, 0.3, size=n)
    mean = rate[code] * library[:, None]
    x = rng.poisson(rng.gamma(4.0, mean / 4.0))
    classes = CellClasses(torch.as_tensor(code, dtype=torch.float32)[:, None], [n_classes], n)
    return x, classes, x.sum(axis=1).astype(float), rate


@pytest.mark.parametrize("seed", range(3))
def test_shrunk_rates_are_nearer_the_truth_than_counts(seed):
    x, classes, library, truth = simulate(seed)
    rates = np.exp(ClassRates(x, classes, library).class_log_rate)
    raw = group_sum(x, classes.training, 3) / np.bincount(classes.training, library)[:, None]

    def error(estimate, genes):
        change = [np.log2(1e4 * r[0] + 0.1) - np.log2(1e4 * r[1] + 0.1) for r in (estimate, truth)]
        return np.abs(change[0] - change[1])[genes].mean()

    # What the many genes without a change gain is far more than what changes lose that could as well be noise.
    same, changed = slice(40, None), slice(None, 40)
    assert error(rates, same) < 0.2 * error(raw, same)
    assert error(rates, changed) < 1.8 * error(raw, changed)
    assert error(rates, slice(None)) < 0.4 * error(raw, slice(None))
    np.testing.assert_allclose(rates.sum(axis=1), 1, rtol=1e-5)


def test_prior_is_weak_where_groups_differ_and_strong_where_not():
    rng = np.random.default_rng(0)
    expected = np.full((4, 1000), 50.0)
    factor = np.ones((4, 1000))
    factor[:, :200] = np.exp(rng.normal(0, 1.0, size=(4, 200)))
    prior = prior_counts(rng.poisson(expected * factor).astype(float), expected, np.ones_like(expected))
    assert np.median(prior[:, :200]) < 5 and np.median(prior[:, 200:]) > 500


def test_additive_rates_predict_a_combination_that_is_missing():
    rng = np.random.default_rng(1)
    type_, batch = rng.integers(3, size=900), rng.integers(2, size=900)
    missing = (type_ == 2) & (batch == 1)
    effect = [rng.normal(0, 0.8, size=(3, 60)), rng.normal(0, 0.5, size=(2, 60))]
    log_rate = effect[0][type_] + effect[1][batch]
    x = rng.poisson(np.exp(log_rate) * 5)
    codes = torch.as_tensor(np.stack([type_, batch], axis=1)[~missing], dtype=torch.float32)
    classes = CellClasses(codes, [3, 2], int((~missing).sum()))
    rates = ClassRates(x[~missing], classes, x[~missing].sum(axis=1).astype(float))
    predicted = rates.additive(np.array([[2, 1]]))[0]
    truth = x[missing].sum(axis=0) / x[missing].sum()
    assert np.corrcoef(np.exp(predicted) / np.exp(predicted).sum(), truth)[0, 1] > 0.98


def test_sums_and_dispersion_are_those_of_a_dense_matrix():
    x, classes, library, truth = simulate(n=5000, genes=30, changed=0)
    matrix = sparse.csr_matrix(x.astype(np.float32))
    weight = np.random.default_rng(0).random(len(x))
    for power in (1, 2):
        direct = np.stack(
            [(weight[classes.training == c, None] * x[classes.training == c] ** power).sum(0) for c in range(3)]
        )
        np.testing.assert_allclose(group_sum(matrix, classes.training, 3, weight, power), direct)
    theta = np.exp(fit_dispersion(matrix, classes, library, np.log(truth)))
    assert np.median(theta) == pytest.approx(4.0, rel=0.15)


def test_genes_that_vary_are_taken():
    x, _, _, _ = simulate()
    x = np.concatenate([np.random.default_rng(0).poisson(5.0, size=(240, 5)), x], axis=1)
    x[::2, 7] += 90
    chosen = overdispersed_genes(x, 50)
    assert len(chosen) == 50 and 7 in chosen and not set(range(5)) & set(chosen) and (np.diff(chosen) > 0).all()
