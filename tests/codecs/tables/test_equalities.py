import json

import numpy as np
import pandas as pd
import pytest
import torch
from encoded import noise

from tabdiff import DiffusionGenerator
from tabdiff.codecs import ArrayCodec, TableCodec
from tabdiff.diffusion.masks import DrawGiven


def bills(n=2000, seed=0):
    """A payment settles the bill in three of ten rows, and repeats the payment before it in two of ten."""
    rng = np.random.default_rng(seed)
    bill, first, second = np.rint(rng.gamma(2.0, 4000, (3, n)))
    first = np.where(rng.random(n) < 0.3, bill, first)
    second = np.where(rng.random(n) < 0.2, first, second)
    return pd.DataFrame({"bill": bill.astype(int), "first": first.astype(int), "second": second})


def often(codec):
    return {row.column: row.often_equals for row in codec.schema_.itertuples() if row.often_equals}


# ---------------------------------------------------------------- what is found


def test_columns_that_repeat_others_are_found():
    frame = bills()
    codec = TableCodec().fit(frame)
    found = often(codec)
    # Six rows of a hundred have three equal values, which the first source explains already.
    assert (frame["second"] == frame["bill"]).mean() > 0.04
    assert {name: list(sources) for name, sources in found.items()} == {"first": ["bill"], "second": ["first"]}
    assert found["first"]["bill"] == pytest.approx((frame["first"] == frame["bill"]).mean(), abs=1e-3)
    assert codec.n_continuous_ == 3


def test_a_column_can_repeat_several():
    rng = np.random.default_rng(0)
    frame = bills()
    frame["second"] = np.where(rng.random(len(frame)) < 0.3, frame["bill"], frame["second"])
    codec = TableCodec().fit(frame)
    assert list(often(codec)["second"]) == ["bill", "first"] and codec.n_levels_ == [2, 3]
    rows = codec.decode(noise(codec, 2000))
    for name in ("bill", "first"):
        assert (rows["second"] == rows[name]).mean() > 0.2


@pytest.mark.parametrize("kind", ["readings", "spikes", "few", "independent", "units"])
def test_what_meets_by_chance_or_nearly_is_not_found(kind):
    rng = np.random.default_rng(0)
    n = 4000
    if kind == "readings":  # of one quantity, rounded: equal in a tenth of the rows, and as often off by one
        exact = rng.normal(100, 20, n)
        a, b = (np.rint(exact + rng.normal(0, 3, n)) for _ in range(2))
        assert (a == b).mean() > 0.05
    elif kind == "spikes":  # two costs that are mostly zero together
        bought = rng.random(n) < 0.4
        a, b = (np.where(bought, rng.gamma(2.0, 1000, n).round(2), 0.0) for _ in range(2))
    elif kind == "few":
        a = rng.integers(0, 50, n)
        b = np.where(rng.random(n) < 0.5, a, rng.integers(0, 50, n))
    elif kind == "independent":
        a, b = rng.integers(0, 10**6, (2, n))
    else:  # prices in dollars and in cents
        a = np.rint(rng.gamma(2.0, 4000, n))
        b = np.where(rng.random(n) < 0.2, a, a + 0.01)
    assert often(TableCodec().fit(pd.DataFrame({"a": a, "b": b}))) == {}


def test_they_are_not_looked_for_where_dependencies_are_not_nor_in_arrays():
    frame = bills()
    assert often(TableCodec(dependencies=False).fit(frame)) == {}
    codec = ArrayCodec().fit(frame.to_numpy())
    assert codec.n_levels_ == [] and often(codec) == {}


def test_columns_of_a_constraint_are_left_to_it():
    frame = bills()
    frame["total"] = frame["bill"] + frame["first"]
    codec = TableCodec(constraints=["total = bill + first"]).fit(frame)
    # "second" repeats "first", which the sum may rebuild.
    assert often(codec) == {}
    rows = codec.decode(noise(codec, 500))
    assert (rows["total"] == rows["bill"] + rows["first"]).all()


# ---------------------------------------------------------------- there and back


def test_equal_values_come_back_equal():
    frame = bills()
    codec = TableCodec().fit(frame)
    data = codec.encode(frame, generator=torch.Generator().manual_seed(0))
    assert data.shape == (len(frame), 5) and codec.equality_positions_ == [3, 4]
    assert np.array_equal(data[:, 3].numpy(), (frame["first"] == frame["bill"]).to_numpy())
    back = codec.decode(data)
    assert (back.dtypes == frame.dtypes).all()
    for a, b in (("bill", "first"), ("first", "second")):
        assert ((back[a] == back[b]) >= (frame[a] == frame[b])).all()


def test_every_row_with_a_code_is_equal_and_within_the_observed_range():
    frame = bills()
    frame["second"] = frame["second"].clip(upper=5000)
    codec = TableCodec().fit(frame)
    data = noise(codec, 4000)
    rows = codec.decode(data)
    for name in frame:
        assert rows[name].between(frame[name].min(), frame[name].max()).all()
    coded = data[:, 4].numpy() == 1
    within = rows["first"].between(frame["second"].min(), frame["second"].max()).to_numpy()
    equal = (rows["first"] == rows["second"]).to_numpy()
    assert equal[coded & within].all() and not equal[coded & ~within].any() and equal[~coded].mean() < 0.02


def test_missing_values_stay_missing():
    frame = bills().astype(float)
    frame.loc[::5, "bill"] = np.nan
    frame.loc[::7, "first"] = np.nan
    codec = TableCodec().fit(frame)
    # Two codes of equalities stand before two columns that say what is missing.
    assert codec.n_levels_ == [2, 2, 2, 2] and codec.first_mask_ == 5
    back = codec.decode(codec.encode(frame))
    pd.testing.assert_frame_equal(back.isna(), frame.isna())
    assert ((back["first"] == back["bill"]) >= (frame["first"] == frame["bill"])).all()
    drawn = codec.decode(noise(codec, 1000))
    assert drawn["bill"].isna().any() and drawn["first"].isna().any() and not drawn["second"].isna().any()


def test_state_survives_json():
    codec = TableCodec().fit(bills())
    state = codec.state()
    copied = json.loads(json.dumps(state["equalities"]))
    again = TableCodec.from_state({**state, "equalities": copied})
    pd.testing.assert_frame_equal(again.schema_, codec.schema_)
    pd.testing.assert_frame_equal(again.decode(noise(codec, 50)), codec.decode(noise(codec, 50)))
    # Models of versions that did not look for them have none.
    del state["equalities"]
    assert often(TableCodec.from_state(state)) == {}


# ---------------------------------------------------------------- in a model


def test_codes_are_never_given_in_training():
    data = torch.ones(1000, 3)
    draw = DrawGiven(n_continuous=1, missing_levels=[0, -1], presence=[-1], share=1.0, never=[2])
    given = draw(data, torch.Generator().manual_seed(0))
    assert given[:, 2].isnan().all() and given[:, 1].isfinite().any()


@pytest.fixture(scope="module")
def model():
    frame = bills()
    settings = {"hidden_size": 64, "n_blocks": 2, "max_steps": 400, "batch_size": 256, "refine": False}
    return frame, DiffusionGenerator(random_state=0, **settings).fit(frame)


@pytest.mark.slow
def test_rows_repeat_values_as_often_as_real_ones(model):
    frame, gen = model
    rows = gen.sample(2000, random_state=0)
    for a, b in (("bill", "first"), ("first", "second")):
        real, drawn = ((f[a] == f[b]).mean() for f in (frame, rows))
        assert drawn == pytest.approx(real, abs=0.05)
    for name, other in (("bill", "first"), ("first", "bill")):
        value = frame["bill"].iloc[7]
        held = gen.sample(500, condition={name: value}, random_state=0)
        assert (held[name] == value).all() and (held[other] == value).mean() == pytest.approx(0.3, abs=0.15)


@pytest.mark.slow
def test_without_them_hardly_a_row_does():
    frame = bills()
    settings = {"hidden_size": 64, "n_blocks": 2, "max_steps": 50, "batch_size": 256, "refine": False}
    rows = (
        DiffusionGenerator(random_state=0, codec=TableCodec(dependencies=False), **settings)
        .fit(frame)
        .sample(2000, random_state=0)
    )
    assert (rows["bill"] == rows["first"]).mean() < 0.05


@pytest.mark.slow
def test_holes_are_filled_by_copies_in_draws_and_by_means_otherwise(model):
    frame, gen = model
    holes = frame.astype(float).head(300)
    holes["first"] = np.nan
    drawn = gen.impute(holes, n_draws=2, random_state=0)[1]
    assert (drawn["first"] == frame["bill"].head(300)).mean() == pytest.approx(0.3, abs=0.1)
    pd.testing.assert_series_equal(drawn["bill"], holes["bill"])
    # The other way round: a bill that is lacking is what the payment was.
    back = gen.impute(frame.astype(float).head(300).assign(bill=np.nan), n_draws=2, random_state=0)[0]
    assert (back["bill"] == frame["first"].head(300)).mean() == pytest.approx(0.3, abs=0.1)
    mean = gen.impute(holes, random_state=0)
    assert (mean["first"] == frame["bill"].head(300)).mean() < 0.05
    assert mean["first"].notna().all()


def test_a_column_that_always_equals_another_one_is_filled_exactly():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"x": rng.normal(size=800)})
    frame["y"], frame["z"] = frame["x"], rng.normal(size=800)
    settings = {"hidden_size": 32, "n_blocks": 1, "max_steps": 50, "refine": False}
    gen = DiffusionGenerator(random_state=0, **settings).fit(frame)
    rows = gen.sample(500, random_state=0)
    assert (rows["x"] == rows["y"]).all()
    for lacking in ("x", "y"):
        filled = gen.impute(frame.head(100).assign(**{lacking: np.nan}), random_state=0)
        np.testing.assert_allclose(filled[lacking], frame[lacking].head(100), rtol=1e-12)


def test_a_loaded_model_draws_the_same(model, tmp_path):
    _, gen = model
    gen.save(tmp_path / "bills.safetensors")
    again = DiffusionGenerator.load(tmp_path / "bills.safetensors")
    pd.testing.assert_frame_equal(again.sample(200, random_state=1), gen.sample(200, random_state=1))
    assert again.model_.config.equalities == gen.model_.config.equalities != []
