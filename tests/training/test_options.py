import inspect
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from torch import nn

from tabdiff import DiffusionGenerator, TrainingOptions
from tabdiff.diffusion import LogitNormal
from tabdiff.model import persistence
from tabdiff.training import Callback, Checkpoint
from tabdiff.training.options import options_of

QUICK = {"max_steps": 4, "hidden_size": 8, "n_blocks": 1, "batch_size": 16, "refine": False, "random_state": 0}
GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "format-1"


@pytest.fixture(scope="module")
def X():
    return np.random.default_rng(0).normal(size=(40, 2))


@pytest.fixture(scope="module")
def fitted(X):
    options = TrainingOptions(ema_decay=0.5, betas=(0.8, 0.999), times=LogitNormal(0.5), clip_grad_norm=None)
    return DiffusionGenerator(**QUICK, training=options).fit(X)


class Watch(Callback):
    """Notes what the optimiser does in each step."""

    def on_fit_begin(self, training):
        self.rates, self.optimizer = [], training.optimizer

    def on_step_end(self, training):
        self.rates.append(training.learning_rate)


# ------------------------------------------------------------- an option object


def test_none_stands_for_the_defaults(X):
    plain, same = (DiffusionGenerator(**QUICK, training=t).fit(X) for t in (None, TrainingOptions()))
    np.testing.assert_array_equal(plain.sample(5, random_state=0), same.sample(5, random_state=0))
    assert plain.training is None and options_of(None).get_params() == TrainingOptions().get_params()


def test_options_are_parameters_of_the_estimator(X):
    gen = DiffusionGenerator(**QUICK).set_params(training__ema_decay=0.5)
    assert gen.training.ema_decay == 0.5 and gen.get_params()["training__ema_decay"] == 0.5
    copied = clone(gen)
    assert copied.training is not gen.training and copied.training.ema_decay == 0.5
    gen.set_params(training__warmup_steps=0)
    assert gen.training.get_params() == TrainingOptions(ema_decay=0.5, warmup_steps=0).get_params()
    gen.set_params(training=None, training__betas=(0.5, 0.9))
    assert gen.training.get_params() == TrainingOptions(betas=(0.5, 0.9)).get_params()
    search = GridSearchCV(DiffusionGenerator(**QUICK), {"training__ema_decay": [0.0, 0.9]}, cv=2).fit(X)
    assert search.best_params_["training__ema_decay"] in (0.0, 0.9)
    assert search.best_estimator_.training.ema_decay == search.best_params_["training__ema_decay"]


def test_the_signature_is_that_of_the_parameters():
    assert set(inspect.signature(DiffusionGenerator).parameters) == set(DiffusionGenerator().get_params(deep=False))
    assert "weight_decay" not in DiffusionGenerator().get_params()


OLD = {
    "weight_decay": 0.1,
    "ema_decay": 0.9,
    "clip_grad_norm": None,
    "accumulation_steps": 2,
    "learning_rate_schedule": "constant",
    "times": "uniform",
    "patience": 3,
    "checkpoint_dir": "folder",
}


@pytest.mark.parametrize(("name", "value"), OLD.items())
def test_an_old_name_says_what_to_write_and_that_works(name, value):
    with pytest.raises(TypeError, match=name) as refused:
        DiffusionGenerator(**{name: value})
    advice = str(refused.value).split(": ", 1)[1].replace("...", repr(value)).replace("(folder)", f"({value!r})")
    known = {"TrainingOptions": TrainingOptions, "Checkpoint": Checkpoint}
    gen = eval(f"DiffusionGenerator({advice})", {"DiffusionGenerator": DiffusionGenerator, **known})
    found = {**gen.get_params(), **options_of(gen.training).get_params(), "patience": gen.n_iter_no_change}
    found["checkpoint_dir"] = gen.callbacks[0].folder if gen.callbacks else None
    assert found[name] == value
    with pytest.raises(ValueError, match=name):
        gen.set_params(**{name: value})


def test_any_other_name_is_unknown_as_ever():
    with pytest.raises(TypeError, match="unexpected keyword argument 'momentum'"):
        DiffusionGenerator(momentum=0.9)
    with pytest.raises(ValueError, match="Invalid parameter 'momentum'"):
        DiffusionGenerator().set_params(momentum=0.9)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("optimizer", "sgd"),
        ("optimizer", None),
        ("betas", (0.9,)),
        ("betas", (0.9, 1.0)),
        ("betas", "0.9, 0.99"),
        ("betas", (0.9, None)),
        ("weight_decay", -0.1),
        ("weight_decay", math.inf),
        ("warmup_steps", -1),
        ("warmup_steps", "none"),
        ("warmup_steps", 2.5),
        ("learning_rate_schedule", "linear"),
        ("ema_decay", 1.0),
        ("ema_decay", "0.9"),
        ("clip_grad_norm", 0),
        ("clip_grad_norm", math.nan),
        ("accumulation_steps", 0),
        ("accumulation_steps", True),
        ("compile", True),
        ("compile", "max"),
        ("times", "sometimes"),
        ("times", 3),
    ],
)
def test_a_bad_option_is_named_before_training(X, name, value):
    with pytest.raises(ValueError, match=rf"(?s){name}.*{value if isinstance(value, str) else ''}"):
        DiffusionGenerator(training=TrainingOptions(**{name: value})).fit(X)


@pytest.mark.parametrize("value", [{"ema_decay": 0.9}, TrainingOptions, "default"])
def test_anything_else_than_options_is_refused(X, value):
    with pytest.raises(TypeError, match=r"training must be a TrainingOptions or None; got .*TrainingOptions\(\)"):
        DiffusionGenerator(training=value).fit(X)


# ------------------------------------------------------------------ what they do


def test_betas_and_weight_decay_reach_the_optimiser(X):
    watch = Watch()
    options = TrainingOptions(betas=(0.5, 0.75), weight_decay=0.25, optimizer="adam")
    DiffusionGenerator(**QUICK, training=options, callbacks=[watch]).fit(X)
    assert type(watch.optimizer) is torch.optim.Adam
    assert watch.optimizer.defaults["betas"] == (0.5, 0.75) and watch.optimizer.defaults["weight_decay"] == 0.25
    DiffusionGenerator(**QUICK, callbacks=[watch]).fit(X)
    assert type(watch.optimizer) is torch.optim.AdamW and watch.optimizer.defaults["betas"] == (0.9, 0.99)


@pytest.mark.parametrize(("name", "expected"), [("adamw", 2 - 0.1 * (0.5 * 2 + 1)), ("adam", 2 - 0.1)])
def test_one_step_of_each_optimiser_is_that_of_its_paper(name, expected):
    weight = nn.Parameter(torch.tensor([2.0]))
    optimizer = TrainingOptions(optimizer=name, weight_decay=0.5).make_optimizer([weight], 0.1)
    weight.grad = torch.tensor([3.0])
    optimizer.step()  # the first one goes by the rate, against the sign of the gradient
    assert weight.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
@pytest.mark.parametrize(("warmup", "n"), [(0, 1), (7, 7), ("auto", 2)])
def test_the_rate_warms_up_for_as_long_as_is_said(X, schedule, warmup, n):
    watch, options = Watch(), TrainingOptions(warmup_steps=warmup, learning_rate_schedule=schedule)
    DiffusionGenerator(**{**QUICK, "max_steps": 20}, learning_rate=0.5, training=options, callbacks=[watch]).fit(X)
    k = np.arange(20)
    decay = 0.5 * (1 + np.cos(np.pi * k / 20)) if schedule == "cosine" else 1.0
    np.testing.assert_allclose(watch.rates, 0.5 * np.minimum(1, (k + 1) / n) * decay, rtol=1e-12)


def test_a_long_fit_warms_up_for_a_hundred_steps_by_default():
    shares = [TrainingOptions(learning_rate_schedule="constant").rate_share(k, 0.0, 5000) for k in (0, 49, 99, 100)]
    assert shares == [0.01, 0.5, 1.0, 1.0]


# ---------------------------------------------------------------------- files


def test_options_are_saved_with_a_model(fitted, tmp_path):
    fitted.save(tmp_path / "model")
    loaded = DiffusionGenerator.load(tmp_path / "model")
    # An object cannot be saved, and how times were drawn matters to a new fit only.
    assert loaded.training.get_params() == {**fitted.training.get_params(), "times": "stratified"}
    assert loaded.training.betas == (0.8, 0.999)
    assert fitted.training.times == LogitNormal(0.5)
    np.testing.assert_array_equal(loaded.sample(5, random_state=0), fitted.sample(5, random_state=0))
    DiffusionGenerator(**QUICK).fit(np.random.default_rng(0).normal(size=(9, 1))).save(tmp_path / "plain")
    assert DiffusionGenerator.load(tmp_path / "plain").training is None


def test_a_model_of_an_earlier_version_has_its_options():
    gen = DiffusionGenerator.load(GOLDEN / "array")
    assert gen.training.get_params() == TrainingOptions().get_params()
    assert gen.n_iter_no_change == 10 and gen.callbacks is None


def as_before(description, **changes):
    """A description as a version wrote it that had flat parameters."""
    parameters = dict(description["parameters"])
    options = parameters.pop("training") or TrainingOptions().get_params()
    flat = ("weight_decay", "ema_decay", "clip_grad_norm", "accumulation_steps", "learning_rate_schedule", "times")
    parameters |= {name: options[name] for name in flat}
    parameters["patience"] = parameters.pop("n_iter_no_change")
    parameters |= {"checkpoint_dir": None, "checkpoint_every": 300.0, **changes}
    return {**description, "parameters": parameters}


def test_flat_parameters_of_an_earlier_version_become_options(fitted):
    before = as_before(
        persistence.describe(fitted.model_, fitted.get_params(deep=False)),
        patience=4,
        weight_decay=0.2,
        loss="inverse_snr",
    )
    before["spec"] = {**before["spec"], "loss": {"weighting": "inverse_snr", "gamma": 3.0, "huber_c": 1.0}}
    model, parameters = persistence.restore(before)
    gen = DiffusionGenerator(**parameters)
    expected = TrainingOptions(weight_decay=0.2, ema_decay=0.5, clip_grad_norm=None)
    assert gen.training.get_params() == expected.get_params() and gen.n_iter_no_change == 4
    # What was called inverse_snr was clipped, and still is; the name means the weight itself today.
    assert gen.loss == "clipped_inverse_snr" == model.config.loss.weighting == model.denoiser.objective.weighting
    assert model.denoiser.objective.gamma == 3.0
    gen.model_ = model
    np.testing.assert_array_equal(gen.sample(5, random_state=0), fitted.sample(5, random_state=0))
    now = persistence.describe(model, gen.get_params(deep=False))
    assert persistence.restore(now)[1]["loss"] == "clipped_inverse_snr"
    now = persistence.describe(model, gen.set_params(loss="inverse_snr").get_params(deep=False))
    assert persistence.restore(now)[1]["loss"] == "inverse_snr"
