import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from tabdiff.codecs import TableCodec
from tabdiff.codecs.tables.noised import check_declared, n_histograms, noised_frame

PUBLIC = {"age": (0, 100), "income": (0, 50_000), "weight": (0.0, 10.0)}


def people(n=4000, seed=0):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "age": rng.integers(18, 80, n),
            "income": np.where(rng.random(n) < 0.7, 0, rng.integers(1000, 50_000, n)),
            "weight": rng.gamma(4, 0.5, n).clip(0, 10),
            "sex": rng.choice(["F", "M"], n, p=[0.3, 0.7]),
            "kind": pd.Categorical(rng.choice(["a", "b", "c"], n, p=[0.6, 0.3, 0.1])),
            "member": rng.random(n) < 0.2,
        }
    )
    frame.loc[rng.random(n) < 0.25, "weight"] = np.nan
    frame.loc[rng.random(n) < 0.2, "kind"] = np.nan
    return frame


def noised(frame, seed=0, public=PUBLIC, **settings):
    settings = {"noise_multiplier": 1.0, "delta": 1e-6} | settings
    return noised_frame(frame, public, rng=np.random.default_rng(seed), **settings)


def test_the_frame_has_the_marginals_up_to_noise():
    frame = people()
    made = noised(frame).frame
    for name in ("sex", "kind", "member"):
        shares = [f[name].value_counts(normalize=True, dropna=False) for f in (frame, made)]
        assert (shares[0] - shares[1]).abs().max() < 0.03
    for name in ("age", "weight"):
        wanted, found = (f[name].dropna().quantile([0.1, 0.5, 0.9]).to_numpy() for f in (frame, made))
        np.testing.assert_allclose(found, wanted, atol=0.06 * (PUBLIC[name][1] - PUBLIC[name][0]))
    assert made["weight"].isna().mean() == pytest.approx(0.25, abs=0.03)
    # A spike gets a cell of its own.
    assert (made["income"] == 0).mean() == pytest.approx(0.7, abs=0.04)
    assert list(made.dtypes) == list(noised(frame).rows.dtypes)
    assert made["age"].dtype == frame["age"].dtype


def test_columns_of_the_frame_are_independent():
    frame = people()
    frame["sex"] = np.where(frame["age"] > 50, "F", "M")
    made = noised(frame).frame
    assert abs(np.corrcoef(made["age"], made["sex"] == "F")[0, 1]) < 0.06


def test_noise_has_the_deviation_that_the_number_of_histograms_asks_for():
    frame = people(400)
    n = n_histograms(frame, PUBLIC)
    # One of the rows; 1 of missing values and 7, 16 and 12 halvings; and three of levels.
    assert n == 1 + (1 + 7) + (1 + 16) + (1 + 12) + 3
    found = [noised(frame, seed, noise_multiplier=0.5).n_rows - 400 for seed in range(80)]
    assert noised(frame).deviation == pytest.approx(np.sqrt(n))
    assert np.std(found) == pytest.approx(0.5 * np.sqrt(n), rel=0.25)


def test_neighbours_give_the_same_codec_up_to_noise():
    """What a row more changes is small beside what another noise changes."""
    frame = people(1500)
    row = pd.DataFrame({"age": [99], "income": [50_000], "weight": [9.99], "sex": ["secret"], "kind": ["c"]})
    row["member"] = True
    more = pd.concat([frame, row], ignore_index=True)
    more["kind"], more["member"] = more["kind"].astype(frame["kind"].dtype), more["member"].astype(bool)

    def describe(frame, seed):
        codec = TableCodec(dependencies=False).fit(noised(frame, seed, noise_multiplier=2.0).frame)
        columns = {c.name: c for c in codec.columns_}
        levels = {name: list(columns[name].levels_) for name in ("sex", "kind", "member")}
        quantiles = [columns[n].decode_values(norm.ppf([0.1, 0.5, 0.9, 0.999])) for n in ("age", "income", "weight")]
        shares = columns["sex"].counts_ / columns["sex"].counts_.sum()
        return levels, np.concatenate([np.concatenate(quantiles) / [100] * 1, shares])

    plain = [describe(frame, seed) for seed in range(12)]
    other = [describe(more, seed) for seed in range(12)]
    # The level of one row is not named, and neither are the ends of what was seen.
    assert all(levels["sex"] == ["F", "M"] for levels, _ in plain + other)
    assert all(levels["kind"] == ["a", "b", "c"] for levels, _ in plain + other)
    a, b = (np.stack([values for _, values in side]) for side in (plain, other))
    deviation = np.maximum(np.std(np.concatenate([a, b]), axis=0), 1e-9)
    assert (np.abs(a.mean(axis=0) - b.mean(axis=0)) / deviation < 1.5).all()


def test_levels_of_few_rows_are_not_named_and_their_rows_become_others():
    frame = people()
    frame.loc[:5, "sex"] = [f"name {i}" for i in range(6)]
    found = noised(frame)
    assert set(found.frame["sex"]) == set(found.rows["sex"]) == {"F", "M"}
    assert found.rows["sex"][6:].equals(frame["sex"][6:])


def test_categories_that_were_not_found_are_not_in_the_dtype():
    frame = people()
    frame["kind"] = frame["kind"].cat.add_categories(["a name"])
    frame.loc[0, "kind"] = "a name"
    made = noised(frame)
    assert list(made.frame["kind"].cat.categories) == list(made.rows["kind"].cat.categories) == ["a", "b", "c"]


def test_ordered_categories_keep_their_order():
    frame = people()
    frame["kind"] = frame["kind"].cat.set_categories(["c", "a", "b"], ordered=True)
    made = noised(frame).frame["kind"]
    assert list(made.cat.categories) == ["c", "a", "b"]
    assert made.cat.ordered


def test_declared_levels_are_there_however_rare():
    frame = people()
    found = noised(frame, public=PUBLIC | {"sex": ["F", "M", "X"]}, noise_multiplier=0.01)
    assert set(found.frame["sex"]) <= {"F", "M", "X"}
    assert found.columns["sex"] == "public levels; noised counts"
    with pytest.raises(ValueError, match=r"must hold the levels that are declared public, \['F'\]; got 'M'"):
        noised(frame, public=PUBLIC | {"sex": ["F"]})


def test_numbers_are_clipped_to_their_range_and_rounded_to_its_step():
    frame = people()
    frame.loc[0, "age"], frame.loc[1, "weight"] = 4000, -3.0
    found = noised(frame, public=PUBLIC | {"weight": (0, 10, 0.5)})
    assert found.rows["age"].max() <= 100
    assert found.rows["weight"].min() == 0
    for part in (found.frame, found.rows):
        assert set((part["weight"].dropna() * 2 % 1).round(9)) == {0.0}
        assert part["age"].between(0, 100).all()


def test_missing_values_of_few_rows_are_filled():
    frame = people()
    frame["age"] = frame["age"].astype("Int64")
    frame.loc[:3, "age"] = pd.NA
    frame.loc[:3, "sex"] = None
    found = noised(frame)
    assert not found.rows[["age", "sex"]].isna().any().any()
    assert not found.frame[["age", "sex"]].isna().any().any()
    assert found.rows["age"].dtype == "Int64"


def test_a_codec_of_the_frame_encodes_the_rows():
    found = noised(people(), noise_multiplier=4.0)
    codec = TableCodec(dependencies=False).fit(found.frame)
    assert not np.isinf(codec.encode(found.rows).numpy()).any()
    assert set(codec.decode(codec.encode(found.frame))) == set(found.frame)


def test_nothing_may_be_named_where_noise_is_large():
    with pytest.raises(ValueError, match="no level of column 'sex' has a noised count above"):
        noised(people(60), noise_multiplier=50.0)


@pytest.mark.parametrize(
    ("change", "public", "error", "message"),
    [
        ({}, {"age": (0, 100)}, ValueError, "column 'income' holds numbers, whose range must be declared"),
        ({}, PUBLIC | {"ages": (0, 1)}, ValueError, "public must name columns or conditions; got 'ages'. Did you mean"),
        ({}, PUBLIC | {"sex": (0, 1)}, ValueError, r"public\['sex'\] must be a list of levels"),
        ({"day": pd.Timestamp("2020-01-01")}, PUBLIC, TypeError, "must hold numbers, categories, text or booleans"),
    ],
)
def test_what_is_not_declared_or_not_covered_is_refused(change, public, error, message):
    with pytest.raises(error, match=message):
        check_declared(people(50).assign(**change), public)
