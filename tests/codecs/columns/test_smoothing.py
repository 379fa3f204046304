"""Where values drawn of a continuous column lie among those that were seen."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tabdiff.codecs.columns import NumericColumn
from tabdiff.codecs.columns.numeric import STRETCH
from tabdiff.codecs.columns.smoothing import boundaries, smooth

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)


def column(values, dtype="float64", **settings):
    made = NumericColumn(np.asarray(values, dtype=np.float64), np.dtype(dtype), "x")
    if settings:
        made._finish(made.counts_, **settings)
    return made


def test_one_boundary_is_the_mean_of_itself():
    values = np.sort(np.random.default_rng(0).normal(size=50))
    np.testing.assert_array_equal(smooth(values, np.zeros(50, dtype=bool), 1), boundaries(values))


def test_a_boundary_is_the_mean_of_a_stretch_of_them_and_of_fewer_at_the_ends():
    values = np.cumsum(np.random.default_rng(0).uniform(0.5, 1.5, size=40))
    plain, smoothed = boundaries(values), smooth(values, np.zeros(40, dtype=bool), 5)
    assert smoothed[20] == pytest.approx(plain[18:23].mean())
    assert smoothed[2] == pytest.approx(plain[1:4].mean()) and smoothed[1] == plain[1]
    assert smoothed[0] == values[0] and smoothed[-1] == values[-1]


def test_boundaries_of_heavy_values_stay():
    values = np.cumsum(np.random.default_rng(0).uniform(0.1, 2.0, size=60))
    heavy = np.isin(np.arange(60), [17, 40, 41])
    smoothed, plain = smooth(values, heavy, STRETCH), boundaries(values)
    same = np.isin(np.arange(61), [0, 17, 18, 40, 41, 42, 60])
    np.testing.assert_array_equal(smoothed[same], plain[same])
    assert (np.abs(smoothed - plain)[~same] > 0).mean() > 0.8


def test_nothing_spreads_into_a_hole():
    rng = np.random.default_rng(0)
    values = np.sort(np.concatenate([rng.uniform(0, 1, 200), rng.uniform(100, 101, 200)]))
    smoothed = smooth(values, np.zeros(400, dtype=bool), STRETCH)
    inside = (smoothed > 1) & (smoothed < 100)
    assert inside.sum() == 1 and smoothed[inside][0] == pytest.approx(50.5, abs=0.1)


@given(st.lists(NUMBERS, min_size=2, max_size=60, unique=True), st.integers(0, 20), st.data())
def test_any_boundaries_are_in_order_and_in_range(values, half, data):
    values = np.unique(np.asarray(values) + 0.0)
    heavy = np.array(data.draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values))))
    smoothed = smooth(values, heavy, 2 * half + 1)
    assert np.isfinite(smoothed).all() and (np.diff(smoothed) >= 0).all()
    assert smoothed[0] == values[0] and smoothed[-1] == values[-1]


def test_drawn_values_keep_no_longer_to_those_that_were_seen():
    # What half-way boundaries draw crowds where two training values happened to lie close together.
    rng = np.random.default_rng(0)
    train, unseen = rng.normal(size=(2, 1000))
    z = rng.standard_normal(20_000)

    def nearness(values, drawn):
        values = np.sort(values)
        right = np.clip(np.searchsorted(values, drawn), 1, len(values) - 1)
        return np.minimum(np.abs(drawn - values[right - 1]), np.abs(values[right] - drawn))

    shares = []
    for stretch in (1, STRETCH):
        drawn = column(train, stretch=stretch).decode_values(z)
        own, other = nearness(train, drawn), nearness(unseen, drawn)
        shares.append((own < other).mean())
    assert shares[0] > 0.56
    assert shares[1] < 0.53


def test_values_are_drawn_as_densely_as_unseen_ones_lie():
    # The mean log-likelihood of unseen values beside that of the truth, by which a density estimate is judged.
    rng = np.random.default_rng(0)
    train, unseen = rng.normal(size=2000), rng.normal(size=20_000)
    plain, smoothed = (column(train, stretch=s).log_density(unseen).mean() for s in (1, STRETCH))
    truth = stats.norm.logpdf(unseen).mean()
    assert truth - smoothed < (truth - plain) / 3


@pytest.mark.parametrize(
    "draw",
    [
        lambda rng: rng.normal(size=3000),
        lambda rng: np.round(rng.lognormal(3, 1, size=3000), 2),
        lambda rng: np.where(rng.random(3000) < 0.4, 0.0, rng.exponential(size=3000)),
        lambda rng: rng.permutation(np.arange(3000)) * 25.0,
    ],
    ids=["normal", "cents", "spike at zero", "multiples of 25"],
)
def test_marginals_spikes_and_units_are_as_without_it(draw):
    rng = np.random.default_rng(0)
    values = draw(rng)
    z = rng.standard_normal(30_000)
    plain, smoothed = (column(values, stretch=s).decode_values(z) for s in (1, STRETCH))
    assert stats.ks_2samp(plain, smoothed).statistic < 0.005
    assert np.array_equal(plain == 0, smoothed == 0)
    unit = column(values).unit_
    if unit is not None:
        multiple, decimals = unit
        assert np.allclose(np.rint(smoothed * 10**decimals) % multiple, 0)
    assert stats.kstest(column(values).encode(values, rng), "norm").pvalue > 0.01


def test_what_is_drawn_is_encoded_as_what_it_was_drawn_from():
    rng = np.random.default_rng(0)
    c = column(np.concatenate([rng.normal(size=500), np.repeat(0.25, 60)]))
    z = rng.uniform(-2, 2, size=4000)
    drawn = c.decode_values(z)
    inside = drawn != 0.25
    assert 0.05 < 1 - inside.mean() < 0.2
    np.testing.assert_allclose(c.encode(drawn, None)[inside], z[inside], atol=1e-6)


def test_the_density_is_that_of_what_is_drawn():
    rng = np.random.default_rng(0)
    c = column(np.concatenate([rng.gamma(2.0, size=300), np.repeat(1.0, 100)]))
    drawn = c.decode_values(rng.standard_normal(400_000))
    edges = np.quantile(drawn[drawn != 1.0], np.linspace(0, 1, 12))
    for low, high in itertools.pairwise(edges):
        points = np.linspace(low, high, 4001)
        points = 0.5 * points[1:] + 0.5 * points[:-1]
        mass = np.exp(c.log_density(points[points != 1.0])).mean() * (high - low)
        seen = ((drawn >= low) & (drawn < high) & (drawn != 1.0)).mean()
        assert mass == pytest.approx(seen, rel=0.03)


def test_saved_columns_keep_their_stretch_and_older_ones_have_none():
    values = np.random.default_rng(0).normal(size=200)
    c = column(values)
    z = np.random.default_rng(1).standard_normal(500)
    again = NumericColumn.from_state(c.state())
    assert again.stretch_ == STRETCH
    np.testing.assert_array_equal(again.decode_values(z), c.decode_values(z))
    older = {k: v for k, v in c.state().items() if k != "stretch"}
    before = NumericColumn.from_state(older)
    assert before.stretch_ == 1
    np.testing.assert_array_equal(before.decode_values(z), column(values, stretch=1).decode_values(z))
