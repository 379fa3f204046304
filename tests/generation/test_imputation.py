import numpy as np
import pandas as pd
import pytest
import torch

from tabdiff import DiffusionGenerator, TrainingOptions
from tabdiff.datasets import load_penguins
from tabdiff.diffusion.masks import LEFT_OUT, PRESENT, DrawGiven, given_inputs
from tabdiff.nn import ResidualMLP

QUICK = {"max_steps": 20, "hidden_size": 32, "n_blocks": 1, "random_state": 0}
# Enough to learn a small table in seconds.
LEARNS = {
    **{
        "max_steps": 500,
        "hidden_size": 64,
        "n_blocks": 2,
        "learning_rate": 3e-3,
        "training": TrainingOptions(ema_decay=0.98, observed_masks=0.75),
        "batch_size": 256,
    },
    **{"refine": False, "random_state": 0},
}


def quick(**kwargs):
    return DiffusionGenerator(**{**QUICK, **kwargs})


@pytest.fixture(scope="module")
def penguins():
    return load_penguins()


@pytest.fixture(scope="module")
def fitted(penguins):
    return quick().fit(penguins)


@pytest.fixture(scope="module")
def by_species(penguins):
    return quick().fit(penguins, condition="species")


# ---------------------------------------------------------------- what is given


def masks(data, share=1.0, missing=(), presence=None):
    presence = [-1] * (data.shape[1] - len(missing)) if presence is None else presence
    draw = DrawGiven(n_continuous=data.shape[1] - len(missing), missing_levels=missing, presence=presence, share=share)
    return draw(data, torch.Generator().manual_seed(0))


def test_subsets_of_every_size_are_given_in_the_wanted_share_of_rows():
    given = masks(torch.ones(40_000, 3), share=0.4)
    sizes = given.isfinite().sum(1)
    # A uniform probability of each column makes the sizes 0 to 3 equally frequent.
    for size in (1, 2, 3):
        assert (sizes == size).double().mean() == pytest.approx(0.1, abs=0.01)
    assert given[given.isfinite()].unique().tolist() == [1.0]


def test_rows_that_learn_to_fill_holes_pass_over_what_is_missing():
    # A number, a category whose code 2 is missing, and the column that says whether the number is.
    data = torch.tensor([[float("nan"), 2.0, 1.0], [0.5, 1.0, 0.0]]).repeat(2000, 1)
    given = masks(data, missing=[2, -1], presence=[2])
    fills = given[:, 2] == LEFT_OUT
    assert fills.double().mean() == pytest.approx(0.5, abs=0.05)
    gone, there = given[fills & (data[:, 1] == 2)], given[fills & (data[:, 1] == 1)]
    assert (gone == LEFT_OUT).all()
    assert set(there[:, 1].tolist()) == {1.0, PRESENT} and set(there[:, 0].tolist()) == {0.5, PRESENT}
    # The others see whether a number is missing exactly as often where it is as where it is not.
    rates = [float((~given[~fills & (data[:, 1] == code), 2].isnan()).double().mean()) for code in (1, 2)]
    assert rates[0] == pytest.approx(rates[1], abs=0.06)


def test_given_entries_are_seen_and_marked():
    seen, marks = given_inputs(torch.tensor([[0.5, torch.nan, PRESENT, LEFT_OUT]]))
    assert seen.tolist() == [[True, False, False, True]]
    assert marks.tolist() == [[1, 0, 0, 0, 0, 0, 1, 0]]


def test_a_network_without_anything_given_is_the_same_network():
    torch.manual_seed(0)
    plain = ResidualMLP(4, 4, hidden_size=16, n_blocks=1)
    torch.manual_seed(0)
    told = ResidualMLP(4, 4, hidden_size=16, n_blocks=1, given_size=12)
    for network in (plain, told):
        torch.nn.init.ones_(network.project_out.weight)
    x, t = torch.randn(3, 4), torch.rand(3)
    torch.testing.assert_close(told(x, t, None, torch.zeros(3, 12)), plain(x, t), rtol=0, atol=0)


def test_the_loss_leaves_out_what_is_given_and_the_estimate_returns_it(fitted, penguins):
    denoiser, codec = fitted.denoiser_, fitted.codec_
    data = codec.encode(penguins.dropna().head(8))
    eps, t = torch.randn(8, denoiser.width, generator=torch.Generator().manual_seed(0)), torch.full((8,), 0.5)
    assert (denoiser.loss(data, data.clone(), t=t, eps=eps) == 0).all()
    nothing = torch.full_like(data, torch.nan)
    assert (denoiser.loss(data, nothing, t=t, eps=eps) == denoiser.loss(data, t=t, eps=eps)).all()
    torch.testing.assert_close(denoiser(eps, t, data), denoiser.to_x0(data))


# ----------------------------------------------------------------- imputation


@pytest.mark.parametrize("strategy", ["mean", "draw"])
def test_holes_are_filled_and_nothing_else_changes(fitted, penguins, strategy):
    X = penguins.sample(60, random_state=0)
    holes = np.random.default_rng(0).random(X.shape) < 0.3
    X = X.mask(holes).astype(penguins.dtypes.drop("year").to_dict())
    before = X.copy()
    out = fitted.impute(X, strategy=strategy)
    pd.testing.assert_frame_equal(X, before)
    assert not out.isna().any(axis=None)
    assert out.dtypes.to_list() == penguins.dtypes.to_list()  # year too, which the holes had made a float
    assert out.index.equals(X.index)
    there = X.notna().to_numpy()
    np.testing.assert_array_equal(out.astype(object).to_numpy()[there], X.astype(object).to_numpy()[there])
    assert out["body_mass_g"].between(2700, 6300).all()


def test_several_draws_differ_in_the_holes_alone_and_repeat(fitted, penguins):
    draws = fitted.impute(penguins, n_draws=2, random_state=1)
    again = fitted.impute(penguins, n_draws=2, random_state=1)
    for a, b in zip(draws, again, strict=True):
        pd.testing.assert_frame_equal(a, b)
    different = (draws[0].astype(object) != draws[1].astype(object)).to_numpy()
    assert different.any() and not (different & penguins.notna().to_numpy()).any()
    assert not fitted.impute(penguins).equals(penguins)


def test_a_complete_table_comes_back_as_a_copy(fitted, penguins):
    X = penguins.dropna()
    out = fitted.impute(X)
    pd.testing.assert_frame_equal(out, X)
    assert out is not X


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_arrays_and_columns_that_were_complete_at_fit(dtype):
    rng = np.random.default_rng(0)
    gen = quick().fit(rng.normal(size=(100, 3)).astype(dtype))
    X = rng.normal(size=(20, 3)).astype(dtype)
    holes = rng.random(X.shape) < 0.4
    out = gen.impute(np.where(holes, np.nan, X).astype(dtype))
    assert out.dtype == dtype and np.isfinite(out).all()
    np.testing.assert_array_equal(out[~holes], X[~holes])


def test_other_kinds_of_columns_and_frames():
    pl = pytest.importorskip("polars")
    values = {"day": ["2024-01-02", "2024-03-04"], "word": ["a", "b"], "truth": [True, False], "n": [2, 3]}
    rng = np.random.default_rng(0)
    frame = pl.DataFrame({name: [(*some, None)[k] for k in rng.integers(3, size=60)] for name, some in values.items()})
    frame = frame.with_columns(pl.col("day").str.to_date())
    out = quick(max_steps=3).fit(frame).impute(frame)
    assert isinstance(out, pl.DataFrame) and out.schema == frame.schema
    assert out.null_count().sum_horizontal().item() == 0


@pytest.mark.slow
def test_conditions_of_the_rows_are_used_and_their_holes_stay(by_species, penguins):
    X = penguins.head(40).copy()
    X.loc[3:8, "species"] = np.nan
    X.loc[5:20, "body_mass_g"] = pd.NA
    with pytest.warns(UserWarning, match=r"\['species'\] keep their missing values"):
        out = by_species.impute(X)
    assert out["species"].isna().sum() == 6 and not out.drop(columns="species").isna().any(axis=None)
    pd.testing.assert_frame_equal(
        by_species.impute(X.drop(columns="species"), condition="Gentoo", random_state=0),
        by_species.impute(X.assign(species="Gentoo"), random_state=0).drop(columns="species"),
    )


@pytest.mark.slow
def test_imputation_of_a_gaussian_has_the_conditional_mean_and_variance():
    rng, rho = np.random.default_rng(0), 0.8
    X = rng.multivariate_normal([0, 0], [[1, rho], [rho, 1]], size=3000)
    X[rng.random(3000) < 0.3, 1] = np.nan
    gen = DiffusionGenerator(**LEARNS).fit(X)
    asked = np.repeat([-1.0, 0.5, 1.5], 600)
    rows = np.column_stack([asked, np.full(len(asked), np.nan)])
    drawn = gen.impute(rows, strategy="draw", random_state=0)[:, 1]
    for value in (-1.0, 0.5, 1.5):
        part = drawn[asked == value]
        assert part.mean() == pytest.approx(rho * value, abs=0.2)
        assert part.std() == pytest.approx(np.sqrt(1 - rho**2), rel=0.25)
    estimate = gen.impute(rows[::600], random_state=0)[:, 1]
    np.testing.assert_allclose(estimate, rho * np.array([-1.0, 0.5, 1.5]), atol=0.25)


# ------------------------------------------------------------------ relations


def dependent(n=300):
    rng = np.random.default_rng(0)
    city = rng.choice(["Rome", "Milan", "Lyon", "Nice"], n)
    country = np.where(np.isin(city, ["Rome", "Milan"]), "Italy", "France")
    return pd.DataFrame({"city": city, "country": country, "x": rng.normal(size=n)})


def test_holes_follow_functional_dependencies():
    frame = dependent()
    gen = quick().fit(frame)
    X = frame.copy()
    X.loc[::3, "country"] = np.nan
    X.loc[1::3, "city"] = np.nan
    for strategy in ("mean", "draw"):
        out = gen.impute(X, strategy=strategy, random_state=0)
        pd.testing.assert_series_equal(out["country"], frame["country"])
        assert out.groupby("city")["country"].nunique().max() == 1


def test_a_held_column_that_another_determines_narrows_this_one_down():
    gen = quick().fit(dependent())
    rows = gen.sample(80, condition={"country": "Italy"}, random_state=0)
    assert (rows["country"] == "Italy").all() and set(rows["city"]) == {"Rome", "Milan"}
    with pytest.raises(ValueError, match="does not go with"):
        gen.sample(condition={"country": "Italy", "city": "Nice"})


# ------------------------------------------------------ columns that are held


def planted(n, seed):
    rng = np.random.default_rng(seed)
    group = rng.choice(["a", "b", "c"], n, p=[0.4, 0.3, 0.3])
    x = rng.normal(size=n) * 0.5 + np.select([group == "a", group == "b"], [-2.0, 0.0], 2.0)
    flag = np.where(rng.random(n) < np.where(x > 0, 0.9, 0.2), "yes", "no")
    return pd.DataFrame({"group": group, "x": x, "flag": flag})


@pytest.fixture(scope="module")
def on_planted():
    return DiffusionGenerator(**LEARNS).fit(planted(3000, 0))


@pytest.mark.slow
def test_the_rest_follows_the_conditional_distribution(on_planted):
    rows = on_planted.sample(600, condition={"group": "c"}, random_state=0)
    assert (rows["group"] == "c").all()
    assert rows["x"].median() == pytest.approx(2.0, abs=0.2) and ((rows["x"] - 2).abs() < 1.5).mean() > 0.9
    assert (rows["flag"] == "yes").mean() == pytest.approx(0.9, abs=0.08)
    rows = on_planted.sample(condition={"x": np.repeat([-2.0, 2.0], 400)}, random_state=0)
    assert rows["x"].to_list() == [-2.0] * 400 + [2.0] * 400
    assert (rows["group"][:400] == "a").mean() > 0.85 and (rows["group"][400:] == "c").mean() > 0.8
    assert (rows["flag"][:400] == "yes").mean() == pytest.approx(0.2, abs=0.1)


def test_values_counts_and_missing_entries(fitted, penguins):
    rows = fitted.sample(condition={"sex": {"female": 2, "male": 1}, "year": 2008}, random_state=0)
    assert rows["sex"].to_list() == ["female", "female", "male"] and rows["year"].to_list() == [2008] * 3
    assert rows.dtypes.to_list() == penguins.dtypes.to_list()
    rows = fitted.sample(condition={"flipper_length_mm": [190, None, 201], "bill_length_mm": [40.25, 39.0, 38.1]})
    assert rows["flipper_length_mm"].iloc[[0, 2]].to_list() == [190, 201]
    assert rows["bill_length_mm"].to_list() == [40.25, 39.0, 38.1]


def test_columns_and_declared_conditions_together(by_species):
    rows = by_species.sample(4, condition={"species": "Gentoo", "sex": "male"}, guidance_scale=2.0)
    assert (rows["species"] == "Gentoo").all() and (rows["sex"] == "male").all()
    rows, labels = by_species.sample(condition={"sex": ["male", "female"], "species": "Adelie"}, return_condition=True)
    assert rows["sex"].to_list() == ["male", "female"] and (labels["species"] == "Adelie").all()
    with pytest.raises(ValueError, match=r"declared conditions \['species'\] were left out"):
        by_species.sample(3, condition={"sex": "male"})
    with pytest.raises(ValueError, match="3 rows"):
        by_species.sample(condition={"sex": ["male", "female"], "species": ["Gentoo"] * 3})


def test_columns_of_arrays_are_held_by_number():
    gen = quick().fit(np.random.default_rng(0).normal(size=(50, 2)))
    np.testing.assert_array_equal(gen.sample(condition={1: [0.5, -0.5]})[:, 1], [0.5, -0.5])


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ({"sex": "femal"}, "Did you mean 'female'"),
        ({"sx": "female"}, "Did you mean 'sex'"),
        ({"bill_length_mm": "long"}, "bill_length_mm.*'long'"),
        ({"flipper_length_mm": 190.5}, "190.5"),
        ({"bill_length_mm": np.inf}, "inf"),
        ({"sex": None}, "leave it out"),
        ({"sex": ["female"] * 3, "year": [2007] * 2}, "different numbers of rows"),
        ({"sex": {"female": -1}}, "count"),
        ({"sex": {"female": 1}, "island": {"Dream": 1}}, "only one"),
        ({"sex": []}, "no rows"),
        ("female", "fitted without one"),
    ],
    ids=str,
)
def test_what_cannot_be_held_is_refused(fitted, condition, message):
    with pytest.raises(ValueError, match=message):
        fitted.sample(condition=condition)
    with pytest.raises(ValueError, match="2 rows"):
        fitted.sample(5, condition={"sex": ["female", "male"]})


def test_a_number_out_of_range_is_kept_with_a_warning(fitted):
    with pytest.warns(UserWarning, match="outside the fitted range"):
        rows = fitted.sample(condition={"bill_length_mm": 70.0})
    assert rows["bill_length_mm"].to_list() == [70.0]


# -------------------------------------------------------- models without masks


@pytest.mark.slow
def test_models_that_cannot_fill_say_why(penguins, fitted):
    sites = ["ACGT", "AGGT"] * 20
    with pytest.raises(TypeError, match="sequences"):
        quick(max_steps=2).fit(sites).impute(sites)
    without = quick(training=TrainingOptions(observed_masks=0.0), max_steps=2).fit(penguins)
    with pytest.raises(ValueError, match="observed_masks"):
        without.impute(penguins)
    with pytest.raises(ValueError, match="observed_masks"):
        without.sample(condition={"sex": "female"})
    for arguments, message in (
        ({"n_draws": 0}, "n_draws"),
        ({"strategy": "median"}, "strategy"),
        ({"strategy": "mean", "n_draws": 2}, "one estimate"),
    ):
        with pytest.raises(ValueError, match=message):
            fitted.impute(penguins, **arguments)
    for value in (1.5, -0.1, "half", float("nan")):
        with pytest.raises(ValueError, match="observed_masks"):
            quick(training=TrainingOptions(observed_masks=value)).fit(penguins)


def test_a_callable_denoiser_cannot_be_told():
    X = np.random.default_rng(0).normal(size=(30, 2))
    gen = quick(denoiser=lambda n_in, n_out, size: ResidualMLP(n_in, n_out, size, hidden_size=8), max_steps=2).fit(X)
    with pytest.raises(TypeError, match="callable denoiser"):
        gen.impute(X)


def test_saved_models_fill_alike(fitted, penguins, tmp_path):
    fitted.save(tmp_path / "model")
    loaded = DiffusionGenerator.load(tmp_path / "model")
    pd.testing.assert_frame_equal(loaded.impute(penguins, random_state=0), fitted.impute(penguins, random_state=0))
    held = {"condition": {"sex": "male"}, "random_state": 0}
    pd.testing.assert_frame_equal(loaded.sample(5, **held), fitted.sample(5, **held))


def test_an_arrow_dictionary_without_levels_stays_as_it_is():
    pa = pytest.importorskip("pyarrow")
    kind = pa.dictionary(pa.int8(), pa.string())
    levels = pd.array(pa.array([None, None, None], pa.string()).dictionary_encode().cast(kind), pd.ArrowDtype(kind))
    frame = pd.DataFrame({"a": [0.1, 0.2, 0.3], "nothing": levels})
    filled = quick(max_steps=2).fit(frame).impute(frame, steps=2, random_state=0)
    assert filled["nothing"].isna().all() and filled["nothing"].dtype == frame["nothing"].dtype
