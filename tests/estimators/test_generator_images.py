import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.metrics import accuracy_score
from sklearn.neighbors import KNeighborsClassifier

import tabdiff
from tabdiff import (
    DiffusionGenerator,
    DiffusionImputer,
    DiffusionOutlierDetector,
    DiffusionOverSampler,
    ImageCodec,
    TrainingOptions,
)
from tabdiff.diffusion import METHODS
from tabdiff.nn import ResidualMLP, UNet
from tabdiff.training import Callback, Checkpoint, PeriodicSamples

QUICK = {"max_steps": 3, "hidden_size": 8, "n_blocks": 1, "batch_size": 16, "random_state": 0}


def quick(**kwargs):
    return DiffusionGenerator(**{**QUICK, **kwargs})


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


@pytest.fixture(scope="module")
def digits():
    data = load_digits()
    return (data.images / 16 * 255).astype(np.uint8), data.target


@pytest.fixture(scope="module")
def fitted(digits):
    images, y = digits
    return quick().fit(images[:200], np.array([f"digit {k}" for k in y[:200]]))


# ------------------------------------------------------------- fit and sample


@pytest.mark.slow
def test_images_are_learned(digits):
    images, y = digits
    chosen = np.isin(y, [0, 1])
    images, y = images[chosen], y[chosen]
    gen = DiffusionGenerator(
        max_steps=120,
        hidden_size=16,
        n_blocks=1,
        batch_size=64,
        learning_rate=3e-3,
        training=TrainingOptions(ema_decay=0.95),
        random_state=0,
    ).fit(images, y)
    wanted = np.repeat([0, 1], 40)
    drawn = gen.sample(condition=wanted, steps=20, random_state=0)
    knn = KNeighborsClassifier(3).fit(images.reshape(len(images), -1), y)
    assert accuracy_score(wanted, knn.predict(drawn.reshape(80, -1))) > 0.95
    # Nearer to real digits than those with each pixel drawn by itself are.
    rng = np.random.default_rng(0)
    shuffled = np.stack([rng.permuted(images[y == k], axis=0)[:40] for k in (0, 1)]).reshape(80, -1)
    nearest = [float(np.median(knn.kneighbors(x.reshape(80, -1))[0][:, 0])) for x in (drawn, shuffled)]
    assert nearest[0] < 0.85 * nearest[1]
    likelihood = gen.score_samples(np.concatenate([images[:20], noise(20, 8, 8)]))
    assert likelihood[:20].min() > likelihood[20:].max()


@pytest.mark.parametrize("shape", [(6, 7), (6, 7, 3), (3, 6, 7)], ids=["hw", "hwc", "chw"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_images_come_back_as_they_went_in(shape, dtype):
    images = noise(20, *shape)
    images = images if dtype == np.uint8 else (images / 255).astype(dtype)
    gen = quick().fit(images)
    drawn = gen.sample(5)
    assert drawn.shape == (5, *shape) and drawn.dtype == dtype
    assert isinstance(gen.denoiser_.network, UNet) and gen.n_features_in_ == np.prod(shape)
    assert drawn.std() > 0 and gen.conditions_ is None
    assert gen.schema_.loc[0, "height"] == 6 and gen.schema_.loc[0, "width"] == 7


def test_a_folder_of_classes_is_a_condition(tmp_path):
    for i, image in enumerate(noise(12, 6, 6, 3)):
        place = tmp_path / ("cat" if i < 4 else "dog")
        place.mkdir(exist_ok=True)
        Image.fromarray(image).save(place / f"{i}.png")
    gen = quick().fit(tmp_path)
    assert gen.conditions_.names == ["class"] and gen.n_samples_fit_ == 12
    images, classes = gen.sample(condition={"class": {"dog": 2, "cat": 1}}, return_condition=True)
    assert images.shape == (3, 6, 6, 3) and images.dtype == np.uint8 and classes.tolist() == ["dog", "dog", "cat"]
    assert np.isfinite(gen.score(tmp_path))


def test_files_read_as_training_goes_give_the_same_model(tmp_path, monkeypatch):
    for i, image in enumerate(noise(20, 6, 6)):
        Image.fromarray(image).save(tmp_path / f"{i:02}.png")
    kept = quick(early_stopping=True, codec=ImageCodec(augment=["flip", "crop"])).fit(tmp_path)
    monkeypatch.setattr("tabdiff.io.image_files.KEPT_BYTES", 0)
    lazy = quick(early_stopping=True, codec=ImageCodec(augment=["flip", "crop"])).fit(str(tmp_path))
    np.testing.assert_array_equal(kept.sample(3, random_state=0), lazy.sample(3, random_state=0))
    assert kept.history_["validation_loss"] == lazy.history_["validation_loss"]


def test_pil_images_come_back_as_pil_images():
    images = [Image.fromarray(image) for image in noise(10, 6, 6, 3)]
    drawn = quick().fit(images, ["a", "b"] * 5).sample(4, "a")
    assert [image.size for image in drawn] == [(6, 6)] * 4 and drawn[0].mode == "RGB"


@pytest.mark.slow
def test_labels_guidance_and_every_sampler(fitted):
    drawn, labels = fitted.sample(3, "digit 7", guidance_scale=2.0, steps=4, return_condition=True)
    assert drawn.shape == (3, 8, 8) and labels.tolist() == ["digit 7"] * 3
    assert len(fitted.sample(condition={"y": {"digit 1": 2, "digit 0": 1}})) == 3
    assert len(fitted.sample(2, "unconditional")) == 2
    with pytest.raises(ValueError, match="digit 7"):
        fitted.sample(3, "digt 7")
    for method in METHODS:
        assert fitted.sample(2, method=method, steps=4).shape == (2, 8, 8)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_images_in_batches_of_any_size(fitted, digits):
    one, other = (fitted.sample(5, random_state=1, batch_size=size) for size in (5, 2))
    assert np.abs(one.astype(int) - other.astype(int)).max() <= 1  # sums in another order
    again = quick().fit(digits[0][:200], np.array([f"digit {k}" for k in digits[1][:200]]))
    np.testing.assert_array_equal(again.sample(5, random_state=1), fitted.sample(5, random_state=1))


@pytest.mark.slow
def test_scores_do_not_depend_on_the_images_beside(fitted, digits):
    images = digits[0][:6]
    scores = fitted.score_samples(images)
    np.testing.assert_allclose(fitted.score_samples(images[[4, 1]]), scores[[4, 1]], rtol=1e-5)
    assert scores.max() < 0  # the log of a probability
    assert (fitted.score_samples(images, condition="digit 3") != scores).all()
    with pytest.raises(ValueError, match="use method='bound'"):
        fitted.score_samples(images, method="flow")


def test_an_mlp_and_a_callable_see_rows_of_pixels(digits):
    images = digits[0][:50]
    gen = quick(denoiser="mlp").fit(images)
    assert isinstance(gen.denoiser_.network, ResidualMLP) and gen.sample(2).shape == (2, 8, 8)
    gen = quick(denoiser=lambda n_in, n_out, c: UNet((1, 8, 8), c, base=4, multipliers=(1,), n_blocks=1)).fit(images)
    assert gen.sample(2).shape == (2, 8, 8)


def test_the_pipeline_of_the_papers():
    gen = quick(
        schedule="linear", target="eps", n_timesteps=1000, codec=ImageCodec(augment="flip"), learning_rate=2e-4,
        training=TrainingOptions(
            accumulation_steps=2, times="uniform", learning_rate_schedule="constant", ema_decay=0.9999,
            betas=(0.9, 0.999), warmup_steps=0,
        ), max_steps=12,
    ).fit(noise(30, 8, 8, 3))  # fmt: skip
    assert set(gen.history_["learning_rate"]) == {2e-4} and np.isfinite(gen.history_["gradient_norm"]).all()
    assert gen.sample(2, method="ddpm", steps=5).shape == (2, 8, 8, 3)


# ------------------------------------------------------ training and its state


def test_accumulated_batches_make_the_step_of_one(digits):
    """Two halves of a batch without anything random in them give the gradient of the whole."""
    images = np.stack([digits[0][0]] * 8)
    norms = []
    for accumulation, batch in ((1, 64), (2, 32)):
        gen = quick(training=TrainingOptions(accumulation_steps=accumulation), batch_size=batch, max_steps=1).fit(
            images
        )
        norms.append(gen.history_["gradient_norm"][0])
    assert norms[0] == pytest.approx(norms[1], rel=0.2)
    # The rate of rows counts both.
    assert gen.history_["step"] == [1.0]


def test_save_load_clone_and_pickle(fitted, tmp_path):
    import pickle

    fitted.save(tmp_path / "model")
    loaded = DiffusionGenerator.load(tmp_path / "model")
    expected = fitted.sample(4, "digit 3", random_state=2)
    np.testing.assert_array_equal(loaded.sample(4, "digit 3", random_state=2), expected)
    assert loaded.schema_.equals(fitted.schema_) and loaded.codec_.state() == fitted.codec_.state()
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(fitted)).sample(4, "digit 3", random_state=2), expected)
    assert clone(fitted).get_params() == fitted.get_params()


class Interrupt(Callback):
    def on_step_end(self, training):
        if training.step == 2:
            raise KeyboardInterrupt


def test_an_interrupted_fit_goes_on_to_the_same_model(digits, tmp_path):
    settings = {"denoiser": tabdiff.UNet(dropout=0.1), "codec": ImageCodec(augment="crop"), "max_steps": 4}
    images, y = digits[0][:60], digits[1][:60]
    whole = quick(**settings).fit(images, y)
    with pytest.raises(KeyboardInterrupt):
        quick(**settings, callbacks=[Interrupt(), Checkpoint(tmp_path, every=0)]).fit(images, y)
    resumed = quick(**settings).fit(images, y, resume_from=tmp_path)
    np.testing.assert_array_equal(resumed.sample(3, random_state=0), whole.sample(3, random_state=0))
    with pytest.raises(ValueError, match="other data"):
        quick(**settings).fit(images[::-1], y, resume_from=tmp_path)


def test_warm_start_goes_on_with_images_of_the_same_kind(digits):
    gen = quick(warm_start=True).fit(digits[0][:50])
    assert gen.fit(digits[0][50:100]).n_steps_ == 6
    with pytest.raises(ValueError, match="8 × 8 pixels with 1 channel, as at fit; got 4 × 16"):
        gen.fit(digits[0][:50].reshape(50, 4, 16))
    with pytest.raises(ValueError, match="denoiser is another"):
        gen.set_params(denoiser="mlp").fit(digits[0][:50])


def test_periodic_samples_are_pictures_of_the_averaged_weights(digits, tmp_path):
    watch = PeriodicSamples(tmp_path, every=2, n_samples=10, random_state=3)
    gen = quick(callbacks=[watch], max_steps=4).fit(digits[0][:50])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-000002.png", "step-000004.png"]
    with Image.open(tmp_path / "step-000004.png") as picture:
        first = np.asarray(picture)[2:10, 2:10]
    np.testing.assert_array_equal(first, gen.sample(10, random_state=3)[0])


def test_weights_of_zero_leave_images_out(digits):
    images = digits[0][:40]
    weight = np.arange(40) < 20
    one = quick().fit(images, sample_weight=weight)
    np.testing.assert_array_equal(one.sample(3, random_state=0), quick().fit(images[:20]).sample(3, random_state=0))


# ------------------------------------------------------------------- errors


def test_labels_of_another_length_are_refused(digits):
    with pytest.raises(ValueError, match=r"X has 50 rows, y has 49"):
        quick().fit(digits[0][:50], digits[1][:49])


@pytest.mark.parametrize(
    ("X", "kwargs", "error", "message"),
    [
        (np.zeros((10, 64)), {"denoiser": "unet"}, ValueError, "Reshape X"),
        (noise(10, 8, 8), {"denoiser": "dot"}, ValueError, "'unet'"),
        (noise(1, 8, 8), {}, ValueError, "minimum of 2"),
        (noise(10, 8, 8), {"layer": "counts"}, ValueError, "AnnData"),
        (noise(10, 8, 8), {"refine": True}, TypeError, "refine"),
        (noise(10, 8, 8), {"constraints": ["a < b"]}, ValueError, "DataFrame"),
        (np.zeros((10, 8)), {"codec": ImageCodec(augment="flip")}, ValueError, "codec must be one for X"),
        (noise(10, 8, 8), {"codec": ImageCodec(augment="turn")}, ValueError, "'flip', 'crop'"),
        (noise(10, 8, 8), {"training": TrainingOptions(accumulation_steps=0)}, ValueError, "accumulation_steps"),
        (noise(10, 8, 8), {"training": {"ema_decay": 0.9}}, TypeError, "TrainingOptions"),
        (noise(10, 8, 8), {"learning_rate": "fast"}, ValueError, "learning_rate"),
        ("no such folder", {}, TypeError, "does not exist"),
    ],
)
def test_what_cannot_be_fitted_is_refused(X, kwargs, error, message):
    with pytest.raises(error, match=message):
        quick(**kwargs).fit(X)


def test_a_model_of_images_wants_images_and_another_does_not(fitted):
    with pytest.raises(TypeError, match="fitted on images"):
        fitted.score_samples(np.zeros((3, 64)))
    with pytest.raises(ValueError, match="8 × 8 pixels"):
        fitted.score_samples(noise(3, 9, 9))
    table = quick().fit(np.random.default_rng(0).normal(size=(20, 2)))
    with pytest.raises(TypeError, match="no images"):
        table.score_samples(noise(3, 8, 8))


@pytest.mark.parametrize("companion", [DiffusionImputer, DiffusionOutlierDetector, DiffusionOverSampler])
@pytest.mark.parametrize("form", ["array", "pil", "folder"])
def test_companions_say_that_they_take_no_images(companion, form, digits):
    images = {"array": digits[0][:20], "pil": [Image.fromarray(x) for x in digits[0][:20]], "folder": "pictures"}[form]
    fit = companion().fit_resample if companion is DiffusionOverSampler else companion().fit
    with pytest.raises(TypeError, match=f"{companion.__name__} takes .* got images"):
        fit(images, digits[1][:20])


def test_columns_are_for_tables(digits):
    with pytest.raises(ValueError, match="names a column"):
        quick().fit(digits[0][:20], condition="label")


@pytest.mark.cuda
def test_on_cuda(digits):
    gen = quick(device="cuda").fit(digits[0], digits[1])
    assert gen.sample(3, 4).shape == (3, 8, 8)
    assert torch.isfinite(torch.tensor(gen.score(digits[0][:5])))


@pytest.mark.parametrize("shape", [(8, 8), (9, 6, 3), (28, 28)])
def test_a_transformer_of_patches_draws_images_too(shape, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (20, *shape), dtype=np.uint8)
    gen = DiffusionGenerator(denoiser="dit", max_steps=3, hidden_size=16, n_blocks=1, batch_size=16, random_state=0)
    gen.fit(images, np.arange(20) % 2).save(tmp_path / "model")
    drawn = gen.sample(4, condition=1, random_state=0)
    assert drawn.shape == (4, *shape)
    assert drawn.dtype == np.uint8
    again = DiffusionGenerator.load(tmp_path / "model").sample(4, condition=1, random_state=0)
    np.testing.assert_array_equal(again, drawn)
