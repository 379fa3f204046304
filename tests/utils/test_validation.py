import numpy as np
import pytest

from tabdiff.utils.validation import did_you_mean, is_integer, is_number


@pytest.mark.parametrize("value", [1, np.int64(1), np.uint8(1)])
def test_integers_of_python_and_numpy_are_integers(value):
    assert is_integer(value) and is_integer(value, 1) and not is_integer(value, 2)


@pytest.mark.parametrize("value", [True, np.True_, 1.0, "1", None, [1], float("nan")])
def test_booleans_floats_and_text_are_none(value):
    assert not is_integer(value) and not is_integer(value, 1)


@pytest.mark.parametrize("value", [0, -1.5, np.float32(2), np.int8(3)])
def test_finite_numbers_are_numbers(value):
    assert is_number(value) is True


@pytest.mark.parametrize("value", [True, np.True_, float("inf"), np.float64("nan"), "auto", None])
def test_what_is_no_finite_number(value):
    assert is_number(value) is False


def test_the_nearest_name_is_asked_about_and_a_far_one_is_not():
    assert did_you_mean("specis", ["species", "sex"]) == " Did you mean 'species'?"
    assert did_you_mean("x", ["species", "sex"]) == ""
    assert did_you_mean(2022, [2021, "year"]) == " Did you mean '2021'?"
