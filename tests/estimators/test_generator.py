import copy
import pickle

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from torch import nn

from tabdiff import DiffusionGenerator, TableCodec, TrainingOptions
from tabdiff.datasets import load_penguins
from tabdiff.diffusion import METHODS, ClassifierFreeGuidance, LogitNormal, Loss

QUICK = {"max_steps": 30, "hidden_size": 32, "n_blocks": 1, "random_state": 0}


def quick(**kwargs):
    return DiffusionGenerator(**{**QUICK, **kwargs})


@pytest.fixture(scope="module", params=["mlp", pytest.param("dit", marks=pytest.mark.slow)], autouse=True)
def denoiser(request):
    """Every test here holds for every network."""
    QUICK["denoiser"] = request.param
    return request.param


@pytest.fixture(scope="module")
def penguins():
    return load_penguins()


@pytest.fixture(scope="module")
def fitted(penguins, denoiser):
    return quick().fit(penguins, condition=["species", "year"])


# ------------------------------------------------------------------ containers


def test_a_frame_comes_back_as_the_same_frame(fitted, penguins):
    sample = fitted.sample(400)
    assert list(sample.columns) == list(penguins.columns)
    assert sample.dtypes.to_list() == penguins.dtypes.to_list()
    assert sample["species"].isin(penguins["species"].cat.categories).all()
    assert sample["body_mass_g"].dropna().between(2700, 6300).all()
    assert sample["sex"].isna().any()


@pytest.mark.parametrize(
    "column",
    [
        pd.array([1, None, 3] * 20, dtype="Int64"),
        pd.Categorical(["a", "b", "a"] * 20, categories=["unused", "b", "a"]),
        pd.Categorical(["lo", "hi", "lo"] * 20, categories=["lo", "mid", "hi"], ordered=True),
        np.array([True, False, True] * 20),
        pd.array([True, None, False] * 20, dtype="boolean"),
        np.array(["x", "y", "x"] * 20, dtype=object),
        pd.array(["x", None, "x"] * 20, dtype="string"),
        np.linspace(0, 1, 60),
        np.linspace(0, 1, 60, dtype="float32"),
        pd.array(np.linspace(0, 1, 60), dtype="Float64"),
        np.arange(60, dtype="int16"),
        np.arange(60, dtype="uint8"),
    ],
    ids=lambda c: str(getattr(c, "dtype", c)),
)
@pytest.mark.parametrize("role", ["feature", "condition"])
def test_every_dtype_round_trips(column, role):
    frame = pd.DataFrame({"other": np.random.default_rng(0).normal(size=60), "c": column})
    condition = "c" if role == "condition" else None
    sample = quick(max_steps=3).fit(frame, condition=condition).sample(80)
    assert list(sample.columns) == ["other", "c"]
    assert sample["c"].dtype == frame["c"].dtype
    assert set(sample["c"].dropna()) <= set(frame["c"].dropna()) or column.dtype.kind == "f" or len(set(column)) > 50
    if frame["c"].isna().any() and role == "feature":
        assert sample["c"].isna().any()


def test_arrays_come_back_as_arrays():
    X = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
    y = np.array(["a", "b"] * 50)
    gen = quick().fit(X, y)
    sample, labels = gen.sample(10, condition="b", return_condition=True)
    assert sample.shape == (10, 3) and sample.dtype == np.float32
    assert list(labels) == ["b"] * 10
    assert gen.sample().shape == (1, 3)


def test_frame_with_labels_apart(penguins):
    gen = quick().fit(penguins.drop(columns="species"), penguins["species"])
    sample, labels = gen.sample(condition={"species": {"Adelie": 2, "Gentoo": 1}}, return_condition=True)
    assert "species" not in sample and list(labels) == ["Adelie", "Adelie", "Gentoo"]


def test_the_input_is_never_changed(penguins):
    before = penguins.copy(deep=True)
    quick(max_steps=2).fit(penguins, condition="species").sample(5)
    pd.testing.assert_frame_equal(penguins, before)


# ------------------------------------------------------------------ conditions


def test_condition_forms_through_sample(fitted):
    assert (fitted.sample(20, condition={"species": "Gentoo"})["species"] == "Gentoo").all()
    frame = pd.DataFrame({"species": ["Adelie", "Gentoo"], "year": [2007, 2009]})
    pd.testing.assert_frame_equal(
        fitted.sample(condition=frame)[["species", "year"]].astype({"species": object}),
        frame.astype({"species": object}),
    )
    unconditional = fitted.sample(4, condition="unconditional")
    assert unconditional[["species", "year"]].isna().all(axis=None)
    rows, labels = fitted.sample(6, return_condition=True)
    pd.testing.assert_frame_equal(rows[["species", "year"]], labels)


def test_a_wide_spread_of_guidance_scales_gives_valid_rows(fitted):
    for scale in (0.0, 0.5, 3.0):
        sample = fitted.sample(20, condition={"species": "Gentoo"}, guidance_scale=scale)
        assert sample["body_mass_g"].dropna().between(2700, 6300).all()


# -------------------------------------------------------------------- seeds


def test_the_same_seed_gives_the_same_rows(penguins):
    a, b = (quick().fit(penguins, condition="species") for _ in range(2))
    pd.testing.assert_frame_equal(a.sample(20), b.sample(20))
    pd.testing.assert_frame_equal(a.sample(20, random_state=3), b.sample(20, random_state=3))
    assert not a.sample(20).equals(a.sample(20))


def test_torchs_and_numpys_global_states_are_left_alone(penguins):
    torch_state, numpy_state = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    gen = quick(max_steps=2).fit(penguins)
    gen.sample(3)
    gen.score_samples(penguins[:3])
    assert torch.equal(torch_state, torch.random.get_rng_state())
    assert np.array_equal(numpy_state, np.random.get_state()[1])  # noqa: NPY002


def test_rows_do_not_depend_on_the_batch_size(fitted):
    a, b = (fitted.sample(50, random_state=0, batch_size=k) for k in (50, 7))
    # float32 sums differ in their last bits between batch sizes, which can move a value by one unit.
    numeric = ["bill_length_mm", "bill_depth_mm"]
    assert np.nanmedian(np.abs(a[numeric].to_numpy() - b[numeric].to_numpy())) < 0.11


# ------------------------------------------------------------ copies and files


@pytest.mark.parametrize("way", ["pickle", "joblib", "deepcopy", "save"])
def test_a_copy_samples_and_scores_alike(fitted, penguins, way, tmp_path):
    if way == "pickle":
        other = pickle.loads(pickle.dumps(fitted))
    elif way == "joblib":
        joblib.dump(fitted, tmp_path / "model.joblib")
        other = joblib.load(tmp_path / "model.joblib")
    elif way == "deepcopy":
        other = copy.deepcopy(fitted)
    else:
        fitted.save(tmp_path / "model")
        assert sorted(p.name for p in (tmp_path / "model").iterdir()) == ["config.json", "model.safetensors"]
        other = DiffusionGenerator.load(tmp_path / "model")
    pd.testing.assert_frame_equal(other.sample(9, random_state=1), fitted.sample(9, random_state=1))
    np.testing.assert_array_equal(other.score_samples(penguins[:9]), fitted.score_samples(penguins[:9]))
    assert list(other.feature_names_in_) == list(penguins.columns) and other.n_features_in_ == 8
    pd.testing.assert_frame_equal(other.schema_, fitted.schema_)
    assert clone(other).fit(penguins[:50]).n_steps_ == 30


def test_clone_repr_and_html(fitted):
    assert clone(fitted).get_params()["max_steps"] == 30
    assert "max_steps=30" in repr(fitted)
    assert "DiffusionGenerator" in fitted._repr_html_()


def test_a_callable_denoiser_builds_any_module(penguins, tmp_path):
    class Linear(nn.Module):
        def __init__(self, n_inputs, n_outputs, condition_size):
            super().__init__()
            self.layer = nn.Linear(n_inputs + 1 + condition_size, n_outputs)

        def forward(self, x, t, c):
            return self.layer(torch.cat([x, t[:, None], c], dim=1))

    gen = quick(denoiser=Linear).fit(penguins, condition="species")
    assert isinstance(gen.denoiser_.network, Linear)
    assert gen.sample(5).shape == (5, 8)
    with pytest.raises(TypeError, match="callable"):
        gen.save(tmp_path / "model")
    with pytest.raises(TypeError, match=r"nn\.Module"):
        quick(denoiser=lambda a, b, c: None).fit(penguins)


@pytest.mark.parametrize("method", ["ddpm", "ddim", "dpmpp_2m"])
@pytest.mark.parametrize("n_timesteps", [None, 1000])
@pytest.mark.parametrize("target", ["eps", "x0", "v"])
def test_methods_targets_and_discrete_time_work_together(method, n_timesteps, target):
    X = np.random.default_rng(0).normal(size=(60, 2))
    gen = quick(target=target, n_timesteps=n_timesteps, max_steps=3).fit(X)
    assert np.isfinite(gen.sample(4, method=method, steps=5)).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    "parameters",
    [
        {"schedule": "rectified_flow", "target": "flow"},
        {"schedule": "edm", "target": "edm", "training": TrainingOptions(times="log_normal")},
        {"schedule": "sigmoid", "loss": "min_snr"},
        {"schedule": "vp", "target": "score", "loss": "elbo"},
        {"schedule": "sub_vp", "target": "x0", "training": TrainingOptions(times="uniform")},
        {"schedule": "ve", "target": "edm"},
        {"loss": "huber", "training": TrainingOptions(times="loss_aware")},
        {"training": TrainingOptions(times=LogitNormal(0.0, 1.0)), "loss": Loss("min_snr", gamma=1.0)},
    ],
    ids=str,
)
def test_every_part_is_reached_by_name_or_object_and_saved(parameters, penguins, tmp_path):
    gen = quick(**parameters, max_steps=5).fit(penguins, condition="species")
    assert gen.sample(4).shape == (4, 8)
    assert np.isfinite(gen.score_samples(penguins[:3])).all()
    gen.save(tmp_path / "model")
    other = DiffusionGenerator.load(tmp_path / "model")
    pd.testing.assert_frame_equal(other.sample(3, random_state=0), gen.sample(3, random_state=0))


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_sampling_method_is_reached_by_name(fitted, method):
    assert fitted.sample(3, method=method, steps=4, random_state=0).shape == (3, 8)


def test_guidance_by_name_and_by_callable(fitted):
    condition = {"species": "Gentoo"}
    plus = fitted.sample(3, condition=condition, guidance="cfg++", guidance_scale=0.5, random_state=0)
    limited = fitted.sample(
        3,
        condition=condition,
        guidance=lambda d, s: ClassifierFreeGuidance(d, s, interval=(0.1, 1.0)),
        guidance_scale=2.0,
        random_state=0,
    )
    assert plus.shape == limited.shape == (3, 8)
    with pytest.raises(ValueError, match="guidance must be one of"):
        fitted.sample(3, condition=condition, guidance="strong")


@pytest.mark.slow
def test_flow_likelihood_agrees_with_the_bound_and_with_the_data():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(800, 1)) * 2
    gen = quick(max_steps=400).fit(X)
    rows = np.array([[-1.0], [0.0], [2.0]])
    flow, bound = (gen.score_samples(rows, method=m) for m in ("flow", "bound"))
    exact = -0.5 * (rows[:, 0] / 2) ** 2 - 0.5 * np.log(2 * np.pi * 4)
    # The marginal is a histogram of 800 values here, so single densities are noisy; their mean is less so.
    assert abs((flow - bound).mean()) < 0.5
    assert abs(flow.mean() - exact.mean()) < 1.5
    with pytest.raises(ValueError, match="'bound', 'continuous' or 'flow'"):
        gen.score_samples(rows, method="exact")


def test_flow_likelihood_refuses_categories(fitted, penguins):
    with pytest.raises(ValueError, match="method='bound'"):
        fitted.score_samples(penguins[:3], method="flow")


def test_loss_plot(fitted):
    ax = fitted.plot_loss()
    assert list(ax.lines[0].get_ydata()) == fitted.history_["loss"]
    ax.figure.clear()


def test_verbose_shows_progress(penguins, capsys):
    quick(verbose=1).fit(penguins)
    shown = capsys.readouterr().err
    assert "30/30" in shown and "loss=" in shown


# ----------------------------------------------------------------- scores


@pytest.mark.slow
def test_score_prefers_the_rows_of_its_own_kind():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(500, 2)) @ np.array([[1.0, 0.95], [0.0, 0.3]])
    gen = DiffusionGenerator(max_steps=500, hidden_size=64, random_state=0).fit(X)
    scores = gen.score_samples(np.array([[0.0, 0.0], [1.0, 1.0], [1.0, -1.0], [30.0, 30.0]]))
    assert scores[0] > scores[2] and scores[1] > scores[2] > scores[3]
    assert gen.score(X) == pytest.approx(gen.score_samples(X).mean())
    assert gen.score(X[:2], sample_weight=[1, 0]) == pytest.approx(gen.score_samples(X[:2])[0])


@pytest.mark.slow
def test_score_takes_the_condition_from_the_frame_from_y_or_from_the_argument(fitted, penguins):
    rows = penguins.dropna()[:20]
    own = fitted.score_samples(rows)
    assert np.isfinite(own).all()
    np.testing.assert_allclose(fitted.score_samples(rows, condition=rows[["species", "year"]]), own)
    assert not np.allclose(fitted.score_samples(rows.drop(columns=["species", "year"])), own)
    X, y = rows[["bill_length_mm", "bill_depth_mm"]].to_numpy(), rows["species"]
    gen = quick().fit(X, y)
    assert gen.score(X, y) == pytest.approx(gen.score_samples(X, condition=y).mean())


# --------------------------------------------------------------- bad input


def frame(**columns):
    return pd.DataFrame({"x": np.linspace(0, 1, 10), **columns})


@pytest.mark.parametrize(
    ("X", "condition", "error", "message"),
    [
        (pd.DataFrame(), None, ValueError, "0 sample"),
        (frame()[:0], None, ValueError, "0 sample"),
        (frame()[:1], None, ValueError, "1 sample"),
        (np.ones((1, 2)), None, ValueError, "1 sample"),
        (frame(bad=[np.inf] + [1.0] * 9), None, ValueError, "'bad'.*infinite"),
        (np.array([[1.0, np.inf], [2.0, 3.0]]), None, ValueError, r"infinity in column\(s\) \[1\]"),
        (frame(bad=[1, "x"] * 5), None, TypeError, "'bad'.*mixes"),
        (frame(kind=["a", "b"] * 5), "kinds", ValueError, "'kinds'.*Did you mean 'kind'"),
        (frame(kind=["a", "b"] * 5), ["a"] * 9, ValueError, "'a'.*lacks"),
        (frame(), np.zeros(9), ValueError, r"\[10, 9\]"),
        (frame(big=2**60 + np.arange(10)), None, ValueError, r"'big'.*beyond 2\*\*53"),
        (frame(lists=[[1], [2]] * 5), None, TypeError, "'lists'.*list"),
        (frame(), 0, ValueError, "names of columns"),
        (np.ones((10, 2)), "kind", ValueError, "DataFrame or AnnData"),
        (frame(kind=["a", "b"] * 5)[["kind"]], "kind", ValueError, "nothing is left"),
        (frame().set_axis(["a"], axis=1).assign(b=1).set_axis(["a", "a"], axis=1), None, ValueError, r"\['a'\]"),
        (pd.Series([1.0, 2.0], name="s"), None, TypeError, "to_frame"),
        ("table.csv", None, TypeError, "str"),
    ],
)
def test_bad_input_to_fit_says_what_and_where(X, condition, error, message):
    with pytest.raises(error, match=message):
        quick().fit(X, condition=condition)


def test_a_refused_refit_leaves_the_model_as_it_was(penguins):
    gen = quick().fit(penguins)
    before = gen.score_samples(penguins[:3])
    for X, condition in ((penguins[["year"]], np.zeros(3)), (np.ones((5, 2)), np.zeros(3)), (frame(), "absent")):
        with pytest.raises(ValueError, match=r"samples|lacks"):
            gen.fit(X, condition=condition)
    np.testing.assert_array_equal(gen.score_samples(penguins[:3]), before)


def test_saving_follows_what_was_fitted_and_keeps_parameters(penguins, tmp_path):
    gen = quick(random_state=np.int64(3), schedule="linear").fit(penguins)
    gen.set_params(denoiser=lambda *sizes: None, hidden_size=8).save(tmp_path / "model")
    other = DiffusionGenerator.load(tmp_path / "model")
    assert other.schedule == "linear" and other.random_state == 3 and other.denoiser == "auto"
    pd.testing.assert_frame_equal(other.sample(3, random_state=0), gen.sample(3, random_state=0))


@pytest.mark.parametrize("target", ["eps", "score"])
@pytest.mark.parametrize("method", ["ddim", "dpmpp_2m", "ddpm"])
@pytest.mark.slow
def test_noise_targets_stay_on_the_data(target, method):
    X = np.random.default_rng(0).normal(size=(500, 2)) @ np.array([[1.0, 0.9], [0.0, 0.4]])
    sample = (
        quick(target=target, max_steps=300, training=TrainingOptions(observed_masks=0))
        .fit(X)
        .sample(500, method=method, steps=40, random_state=0)
    )
    assert np.abs(sample.std(axis=0) / X.std(axis=0) - 1).max() < 0.35
    assert np.corrcoef(sample.T)[0, 1] > 0.6


def test_y_and_condition_together_are_refused():
    with pytest.raises(ValueError, match="both"):
        quick().fit(frame(), y=np.zeros(10), condition=np.zeros(10))


def test_missing_values_and_constants_are_modelled(fitted):
    data = frame(gaps=[np.nan, 1.0] * 5, constant=[5] * 10, empty=[None] * 10, flag=["on"] * 10)
    sample = quick().fit(data).sample(100)
    assert (sample["constant"] == 5).all() and (sample["flag"] == "on").all() and sample["empty"].isna().all()
    assert sample["gaps"].isna().any() and (sample["gaps"].dropna() == 1.0).all()
    constants = pd.DataFrame({"a": [1, 1, 1], "b": ["x", "x", "x"]})
    pd.testing.assert_frame_equal(quick(max_steps=2).fit(constants).sample(3), constants)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_samples": -1}, "n_samples.*-1"),
        ({"n_samples": 0}, "n_samples.*0"),
        ({"n_samples": 2.5}, "n_samples.*2.5"),
        ({"n_samples": 3, "condition": {"species": "Gento"}}, "Did you mean 'Gentoo'"),
        ({"n_samples": 3, "guidance_scale": float("nan")}, "guidance_scale"),
        ({"n_samples": 3, "method": "magic"}, "magic.*known"),
        ({"n_samples": 3, "steps": 0}, "step"),
    ],
)
def test_bad_input_to_sample_says_what(fitted, arguments, message):
    with pytest.raises(ValueError, match=message):
        fitted.sample(**arguments)


def test_guidance_of_a_scale_is_that_of_the_formula(denoiser):
    """The scale that is asked for is the one of `ClassifierFreeGuidance`, and 0 is the unconditional model exactly."""
    kinds = ["a", "b"] * 30
    rows = pd.DataFrame({"x": np.linspace(0, 1, 60), "copy": kinds, "k": kinds})
    settings = {
        "learning_rate": 1e-2,
        "refine": False,
        "codec": TableCodec(dependencies=False),
        "condition_dropout": 0.3,
    }
    gen = quick(**settings).fit(rows, condition="k")

    def drawn(condition="a", **settings):
        return gen.sample(60, condition, random_state=0, **settings).drop(columns="k")

    own = drawn(guidance_scale=1.5, guidance=lambda d, scale: ClassifierFreeGuidance(d, 2.0))
    pd.testing.assert_frame_equal(drawn(guidance_scale=2.0), own)
    # Categories are drawn by the last estimate, which must not look at the condition either.
    unconditional = drawn("unconditional")
    pd.testing.assert_frame_equal(drawn(guidance_scale=0.0), unconditional)
    assert not drawn()["copy"].equals(unconditional["copy"])


def test_a_condition_that_the_model_does_not_have():
    gen = quick(max_steps=2).fit(frame())
    with pytest.raises(ValueError, match="fitted without one"):
        gen.sample(3, condition="a")
    with pytest.raises(ValueError, match="guidance_scale"):
        gen.sample(3, guidance_scale=2.0)


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("denoiser", "transformer"),
        ("schedule", "sine"),
        ("target", "noise"),
        ("hidden_size", 0),
        ("max_steps", -5),
        ("batch_size", "large"),
        ("condition_dropout", 1.5),
        ("learning_rate", 0),
        ("max_time", 0),
        ("n_timesteps", 0),
        ("learning_rate", "fast"),
        ("precision", "half"),
        ("device", "abacus"),
    ],
)
def test_bad_parameters_are_named(parameter, value):
    with pytest.raises(ValueError, match=str(value)):
        DiffusionGenerator(**{parameter: value}).fit(frame())
