import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

from tabdiff import ArrayCodec, CellCodec, DiffusionGenerator, ImageCodec, SequenceCodec, TableCodec
from tabdiff.codecs import CODECS, make_codec

FRAME = pd.DataFrame({"a": [0.0, 1.5, 2.5], "b": ["x", "y", "y"]})


def test_each_container_has_its_codec():
    assert type(make_codec(FRAME)) is TableCodec and type(make_codec(np.eye(3))) is ArrayCodec
    assert type(make_codec(pd.Series(["AC", "G"]))) is SequenceCodec
    with pytest.raises(TypeError, match="got set"):
        make_codec({1, 2})


def test_a_codec_with_settings_is_cloned_and_takes_the_facts_about_the_data():
    given = TableCodec(dependencies=False)
    made = make_codec(FRAME, given, constraints=["a <= b"], categorical_features="auto", layer=None)
    assert made is not given and given.constraints is None
    assert made.get_params() == {"dependencies": False, "constraints": ["a <= b"], "categorical_features": "auto"}


@pytest.mark.parametrize(
    ("X", "codec", "flat", "message"),
    [
        (FRAME, ArrayCodec(), {}, r"got ArrayCodec\(\). Use codec=TableCodec\(\)"),
        (np.eye(3), TableCodec(), {}, r"Use codec=ArrayCodec\(\)"),
        (FRAME, CellCodec(n_latent=3), {}, "codec must be one for X, which is a DataFrame"),
        (np.eye(3), None, {"constraints": ["a <= b"]}, "X must be a DataFrame"),
        (FRAME, None, {"layer": "counts"}, "is for AnnData"),
        (pd.Series(["AC"]), None, {"categorical_features": ["a"]}, "categorical_features"),
        (FRAME, TableCodec(constraints=["a <= b"]), {"constraints": ["a < b"]}, "must be left out where codec has it"),
    ],
)
def test_what_does_not_go_together_is_refused(X, codec, flat, message):
    with pytest.raises(ValueError, match=message):
        make_codec(X, codec, **flat)


@pytest.mark.parametrize("kind", CODECS.values(), ids=list(CODECS))
def test_a_codec_is_an_estimator_that_can_be_cloned(kind):
    assert clone(kind()).get_params() == kind().get_params()


@pytest.mark.parametrize(
    ("codec", "message"),
    [
        (TableCodec(dependencies="no"), "dependencies must be True or False"),
        (CellCodec(n_latent=0), "n_latent must be None or an integer"),
        (ImageCodec(augment="spin"), "augment must be"),
    ],
)
def test_settings_out_of_range_are_refused_before_data_are_read(codec, message):
    with pytest.raises(ValueError, match=message):
        DiffusionGenerator(codec=codec).fit(None)


def test_settings_are_parameters_of_the_estimator():
    gen = DiffusionGenerator(codec=SequenceCodec())
    assert gen.set_params(codec__alphabet="ACGT").codec.alphabet == "ACGT"
    with pytest.raises(ValueError, match=r"Use codec=tabdiff.TableCodec\(dependencies=False\)"):
        DiffusionGenerator().set_params(codec__dependencies=False)
    with pytest.raises(TypeError, match="codec must be None or an object such as"):
        DiffusionGenerator(codec=TableCodec).fit(FRAME)


def test_the_alphabet_of_sequences_can_be_given():
    gen = DiffusionGenerator(codec=SequenceCodec(alphabet="ACGTN"), max_steps=1, hidden_size=8, random_state=0)
    assert gen.fit(["ACGT", "AC", "GGT"]).codec_.alphabet_ == list("ACGTN")


def test_an_array_codec_has_no_setting_that_arrays_cannot_have():
    assert set(ArrayCodec().get_params()) == {"categorical_features"}
    with pytest.raises(TypeError, match="constraints"):
        ArrayCodec(constraints=["a <= b"])
