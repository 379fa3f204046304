import pickle

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm
from sklearn.base import clone
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tabdiff import DiffusionGenerator, DiffusionOutlierDetector, TableCodec, TrainingOptions
from tabdiff.datasets import load_penguins
from tabdiff.estimators.detector import Marginal

QUICK = {"max_steps": 20, "hidden_size": 16, "n_blocks": 1, "random_state": 0}


def detector(parameters=None, **kwargs):
    return DiffusionOutlierDetector(DiffusionGenerator(**{**QUICK, **(parameters or {})}), **kwargs)


@pytest.fixture(scope="module")
def correlated():
    """Rows on a line with noise, and rows off it whose every value alone is ordinary."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=1500)
    inliers = np.column_stack([x, x + 0.2 * rng.normal(size=1500)])
    odd = np.column_stack([np.linspace(-1.5, 1.5, 30), np.linspace(1.5, -1.5, 30)])
    return inliers, odd[np.abs(odd[:, 0]) > 0.7]


@pytest.fixture(scope="module")
def fitted(correlated):
    parameters = {
        "max_steps": 400,
        "hidden_size": 64,
        "n_blocks": 2,
        "learning_rate": 3e-3,
        "training": TrainingOptions(ema_decay=0.98, observed_masks=0.0),
    }
    return detector(parameters).fit(correlated[0])


@pytest.mark.slow
def test_an_odd_combination_of_ordinary_values_is_found(fitted, correlated):
    inliers, odd = correlated
    scores = fitted.score_samples(np.vstack([inliers, odd]))
    assert roc_auc_score(np.r_[np.ones(len(inliers)), np.zeros(len(odd))], scores) > 0.97
    assert (fitted.predict(odd) == -1).mean() > 0.9
    # By their exact likelihood 5 % of the rows lie below the fence.
    assert 0.005 < (fitted.predict(inliers) == -1).mean() < 0.09


@pytest.mark.slow
def test_auto_is_the_lower_fence_of_the_training_scores(fitted, correlated):
    low, high = np.percentile(fitted.score_samples(correlated[0]), [25, 75])
    assert fitted.offset_ == pytest.approx(low - 1.5 * (high - low))


@pytest.mark.parametrize("contamination", [0.02, 0.5])
def test_contamination_is_the_share_that_is_flagged_in_training(correlated, contamination):
    X = correlated[0][:200]
    flagged = detector(contamination=contamination).fit_predict(X)
    assert (flagged == -1).sum() == 200 * contamination


def test_mixed_frames_with_missing_values(correlated):
    penguins = load_penguins()
    before = penguins.copy()
    fitted = detector().fit(penguins)
    pd.testing.assert_frame_equal(penguins, before)
    scores = fitted.score_samples(penguins)
    assert scores.shape == (344,) and np.isfinite(scores).all()
    assert fitted.feature_names_in_.tolist() == penguins.columns.to_list() and fitted.n_features_in_ == 8
    far = penguins.head(3).assign(bill_length_mm=500.0)
    assert (fitted.score_samples(far) < scores[:3]).all() and np.isfinite(fitted.score_samples(far)).all()


@pytest.mark.slow
def test_a_value_that_repeats_is_no_odder_than_one_that_does_not():
    # A probability beside densities would rank all rounded values last.
    x = np.random.default_rng(0).normal(size=600)
    rounded = np.arange(600) % 2 == 0
    fitted = detector().fit(np.where(rounded, np.round(x, 1), x)[:, None])
    scores = fitted.score_samples(np.where(rounded, np.round(x, 1), x)[:, None])
    assert roc_auc_score(rounded, scores) == pytest.approx(0.5, abs=0.1)
    assert roc_auc_score(np.abs(x) < 2, scores) > 0.97


@pytest.mark.parametrize("scale", [1.0, 1e300, 1e-300])
@pytest.mark.parametrize("n", [400, 4000])
def test_marginals_are_near_the_truth_and_finite_everywhere(scale, n):
    x = np.sort(np.random.default_rng(0).normal(2.0, 1.0, size=n))
    marginal = Marginal(x * scale, np.ones(n))
    at = np.linspace(0.5, 3.5, 50)
    error = marginal.log_density(at * scale) + np.log(scale) - norm.logpdf(at, 2.0, 1.0)
    assert np.abs(error).max() < 0.3
    fine = np.linspace(-20, 20, 4001)
    assert np.exp(marginal.log_density(fine * scale) + np.log(scale)).sum() * 0.01 == pytest.approx(1, abs=0.01)
    far = marginal.log_density(np.array([10.0, 100.0, 1e6, np.nan]) * scale)
    assert np.isfinite(far).all() and (np.diff(far[:3]) < 0).all() and far[3] == 0


@pytest.mark.slow
def test_by_default_a_broken_rule_counts():
    # Two columns that always agree: in one model the second is looked up, in the detector's own it is scored.
    rng = np.random.default_rng(0)
    city = rng.choice(["Rome", "Milan", "Lyon", "Nice"], 400)
    frame = pd.DataFrame({"city": city, "country": np.where(np.isin(city, ["Rome", "Milan"]), "Italy", "France")})
    frame["x"] = rng.normal(size=400)
    broken = frame.head(20).assign(country=frame["country"].head(20).map({"Italy": "France", "France": "Italy"}))
    parameters = {
        "max_steps": 300,
        "hidden_size": 32,
        "learning_rate": 3e-3,
        "training": TrainingOptions(ema_decay=0.95),
    }
    blind = detector(parameters).fit(frame)
    # What is looked up counts where it breaks the rule, which no training row did: as low as what was never seen.
    scores = blind.score_samples(broken)
    assert (scores < blind.offset_).all() and (scores < blind.score_samples(frame).min()).all()
    seeing = detector({**parameters, "codec": TableCodec(dependencies=False)}).fit(frame)
    assert (seeing.score_samples(broken) < seeing.score_samples(frame.head(20)) - 2).all()
    assert DiffusionOutlierDetector().fit(frame.head(30)).generator_.codec.dependencies is False


@pytest.mark.slow
def test_seeds_clone_and_pickle(correlated):
    X = correlated[0][:100]
    a, b, c = (detector({"random_state": None}, random_state=seed).fit(X) for seed in (0, 0, 1))
    np.testing.assert_array_equal(a.score_samples(X), b.score_samples(X))
    assert not np.array_equal(a.score_samples(X), c.score_samples(X))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(a)).predict(X), a.predict(X))
    assert not hasattr(clone(a), "offset_") and not hasattr(a.generator, "codec_")


@pytest.mark.slow
def test_at_the_end_of_a_pipeline(correlated):
    X = correlated[0][:150]
    pipe = make_pipeline(StandardScaler(), detector(contamination=0.1)).fit(X)
    assert (pipe.predict(X) == -1).sum() == 15
    np.testing.assert_array_equal(pipe.decision_function(X) < 0, pipe.predict(X) == -1)


def test_what_cannot_be_done_is_refused(correlated):
    X = correlated[0][:50]
    for share in (0, 0.6, -0.1, "high", None, True, float("nan")):
        with pytest.raises(ValueError, match=r"contamination must be 'auto' or a number in \(0, 0.5\]; got"):
            detector(contamination=share).fit(X)
    with pytest.raises(TypeError, match="generator must be a DiffusionGenerator"):
        DiffusionOutlierDetector(StandardScaler()).fit(X)
    adata = pytest.importorskip("anndata").AnnData(np.ones((5, 2), dtype=np.float32))
    with pytest.raises(TypeError, match="AnnData"):
        detector().fit(adata)
