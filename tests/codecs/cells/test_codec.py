"""The cell codec: what goes in comes out, counts stay counts, and structure and marginals survive."""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData, read_h5ad
from scipy import sparse

from tabdiff.codecs.cells import autoencoder_training
from tabdiff.codecs.cells.calibration import CountCalibration, count_bins
from tabdiff.codecs.cells.classes import CellClasses
from tabdiff.codecs.cells.codec import CellCodec
from tabdiff.codecs.cells.expression import MarginalQuantiles

CPU = torch.device("cpu")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def counts(n: int = 160, genes: int = 20, seed: int = 0, effect: float = 0.8) -> tuple[AnnData, torch.Tensor]:
    """Cells of two types; a factor moves genes 0 to 4 up and 5 to 9 down in both. Gene 19 is silent."""
    rng = np.random.default_rng(seed)
    code = rng.integers(0, 2, n)
    base = np.stack([np.linspace(1, 8, genes), np.linspace(8, 1, genes)])[code]
    z = rng.standard_normal((n, 1))
    loading = effect * np.where(np.arange(genes) < 5, 1, np.where(np.arange(genes) < 10, -1, 0))
    size = np.exp(0.3 * rng.standard_normal((n, 1)))
    x = rng.poisson(base * np.exp(z * loading) * size * (np.arange(genes) < 19))
    var = pd.DataFrame({"symbol": [f"S{g}" for g in range(genes)]}, index=[f"g{g}" for g in range(genes)])
    obs = pd.DataFrame(index=[f"c{i}" for i in range(n)])
    adata = AnnData(sparse.csr_matrix(x.astype(np.float32)), obs=obs, var=var)
    return adata, torch.as_tensor(code, dtype=torch.float32)[:, None]


def log_normalised(seed: int = 0) -> tuple[AnnData, torch.Tensor]:
    adata, condition = counts(seed=seed)
    x = adata.X.toarray()
    adata.X = sparse.csr_matrix(np.log1p(100 * x / x.sum(axis=1, keepdims=True)))
    return adata, condition


@pytest.fixture(scope="module")
def fitted() -> tuple[CellCodec, AnnData, torch.Tensor]:
    adata, condition = counts()
    return CellCodec().fit(adata, condition, [2], seed=0, device=CPU), adata, condition


@pytest.fixture(scope="module")
def continuous() -> tuple[CellCodec, AnnData, torch.Tensor]:
    adata, condition = log_normalised()
    return CellCodec(layer="X").fit(adata, condition, [2], seed=0, device=CPU), adata, condition


def quick(
    adata: AnnData, condition: torch.Tensor | None = None, levels: tuple[int, ...] = (), **kwargs: str
) -> CellCodec:
    return CellCodec(**kwargs).fit(adata, condition, list(levels), seed=0, device=CPU, max_time=0.2)  # type: ignore[arg-type]


def dense(adata: AnnData) -> np.ndarray:
    return adata.X.toarray() if sparse.issparse(adata.X) else np.asarray(adata.X)


@pytest.mark.slow
def test_counts_come_back_as_sparse_integers_with_the_genes(fitted: tuple) -> None:
    codec, adata, condition = fitted
    data = codec.encode(adata, condition, generator())
    out = codec.decode(data, condition, generator())
    assert codec.kind_ == "counts" and codec.layer_ == "X"
    assert sparse.isspmatrix_csr(out.X) and out.X.dtype == np.int32 and out.X.min() >= 0
    pd.testing.assert_frame_equal(out.var, adata.var)
    assert list(out.obs_names[:2]) == ["synthetic-0", "synthetic-1"]
    assert out.obsm["X_tabdiff"].dtype == np.float32 and len(out.obsm["X_tabdiff"]) == len(data)
    assert list(codec.feature_names_in_) == list(adata.var_names) and codec.n_features_in_ == 20


def test_encoded_cells_are_standardised(fitted: tuple) -> None:
    codec, adata, condition = fitted
    data = torch.cat([codec.encode(adata, condition, generator(s)) for s in range(5)])
    assert data.dtype == torch.float32 and data.shape[1] == codec.n_latent_
    assert data.mean(0).abs().max() < 0.15
    assert ((data.std(0) > 0.85) & (data.std(0) < 1.15)).all()


def test_last_latent_is_library_size(fitted: tuple) -> None:
    codec, adata, condition = fitted
    data = codec.encode(adata, condition, generator())
    depth = np.log(np.asarray(adata.X.sum(axis=1)).ravel())
    assert np.corrcoef(data[:, -1], depth)[0, 1] == pytest.approx(1, abs=1e-5)
    data[:, -1] += 1.0
    louder = codec.decode(data, condition, generator()).X.sum() / adata.X.sum()
    assert louder > 1.15


def test_means_zeros_and_structure_survive_a_round_trip(fitted: tuple) -> None:
    codec, adata, condition = fitted
    repeats = 10
    data = torch.cat([codec.encode(adata, condition, generator(s)) for s in range(repeats)])
    y = condition.repeat(repeats, 1)
    out, real = dense(codec.decode(data, y, generator())), dense(adata)
    for c in (0, 1):
        ours, theirs = out[(y == c)[:, 0].numpy()], real[(condition == c)[:, 0].numpy()]
        np.testing.assert_allclose(ours.mean(axis=0), theirs.mean(axis=0), atol=0.25, rtol=0.08)
        # Two standard errors of a share of some seventy cells, to which the calibration does not follow them.
        np.testing.assert_allclose((ours == 0).mean(axis=0), (theirs == 0).mean(axis=0), atol=0.11)
    # Poisson genes with this factor correlate at about .5 and -.5; independent ones not at all.
    own = real[(condition == 0)[:, 0].numpy()][:, 2:8]
    ours = out[(y == 0)[:, 0].numpy()][:, 2:8]
    assert (
        np.corrcoef(np.corrcoef(own.T)[np.triu_indices(6, 1)], np.corrcoef(ours.T)[np.triu_indices(6, 1)])[0, 1] > 0.85
    )


@pytest.mark.slow
@pytest.mark.parametrize("effect", [0.2, 0.8])
def test_loadings_of_small_effects_are_not_trained(effect: float, monkeypatch: pytest.MonkeyPatch) -> None:
    adata, condition = counts(400, effect=effect)
    adata.X = adata.X * 10
    start = []
    train = autoencoder_training.train_autoencoder

    def spy(model, *args, **kwargs):
        start.append(model.loadings.weight.detach().clone())
        return train(model, *args, **kwargs)

    monkeypatch.setattr(autoencoder_training, "train_autoencoder", spy)
    loadings = CellCodec().fit(adata, condition, [2], seed=0, device=CPU).model_.model.loadings.weight
    assert torch.equal(loadings, start[0]) == (effect == 0.2)
    # Up to its sign the first is the factor that was planted.
    assert abs(np.corrcoef(loadings[:19, 0], np.sign(np.r_[np.ones(5), -np.ones(5), np.zeros(9)]))[0, 1]) > 0.9


def test_silent_genes_stay_silent_and_empty_cells_are_allowed() -> None:
    adata, condition = counts(60)
    x = adata.X.tolil()
    x[3] = 0
    adata.X = x.tocsr()
    codec = quick(adata, condition, (2,))
    out = codec.decode(codec.encode(adata, condition, generator()), condition, generator())
    assert out[:, "g19"].X.sum() == 0
    assert np.isfinite(out.obsm["X_tabdiff"]).all()


def test_an_all_zero_matrix_decodes_to_zeros() -> None:
    adata = AnnData(sparse.csr_matrix((12, 5), dtype=np.float32))
    codec = quick(adata)
    assert codec.decode(codec.encode(adata, None, generator()), None, generator()).X.nnz == 0


@pytest.mark.parametrize(
    "as_type",
    [sparse.csr_matrix, sparse.csc_matrix, sparse.csr_array, lambda x: x.toarray(), lambda x: x.astype(np.int64)],
)
def test_storage_does_not_matter(as_type: object) -> None:
    adata, condition = counts(60)
    other = AnnData(as_type(adata.X), obs=adata.obs, var=adata.var)  # type: ignore[operator]
    a, b = quick(adata, condition, (2,)), quick(other, condition, (2,))
    assert a.kind_ == b.kind_ == "counts"
    latents = [codec.encode(x, condition, generator()) for codec, x in ((a, adata), (a, other))]
    torch.testing.assert_close(*latents, atol=1e-5, rtol=1e-5)
    assert b.encode(other, condition, generator()).shape[0] == 60


def test_backed_and_view_inputs(tmp_path: object) -> None:
    adata, condition = counts(60)
    adata.write_h5ad(tmp_path / "cells.h5ad")  # type: ignore[operator]
    backed = read_h5ad(tmp_path / "cells.h5ad", backed="r")  # type: ignore[operator]
    assert quick(backed, condition, (2,)).kind_ == "counts"
    backed.file.close()
    view = adata[:40, ::2]
    codec = quick(view, condition[:40], (2,))
    assert view.is_view and codec.n_features_in_ == 10


def test_backed_dense_input(tmp_path: object) -> None:
    adata, condition = counts(40)
    adata.X = adata.X.toarray()
    adata.write_h5ad(tmp_path / "cells.h5ad")  # type: ignore[operator]
    backed = read_h5ad(tmp_path / "cells.h5ad", backed="r")  # type: ignore[operator]
    codec = quick(backed, condition, (2,))
    assert codec.encode(backed, condition, generator()).shape[0] == 40
    backed.file.close()


@pytest.mark.parametrize("source", ["counts", "continuous"])
def test_the_input_is_unchanged(source: str) -> None:
    adata, condition = counts(60) if source == "counts" else log_normalised()
    before, y = adata.copy(), condition.clone()
    codec = quick(adata, condition, (2,), layer="X")
    codec.decode(codec.encode(adata, condition, generator()), condition, generator()).var["new"] = 1
    assert (adata.X != before.X).nnz == 0 and torch.equal(condition, y)
    pd.testing.assert_frame_equal(adata.obs, before.obs)
    pd.testing.assert_frame_equal(adata.var, before.var)
    assert "new" not in codec.var_


def test_counts_are_found_in_layer_x_or_raw() -> None:
    adata, condition = counts(60)
    logged = AnnData(adata.X.log1p(), obs=adata.obs, var=adata.var)
    with pytest.warns(UserWarning, match=r"no counts in .*X looks log-transformed .*layer='X' takes X as it is"):
        assert quick(logged, condition, (2,)).kind_ == "continuous"
    with_raw = logged.copy()
    with_raw.raw = adata
    codec = quick(with_raw, condition, (2,))
    assert (codec.kind_, codec.layer_) == ("counts", "raw")
    assert codec.encode(with_raw, condition, generator()).shape[0] == 60
    layered = logged.copy()
    layered.layers["counts"], layered.layers["spliced"] = adata.X, adata.X
    assert quick(layered, condition, (2,)).layer_ == "counts"
    assert quick(layered, condition, (2,), layer="spliced").layer_ == "spliced"
    assert quick(with_raw, condition, (2,), layer="X").kind_ == "continuous"


def test_raw_with_more_genes_gives_those_of_the_object() -> None:
    adata, condition = counts(60)
    part = AnnData(adata.X[:, 5:9].log1p(), obs=adata.obs, var=adata.var.iloc[5:9])
    part.raw = adata
    codec = quick(part, condition, (2,))
    out = codec.decode(codec.encode(part, condition, generator()), condition, generator())
    assert codec.kind_ == "counts" and list(out.var_names) == ["g5", "g6", "g7", "g8"]


@pytest.mark.slow
def test_seeds_repeat_and_differ(fitted: tuple) -> None:
    codec, adata, condition = fitted
    again = CellCodec().fit(adata, condition, [2], seed=0, device=CPU)
    data = [c.encode(adata, condition, generator()) for c in (codec, again)]
    assert torch.equal(*data)
    out = [c.decode(data[0], condition, generator()).X for c in (codec, again)]
    assert (out[0] != out[1]).nnz == 0
    assert not torch.equal(data[0], codec.encode(adata, condition, generator(1)))
    assert (out[0] != codec.decode(data[0], condition, generator(1)).X).nnz > 0


@pytest.mark.parametrize("which", ["fitted", "continuous"])
@pytest.mark.parametrize("way", ["state", "pickle", "deepcopy"])
def test_copies_decode_alike(which: str, way: str, request: pytest.FixtureRequest) -> None:
    codec, adata, condition = request.getfixturevalue(which)
    made = {
        "state": lambda: CellCodec.from_state(codec.state()),
        "pickle": lambda: pickle.loads(pickle.dumps(codec)),
        "deepcopy": lambda: copy.deepcopy(codec),
    }[way]()
    data = codec.encode(adata, condition, generator())
    torch.testing.assert_close(made.encode(adata, condition, generator()), data, atol=0, rtol=0)
    for y in (condition, None):
        one, two = (c.decode(data, y, generator()) for c in (codec, made))
        np.testing.assert_array_equal(dense(one), dense(two))
    assert (made.kind_, made.layer_, made.n_latent_) == (codec.kind_, codec.layer_, codec.n_latent_)


@pytest.mark.parametrize("which", ["fitted", "continuous"])
def test_state_holds_plain_values_alone(which: str, request: pytest.FixtureRequest) -> None:
    def check(value: object) -> None:
        if isinstance(value, dict):
            assert all(isinstance(key, str) for key in value)
            for item in value.values():
                check(item)
        elif isinstance(value, np.ndarray):
            assert value.dtype.kind in "biuf"
        elif isinstance(value, list):
            assert all(isinstance(item, (bool, int, float, str)) for item in value)
        else:
            assert value is None or isinstance(value, (bool, int, float, str, pd.DataFrame)), type(value)

    check(request.getfixturevalue(which)[0].state())


def test_a_null_condition_takes_the_class_from_the_latent(fitted: tuple) -> None:
    codec, adata, condition = fitted
    data = codec.encode(adata, condition, generator())
    null = torch.full_like(condition, torch.nan)
    ours, real = dense(codec.decode(data, null, generator())), dense(adata)
    np.testing.assert_allclose(ours.mean(axis=0), real.mean(axis=0), rtol=0.35, atol=0.4)
    # Both types occur: gene 18 is high in type 0 and low in type 1.
    assert np.corrcoef(ours[:, 0], ours[:, 18])[0, 1] < -0.1


def test_an_unseen_combination_adds_the_effects() -> None:
    rng = np.random.default_rng(0)
    codes = np.array([(0, 0), (0, 1), (1, 0)])[rng.integers(0, 3, 300)]
    rate = (
        4.0
        * np.where(codes[:, [0]] == 1, np.array([4, 1, 1, 1]), 1)
        * np.where(codes[:, [1]] == 1, np.array([1, 4, 1, 1]), 1)
    )
    adata = AnnData(sparse.csr_matrix(rng.poisson(rate).astype(np.float32)))
    condition = torch.as_tensor(codes, dtype=torch.float32)
    codec = quick(adata, condition, (2, 2))
    new = torch.ones(400, 2)
    out = dense(codec.decode(torch.zeros(400, codec.n_latent_), new, generator())).mean(axis=0)
    share = out / out.sum()
    np.testing.assert_allclose(share, np.array([4, 4, 1, 1]) / 10, atol=0.06)


@pytest.mark.slow
def test_a_continuous_attribute_moves_the_rates_smoothly() -> None:
    rng = np.random.default_rng(0)
    dose = rng.uniform(-1.7, 1.7, (500, 1))
    adata = AnnData(
        sparse.csr_matrix(rng.poisson(5 * np.exp(dose * np.array([[0.6, -0.6, 0, 0, 0, 0]]))).astype(np.float32))
    )
    condition = torch.as_tensor(dose, dtype=torch.float32)
    codec = CellCodec().fit(adata, condition, [0], seed=0, device=CPU)
    latents = torch.randn(2000, codec.n_latent_, generator=generator())
    means = []
    for value in (-1.0, 0.0, 1.0):
        data = codec.encode(
            adata[np.abs(dose[:, 0] - value) < 0.4], condition[(condition[:, 0] - value).abs() < 0.4], generator()
        )
        data = data[torch.randint(len(data), (2000,), generator=generator())]
        means.append(dense(codec.decode(data, torch.full((2000, 1), value), generator())).mean(axis=0))
    assert means[0][0] < means[1][0] < means[2][0] and means[0][1] > means[1][1] > means[2][1]
    assert means[2][0] / means[0][0] == pytest.approx(np.exp(1.2), rel=0.3)
    assert latents.isfinite().all()


def test_continuous_values_keep_dtype_sparsity_and_zeros(continuous: tuple) -> None:
    codec, adata, condition = continuous
    assert codec.kind_ == "continuous"
    data = torch.cat([codec.encode(adata, condition, generator(s)) for s in range(5)])
    out = codec.decode(data, condition.repeat(5, 1), generator())
    assert sparse.issparse(out.X) and out.X.dtype == adata.X.dtype
    x, real = dense(out), dense(adata)
    np.testing.assert_allclose((x == 0).mean(axis=0), (real == 0).mean(axis=0), atol=0.06)
    np.testing.assert_allclose(x.mean(axis=0), real.mean(axis=0), atol=0.15)
    assert x.min() >= 0 and (x[:, 19] == 0).all()


def test_scaled_and_bulk_values() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40, 3)) @ rng.standard_normal((3, 50)) + 0.1 * rng.standard_normal((40, 50))
    x[:, 7] = 2.5
    adata = AnnData(x.astype(np.float64))
    with pytest.warns(UserWarning, match="scaled or centred"):
        codec = quick(adata)
    out = codec.decode(codec.encode(adata, None, generator()), None, generator())
    assert isinstance(out.X, np.ndarray) and out.X.dtype == np.float64
    assert (out.X[:, 7] == 2.5).all()
    np.testing.assert_allclose(np.corrcoef(out.X[:, :5].T), np.corrcoef(x[:, :5].T), atol=0.15)
    assert out.X.min() >= x.min() - 1e-5 and out.X.max() <= x.max() + 1e-5


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("as_type", [np.asarray, sparse.csr_matrix])
def test_a_value_that_is_not_finite_names_its_gene(value: float, as_type: object) -> None:
    x = np.ones((6, 4), dtype=np.float32)
    x[2, 3] = value
    adata = AnnData(as_type(x), var=pd.DataFrame(index=list("abcd")))  # type: ignore[operator]
    with pytest.raises(ValueError, match="gene 'd', cell 2"):
        quick(adata)


def test_errors_say_what_is_wrong(fitted: tuple) -> None:
    codec, adata, condition = fitted
    with pytest.raises(ValueError, match="'spliced' is not a layer"):
        quick(adata, layer="spliced")
    with pytest.raises(ValueError, match="layer='raw', but"):
        quick(adata, layer="raw")
    with pytest.raises(ValueError, match="at least 2 cells"):
        quick(adata[:1])
    with pytest.raises(ValueError, match="condition has shape"):
        quick(adata, condition[:5], (2,))
    with pytest.raises(ValueError, match="lacks 2 of the 20 genes"):
        codec.encode(adata[:, 2:], condition, generator())
    with pytest.raises(ValueError, match="fitted on counts"):
        codec.encode(AnnData(adata.X * 0.5, obs=adata.obs, var=adata.var), condition, generator())
    with pytest.raises(ValueError, match="expected"):
        codec.decode(torch.zeros(3, codec.n_latent_ + 1), None, generator())


def test_genes_in_another_order_are_aligned(fitted: tuple) -> None:
    codec, adata, condition = fitted
    shuffled = adata[:, ::-1]
    torch.testing.assert_close(
        codec.encode(shuffled, condition, generator()), codec.encode(adata, condition, generator())
    )


def test_two_cells_are_enough() -> None:
    adata, _ = counts(2)
    codec = quick(adata)
    assert codec.decode(codec.encode(adata, None, generator()), None, generator()).shape == (2, 20)


def test_decoding_no_cells_gives_no_cells(fitted: tuple, continuous: tuple) -> None:
    for codec in (fitted[0], continuous[0]):
        assert codec.decode(torch.zeros(0, codec.n_latent_), torch.zeros(0, 1), generator()).shape == (0, 20)


def test_recalibration_corrects_a_biased_sampler(fitted: tuple) -> None:
    codec, adata, condition = copy.deepcopy(fitted[0]), fitted[1], fitted[2]
    data = torch.cat([codec.encode(adata, condition, generator(s)) for s in range(8)])
    y = condition.repeat(8, 1)
    data[:, -1] -= 1.5
    target = dense(adata).mean()
    before = dense(codec.decode(data, y, generator())).mean()
    codec.calibrate(data, y, generator())
    after = dense(codec.decode(data, y, generator())).mean()
    assert abs(after - target) < 0.25 * abs(before - target)


def test_calibration_maps_one_distribution_onto_another() -> None:
    rng = np.random.default_rng(0)
    real, model = rng.negative_binomial(2, 0.2, (4000, 3)), rng.poisson(6.0, (20_000, 3))
    zero = np.zeros(1, dtype=np.int64)
    calibration = CountCalibration(1, real.max(axis=0), shrinkage=0.0)
    calibration.observe(real, np.repeat(zero, 4000))
    calibration.fit([(model, np.repeat(zero, 20_000))])
    out = calibration(model[:4000], np.repeat(zero, 4000), rng)
    for q in (0.1, 0.5, 0.9, 0.99):
        np.testing.assert_allclose(np.quantile(out, q, axis=0), np.quantile(real, q, axis=0), atol=1, rtol=0.1)
    assert np.corrcoef(out[:, 0], model[:4000, 0])[0, 1] > 0.9


def test_calibration_brings_a_heavy_tail_back() -> None:
    rng = np.random.default_rng(0)
    # Gene 0 of class 1 is large, so that the bins of class 0 reach far beyond its own counts.
    real = np.concatenate([rng.poisson(3.0, (2000, 1)), rng.poisson(60.0, (2000, 1))])
    classes = np.repeat([0, 1], 2000)
    model = np.concatenate([rng.negative_binomial(0.5, 0.02, (2000, 1)), rng.poisson(60.0, (2000, 1))])
    calibration = CountCalibration(2, real.max(axis=0), shrinkage=0.0)
    calibration.observe(real, classes)
    out = calibration.fit([(model, classes)])(model, classes, rng)
    assert out[:2000].max() <= real[:2000].max()
    assert out[:2000].mean() == pytest.approx(3.0, rel=0.05)
    assert out[2000:].mean() == pytest.approx(60.0, rel=0.02)


def test_calibration_counts_zeros_of_sparse_and_dense_blocks() -> None:
    counts = np.array([[0, 3, 0], [1, 0, 0], [0, 40, 2], [0, 0, 0]])
    classes = np.array([0, 1, 0, 1])
    tables = []
    # Entries that are stored although they are zero, or in two parts, are the counts that they say.
    parts = (np.array([3, 1, 0, 38, 2, 2]), np.array([1, 0, 2, 1, 1, 2]), np.array([0, 1, 3, 6, 6]))
    for block in (counts, sparse.csr_matrix(counts), sparse.csr_matrix(parts, shape=counts.shape)):
        calibration = CountCalibration(2, counts.max(axis=0))
        calibration.observe(block, classes)
        tables.append(calibration.observed)
        own = np.add.reduceat(calibration.observed, calibration.start[:-1], axis=1)
        assert (own == 2).all()
    assert (tables[0] == tables[1]).all() and (tables[0] == tables[2]).all()
    zeros = tables[0][:, calibration.start[:-1]]
    assert zeros.tolist() == [[2, 0, 1], [1, 2, 2]]


def test_calibration_shrinks_to_the_model() -> None:
    rng = np.random.default_rng(0)
    real, model = np.full((3, 1), 9), rng.poisson(2.0, (5000, 1))
    calibration = CountCalibration(1, np.array([9]), shrinkage=1e9)
    calibration.observe(real, np.zeros(3, dtype=np.int64))
    calibration.fit([(model, np.zeros(5000, dtype=np.int64))])
    out = calibration(model, np.zeros(5000, dtype=np.int64), rng)
    assert (out == model).mean() > 0.99


def test_count_bins_are_single_where_counts_are_small() -> None:
    edges = count_bins(10_000)
    assert list(edges[:32]) == list(range(32)) and edges[-1] > 10_000
    assert (np.diff(edges) > 0).all() and len(edges) < 100


def test_quantiles_return_a_spike_exactly() -> None:
    rng = np.random.default_rng(0)
    x = np.where(rng.random((1000, 1)) < 0.4, 0.0, 1 + rng.random((1000, 1)))
    share = (x == 0).mean()
    out = MarginalQuantiles(x)(np.linspace(0, 1, 2001)[:, None].astype(np.float32))
    assert (out == 0).mean() == pytest.approx(share, abs=0.002)
    assert out[out > 0].min() >= x[x > 0].min() - 1e-6
    both = MarginalQuantiles(np.where(rng.random((1000, 1)) < 0.3, 0.0, rng.standard_normal((1000, 1))))
    assert 0.25 < (both(rng.random((2000, 1)).astype(np.float32)) == 0).mean() < 0.35


def test_classes_draw_nulls_from_matching_classes() -> None:
    condition = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 1.0]]).repeat(10, 1)
    classes = CellClasses(condition, [2, 2], 30)
    filled, index, _ = classes.resolve(torch.tensor([[1.0, torch.nan]] * 5), torch.zeros(5, 1), generator())
    assert filled is not None and (filled[:, 1] == 1).all() and (classes.codes[index] == [1, 1]).all()
    _, index, _ = classes.resolve(torch.tensor([[1.0, 0.0]]), torch.zeros(1, 1), generator())
    assert index[0] == -1
    assert tuple(classes.codes[classes.nearest(np.array([[1, 0]]))[0]]) in {(0, 0), (1, 1)}


def test_a_null_seen_in_training_is_a_class_of_its_own() -> None:
    condition = torch.tensor([[0.0], [torch.nan]]).repeat(10, 1)
    classes = CellClasses(condition, [1], 20)
    filled, index, _ = classes.resolve(torch.tensor([[torch.nan]]), torch.zeros(1, 1), generator())
    assert index[0] == 1 and filled is not None and filled.isnan().all()


def test_calibration_trusts_a_model_that_is_right_and_corrects_one_that_is_wrong() -> None:
    rng = np.random.default_rng(0)
    real = np.stack([rng.poisson(4.0, 60), rng.poisson(4.0, 60) * 3], axis=1)
    simulated = rng.poisson(4.0, (4000, 2))
    calibration = CountCalibration(1, real.max(axis=0))
    calibration.observe(real, np.zeros(60, dtype=int))
    calibration.fit([(simulated, np.zeros(4000, dtype=int))])
    fresh = rng.poisson(4.0, (4000, 2))
    out = calibration(fresh, np.zeros(4000, dtype=int), rng)
    # The right marginal keeps the truth's mean, not that of the sixty cells; the wrong one takes theirs.
    assert abs(out[:, 0].mean() - 4.0) < 0.5 * abs(real[:, 0].mean() - 4.0) + 0.1
    assert abs(out[:, 1].mean() - real[:, 1].mean()) < 0.1 * real[:, 1].mean()
    assert (out[:, 1] % 3 == 0).mean() > 0.9
