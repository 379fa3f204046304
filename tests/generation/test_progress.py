"""What is said of a long draw, before it and on the way."""

import time
import warnings

import numpy as np
import pytest
import torch

from tabdiff import DiffusionGenerator
from tabdiff.diffusion import CosineSchedule
from tabdiff.generation import progress


@pytest.fixture(scope="module")
def fitted():
    X = np.random.default_rng(0).normal(size=(200, 3))
    return DiffusionGenerator(max_steps=5, hidden_size=16, n_blocks=1, random_state=0).fit(X)


def test_a_draw_of_minutes_is_announced_once_and_draws_the_same_rows(fitted, monkeypatch):
    rows = fitted.sample(300, random_state=0, batch_size=100)
    monkeypatch.setattr(progress, "LONG", 0.0)
    with pytest.warns(UserWarning, match="drawing 300 rows will take about 0 minutes") as caught:
        announced = fitted.sample(300, random_state=0, batch_size=100)
    assert len(caught) == 1
    np.testing.assert_array_equal(announced, rows)


def test_a_short_draw_is_not_announced(fitted):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted.sample(300, random_state=0, batch_size=100)


def test_the_estimate_is_that_of_all_evaluations():
    def slow(x, t, condition):
        assert x.shape == (100, 3)
        time.sleep(0.02)
        return x

    seconds = progress.seconds_of_drawing(
        slow,
        CosineSchedule(),
        None,
        width=3,
        rows=1000,
        at_once=100,
        steps=10,
        precision="float32",
        device=torch.device("cpu"),
    )
    assert 2.0 <= seconds < 20.0  # ten batches of ten evaluations; other processes may have the core meanwhile


def test_the_bar_counts_rows(fitted, capsys):
    fitted.set_params(verbose=1).sample(300, random_state=0, batch_size=100)
    fitted.set_params(verbose=0)
    assert "300/300" in capsys.readouterr().err
