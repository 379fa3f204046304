import numpy as np
import pandas as pd
import pytest

from tabdiff.codecs.conditions.conditions import Conditions, condition_frame


@pytest.fixture
def conditions():
    rng = np.random.default_rng(0)
    cell_type = rng.choice(["B", "T", "NK"], size=300, p=[0.5, 0.4, 0.1])
    # B cells were measured at low doses only, so that drawing jointly differs from drawing each by itself.
    dose = np.where(cell_type == "B", rng.uniform(0, 1, 300), rng.uniform(5, 10, 300))
    return Conditions(pd.DataFrame({"cell_type": cell_type, "dose": dose}))


def resolve(conditions, n=None, condition=None, seed=0):
    codes = conditions.resolve(n, condition, np.random.default_rng(seed))
    return conditions.decode(codes.numpy())


def test_kinds_follow_dtypes():
    frame = pd.DataFrame(
        {
            "string": ["a", "b"] * 20,
            "bool": [True, False] * 20,
            "small": [1, 2] * 20,
            "large": range(40),
            "float": np.linspace(0, 1, 40),
            "as_class": pd.Categorical(range(40)),
        }
    )
    kinds = {a.name: a.kind for a in Conditions(frame).attributes}
    assert kinds == {
        "string": "class",
        "bool": "class",
        "small": "class",
        "large": "continuous",
        "float": "continuous",
        "as_class": "class",
    }


def test_none_draws_jointly_from_what_was_seen(conditions):
    drawn = resolve(conditions, 2000)
    assert (drawn.loc[drawn.cell_type == "B", "dose"] <= 1).all()
    assert (drawn.loc[drawn.cell_type != "B", "dose"] >= 5).all()
    share = (conditions.codes[:, 0] == conditions.attributes[0].levels.index("B")).mean()
    assert abs((drawn.cell_type == "B").mean() - share) < 4 * np.sqrt(0.25 / 2000)


def test_scalar_and_dict_broadcast():
    single = Conditions(pd.DataFrame({"label": ["a", "b"] * 5}))
    assert resolve(single, 3, "b")["label"].to_list() == ["b"] * 3
    assert resolve(single, None, {"label": "a"})["label"].to_list() == ["a"]


def test_partial_dict_draws_the_rest_from_matching_rows(conditions):
    drawn = resolve(conditions, 200, {"cell_type": "B"})
    assert (drawn.cell_type == "B").all() and drawn.dose.between(0, 1).all() and drawn.dose.nunique() > 20
    drawn = resolve(conditions, 200, {"dose": 0.5})
    assert np.allclose(drawn.dose, 0.5) and (drawn.cell_type == "B").all()


def test_counts_are_exact(conditions):
    drawn = resolve(conditions, None, {"cell_type": {"B": 30, "NK": 12}})
    assert drawn.cell_type.value_counts().to_dict() == {"B": 30, "NK": 12}


def test_arrays_series_and_frames_go_row_by_row(conditions):
    frame = pd.DataFrame({"dose": [0.5, 6.0], "cell_type": ["B", "T"]}, index=[7, 3])
    for given in (frame, frame[["cell_type", "dose"]].to_numpy(), {"dose": [0.5, 6.0], "cell_type": ["B", "T"]}):
        drawn = resolve(conditions, None, given)
        assert drawn.cell_type.to_list() == ["B", "T"] and np.allclose(drawn.dose, [0.5, 6.0])
    single = Conditions(pd.DataFrame({"label": ["a", "b"] * 5}))
    for values in (["b", "a"], np.array(["b", "a"]), pd.Series(["b", "a"])):
        assert resolve(single, None, values)["label"].to_list() == ["b", "a"]


def test_unconditional_is_all_null(conditions):
    assert resolve(conditions, 4, "unconditional").isna().all(axis=None)


def test_missing_labels_are_null():
    conditions = Conditions(pd.DataFrame({"label": ["a", None, "b"]}))
    assert np.isnan(conditions.codes[1, 0]) and conditions.attributes[0].levels == ["a", "b"]


@pytest.mark.parametrize(
    ("n", "condition", "message"),
    [
        (3, {"cell_type": "b"}, r"unknown value 'b'.*Did you mean 'B'.*'NK'"),
        (3, {"celltype": "B"}, r"unknown condition name 'celltype'.*Did you mean 'cell_type'"),
        (3, "B", r"2 conditions.*cell_type"),
        (3, {"dose": "high"}, r"dose.*continuous.*'high'"),
        (5, {"cell_type": ["B", "T"]}, r"2 rows.*n_samples=5"),
        (None, {"cell_type": ["B", "T"], "dose": [1.0]}, r"different numbers of rows"),
        (None, {"cell_type": {"B": -1}}, r"count of 'B'"),
        (None, {"cell_type": {"B": 0}}, r"no rows"),
        (None, np.zeros((2, 3)), r"shape \(n, 2\)"),
        (3, {"dose": np.inf}, r"infinite"),
    ],
)
def test_bad_conditions_say_what_is_wrong(conditions, n, condition, message):
    with pytest.raises(ValueError, match=message):
        resolve(conditions, n, condition)


def test_a_value_outside_the_range_is_a_warning(conditions):
    with pytest.warns(UserWarning, match=r"dose.*50.*outside"):
        resolve(conditions, 3, {"cell_type": "B", "dose": 50.0})


def test_an_unseen_combination_is_a_warning_where_something_is_left_open():
    conditions = Conditions(pd.DataFrame({"a": ["x", "y"] * 5, "b": ["u", "v"] * 5, "c": ["r", "s"] * 5}))
    with pytest.warns(UserWarning, match="no training row has"):
        resolve(conditions, 3, {"a": "x", "b": "v"})


def test_integer_and_boolean_labels_are_not_confused():
    conditions = Conditions(pd.DataFrame({"label": [0, 1] * 5}))
    assert resolve(conditions, 2, np.int64(1))["label"].to_list() == [1, 1]
    with pytest.raises(ValueError, match="unknown value True"):
        resolve(conditions, 2, True)


@pytest.mark.parametrize("dtype", ["int64", "Int64", "float32", "category", "string", "object", "bool"])
def test_labels_come_back_in_their_dtype(dtype):
    labels = pd.Series([1, 0] * 10).astype(dtype) if dtype != "object" else pd.Series(["a", "b"] * 10, dtype=object)
    conditions = Conditions.from_state(Conditions(labels.to_frame("c")).state())
    decoded = conditions.decode(conditions.codes)["c"]
    pd.testing.assert_series_equal(decoded, labels.rename("c"))


def test_a_shuffled_index_is_refused():
    series = pd.Series(["a", "b", "c"], index=[2, 1, 0])
    with pytest.raises(ValueError, match="different order"):
        condition_frame(series, 3, "condition", pd.RangeIndex(3))
    with pytest.raises(ValueError, match=r"\[4, 3\]"):
        condition_frame(series, 4, "condition", pd.RangeIndex(4))


def test_doses_are_modelled_on_a_logarithmic_scale_and_come_back_as_given():
    doses = np.array([0, 0.01, 0.1, 1.0, 10.0, 100.0] * 5)
    conditions = Conditions(pd.DataFrame({"dose": doses}))
    assert conditions.attributes[0].unit == 0.01 and "log scale" in repr(conditions)
    # log(1 + d / 0.01) in steps of about log 10, standardised.
    steps = np.diff(conditions.codes[:6, 0])
    np.testing.assert_allclose(steps[2:], steps[-1], rtol=0.1)
    asked = np.array([0.0, 0.37, 2.5, 33.0, 100.0])
    codes = conditions.resolve(None, {"dose": asked}, np.random.default_rng(0)).numpy()
    np.testing.assert_allclose(conditions.decode(codes)["dose"], asked, rtol=1e-5)
    np.testing.assert_allclose(conditions.decode(conditions.codes)["dose"], doses, rtol=1e-5)
    again = Conditions.from_state(conditions.state())
    np.testing.assert_array_equal(again.encode(pd.DataFrame({"dose": doses})), conditions.codes)


@pytest.mark.parametrize(
    "values",
    [np.linspace(0, 100, 60), np.linspace(-1, 100, 60), np.linspace(20, 300, 60), np.r_[1e-3, np.linspace(5, 9, 59)]],
)
def test_other_values_stay_on_a_linear_scale(values):
    assert Conditions(pd.DataFrame({"age": values})).attributes[0].unit == 0
