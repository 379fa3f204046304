import copy
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from encoded import noise
from hypothesis import given, settings
from hypothesis import strategies as st

from tabdiff import DiffusionGenerator
from tabdiff.codecs import ArrayCodec, TableCodec
from tabdiff.datasets import load_penguins

NAN = float("nan")


def determined(codec):
    schema = codec.schema_
    return {c: by for c, by in zip(schema["column"], schema["determined_by"], strict=True) if by is not None}


def breaks(real, synthetic, determinant, dependent):
    """Number of pairs of values that the real rows do not have."""
    pair = [determinant, dependent]
    known, rows = (f[pair].astype(object).where(f[pair].notna(), "missing").to_numpy() for f in (real, synthetic))
    return len({*map(tuple, rows)} - {*map(tuple, known)})


def places(n=600, seed=0):
    """City determines country determines continent; two independent columns."""
    rng = np.random.default_rng(seed)
    city = rng.integers(0, 24, n)
    return pd.DataFrame(
        {
            "continent": np.array(["Europe", "Asia", "Africa"])[city // 8],
            "population": rng.gamma(2.0, size=n),
            "country": pd.Categorical([f"country {c // 4}" for c in city]),
            "city": [f"city {c}" for c in city],
            "sex": rng.choice(["f", "m"], n),
        }
    )


# ---------------------------------------------------------------- what is found


def test_chains_resolve_to_one_column_in_the_network():
    frame = places()
    codec = TableCodec().fit(frame)
    assert determined(codec) == {"continent": "city", "country": "city"}
    assert codec.n_levels_ == [24, 2]
    rows = codec.decode(noise(codec, 1000))
    assert breaks(frame, rows, "city", "country") == breaks(frame, rows, "country", "continent") == 0
    assert rows.dtypes.to_list() == frame.dtypes.to_list()
    assert codec.encode(frame).shape == (600, 3)


def test_of_equivalent_columns_one_stays_and_categories_before_numbers():
    rng = np.random.default_rng(0)
    code = rng.integers(0, 15, 400)
    frame = pd.DataFrame({"number": code * 3, "word": [f"w{c}" for c in code], "name": [f"n{14 - c}" for c in code]})
    codec = TableCodec().fit(frame)
    assert determined(codec) == {"number": "word", "name": "word"}
    rows = codec.decode(noise(codec, 500))
    assert len(rows.drop_duplicates()) == len(frame.drop_duplicates()) == 15


@pytest.mark.parametrize("kind", ["date", "duration", "nullable integer", "boolean", "arrow string", "decimal"])
def test_dependent_columns_of_every_kind_come_back_as_they_were(kind):
    import decimal

    rng = np.random.default_rng(0)
    city = rng.integers(0, 12, 300)
    value = {
        "date": pd.Timestamp("2020-02-29") + pd.to_timedelta(city * 31, "D"),
        "duration": pd.to_timedelta(city * 7, "min"),
        "nullable integer": pd.array(city * 10**9, dtype="Int64"),
        "boolean": pd.array(city > 5, dtype="boolean"),
        "arrow string": pd.array([f"name {c}" for c in city], dtype="string[pyarrow]"),
        "decimal": [decimal.Decimal(int(c)) / 8 for c in city],
    }[kind]
    frame = pd.DataFrame({"city": [f"city {c}" for c in city], "value": value})
    frame.loc[frame["city"] == "city 3", "value"] = None  # a value like any other
    codec = TableCodec.from_state(TableCodec().fit(frame).state())
    assert determined(codec) == {"value": "city"}
    assert codec.schema_.set_index("column").loc["value", "missing"]
    rows = codec.decode(noise(codec, 400))
    assert rows["value"].dtype == frame["value"].dtype
    assert breaks(frame, rows, "city", "value") == 0
    assert rows["value"].isna().any()


def test_missing_values_of_the_determinant_count_as_a_value():
    frame = places()
    frame.loc[frame["city"].isin(["city 0", "city 1"]), ["city", "country"]] = [None, "country 5"]
    frame.loc[frame["city"].isna(), "continent"] = "Africa"
    codec = TableCodec().fit(frame)
    rows = codec.decode(noise(codec, 2000))
    assert rows["city"].isna().any()
    assert set(rows.loc[rows["city"].isna(), "country"]) == {"country 5"}


def test_what_is_not_supported_is_not_declared():
    rng = np.random.default_rng(0)
    n = 1000
    amount = np.where(rng.random(n) < 0.9, 0.0, rng.normal(size=n))  # every number but 0 is seen once
    frame = pd.DataFrame(
        {
            "id": np.arange(n),
            "key": [f"k{i}" for i in np.arange(n) // 2],
            "amount": amount,
            "kind of amount": np.where(amount == 0, "none", rng.choice(["a", "b"], n)),
            "group": rng.integers(0, 12, n),
            "rare flag": np.arange(n) == 17,
            "few": rng.integers(0, 4, n),
        }
    )
    assert determined(TableCodec().fit(frame)) == {}


def test_penguins_have_none():
    assert determined(TableCodec().fit(load_penguins())) == {}


def test_the_switch_and_arrays():
    frame = places()
    codec = TableCodec(dependencies=False).fit(frame)
    assert determined(codec) == {}
    assert len(codec.n_levels_) == 4
    code = np.random.default_rng(0).integers(0, 12, 300)
    array = np.stack([code, code * 2], 1).astype(float)
    assert ArrayCodec().fit(array).n_continuous_ == 2
    assert determined(TableCodec().fit(pd.DataFrame(array))) == {1: 0}


# ------------------------------------------------- numbers and other determinants


def test_an_unseen_number_stays_where_its_neighbours_agree_and_moves_where_they_do_not():
    rng = np.random.default_rng(0)
    age = np.repeat(np.r_[18:40, 60:90], 6)
    rng.shuffle(age)
    frame = pd.DataFrame({"age": age, "group": np.select([age < 30, age < 50], ["young", "middle"], "old")})
    codec = TableCodec().fit(frame)
    assert determined(codec) == {"group": "age"}
    column, group = codec.columns_[0], frame.groupby("age")["group"].first()
    drawn = [39, 41, 49, 51, 59, 60, 89, 29, 30]
    out = codec.dependencies_.complete([pd.Series(drawn), None], codec.columns_)
    assert out[0].tolist() == [39, 39, 39, 60, 60, 60, 89, 29, 30]
    assert out[1].tolist() == group.loc[out[0]].tolist()
    assert column.values_.min() == 18
    frame = frame.assign(group=np.where(age < 50, "young", "old"), age=frame["age"] * 2)
    codec = TableCodec().fit(frame)
    out = codec.dependencies_.complete([pd.Series([37, 81, 119]), None], codec.columns_)
    assert out[0].tolist() == [37, 78, 120]


def test_a_number_without_order_does_not_take_the_place_of_a_category():
    rng = np.random.default_rng(0)
    product = rng.integers(0, 60, 1200)
    kinds = rng.permutation(60) % 5
    frame = pd.DataFrame({"product": 1000 + 7 * product, "kind": [f"kind {kinds[p]}" for p in product]})
    codec = TableCodec().fit(frame)
    assert (codec.n_continuous_, codec.n_levels_) == (1, [5])
    data = noise(codec, 3000)
    rows = codec.decode(data)
    assert breaks(frame, rows, "product", "kind") == 0
    # The category is as it was drawn; the number gave way.
    np.testing.assert_array_equal(codec.columns_[1].positions(rows["kind"]), data[:, 1].numpy())
    share = rows.groupby("kind")["product"].nunique()
    assert (share == frame.groupby("kind")["product"].nunique()).all()


def test_levels_too_rare_for_a_code_follow_what_they_determine():
    rng = np.random.default_rng(0)
    word = rng.integers(0, 1500, 9000)
    frame = pd.DataFrame({"word": [f"w{c:04d}" for c in word], "topic": [f"t{c % 6}" for c in word]})
    codec = TableCodec().fit(frame)
    assert codec.columns_[0].n_rare_ > 100
    rows = codec.decode(noise(codec, 4000))
    assert breaks(frame, rows, "word", "topic") == 0
    assert rows["word"].nunique() > 800


def test_two_determinants_of_one_column_agree():
    rng = np.random.default_rng(0)
    n = 2000
    state = rng.integers(0, 5, n)
    city, brand = state * 6 + rng.integers(0, 6, n), state * 4 + rng.integers(0, 4, n)
    frame = pd.DataFrame(
        {
            "state": [f"s{v}" for v in state],
            "city": [f"c{v:02d}" for v in city],
            "brand": [f"b{v:02d}" for v in brand],
            "owner of brand": [f"o{v // 2}" for v in brand],
        }
    )
    codec = TableCodec().fit(frame)
    rows = codec.decode(noise(codec, 3000), generator=torch.Generator().manual_seed(0))
    for determinant, dependent in [("city", "state"), ("brand", "state"), ("brand", "owner of brand")]:
        assert breaks(frame, rows, determinant, dependent) == 0
    # Values that had to give way are drawn as often as the data has them.
    shares = rows["city"].value_counts(normalize=True)
    assert shares.max() < 2 * frame["city"].value_counts(normalize=True).max()
    again = codec.decode(noise(codec, 3000), generator=torch.Generator().manual_seed(0))
    pd.testing.assert_frame_equal(rows, again)


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(100, 400),
    n_values=st.integers(2, 8),
    n_images=st.integers(2, 4),
    seed=st.integers(0, 2**31),
    as_number=st.booleans(),
    missing=st.booleans(),
)
def test_no_row_breaks_a_planted_dependency_and_noise_is_not_declared(n, n_values, n_images, seed, as_number, missing):
    rng = np.random.default_rng(seed)
    source = np.arange(n) % n_values
    rng.shuffle(source)
    table = rng.permutation(n_values) % n_images
    a = pd.Series(source * 1.5) if as_number else pd.Series([f"a{v}" for v in source])
    if missing:
        a[source == 1] = None
    b = [f"b{table[v]}" for v in source]
    other = rng.integers(0, 3, n)
    frame = pd.DataFrame({"b": b, "noise": [f"n{v}" for v in other], "a": a, "x": rng.normal(size=n)})
    codec = TableCodec().fit(frame)
    found = determined(codec)
    assert found in ({"b": "a"}, {"a": "b"})
    rows = codec.decode(noise(codec, 200, seed % 1000))
    assert breaks(frame, rows, "a", "b") == 0


# -------------------------------------------------------------------- condition


@pytest.fixture
def levels_of_education():
    rng = np.random.default_rng(0)
    code = rng.integers(0, 12, 600)
    return pd.DataFrame(
        {
            "education": pd.Categorical([f"grade {c:02d}" for c in code]),
            "education_num": code + 1,
            "school": [f"school {c // 3}" for c in code],
            "age": rng.integers(17, 90, 600),
        }
    )


def test_a_class_of_the_condition_determines_features(levels_of_education):
    frame = levels_of_education
    codes = torch.from_numpy(frame["education"].cat.codes.to_numpy(np.float32, copy=True))[:, None]
    features = frame.drop(columns="education")
    codec = TableCodec().fit(features, codes, [12])
    assert determined(codec) == {"education_num": "condition", "school": "education_num"}
    asked = torch.arange(12.0).repeat(50)[:, None]
    rows = codec.decode(noise(codec, 600), asked)
    assert (rows["education_num"] == asked[:, 0].numpy() + 1).all()
    assert (rows["school"] == [f"school {int(c) // 3}" for c in asked[:, 0]]).all()
    null = codec.decode(noise(codec, 600), torch.full((600, 1), NAN))
    pd.testing.assert_frame_equal(null, codec.decode(noise(codec, 600)))
    assert null["education_num"].nunique() == 12
    assert breaks(features, null, "education_num", "school") == 0


def test_a_feature_that_determines_the_condition_agrees_with_it():
    frame = places(1500)
    country = pd.Categorical(frame["country"])
    codes = torch.from_numpy(country.codes.astype(np.float32))[:, None].clone()
    codes[:100] = NAN  # a missing label says nothing
    features = frame.drop(columns="country")
    codec = TableCodec().fit(features, codes, [6])
    asked = codes[torch.randint(100, 1500, (2000,), generator=torch.Generator().manual_seed(0))]
    rows = codec.decode(noise(codec, 2000), asked)
    rows["country"] = pd.Categorical.from_codes(asked[:, 0].int().numpy(), dtype=country.dtype)
    assert breaks(frame, rows, "city", "country") == 0
    assert breaks(frame, rows, "country", "continent") == 0
    assert rows["city"].nunique() == 24


# ------------------------------------------------------------------- estimator


@pytest.mark.slow
def test_the_estimator_keeps_them_through_save_load_and_pickle(tmp_path, levels_of_education):
    frame = levels_of_education
    gen = DiffusionGenerator(max_steps=20, hidden_size=32, random_state=0).fit(frame, condition="education")
    assert gen.schema_["determined_by"].to_list() == ["condition", "education_num", None]
    gen.save(tmp_path / "model")
    rows = gen.sample(300, random_state=1)
    for model in (DiffusionGenerator.load(tmp_path / "model"), pickle.loads(pickle.dumps(gen)), copy.deepcopy(gen)):
        pd.testing.assert_frame_equal(model.sample(300, random_state=1), rows)
        pd.testing.assert_frame_equal(model.schema_, gen.schema_)
    for a, b in [("education", "education_num"), ("education_num", "education"), ("education_num", "school")]:
        assert breaks(frame, rows, a, b) == 0
    broken = frame.assign(school="unknown to all")
    never = gen.score_samples(frame) - np.log(len(frame) + 1)
    np.testing.assert_allclose(gen.score_samples(broken), never, rtol=1e-9)
    assert np.isfinite(gen.score_samples(frame)).all()
    free = DiffusionGenerator(max_steps=20, hidden_size=32, codec=TableCodec(dependencies=False), random_state=0).fit(
        frame
    )
    assert breaks(frame, free.sample(300, random_state=1), "education", "education_num") > 0
