import numpy as np
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tabdiff import DiffusionGenerator, SamplingOptions, sample_pipeline
from tabdiff.diffusion import Heun


def test_keywords_and_objects_say_the_same():
    assert SamplingOptions.of(method="ddim", steps=5) == SamplingOptions(method="ddim", steps=5)
    assert SamplingOptions(method=Heun()).batch_size == "auto"


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"guidance_scale": float("inf")}, "guidance_scale must be a finite number; got inf"),
        ({"guidance": "strong"}, "guidance must be"),
        ({"steps": 0}, "steps must be 'auto' or an integer of at least 1; got 0"),
        ({"batch_size": 2.5}, "batch_size must be 'auto' or an integer of at least 1; got 2.5"),
    ],
)
def test_values_out_of_range_are_refused(keywords, message):
    with pytest.raises(ValueError, match=message):
        SamplingOptions(**keywords)


def test_unknown_keywords_are_refused_before_anything_is_drawn(tmp_path):
    with pytest.raises(TypeError, match=r"'step' is none of the keywords.*Did you mean 'steps'"):
        SamplingOptions.of(step=3)
    X = np.random.default_rng(0).normal(size=(30, 2))
    pipe = make_pipeline(StandardScaler(), DiffusionGenerator(max_steps=1, hidden_size=8, random_state=0)).fit(X)
    with pytest.raises(TypeError, match="'gudance' is none of the keywords"):
        sample_pipeline(pipe, 3, gudance="cfg++")
    assert sample_pipeline(pipe, 3, steps=2, batch_size=1).shape == (3, 2)
