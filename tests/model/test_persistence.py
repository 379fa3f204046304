import json

import numpy as np
import pandas as pd
import pytest

from tabdiff import DiffusionGenerator
from tabdiff.io.model_files import read_model, write_model
from tabdiff.io.serialization import ModelFileError, pack, unpack


@pytest.mark.parametrize(
    "value",
    [
        None,
        {"a": [1, 2.5, "x", True, None, float("inf")], "b": ("t", 1)},
        np.arange(6, dtype=np.int16).reshape(2, 3),
        np.array(["a", "b"], dtype=object),
        pd.RangeIndex(2, 8, 2),
        pd.Index(["x", "y"], name="n"),
        pd.MultiIndex.from_tuples([("x", 1), ("y", 2)], names=["a", None]),
        pd.DataFrame(
            {
                "i": [1, 2],
                "f": [0.5, np.nan],
                "s": pd.array(["a", None], dtype="string"),
                "c": pd.Categorical(["u", None], categories=["v", "u"]),
                "b": [True, False],
            },
            index=["g1", "g2"],
        ),
    ],
    ids=lambda v: type(v).__name__,
)
def test_descriptions_round_trip_through_files(value, tmp_path):
    write_model(tmp_path / "m", {"value": value})
    got = read_model(tmp_path / "m")["value"]
    if isinstance(value, pd.DataFrame):
        pd.testing.assert_frame_equal(got, value)
    elif isinstance(value, pd.Index):
        pd.testing.assert_index_equal(got, value)
    elif isinstance(value, np.ndarray):
        assert got.dtype == value.dtype and np.array_equal(got, value)
    else:
        assert got == value


def test_what_has_no_description_is_refused_and_named():
    with pytest.raises(TypeError, match=r"/a/b.*function"):
        pack({"a": {"b": len}}, {})
    with pytest.raises(ModelFileError, match="unknown tag"):
        unpack({"$code": "x"}, {})


@pytest.fixture
def saved(tmp_path):
    gen = DiffusionGenerator(max_steps=2, hidden_size=8, n_blocks=1, random_state=0)
    gen.fit(np.random.default_rng(0).normal(size=(20, 2))).save(tmp_path / "model")
    return tmp_path / "model"


def test_saving_again_replaces(saved):
    DiffusionGenerator.load(saved).save(saved)
    assert sorted(p.name for p in saved.iterdir()) == ["config.json", "model.safetensors"]


def test_saving_over_something_else_is_refused(saved, tmp_path):
    gen = DiffusionGenerator.load(saved)
    (tmp_path / "data.csv").write_text("a,b\n")
    with pytest.raises(FileExistsError, match="is a file"):
        gen.save(tmp_path / "data.csv")
    with pytest.raises(FileExistsError, match="holds no model"):
        gen.save(tmp_path)


def damage_config(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "config.json").unlink(), "no config.json"),
        (lambda f: (f / "config.json").write_text("{"), "damaged"),
        (lambda f: (f / "config.json").write_text("[]"), "does not describe"),
        (lambda f: damage_config(f, format_version=99), "format version 99"),
        (lambda f: damage_config(f, spec={}), "damaged"),
        (lambda f: damage_config(f, arrays={"w0": {"$array": "absent"}}), "damaged"),
        (lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:-9]), "damaged"),
        (lambda f: (f / "model.safetensors").write_bytes(b"\x80\x04pickle"), "damaged"),
    ],
)
def test_damaged_models_are_refused(saved, damage, message):
    damage(saved)
    with pytest.raises(ModelFileError, match=message):
        DiffusionGenerator.load(saved)
