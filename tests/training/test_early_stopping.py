import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from tabdiff import DiffusionGenerator, TrainingOptions
from tabdiff.codecs.inputs import read_fit_inputs
from tabdiff.datasets import load_penguins
from tabdiff.diffusion import Denoiser, make_schedule
from tabdiff.model.training_data import begin
from tabdiff.nn import ResidualMLP
from tabdiff.training import Batches, Validation, train

QUICK = {"max_steps": 120, "hidden_size": 16, "n_blocks": 1, "batch_size": 32, "random_state": 0}


def make_denoiser(hidden_size=64, dropout=0.0):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = ResidualMLP(4, 4, 0, hidden_size=hidden_size, n_blocks=2, dropout=dropout)
        return Denoiser(network, make_schedule("cosine"), "v")


def rows(n, seed):
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(seed))


def make_validation(denoiser, data, **settings):
    settings = {"event_shape": (4,), "generator": torch.Generator().manual_seed(9), **settings}
    return Validation(data, denoiser=denoiser, **settings)


class Scripted(nn.Module):
    """Has the loss that it is told to have."""

    def __init__(self):
        super().__init__()
        self.schedule = make_schedule("cosine")
        self.value = nn.Parameter(torch.zeros(()))

    def loss(self, x0, condition=None, *, t, eps):
        return self.value.expand(len(x0))


def test_the_loss_on_held_out_rows_has_no_noise_of_its_own():
    denoiser = make_denoiser(dropout=0.5)
    validation = make_validation(denoiser, rows(20, 1))
    first = validation.loss(denoiser.train())
    assert validation.loss(denoiser) == first
    assert make_validation(denoiser, rows(20, 1)).loss(denoiser) == first
    assert make_validation(denoiser, rows(20, 2)).loss(denoiser) != first


@pytest.mark.parametrize("n", [1, 20, 5000])
def test_few_rows_are_seen_at_many_times_and_of_many_some(n):
    validation = make_validation(make_denoiser(), rows(n, 1))
    assert 1024 <= len(validation.data) <= 4096
    # Stratified: the times are spread evenly.
    t = (validation.t / validation.t.max()).sort().values
    even = (torch.arange(len(t)) + 0.5) / len(t)
    assert (t - even).abs().max() < 0.01


def test_the_loss_is_the_weighted_mean():
    denoiser = make_denoiser()
    data, weight = rows(40, 1), torch.rand(40, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    validation = make_validation(denoiser, data, weight=weight)
    losses = denoiser.loss(validation.data, t=validation.t, eps=validation.eps).detach().double()
    # Rows repeat in order.
    expected = np.average(losses.numpy(), weights=weight.repeat(math.ceil(1024 / 40)).numpy())
    assert validation.loss(denoiser) == pytest.approx(expected, rel=1e-6)


def test_patience_counts_evaluations_without_an_improvement():
    model = Scripted()
    validation = make_validation(model, rows(5, 1), patience=2)
    over = []
    for loss in (3.0, 2.0, 2.0, 1.0, 1.5, float("nan")):
        with torch.no_grad():
            model.value.fill_(loss)
        validation.watch(model)
        over.append(validation.is_over)
    assert over == [False, False, False, False, False, True]
    assert validation.best == 1.0 and validation.n_since == 2
    validation.put_best(model)
    assert model.value.item() == 1.0


@pytest.mark.slow
def test_the_weights_that_did_best_are_kept():
    # A wide network on few rows learns them by heart, and does worse and worse on others.
    denoiser = make_denoiser(hidden_size=256)
    validation = make_validation(denoiser, rows(200, 2), patience=3)
    result = train(
        denoiser,
        Batches(rows(20, 1), size=64),
        max_steps=5000,
        learning_rate=3e-3,
        options=TrainingOptions(ema_decay=0.9),
        validation=validation,
        generator=torch.Generator().manual_seed(0),
    )
    losses = result.history["validation_loss"]
    best = int(np.argmin(losses))
    assert result.n_steps < 5000 and len(losses) == best + 1 + 3
    assert losses[-1] > losses[best]
    assert validation.loss(result.denoiser) == losses[best]
    assert result.history["validation_step"] == result.history["step"]
    assert not result.denoiser.training


def test_rows_are_held_out_with_all_their_encodings():
    X = np.random.default_rng(0).normal(size=(50, 2))
    own = pd.DataFrame({"row": np.arange(50.0)})  # a continuous condition that tells the rows apart
    gen = DiffusionGenerator(**QUICK, early_stopping=True, validation_fraction=0.2)
    inputs = read_fit_inputs(gen, X, None, own)

    def started(**changed):
        options = SimpleNamespace(**gen.get_params() | changed)
        return begin(inputs, None, options, previous=None, resume_from=None, device=torch.device("cpu"))

    start = started()
    seen, held = (set(part.condition[:, 0].tolist()) for part in (start.training, start.held_out))
    assert len(seen) == 40 and len(held) == 10 and not seen & held
    assert len(start.training.data) == 4 * len(start.held_out.data) == 40 * 8
    # Another seed holds out others.
    other = started(random_state=1)
    assert set(other.held_out.condition[:, 0].tolist()) != held


@pytest.mark.parametrize("fraction", [0.01, 0.99])
def test_something_is_left_on_either_side(fraction):
    X = np.random.default_rng(0).normal(size=(2, 1))
    gen = DiffusionGenerator(**QUICK, early_stopping=True, validation_fraction=fraction).set_params(max_steps=2)
    assert math.isfinite(gen.fit(X).history_["validation_loss"][-1])


def test_a_fit_stops_early_and_says_so():
    pytest.importorskip("matplotlib")
    X = np.random.default_rng(0).normal(size=(40, 3))
    settings = {
        **QUICK,
        "max_steps": 4000,
        "hidden_size": 128,
        "learning_rate": 3e-3,
        "training": TrainingOptions(ema_decay=0.9),
    }
    gen = DiffusionGenerator(**settings, early_stopping=True, n_iter_no_change=2).fit(X)
    assert gen.n_steps_ < 4000
    assert len(gen.history_["validation_loss"]) == int(np.argmin(gen.history_["validation_loss"])) + 3
    lines = gen.plot_loss().lines
    assert [line.get_label() for line in lines] == ["training", "held out"]
    assert list(lines[1].get_ydata()) == gen.history_["validation_loss"]


@pytest.mark.parametrize(
    "parameters", [{"training": TrainingOptions(times="loss_aware")}, {"n_timesteps": 50}, {"loss": "min_snr"}]
)
def test_held_out_losses_work_with_every_kind_of_time_and_loss(parameters):
    gen = DiffusionGenerator(**QUICK, early_stopping=True, **parameters)
    losses = gen.fit(load_penguins(), condition="species").history_["validation_loss"]
    assert len(losses) == 3 and all(math.isfinite(v) for v in losses)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("early_stopping", "yes"),
        ("early_stopping", 1),
        ("validation_fraction", 0),
        ("validation_fraction", 1.0),
        ("validation_fraction", "a tenth"),
        ("n_iter_no_change", 0),
        ("n_iter_no_change", 2.5),
        ("warm_start", None),
    ],
)
def test_bad_parameters_are_named(parameter, value):
    with pytest.raises(ValueError, match=parameter):
        DiffusionGenerator(**{**QUICK, parameter: value}).fit(np.random.default_rng(0).normal(size=(10, 2)))
