import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from tabdiff import DiffusionGenerator, DiffusionOutlierDetector
from tabdiff.codecs.images.codec import ImageCodec
from tabdiff.diffusion import CosineSchedule, DiscreteCosineSchedule, LogNormal
from tabdiff.generation.likelihood import bits_of_rows
from tabdiff.model.defaults import resolve_times

QUICK = {"max_steps": 2, "hidden_size": 8, "n_blocks": 1, "refine": False, "random_state": 0}


class Uniform(nn.Module):
    """The exact estimate of entries that are uniform on [-1, 1]: the mean of a normal distribution cut there."""

    def __init__(self, schedule):
        super().__init__()
        self.schedule = schedule

    def forward(self, x_t, t, condition=None):
        alpha, sigma = self.schedule.alpha(t).double(), self.schedule.sigma(t).double()
        mean, width = x_t.double() / alpha, sigma / alpha
        low, high = (-1 - mean) / width, (1 - mean) / width
        # What is left of the density, from the side on which it does not cancel.
        flip = low > 0
        low, high = torch.where(flip, -high, low), torch.where(flip, -low, high)
        mass = torch.special.ndtr(high) - torch.special.ndtr(low)
        pull = ((-0.5 * low**2).exp() - (-0.5 * high**2).exp()) / (math.sqrt(2 * math.pi) * mass.clamp(min=1e-300))
        return (mean + width * torch.where(flip, -pull, pull)).clamp(-1, 1).to(x_t.dtype)


@pytest.mark.parametrize("schedule", [CosineSchedule(), DiscreteCosineSchedule(1000)], ids=lambda s: s.name)
def test_random_bytes_take_eight_bits(schedule):
    images = np.random.default_rng(0).integers(0, 256, (64, 4, 4), dtype=np.uint8)
    model = SimpleNamespace(container="images", codec=ImageCodec().fit(images), denoiser=Uniform(schedule))
    bits = bits_of_rows(model, images, None)
    assert bits.mean() == pytest.approx(8.0, abs=max(0.06, 3 * bits.std() / 8))


@pytest.fixture(scope="module")
def dice():
    """Whole numbers, 0 to 5, in two columns."""
    X = np.random.default_rng(0).integers(0, 6, (400, 2))
    return X, DiffusionGenerator(**{**QUICK, "max_steps": 60, "hidden_size": 32}).fit(X)


def test_bits_of_a_table_of_integers_are_their_entropy(dice):
    X, gen = dice
    bits, std = gen.bits_per_dim(X, return_std=True)
    assert bits == pytest.approx(math.log2(6), abs=0.25)
    assert 0 < std < 0.1
    assert bits == gen.bits_per_dim(X)


def test_bits_of_dense_integers_count_their_unit():
    # Every value is rare, so it counts by its density: multiples of 10 take as many bits as their tenths.
    x = np.random.default_rng(0).permutation(1000)[:, None]
    ones, tens = (DiffusionGenerator(**QUICK).fit(scale * x).bits_per_dim(scale * x) for scale in (1, 10))
    assert ones == pytest.approx(tens, abs=1e-6)
    assert ones == pytest.approx(math.log2(1000), abs=0.5)


def test_bits_are_refused_where_a_density_stands_for_none():
    X = np.random.default_rng(0).normal(size=(40, 2))
    gen = DiffusionGenerator(**QUICK).fit(X)
    with pytest.raises(ValueError, match="multiples of a unit; got continuous columns"):
        gen.bits_per_dim(X)
    rounded = X.round(2)  # the advice
    assert np.isfinite(DiffusionGenerator(**QUICK).fit(rounded).bits_per_dim(rounded))
    with pytest.raises(ValueError, match="method must be 'bound' or 'continuous'; got 'flow'"):
        gen.bits_per_dim(X, method="flow")


def test_bits_of_images_of_floats_are_refused_and_of_bytes_given():
    X = np.random.default_rng(0).random((20, 8, 8)).astype(np.float32)
    gen = DiffusionGenerator(**QUICK).fit(X)
    with pytest.raises(ValueError, match="must be of images of bytes"):
        gen.bits_per_dim(X)
    whole = (255 * X).astype(np.uint8)
    assert np.isfinite(DiffusionGenerator(**QUICK).fit(whole).bits_per_dim(whole))


def test_bits_of_sequences_are_those_of_their_letters():
    letters = np.random.default_rng(0).choice(list("ACGT"), (60, 6))
    sequences = pd.Series(["".join(row) for row in letters])
    gen = DiffusionGenerator(**QUICK).fit(sequences)
    # Other noises than those of the scores, so not quite their mean.
    assert gen.bits_per_dim(sequences) == pytest.approx(-gen.score(sequences) / (6 * math.log(2)), rel=0.1)


def test_scores_come_with_their_standard_error(dice):
    X, gen = dice
    scores, std = gen.score_samples(X[:5], return_std=True)
    np.testing.assert_array_equal(scores, gen.score_samples(X[:5]))
    assert std.shape == (5,) and (std >= 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_every_number_of_timesteps_scores(schedule):
    X = np.random.default_rng(0).normal(size=(16, 2))
    for n in (2, 3, 4, 11, 23):  # the noisiest of these once fell beyond the end of time
        gen = DiffusionGenerator(**QUICK, schedule=schedule, n_timesteps=n).fit(X)
        assert np.isfinite(gen.score(X))
    summed, integrated = (gen.score_samples(X[:3], method=m) for m in ("bound", "continuous"))
    assert (summed != integrated).all()


def test_sigma_data_is_that_of_the_pixels():
    X = np.random.default_rng(0).integers(64, 192, (30, 8, 8), dtype=np.uint8)
    gen = DiffusionGenerator(**QUICK, schedule="edm", target="edm").fit(X)
    spread = ((X + 0.5) / 128 - 1).std()
    assert gen.denoiser_.sigma_data == pytest.approx(spread, rel=1e-4)
    assert DiffusionGenerator(**QUICK).fit(X).denoiser_.sigma_data == 1.0  # v is not preconditioned
    table = np.random.default_rng(0).normal(size=(30, 2)) * 7
    assert DiffusionGenerator(**QUICK, schedule="edm", target="edm").fit(table).denoiser_.sigma_data == 1.0


def test_sigma_data_is_saved(tmp_path):
    X = np.random.default_rng(0).integers(64, 192, (30, 8, 8), dtype=np.uint8)
    gen = DiffusionGenerator(**QUICK, schedule="edm", target="edm").fit(X)
    gen.save(tmp_path / "model")
    loaded = DiffusionGenerator.load(tmp_path / "model")
    assert loaded.denoiser_.sigma_data == gen.denoiser_.sigma_data
    np.testing.assert_array_equal(loaded.sample(2, random_state=0), gen.sample(2, random_state=0))


def test_log_normal_times_follow_the_spread_of_the_data():
    assert resolve_times("log_normal", 0.5) == LogNormal(-1.2, 1.2)
    assert resolve_times("log_normal", 1.0) == LogNormal(-1.2 + math.log(2), 1.2)
    own = LogNormal(-0.4, 1.0)
    assert resolve_times(own, 1.0) is own and resolve_times("uniform", 1.0) == "uniform"


@pytest.mark.parametrize("n_timesteps", [2, 10, 51])
def test_flow_of_a_short_chain_stops_at_its_times_only(n_timesteps):
    X = np.random.default_rng(0).normal(size=(60, 2))
    gen = DiffusionGenerator(max_steps=2, hidden_size=8, n_timesteps=n_timesteps, random_state=0).fit(X)
    assert np.isfinite(gen.score_samples(X[:3], method="flow")).all()


@pytest.mark.slow
def test_bits_of_rows_with_cells_that_were_never_seen_are_many_and_finite():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"c": rng.choice(list("abc"), 80), "k": rng.integers(0, 30, 80)})
    gen = DiffusionGenerator(max_steps=40, hidden_size=16, refine=False, random_state=0).fit(frame)
    odd = frame[:20].assign(c="z")
    missing = frame[:20].assign(c=None)
    seen = gen.bits_per_dim(frame[:20])
    assert seen + 0.5 * np.log2(81) - 0.5 < min(gen.bits_per_dim(odd), gen.bits_per_dim(missing)) < np.inf


def test_likelihood_of_no_rows_is_refused_by_name():
    frame = pd.DataFrame({"c": list("abc") * 20, "k": np.arange(60) % 7})
    gen = DiffusionGenerator(max_steps=2, hidden_size=8, random_state=0).fit(frame)
    for score in (gen.score_samples, gen.bits_per_dim, DiffusionOutlierDetector(gen).fit(frame).predict):
        with pytest.raises(ValueError, match="X must hold at least one row; got none"):
            score(frame[:0])
