import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier

from tabdiff import DiffusionGenerator, TrainingOptions
from tabdiff.diffusion import RePaint
from tabdiff.diffusion.operators import DOWNSAMPLING, gaussian_blur


def shrink(images, factor=2):
    n, h, w, *rest = images.shape
    return images.reshape(n, h // factor, factor, w // factor, factor, *rest).astype(np.float64).mean(axis=(2, 4))


@pytest.fixture(scope="module")
def digits():
    data = load_digits()
    chosen = np.isin(data.target, [0, 1])
    return (data.images[chosen] / 16 * 255).astype(np.uint8), data.target[chosen]


@pytest.fixture(scope="module")
def learned(digits):
    images, y = digits
    settings = {"max_steps": 120, "hidden_size": 16, "n_blocks": 1, "batch_size": 64, "learning_rate": 3e-3}
    return DiffusionGenerator(**settings, training=TrainingOptions(ema_decay=0.95), random_state=0).fit(
        images[60:], y[60:]
    )


@pytest.fixture(scope="module")
def knn(digits):
    images, y = digits
    return KNeighborsClassifier(3).fit(images[60:].reshape(-1, 64), y[60:])


def coloured(shape, dtype=np.uint8):
    images = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    images = images if dtype == np.uint8 else (images / 255).astype(dtype)
    return images, DiffusionGenerator(max_steps=2, hidden_size=8, n_blocks=1, random_state=0).fit(images)


@pytest.mark.slow
def test_known_pixels_stay_and_the_others_follow_them(learned, digits, knn):
    images, y = digits[0][:60], digits[1][:60]
    mask = np.zeros((8, 8), dtype=bool)
    mask[:, 4:] = True
    before = images.copy()
    filled = learned.impute(images, mask=mask, steps=20, random_state=0)
    np.testing.assert_array_equal(filled[:, :, :4], images[:, :, :4])
    np.testing.assert_array_equal(images, before)
    assert np.mean(knn.predict(filled.reshape(60, -1)) == y) > 0.9
    # Halves of other drawn digits are farther from the true ones.
    error = np.abs(filled[:, :, 4:].astype(float) - images[:, :, 4:]).mean()
    others = learned.sample(60, "unconditional", steps=20, random_state=0)
    assert error < 0.75 * np.abs(others[:, :, 4:].astype(float) - images[:, :, 4:]).mean()


@pytest.mark.slow
def test_several_draws_differ_where_pixels_are_missing_and_nowhere_else(learned, digits):
    mask = np.random.default_rng(0).random((3, 8, 8)) < 0.5
    one, other = learned.impute(digits[0][:3], mask=mask, n_draws=2, steps=5, random_state=0)
    np.testing.assert_array_equal(one[~mask], digits[0][:3][~mask])
    assert (one[mask] != other[mask]).mean() > 0.3
    np.testing.assert_array_equal(
        learned.impute(digits[0][:3], mask=mask, n_draws=2, steps=5, random_state=0)[1], other
    )


def test_filled_pixels_of_a_seed_do_not_depend_on_the_batch_size(learned, digits):
    settings = {"mask": np.eye(8, dtype=bool), "steps": 4, "random_state": 0, "n_draws": 2}
    settings["method"] = RePaint(n_resamples=2, jump_length=2)
    whole = learned.impute(digits[0][:5], **settings)
    parts = learned.impute(digits[0][:5], **settings, batch_size=2)
    for a, b in zip(whole, parts, strict=True):
        assert np.abs(a.astype(int) - b).max() <= 1  # rounding to bytes
    assert (whole[0] != whole[1]).any()


def test_repaint_takes_its_options_and_the_published_ones_fit(learned, digits):
    mask = np.eye(8, dtype=bool)
    calls = []
    network = learned.denoiser_.network
    handle = network.register_forward_hook(lambda *_: calls.append(1))
    try:
        for options, wanted in (({"n_resamples": 1}, 11), ({"n_resamples": 4, "jump_length": 5}, 41)):
            calls.clear()
            learned.impute(digits[0][:2], mask=mask, steps=11, method=RePaint(**options), random_state=0)
            assert len(calls) == wanted
    finally:
        handle.remove()
    with pytest.raises(ValueError, match="jump_length must be at most 4"):
        learned.impute(digits[0][:2], mask=mask, steps=5, method=RePaint(jump_length=10))


@pytest.mark.parametrize("layout", ["hwc", "chw"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_masks_of_values_in_every_layout(layout, dtype):
    images, gen = coloured((10, 6, 8, 3) if layout == "hwc" else (10, 3, 6, 8), dtype)
    mask = np.random.default_rng(1).random(images[:2].shape) < 0.3
    filled = gen.impute(images[:2], mask=mask, steps=3, random_state=0)
    assert filled.shape == images[:2].shape and filled.dtype == images.dtype
    np.testing.assert_array_equal(filled[~mask], images[:2][~mask])
    assert (filled[mask] != images[:2][mask]).mean() > 0.5


def test_pil_images_are_filled():
    images, _ = coloured((6, 6, 6, 3))
    pictures = [Image.fromarray(image) for image in images]
    gen = DiffusionGenerator(max_steps=2, hidden_size=8, n_blocks=1, random_state=0).fit(pictures)
    filled = gen.impute(pictures[:2], mask=np.eye(6, dtype=bool), steps=3)
    assert filled[0].size == (6, 6)
    np.testing.assert_array_equal(np.asarray(filled[1])[0, 1], images[1, 0, 1])


def test_small_images_come_out_large_and_shrink_to_themselves(learned, digits, knn):
    images, y = digits[0][:60], digits[1][:60]
    small = np.rint(shrink(images)).astype(np.uint8)
    large = learned.super_resolve(small, steps=25)
    assert large.shape == images.shape and large.dtype == np.uint8
    assert np.abs(shrink(large) - small).max() <= 0.51  # the rounding to bytes of each pixel
    assert np.mean(knn.predict(large.reshape(60, -1)) == y) > 0.8
    repeated = small.repeat(2, axis=1).repeat(2, axis=2).astype(float)
    assert np.abs(large - images.astype(float)).mean() < np.abs(repeated - images).mean()


@pytest.mark.parametrize("name", ["bicubic", "gaussian", "strided"])
def test_large_images_shrink_to_the_given_ones_by_other_operators(learned, digits, name):
    images = digits[0][:4]

    def shrunk(values):
        tensor = torch.from_numpy(values.astype(np.float64))[:, None]
        return DOWNSAMPLING[name](tensor, 2)[:, 0].numpy()

    small = np.rint(shrunk(images)).clip(0, 255).astype(np.uint8)
    large = learned.super_resolve(small, operator=name, steps=10)
    assert large.shape == images.shape
    assert np.abs(shrunk(large) - small).mean() < 2.0
    assert np.abs(shrunk(large) - small).mean() < 0.1 * np.abs(shrunk(images[::-1]) - small).mean()


def test_measurements_by_a_function(learned, digits):
    images = digits[0][:3]
    blurred = gaussian_blur(torch.from_numpy(images.astype(np.float64))[:, None], 0.8)[:, 0].numpy()
    drawn = learned.restore(blurred, lambda x: gaussian_blur(x, 0.8), steps=10)
    again = gaussian_blur(torch.from_numpy(drawn.astype(np.float64))[:, None], 0.8)[:, 0].numpy()
    assert np.abs(again - blurred).mean() < 0.1 * np.abs(blurred[1] - blurred[0]).mean()
    with pytest.raises(ValueError, match="operator must be linear"):
        learned.restore(blurred, lambda x: x.clamp(max=0.5))
    with pytest.raises(ValueError, match="operator must be one of"):
        learned.super_resolve(np.zeros((2, 4, 4), np.uint8), operator="lanczos")


def test_any_linear_measurements_are_met(digits):
    images, gen = coloured((10, 6, 6, 3), np.float64)
    weights = np.array([0.299, 0.587, 0.114])
    grey = images[:4] @ weights
    operator = np.concatenate([w * np.eye(36) for w in weights], axis=1)
    drawn = gen.restore(grey.reshape(4, -1), operator, steps=5, random_state=0)
    assert drawn.shape == (4, 6, 6, 3) and drawn.dtype == np.float64
    np.testing.assert_allclose(drawn @ weights, grey, atol=0.01)
    assert drawn.min() >= 0 and drawn.max() <= 1 and drawn.std(axis=3).mean() > 0.05


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({}, "needs mask="),
        ({"mask": np.zeros((8, 8))}, "must be boolean"),
        ({"mask": np.zeros((8, 9), bool)}, r"shape \(8, 8\), \(2, 8, 8\)"),
        ({"mask": np.zeros((8, 8), bool), "strategy": "mean"}, "'draw' for images"),
        ({"mask": np.zeros((8, 8), bool), "n_draws": 0}, "n_draws"),
        ({"mask": np.zeros((8, 8), bool), "condition": 7}, "7"),
    ],
)
def test_impossible_holes_are_refused(learned, digits, kwargs, message):
    with pytest.raises(ValueError, match=message):
        learned.impute(digits[0][:2], **kwargs)


def test_impossible_measurements_are_refused(learned):
    with pytest.raises(ValueError, match="no whole share"):
        learned.super_resolve(np.zeros((2, 5, 5), np.uint8))
    with pytest.raises(ValueError, match="must be uint8"):
        learned.super_resolve(np.zeros((2, 4, 4)))
    with pytest.raises(ValueError, match=r"operator must have shape \(m, 64\)"):
        learned.restore(np.zeros((2, 3)), np.zeros((3, 60)))
    with pytest.raises(ValueError, match=r"measurements must have shape \(n, 3\)"):
        learned.restore(np.zeros((2, 4)), np.zeros((3, 64)))
    table = DiffusionGenerator(max_steps=1, hidden_size=8, random_state=0).fit(np.random.default_rng(0).random((9, 2)))
    with pytest.raises(TypeError, match="mask is for images"):
        table.impute(np.zeros((2, 2)), mask=np.zeros((2, 2), bool))
    with pytest.raises(TypeError, match="models of images"):
        table.restore(np.zeros((2, 4)), np.zeros((4, 64)))


def test_repaint_of_a_short_chain_takes_no_more_steps_than_it_has_times():
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8)).astype("uint8")
    mask = np.zeros((8, 8), dtype=bool)
    mask[:4] = True
    gen = DiffusionGenerator(max_steps=2, hidden_size=8, n_timesteps=10, random_state=0).fit(images)
    for method in ("auto", "ddim", RePaint(n_resamples=2, jump_length=3)):
        filled = gen.impute(images[:2], mask=mask, method=method)
        assert np.array_equal(filled[:, 4:], images[:2, 4:])
    with pytest.raises(ValueError, match="images must hold at least one image; got none"):
        gen.impute(images[:0], mask=mask)
