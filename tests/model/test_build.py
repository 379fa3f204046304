"""What networks do to whole tables and cells, beyond what the other tests of the generator run for each of them."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from tabdiff import DiffusionGenerator
from tabdiff.model.defaults import CPU_SIZE, SIZES

N = 1200


@pytest.fixture(scope="module")
def table():
    """Four numbers with a common factor, and a category that follows their sign."""
    rng = np.random.default_rng(0)
    factor = rng.normal(size=N)
    numbers = factor[:, None] * [1.0, 0.9, -0.8, 0.3] + 0.4 * rng.normal(size=(N, 4))
    frame = pd.DataFrame(numbers, columns=list("abcd"))
    return frame.assign(sign=np.where(factor + 0.3 * rng.normal(size=N) > 0, "up", "down"))


def as_numbers(frame):
    return frame[list("abcd")].assign(sign=frame["sign"].eq("up").astype(float))


@pytest.mark.slow
def test_the_order_of_columns_means_nothing_to_the_transformer(table):
    settings = {"denoiser": "dit", "max_steps": 250, "hidden_size": 32, "n_blocks": 2, "batch_size": 128}
    errors = []
    for order in (list(table.columns), ["sign", "c", "a", "d", "b"]):
        gen = DiffusionGenerator(**settings, learning_rate=3e-3, refine=False, random_state=0).fit(table[order])
        drawn = gen.sample(N, random_state=0)
        assert list(drawn.columns) == order
        errors.append((as_numbers(drawn).corr() - as_numbers(table).corr()).abs().to_numpy().max())
    # Two real samples of this size differ by up to .1.
    assert max(errors) < 0.2 and abs(errors[0] - errors[1]) < 0.12


@pytest.mark.slow
def test_a_thousand_columns_share_tokens(tmp_path):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(40, 990)), columns=[f"x{j}" for j in range(990)])
    for j in range(10):
        frame[f"k{j}"] = rng.choice(["u", "v", "w"], size=40)
    gen = DiffusionGenerator(denoiser="dit", max_steps=2, hidden_size=16, n_blocks=1, batch_size=16, random_state=0)
    gen.fit(frame)
    assert 200 < gen.denoiser_.network.tokens.n_tokens <= 257
    assert gen.sample(3).shape == (3, 1000)
    assert gen.impute(frame.mask(rng.random(frame.shape) < 0.02)[:3]).notna().all(axis=None)
    gen.save(tmp_path / "model")
    pd.testing.assert_frame_equal(
        DiffusionGenerator.load(tmp_path / "model").sample(2, random_state=0), gen.sample(2, random_state=0)
    )


@pytest.mark.slow
@pytest.mark.parametrize("counts", [True, False])
def test_the_transformer_denoises_cells(counts, tmp_path):
    rng = np.random.default_rng(0)
    kind = rng.choice(["a", "b"], size=80)
    values = rng.poisson(np.where(kind == "a", 2.0, 6.0)[:, None], size=(80, 12)).astype("float32")
    adata = AnnData(values if counts else np.log1p(values) - 0.5, obs=pd.DataFrame({"kind": kind}).rename(str))
    gen = DiffusionGenerator(denoiser="dit", layer="X", max_steps=20, hidden_size=16, n_blocks=1, random_state=0)
    gen.fit(adata, condition="kind")
    assert gen.denoiser_.network.tokens.n_tokens <= 33
    drawn = gen.sample(30, condition="b", random_state=0)
    gen.save(tmp_path / "model")
    again = DiffusionGenerator.load(tmp_path / "model").sample(30, condition="b", random_state=0)
    assert drawn.shape == (30, 12) and (drawn.X != again.X).sum() == 0


def test_sizes_follow_the_network_and_the_data(table):
    def spec(X, **parameters):
        return DiffusionGenerator(max_steps=1, batch_size=8, refine=False, **parameters).fit(X).model_.config

    large = pd.DataFrame(np.random.default_rng(0).normal(size=(5000, 2)))
    wide = {name: sizes[0] for name, sizes in SIZES.items()} | {"mlp": CPU_SIZE}
    for name, (_, narrow) in SIZES.items():
        found = spec(large, denoiser=name, device="cpu").hidden_size, spec(table, denoiser=name).n_blocks
        assert found == (wide[name].hidden_size, narrow.n_blocks)
    assert spec(table, denoiser="auto").network == "mlp"
    assert spec(table, denoiser="dit", hidden_size=24, n_blocks=1).hidden_size == 24


def codes(n_levels, n=5000):
    """A column of many levels, and a number whose mean is fixed by the level's remainder."""
    rng = np.random.default_rng(0)
    level = rng.integers(n_levels, size=n)
    return pd.DataFrame({"code": [f"k{j}" for j in level], "x": level % 3 + 0.1 * rng.normal(size=n)})


@pytest.mark.parametrize("denoiser", ["mlp", "dit"])
def test_levels_of_a_long_column_have_larger_embeddings(denoiser, tmp_path):
    settings = {"max_steps": 3, "hidden_size": 16, "n_blocks": 1, "refine": False, "random_state": 0}
    gen = DiffusionGenerator(denoiser=denoiser, **settings).fit(codes(150))
    short = DiffusionGenerator(denoiser=denoiser, **settings).fit(codes(50))
    shapes = [tuple(g.denoiser_.embeddings().shape) for g in (gen, short)]
    assert shapes == [(150, 32), (50, 8)]
    rows = gen.sample(20, random_state=0)
    assert gen.impute(codes(150).assign(code=None).head()).notna().all(axis=None)
    gen.save(tmp_path / "model")
    pd.testing.assert_frame_equal(DiffusionGenerator.load(tmp_path / "model").sample(20, random_state=0), rows)
