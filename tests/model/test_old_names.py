"""Parameters that had another name or place: what is said to who writes them, and models that were saved with them."""

import numpy as np
import pytest

from tabdiff import DiffusionGenerator, DiT, ImageCodec, LatentImageCodec, TableCodec, TrainingOptions
from tabdiff.model.old_names import current_names

# What each old parameter was by default before networks and codecs had objects of their own.
BEFORE = {
    "denoiser": "auto",
    "hidden_size": 8,
    "dropout": 0.0,
    "time_embedding": "sinusoidal",
    "conditioning": "auto",
    "observed_masks": "auto",
    "dependencies": True,
    "augment": None,
    "latent_diffusion": False,
    "training": None,
}


def saved(container="table", network="mlp", **changed):
    return {"parameters": {**BEFORE, **changed}, "container": container, "spec": {"network": network}}


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("dropout", "denoiser=MLP(dropout=...)"),
        ("conditioning", "denoiser=MLP(conditioning=...)"),
        ("observed_masks", "training=TrainingOptions(observed_masks=...)"),
        ("dependencies", "codec=TableCodec(dependencies=...)"),
        ("augment", "codec=ImageCodec(augment=...)"),
        ("latent_diffusion", "codec=LatentImageCodec()"),
        ("patience", "n_iter_no_change"),
    ],
)
def test_an_old_name_is_answered_with_what_to_write(name, written):
    with pytest.raises(TypeError) as error:
        DiffusionGenerator(**{name: 1})
    assert written in str(error.value)
    with pytest.raises(ValueError) as error:  # noqa: PT011 that of scikit-learn for any name that is none
        DiffusionGenerator().set_params(**{name: 1})
    assert written in str(error.value)


def test_parameters_of_a_saved_model_move_to_their_objects():
    assert current_names(saved()) == {"denoiser": "auto", "hidden_size": 8, "training": None, "codec": None}
    found = current_names(saved(network="dit", denoiser="dit", dropout=0.1, observed_masks=0.0))
    assert found["denoiser"] == {
        "network": "dit",
        "dropout": 0.1,
        "time_embedding": "sinusoidal",
        "conditioning": "auto",
    }
    assert found["training"] == {"observed_masks": 0.0} and found["hidden_size"] == 8
    assert current_names(saved(dependencies=False))["codec"] == {"codec": "table", "dependencies": False}
    assert current_names(saved("cells", dependencies=False))["codec"] is None
    flipped = current_names(saved("latent_images", augment="flip", latent_diffusion=True))
    assert flipped["codec"] == {"codec": "latent_images", "augment": "flip"}
    assert current_names({**saved(), "parameters": found}) is found  # of this version: as they are


def test_few_parameters_are_left():
    assert len(DiffusionGenerator().get_params(deep=False)) <= 30


@pytest.mark.parametrize(
    ("X", "settings"),
    [
        (np.random.default_rng(0).normal(size=(30, 2)), {"training": TrainingOptions(observed_masks=0.0)}),
        (np.random.default_rng(0).normal(size=(30, 2)), {"denoiser": DiT(hidden_size=8, n_blocks=1, dropout=0.1)}),
        (np.random.default_rng(0).random((30, 8, 8)), {"codec": ImageCodec(augment=["flip", "crop"])}),
        (np.random.default_rng(0).random((30, 8, 8)), {"codec": LatentImageCodec(), "max_time": 2.0}),
    ],
)
def test_objects_are_saved_with_a_model(X, settings, tmp_path):
    gen = DiffusionGenerator(max_steps=1, random_state=0, **settings).fit(X)
    gen.save(tmp_path / "model.safetensors")
    loaded = DiffusionGenerator.load(tmp_path / "model.safetensors")
    assert repr(loaded) == repr(gen.set_params(random_state=loaded.random_state))
    np.testing.assert_array_equal(loaded.sample(3, random_state=0), gen.sample(3, random_state=0))


def test_a_codec_is_a_table_codec_by_name():
    assert "TableCodec(dependencies=False)" in repr(DiffusionGenerator(codec=TableCodec(dependencies=False)))
