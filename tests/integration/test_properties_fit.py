"""Random frames through a whole fit and draw: what comes back is right, or an error names the column."""

import numpy as np
import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st
from properties import accepted, lacking, like, refusal, unchanged
from random_frames import ARROW, KINDS, NAMES, NUMBERS, REFUSED_KINDS, TEXT, TIMES, frames

from tabdiff import DiffusionGenerator

pytestmark = pytest.mark.exhaustive

SMALL = st.integers(1, 60)


def tiny(**parameters):
    return DiffusionGenerator(max_steps=1, hidden_size=8, n_blocks=1, refine=False, random_state=0, **parameters)


def fit_and_sample(case, n=23):
    with unchanged(case):
        try:
            gen = tiny().fit(case.frame)
        except (ValueError, TypeError) as error:
            refusal(case, error)
            return
        accepted(case)
        drawn = gen.sample(n, steps=2, random_state=0)
    like(drawn, case.frame, n)


@seed(11)
@settings(max_examples=170)
@given(frames(NUMBERS))
def test_numbers(case):
    fit_and_sample(case)


@seed(12)
@settings(max_examples=170)
@given(frames(TEXT))
def test_text(case):
    fit_and_sample(case)


@seed(13)
@settings(max_examples=170)
@given(frames(TIMES))
def test_times(case):
    fit_and_sample(case)


@seed(14)
@settings(max_examples=140)
@given(frames(ARROW, rows=SMALL))
def test_arrow(case):
    pytest.importorskip("pyarrow")
    fit_and_sample(case)


@seed(15)
@settings(max_examples=200)
@given(frames(KINDS, refused=REFUSED_KINDS, names=NAMES, rows=SMALL))
def test_mixtures_and_what_cannot_be_modelled(case):
    fit_and_sample(case)


@seed(16)
@settings(max_examples=30)
@given(frames(KINDS, columns=st.sampled_from([13, 40, 100, 300]), rows=st.sampled_from([2, 9, 30, 60])))
def test_many_columns(case):
    fit_and_sample(case)


@seed(17)
@settings(max_examples=30)
@given(frames(KINDS, rows=st.sampled_from([300, 499, 500])))
def test_many_rows(case):
    fit_and_sample(case, n=500)


@seed(18)
@settings(max_examples=120)
@given(frames(KINDS, columns=st.integers(2, 4), rows=st.integers(2, 60)), st.integers(0, 3))
def test_any_column_as_condition(case, which):
    name = case.frame.columns[which % case.frame.shape[1]]
    with unchanged(case):
        try:
            gen = tiny().fit(case.frame, condition=name)
            drawn = gen.sample(17, steps=2, random_state=0)
        except (ValueError, TypeError) as error:
            if repr(name) not in str(error):
                refusal(case, error)
            return
    like(drawn, case.frame, 17)


@seed(19)
@settings(max_examples=120)
@given(frames(KINDS, rows=st.integers(2, 40)))
def test_scores_and_filled_cells(case):
    with unchanged(case):
        try:
            gen = tiny().fit(case.frame)
        except (ValueError, TypeError) as error:
            refusal(case, error)
            return
        scores = gen.score_samples(case.frame)
        filled = gen.impute(case.frame, steps=2, random_state=0)
    assert scores.shape == (len(case.frame),) and np.isfinite(scores).all()
    assert filled.index.equals(case.frame.index) and (filled.dtypes == case.frame.dtypes).all()
    for name in case.frame:
        # A column of which nothing was seen has nothing to be filled with.
        assert lacking(case.frame[name]).all() or not lacking(filled[name]).any(), name
