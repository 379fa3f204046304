import pandas as pd

from tabdiff.datasets import load_penguins


def test_penguins_have_the_published_shape_and_missing_values():
    penguins = load_penguins()
    assert penguins.shape == (344, 8)
    missing = penguins.isna().sum()
    assert missing[missing > 0].to_dict() == {
        "bill_length_mm": 2,
        "bill_depth_mm": 2,
        "flipper_length_mm": 2,
        "body_mass_g": 2,
        "sex": 11,
    }


def test_penguins_have_a_dtype_for_each_kind_of_column():
    dtypes = load_penguins().dtypes
    assert [c for c in dtypes.index if isinstance(dtypes[c], pd.CategoricalDtype)] == [
        "species",
        "island",
        "sex",
    ]
    assert dtypes["bill_length_mm"] == dtypes["bill_depth_mm"] == "float64"
    assert dtypes["flipper_length_mm"] == dtypes["body_mass_g"] == "Int64"
    assert dtypes["year"] == "int64"


def test_penguins_measurements_agree_with_the_published_means():
    # Means by species of the R package's documentation.
    mass = load_penguins().groupby("species", observed=True)["body_mass_g"].mean().round().to_dict()
    assert mass == {"Adelie": 3701, "Chinstrap": 3733, "Gentoo": 5076}


def test_each_call_returns_a_frame_of_its_own():
    changed = load_penguins()
    changed.loc[0, "year"] = 1900
    assert load_penguins().loc[0, "year"] == 2007
