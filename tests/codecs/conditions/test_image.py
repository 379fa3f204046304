"""Images drawn beside an image: colours to sketches, wholes to parts."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.metrics import accuracy_score
from sklearn.neighbors import KNeighborsClassifier

from tabdiff import DiffusionGenerator, ImageCodec, LatentImageCodec, TrainingOptions
from tabdiff.codecs.conditions.image import ImageAttribute

QUICK = {"max_steps": 3, "hidden_size": 8, "n_blocks": 1, "batch_size": 16, "random_state": 0}


def quick(**kwargs):
    return DiffusionGenerator(**{**QUICK, **kwargs})


@pytest.fixture(scope="module")
def digits():
    data = load_digits()
    return np.rint(data.images / 16 * 255).astype(np.uint8), data.target


def left_half(images):
    return np.where(np.arange(8) < 4, images, 0).astype(np.uint8)


@pytest.fixture(scope="module")
def fitted(digits):
    images, y = digits
    sketch = left_half(images[:60])
    return quick().fit(images[:60], condition={"sketch": sketch, "digit": y[:60]})


@pytest.mark.slow
def test_images_follow_the_image_beside_them(digits):
    images, y = digits
    chosen = np.isin(y, [0, 1])
    images, y = images[chosen], y[chosen]
    settings = {
        "max_steps": 150,
        "hidden_size": 16,
        "batch_size": 64,
        "learning_rate": 3e-3,
        "training": TrainingOptions(ema_decay=0.95),
    }
    gen = quick(**settings).fit(images[80:], condition=left_half(images[80:]))
    drawn = gen.sample(condition=left_half(images[:80]), steps=20, random_state=0)
    knn = KNeighborsClassifier(3).fit(images[80:].reshape(len(images) - 80, -1), y[80:])
    assert accuracy_score(y[:80], knn.predict(drawn.reshape(80, -1))) > 0.95
    # Where the image beside it shows it, a digit is nearer to the one that was asked for than to the others.
    half = left_half(drawn).reshape(80, -1).astype(float)
    asked = left_half(images[:80]).reshape(80, -1).astype(float)
    distance = ((half[:, None] - asked[None]) ** 2).sum(2)
    assert np.median((distance < np.diag(distance)[:, None]).mean(1)) < 0.1


@pytest.mark.slow
def test_every_form_of_asking(digits, fitted):
    images, y = digits
    sketch = left_half(images[:6])
    drawn, labels = fitted.sample(condition={"sketch": sketch, "digit": y[:6]}, random_state=0, return_condition=True)
    assert drawn.shape == (6, 8, 8) and labels["digit"].to_list() == y[:6].tolist()
    assert all(np.array_equal(a, b) for a, b in zip(labels["sketch"], sketch, strict=True))
    assert fitted.sample(5, condition={"sketch": sketch[0]}, random_state=0).shape == (5, 8, 8)
    assert fitted.sample(4, condition={"digit": 3}).shape == (4, 8, 8)
    drawn, labels = fitted.sample(3, random_state=0, return_condition=True)
    shown = {image.tobytes() for image in left_half(images[:60])}
    assert all(image.tobytes() in shown for image in labels["sketch"])
    assert fitted.sample(2, condition="unconditional").shape == (2, 8, 8)
    assert fitted.sample(condition={"sketch": list(sketch)}, guidance_scale=2.0).shape == (6, 8, 8)
    hidden = {"sketch": pd.Series([None, *sketch[1:3]], dtype=object), "digit": y[:3]}
    assert fitted.sample(condition=hidden).shape == (3, 8, 8)
    assert np.isfinite(fitted.score_samples(images[:2], condition={"sketch": sketch[0], "digit": 1})).all()


def test_other_sketches_give_other_images(digits, fitted):
    sketch = left_half(digits[0][:2])
    one, other = (fitted.sample(3, condition={"sketch": s, "digit": 1}, random_state=0) for s in sketch)
    assert not np.array_equal(one, other)
    again = fitted.sample(3, condition={"sketch": sketch[0], "digit": 1}, random_state=0)
    assert np.array_equal(one, again)


def test_saved_models_and_clones_draw_the_same(digits, fitted, tmp_path):
    images, y = digits
    ask = {"condition": {"sketch": left_half(images[:3]), "digit": y[:3]}, "random_state": 0}
    fitted.save(tmp_path / "model")
    drawn = fitted.sample(**ask)
    assert np.array_equal(drawn, DiffusionGenerator.load(tmp_path / "model").sample(**ask))
    again = clone(fitted).fit(images[:60], condition={"digit": y[:60], "sketch": left_half(images[:60])})
    assert np.array_equal(drawn, again.sample(**ask))


def test_a_model_keeps_some_images_of_every_part_of_the_data(digits, monkeypatch):
    monkeypatch.setattr("tabdiff.model.training_data.KEPT", 20)
    images, y = digits
    order = np.argsort(y[:200], kind="stable")
    gen = quick().fit(images[order], condition={"sketch": left_half(images[order]), "digit": y[order]})
    assert len(gen.conditions_.codes) == 20
    _, labels = gen.sample(40, random_state=0, return_condition=True)
    assert labels["digit"].nunique() > 3


@pytest.mark.parametrize("kind", ["hwc", "chw", "floats", "pil"])
def test_colours_to_grey(kind):
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (12, 8, 12, 3), dtype=np.uint8)
    grey = colours.mean(3)
    X = {"chw": np.moveaxis(colours, 3, 1), "pil": [Image.fromarray(a) for a in colours]}.get(kind, colours)
    beside = {"floats": grey / 255, "pil": [Image.fromarray(a.astype(np.uint8)) for a in grey]}.get(
        kind, grey.astype(np.uint8)
    )
    gen = quick().fit(X, condition=beside)
    drawn = gen.sample(condition=beside[:2], random_state=0)
    assert len(drawn) == 2 and gen.conditions_.image.size == (1, 8, 12)
    if kind != "pil":
        assert drawn.shape[1:] == X.shape[1:]


def test_codes_are_pixels_and_come_back():
    images = np.random.default_rng(0).integers(0, 256, (5, 6, 7, 3), dtype=np.uint8)
    attribute = ImageAttribute(images, "x")
    codes = attribute.encode([images[0], None, images[2]])
    assert codes.shape == (3, 126) and np.isnan(codes[1]).all() and np.abs(codes[[0, 2]]).max() <= 1
    back = ImageAttribute.from_state(attribute.state()).decode(codes)
    assert np.array_equal(back[0], images[0]) and back[1] is None and np.array_equal(back[2], images[2])
    assert repr(attribute) == "ImageAttribute('x', images of 6 × 7 pixels with 3 channels)"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: quick(denoiser="dit").fit(x, condition=x), "needs denoiser='unet'"),
        (lambda x: quick(codec=LatentImageCodec(), max_time=1.0).fit(x, condition=x), "not beside latents"),
        (lambda x: quick(codec=ImageCodec(augment="flip")).fit(x, condition=x), "augment both before fit"),
        (lambda x: quick().fit(x, condition={"a": x, "b": x}), "only one condition can be an image"),
        (lambda x: quick().fit(x, condition=x).sample(condition=x[:2, :4, :4]), "condition.*must be 8 × 8 pixels"),
        (lambda x: quick().fit(x, condition=x).sample(condition=x[:2] / 255), "condition.*must be uint8"),
        (lambda x: quick().fit(x, condition=x[:3]), "inconsistent numbers of samples"),
    ],
)
def test_what_does_not_go_is_said(digits, call, message):
    with pytest.raises(ValueError, match=message):
        call(digits[0][:30])
