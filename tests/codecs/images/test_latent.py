"""Images by the latents of an autoencoder, and diffusion in them."""

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.metrics import accuracy_score
from sklearn.neighbors import KNeighborsClassifier

from tabdiff import DiffusionGenerator, TrainingOptions
from tabdiff.codecs import LatentImageCodec
from tabdiff.codecs.images import latent
from tabdiff.nn.image_autoencoder import ImageAutoencoder, autoencoder_from_weights

CPU = torch.device("cpu")
QUICK = {"max_steps": 3, "hidden_size": 8, "n_blocks": 1, "batch_size": 16, "random_state": 0}


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    monkeypatch.setattr(latent, "STEPS_RANGE", (30, 60))
    monkeypatch.setattr(latent, "WIDTH", 16)


def quick(**kwargs):
    return DiffusionGenerator(**{**QUICK, "codec": LatentImageCodec(), **kwargs})


@pytest.fixture(scope="module")
def digits():
    data = load_digits()
    return np.rint(data.images / 16 * 255).astype(np.uint8), data.target


# -------------------------------------------------------------- autoencoder


def test_the_loss_is_the_bound_that_its_docstring_says():
    torch.manual_seed(0)
    model = ImageAutoencoder((1, 8, 8), width=8, n_blocks=1)
    rows, noise = torch.rand(5, 64) * 2 - 1, torch.randn(5, 64)
    mean, log_variance = model.encode(rows)
    posterior = torch.distributions.Normal(mean, log_variance.mul(0.5).exp())
    kl = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0)).sum(1).mean()
    error = (model.decode(mean + noise * posterior.scale) - rows).square().mean()
    loss, found = model.loss(rows, noise)
    assert found.item() == pytest.approx(error.item(), rel=1e-5)
    assert loss.item() == pytest.approx((0.5 * (error + 1e-6).log() + 0.1 * kl / 64).item(), rel=1e-4)


@pytest.mark.parametrize(
    ("shape", "latent"), [((1, 8, 8), (4, 4, 4)), ((3, 16, 24), (4, 4, 6)), ((2, 28, 28), (4, 7, 7))]
)
def test_shapes(shape, latent):
    model = ImageAutoencoder(shape, width=8, n_blocks=1)
    mean, _ = model.encode(torch.zeros(2, int(np.prod(shape))))
    assert model.latent_shape == latent and mean.shape == (2, np.prod(latent))
    assert model.decode(mean).shape == (2, np.prod(shape))


# -------------------------------------------------------------------- codec


@pytest.mark.slow
def test_latents_are_standardised_and_give_images_back(digits, monkeypatch):
    images, _ = digits
    monkeypatch.setattr(latent, "STEPS_RANGE", (200, 200))
    codec = LatentImageCodec().fit(images[:600], seed=0, device=CPU)
    generator = torch.Generator().manual_seed(0)
    drawn = codec.encode(images[:600], None, generator).reshape(600, 4, -1)
    assert drawn.mean((0, 2)).abs().max() < 0.05 and (drawn.std((0, 2)) - 1).abs().max() < 0.05
    means = codec.encode(images[:600])
    assert torch.equal(means, codec.encode(images[:600]))
    assert not torch.equal(drawn.flatten(1), means)
    unseen = images[600:900].astype(float) / 255
    error = np.sqrt(np.mean((codec.reconstruct(images[600:900]) / 255 - unseen) ** 2))
    alone = np.sqrt(np.mean((images[:600].mean(0) / 255 - unseen) ** 2))
    assert error < 0.6 * alone
    assert codec.reconstruction_rmse_ == pytest.approx(error, rel=0.25)
    assert codec.schema_.loc[0, "latent"] == "4 × 4 × 4"


@pytest.mark.slow
def test_seeds_decide_and_the_callers_randomness_is_left_alone(digits):
    images, _ = digits
    state = torch.random.get_rng_state()
    codecs = [LatentImageCodec("flip").fit(images[:80], seed=s, device=CPU) for s in (0, 0, 1)]
    assert torch.equal(state, torch.random.get_rng_state())
    first, again, other = (codec.encode(images[:5]) for codec in codecs)
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize("kind", ["hw bytes", "hwc floats", "chw floats", "pil", "folder"])
def test_the_container_that_goes_in_comes_out(kind, tmp_path):
    rng = np.random.default_rng(0)
    array = rng.integers(0, 256, (12, 8, 12, 3), dtype=np.uint8)
    X = {
        "hw bytes": array[..., 0],
        "hwc floats": (array / 255).astype(np.float32),
        "chw floats": np.moveaxis(array, 3, 1) / 127.5 - 1,
        "pil": [Image.fromarray(a) for a in array],
        "folder": tmp_path,
    }[kind]
    for i, a in enumerate(array):
        Image.fromarray(a).save(tmp_path / f"{i:02}.png")
    drawn = quick().fit(X).sample(2, random_state=0)
    if kind == "pil":
        assert len(drawn) == 2 and drawn[0].size == (12, 8) and drawn[0].mode == "RGB"
        return
    like = array if kind == "folder" else X
    assert drawn.shape == (2, *like.shape[1:]) and drawn.dtype == like.dtype
    if drawn.dtype != np.uint8:
        assert drawn.min() >= (0 if kind == "hwc floats" else -1) and drawn.max() <= 1


# ---------------------------------------------------------------- estimator


@pytest.mark.slow
def test_diffusion_in_latents_learns_classes(digits, monkeypatch):
    images, y = digits
    monkeypatch.setattr(latent, "STEPS_RANGE", (200, 200))
    chosen = np.isin(y, [0, 1])
    images, y = images[chosen], y[chosen]
    settings = {
        "max_steps": 150,
        "hidden_size": 16,
        "batch_size": 64,
        "learning_rate": 3e-3,
        "training": TrainingOptions(ema_decay=0.95),
    }
    gen = quick(**settings).fit(images, y)
    wanted = np.repeat([0, 1], 40)
    drawn = gen.sample(condition=wanted, steps=20, random_state=0)
    knn = KNeighborsClassifier(3).fit(images.reshape(len(images), -1), y)
    assert accuracy_score(wanted, knn.predict(drawn.reshape(80, -1))) > 0.9
    assert gen.model_.config.layout["shape"] == [4, 4, 4] and gen.schema_.loc[0, "reconstruction_rmse"] < 0.2


@pytest.mark.slow
@pytest.mark.parametrize("denoiser", ["auto", "dit", "mlp"])
def test_saved_models_and_clones_draw_the_same(digits, denoiser, tmp_path):
    images, y = digits
    gen = quick(denoiser=denoiser).fit(images[:60], y[:60])
    drawn = gen.sample(4, condition=3, random_state=0)
    again = clone(gen).fit(images[:60], y[:60])
    assert np.array_equal(drawn, again.sample(4, condition=3, random_state=0))
    gen.save(tmp_path / "model.safetensors")
    loaded = DiffusionGenerator.load(tmp_path / "model.safetensors")
    assert np.array_equal(drawn, loaded.sample(4, condition=3, random_state=0))
    assert loaded.schema_.equals(gen.schema_)


def test_weights_that_are_not_finite_or_do_not_fit_are_refused(digits):
    codec = LatentImageCodec().fit(digits[0][:40], seed=0, device=CPU)
    state = codec.state()["autoencoder"]
    broken = {**state, "decoder.0.bias": np.full_like(state["decoder.0.bias"], np.nan)}
    with pytest.raises(ValueError, match="not finite"):
        autoencoder_from_weights((1, 8, 8), broken)
    with pytest.raises(ValueError, match="do not fit"):
        autoencoder_from_weights((3, 8, 8), state)


def test_a_warm_fit_keeps_the_autoencoder(digits):
    images, y = digits
    gen = quick(warm_start=True).fit(images[:60], y[:60])
    codec = gen.codec_
    assert gen.fit(images[60:120], y[60:120]).n_steps_ == 6 and gen.codec_ is codec
    with pytest.raises(ValueError, match="'latent_images' and is 'images'"):
        gen.set_params(codec=None).fit(images[:60], y[:60])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: quick().fit(np.zeros((9, 10, 11), dtype=np.uint8)), ValueError, "sides that divide by 2"),
        (lambda x: quick().fit(np.zeros((9, 6, 6), dtype=np.uint8)), ValueError, "at least 8 pixels"),
        (lambda x: quick().fit(np.zeros((9, 18, 18), dtype=np.uint8)), ValueError, "divide by 4"),
        (lambda x: quick().fit(np.eye(5)), ValueError, "codec must be one for X.*got LatentImageCodec"),
        (lambda x: quick(codec="latent").fit(x), TypeError, "codec must be None or an object"),
        (lambda x: quick().fit(x).score_samples(x), TypeError, "not available for latents of images"),
        (lambda x: quick().fit(x).impute(x, mask=np.eye(8, dtype=bool)), TypeError, "model of latents"),
        (lambda x: quick().fit(x).super_resolve(x[:2, ::2, ::2]), TypeError, "model of latents"),
        (lambda x: quick().fit(x).codec_.encode(x[:, :6, :6]), ValueError, "as at fit"),
    ],
)
def test_what_does_not_go_is_said(digits, call, error, message):
    with pytest.raises(error, match=message):
        call(digits[0][:30])
