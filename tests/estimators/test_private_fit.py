import functools

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from tabdiff import ArrayCodec, DiffusionGenerator, PrivacyBudget, TableCodec, TrainingOptions
from tabdiff.cli import main
from tabdiff.training import Callback, Checkpoint
from tabdiff.training.privacy import accounted_delta, spent_epsilon

pytest.importorskip("opacus")

PUBLIC = {"age": (0, 100), "weight": (0.0, 10.0), "sex": ["F", "M"]}


def people(n=600, seed=0):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "age": rng.integers(18, 80, n),
            "weight": rng.gamma(4, 0.5, n).clip(0, 10),
            "sex": rng.choice(["F", "M"], n),
            "kind": pd.Categorical(rng.choice(["a", "b"], n, p=[0.7, 0.3])),
        }
    )
    frame.loc[rng.random(n) < 0.4, "weight"] = np.nan
    return frame


def generator(epsilon=8.0, **settings):
    budget = PrivacyBudget(epsilon, 1e-4, public=PUBLIC)
    settings = {"max_steps": 4, "hidden_size": 16, "n_blocks": 1, "batch_size": 64, "random_state": 0} | settings
    return DiffusionGenerator(training=TrainingOptions(privacy=budget), **settings)


@functools.cache
def fitted():
    return generator().fit(people(), condition="sex")


def test_rows_come_out_as_they_went_in():
    drawn = fitted().sample(50, random_state=0)
    assert list(drawn.columns) == ["age", "weight", "sex", "kind"]
    assert drawn["age"].between(0, 100).all()
    assert drawn["weight"].isna().any()
    assert set(fitted().sample(5, condition="F")["sex"]) == {"F"}
    assert list(drawn.dtypes) == list(people().dtypes)


def test_what_was_spent_is_told_and_within_the_budget():
    told = fitted().privacy_
    assert told["epsilon"] <= 8
    assert told["delta"] == 1e-4
    assert (told["max_grad_norm"], told["steps"]) == (1.0, 4)
    mechanisms = [
        (told["counting_noise_multiplier"], 1.0, 1),
        (told["noise_multiplier"], told["sample_rate"], told["steps"]),
    ]
    budget = fitted().training.privacy
    assert told["epsilon"] == pytest.approx(spent_epsilon(mechanisms, accounted_delta(budget)))
    shown = fitted().schema_.set_index("column")["privacy"]
    assert shown["age"] == "public range 0 to 100; noised counts"
    assert shown["kind"] == "levels found by noised counts"
    assert DiffusionGenerator(max_steps=1, hidden_size=8).fit(people(60)[["age"]]).privacy_ is None


def test_nothing_of_the_rows_is_left_in_the_model():
    gen = fitted()
    assert set(gen.history_) == {"step", "learning_rate"}
    # All that the codec and the conditions hold is of noised counts: not even the number of rows is exact.
    assert len(gen.conditions_.codes) == gen.n_samples_fit_ != 600
    assert gen.refinement_ is None
    assert gen.guiding_denoiser_ is None
    column = gen.codec_.columns_[1]
    assert not set(people()["weight"].dropna()) & set(column.values_)
    with pytest.raises(ValueError, match="keeps no losses"):
        gen.plot_loss()


def test_saved_and_loaded(tmp_path):
    gen = fitted()
    gen.save(tmp_path / "model.safetensors")
    again = DiffusionGenerator.load(tmp_path / "model.safetensors")
    assert again.privacy_ == gen.privacy_
    assert again.training.privacy.get_params() == gen.training.privacy.get_params()
    # The seed is that of the noise.
    assert again.random_state is None
    pd.testing.assert_frame_equal(again.sample(9, random_state=1), gen.sample(9, random_state=1))
    assert "privacy" in again.schema_


def test_the_command_line_tells_of_the_budget(tmp_path, capsys):
    fitted().save(tmp_path / "model.safetensors")
    assert main(["info", str(tmp_path / "model.safetensors")]) in (0, None)
    shown = capsys.readouterr().out
    assert "privacy      ε = 7.9" in shown or "privacy      ε = 8" in shown
    assert "final loss" not in shown
    assert "about " in shown


@pytest.mark.slow
def test_the_same_seed_gives_the_same_model_and_none_gives_another():
    frame = people(200)
    weights = [
        torch.cat([p.flatten() for p in generator(random_state=seed).fit(frame).denoiser_.parameters()])
        for seed in (1, 1, None, None)
    ]
    assert torch.equal(weights[0], weights[1])
    assert len(weights[2]) != len(weights[3]) or not torch.equal(weights[2], weights[3])


def test_a_row_more_is_one_row_of_the_training_data():
    """Each row is encoded once: copies would each be clipped by itself."""
    from types import SimpleNamespace

    from tabdiff.codecs.inputs import read_fit_inputs
    from tabdiff.model.private_data import begin_private

    gen = generator()
    inputs = read_fit_inputs(DiffusionGenerator(), people(150), None, None)
    start, _ = begin_private(inputs, SimpleNamespace(**gen.get_params(deep=False)), torch.device("cpu"))
    assert len(start.training.data) == 150
    assert start.inputs.features is not inputs.features
    assert not start.denoiser.levels.requires_grad


@pytest.mark.slow
def test_a_network_of_your_own_trains_the_long_way():
    class Net(nn.Module):
        def __init__(self, n_inputs, n_outputs, condition_size):
            super().__init__()
            self.weight = nn.Parameter(0.1 * torch.ones(n_inputs, n_outputs))

        def forward(self, x, t, c=None):
            return torch.tanh(x @ self.weight)

    drawn = generator(denoiser=Net, max_steps=2, hidden_size="auto", n_blocks="auto").fit(people(150)).sample(5)
    assert len(drawn) == 5


@pytest.mark.slow
def test_a_transformer_trains_too():
    assert len(generator(denoiser="dit", hidden_size=8, max_steps=1).fit(people(150)).sample(3)) == 3


REFUSED = {
    "early_stopping": ({"early_stopping": True}, "early_stopping=True: bound max_steps"),
    "warm_start": ({"warm_start": True}, "warm_start=True"),
    "callbacks": ({"callbacks": [Callback()]}, "callbacks: leave them out"),
    "refine": ({"refine": True}, "refine=True: use refine='auto'"),
    "autoguidance": ({"autoguidance": 1.5}, "autoguidance=1.5: use autoguidance='auto'"),
    "constraints": ({"constraints": ["weight <= age"]}, "constraints: leave them out"),
    "precision": ({"precision": "bfloat16"}, "precision='bfloat16'"),
    "codec": ({"codec": ArrayCodec()}, "use codec=TableCodec"),
}


@pytest.mark.parametrize(("settings", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_covered_is_refused_before_training(settings, message):
    with pytest.raises(ValueError, match=message):
        generator(**settings).fit(people(100))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"accumulation_steps": 2}, "use a larger batch_size"),
        ({"times": "loss_aware"}, "times are uniform"),
        ({"compile": "default"}, "compile"),
    ],
)
def test_options_that_are_not_covered_are_refused(option, message):
    gen = generator()
    gen.training = TrainingOptions(privacy=gen.training.privacy, **option)
    with pytest.raises(ValueError, match=message):
        gen.fit(people(100))


def test_arguments_that_are_not_covered_are_refused(tmp_path):
    frame = people(100)
    with pytest.raises(ValueError, match="sample_weight: leave it out"):
        generator().fit(frame, sample_weight=np.ones(100))
    with pytest.raises(ValueError, match="resume_from: fit anew"):
        generator().fit(frame, resume_from=tmp_path)
    with pytest.raises(ValueError, match="callbacks"):
        generator(callbacks=[Checkpoint(tmp_path)]).fit(frame)


@pytest.mark.parametrize("data", [np.ones((30, 2)), np.zeros((20, 4, 4)), ["ACGT", "AACC"] * 10])
def test_other_containers_are_refused(data):
    with pytest.raises(TypeError, match="covers DataFrames in memory"):
        generator().fit(data)


def test_files_are_refused(tmp_path):
    people(100).to_parquet(tmp_path / "rows.parquet")
    with pytest.raises(TypeError, match="covers DataFrames in memory"):
        generator().fit(tmp_path / "rows.parquet")


def test_numbers_without_a_range_are_refused():
    gen = generator()
    gen.training.privacy.public = {"age": (0, 100)}
    with pytest.raises(ValueError, match="column 'weight' holds numbers, whose range must be declared"):
        gen.fit(people(100))


def test_settings_of_the_codec_are_taken():
    gen = generator(codec=TableCodec(categorical_features=["age"]))
    with pytest.raises(ValueError, match="max_steps"):
        gen.set_params(max_steps=0).fit(people(100))
    gen = generator(categorical_features=["age"], max_steps=1).fit(people(400))
    assert gen.schema_.set_index("column").loc["age", "kind"] == "categorical"
