"""Models that a version wrote are read by every later one; `tests/golden/make.py` writes them."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tabdiff import DiffusionGenerator

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
FORMATS = sorted(path.name for path in GOLDEN.glob("format-*"))

spec = importlib.util.spec_from_file_location("golden_make", GOLDEN / "make.py")
make = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make)


@pytest.fixture(params=FORMATS)
def folder(request):
    return GOLDEN / request.param


def expected(folder, name):
    return json.loads((folder / "expected.json").read_text(encoding="utf-8"))[name]


def test_there_are_golden_models_of_this_format():
    from tabdiff.io.model_files import FORMAT_VERSION

    assert f"format-{FORMAT_VERSION}" in FORMATS
    sizes = {path.name: path.stat().st_size for path in GOLDEN.rglob("*") if path.is_file()}
    assert max(sizes.values()) < 400_000, sizes


def same_table(decoded, wanted):
    assert list(decoded) == list(wanted)
    for name, values in wanted.items():
        if any(isinstance(v, float) for v in values):
            got, want = (np.array([np.nan if v is None else v for v in vs]) for vs in (decoded[name], values))
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6, err_msg=name)
        else:
            assert decoded[name] == values, name


@pytest.mark.slow
def test_a_table_of_every_kind_of_column(folder):
    want, real = expected(folder, "table"), make.table()
    gen = DiffusionGenerator.load(folder / "table.safetensors")
    schema = gen.schema_[list(want["schema"][0])]  # without what later versions say too
    assert json.loads(schema.to_json(orient="records")) == want["schema"]
    same_table(make.written(gen.codec_.decode(make.noise(gen))), want["decoded"])
    drawn = gen.sample(400, random_state=0)
    assert {name: str(dtype) for name, dtype in drawn.dtypes.items()} == want["dtypes"]
    assert (drawn["total"] == drawn["a"] + drawn["b"]).all()
    pairs = set(zip(real["city"], real["country"]))
    assert set(zip(drawn["city"], drawn["country"])) <= pairs
    for name in real:
        assert real[name].isna().any() or not drawn[name].isna().any(), name
        if real[name].dtype.kind in "ifmM" and name != "empty":
            assert drawn[name].min() >= real[name].min() and drawn[name].max() <= real[name].max(), name
    assert set(drawn["grade"].dropna()) <= {"low", "high"} and list(drawn["grade"].cat.categories) == [
        "low",
        "mid",
        "high",
    ]
    # What was drawn elsewhere was drawn with other arithmetic: the same distribution, not the same rows.
    for name, mean in want["means"].items():
        assert abs(drawn[name].mean() - mean) < 0.25 * max(real[name].astype(float).std(), 1e-9), name
    red = drawn["kind"] == "red"
    assert drawn.loc[red, "size"].mean() - drawn.loc[~red, "size"].mean() == pytest.approx(want["red"], abs=2.0)
    assert gen.refinement_ is not None
    score = gen.score(real, condition=real[["kind", "dose"]])
    assert score == pytest.approx(want["score"], rel=0.01, abs=0.5)


def test_an_array_with_classes(folder):
    want = expected(folder, "array")
    gen = DiffusionGenerator.load(folder / "array")
    decoded = gen.codec_.decode(make.noise(gen))
    wanted = np.array([[np.nan if v is None else v for v in row] for row in want["decoded"]])
    np.testing.assert_allclose(decoded, wanted, rtol=1e-5, atol=1e-6)
    X, y = make.array()
    for k, means in enumerate(want["means"]):
        drawn = gen.sample(400, condition=k, random_state=0)
        assert np.abs(np.nanmean(drawn, axis=0) - means).max() < 0.3
        assert np.nanmin(drawn) >= np.nanmin(X) and np.nanmax(drawn) <= np.nanmax(X)
    assert gen.score(X, y) == pytest.approx(want["score"], rel=0.01, abs=0.2)


def test_cells_on_counts(folder):
    want, real = expected(folder, "cells"), make.cells()
    gen = DiffusionGenerator.load(folder / "cells.safetensors")
    for kind, means in want["means"].items():
        drawn = gen.sample(400, condition=kind, random_state=0)
        assert drawn.X.dtype == np.int32 and (drawn.obs["type"] == kind).all()
        # Text was objects before pandas 3, and stays what it was in the file.
        pd.testing.assert_frame_equal(drawn.var, real.var, check_index_type=False, check_column_type=False)
        means = np.array(means).ravel()
        assert np.abs(np.asarray(drawn.X.mean(axis=0)).ravel() - means).max() < 0.15 * means.max()


@pytest.mark.parametrize("name", ["table.safetensors", "cells.safetensors", "array"])
def test_a_golden_model_that_is_saved_again_draws_the_same_rows(folder, name, tmp_path):
    gen = DiffusionGenerator.load(folder / name)
    gen.save(tmp_path / name)
    again = DiffusionGenerator.load(tmp_path / name)
    first, second = (
        rows.to_df() if hasattr(rows, "to_df") else pd.DataFrame(rows)
        for rows in (g.sample(5, random_state=0) for g in (gen, again))
    )
    pd.testing.assert_frame_equal(first, second)
