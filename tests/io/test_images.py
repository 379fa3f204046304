"""Images in every mode of PIL's and dtype of NumPy's: what they show is kept, or refused with advice that keeps it."""

import re

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from tabdiff import DiffusionGenerator
from tabdiff.codecs.conditions.image import ImageAttribute
from tabdiff.codecs.images.codec import ImageCodec
from tabdiff.io.images import looks_like_images, read_images
from tabdiff.utils.array_likes import as_known

PIL = pytest.importorskip("PIL.Image")
RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (6, 8, 10), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (6, 8, 10, 3), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (6, 8, 10)).astype(np.uint16)
QUICK = {"max_steps": 1, "hidden_size": 8, "random_state": 0}


def of(mode):
    """Images of a mode, and their pixels (n, c, h, w) as they are to be read."""
    grey, colour = [PIL.fromarray(x) for x in GREY], [PIL.fromarray(x) for x in COLOUR]
    if mode in ("L", "RGB"):
        images = grey if mode == "L" else colour
    elif mode == "P with transparency":
        images = [image.quantize(16) for image in colour]
        for image in images:
            image.info["transparency"] = 3
    elif mode.endswith("with a clear colour"):
        images = grey if mode.startswith("L") else colour
        for image in images:
            image.info["transparency"] = 7 if mode.startswith("L") else image.getpixel((0, 0))
    elif mode in ("La", "RGBa"):
        images = [image.convert(mode.upper()).convert(mode) for image in (grey if mode == "La" else colour)]
    else:
        images = [image.convert(mode) for image in (grey if mode in ("1", "LA", "F") else colour)]
    return images


TARGETS = {
    "1": "L",
    "L": "L",
    "LA": "LA",
    "La": "LA",
    "P": "RGB",
    "P with transparency": "RGBA",
    "L with a clear colour": "LA",
    "RGB with a clear colour": "RGBA",
    "RGB": "RGB",
    "RGBA": "RGBA",
    "RGBa": "RGBA",
    "RGBX": "RGB",
    "CMYK": "RGB",
    "YCbCr": "RGB",
    "HSV": "RGB",
}


@pytest.mark.parametrize("mode", TARGETS)
def test_modes_of_eight_bits_are_read_as_they_look(mode):
    images = of(mode)
    read = read_images(images)
    expected = np.stack([np.asarray(image.convert(TARGETS[mode])) for image in images])
    expected = expected[:, None] if expected.ndim == 3 else np.moveaxis(expected, 3, 1)
    assert read.mode == TARGETS[mode]
    assert_array_equal(read.pixels, expected)
    if "clear" in mode or "transparency" in mode:
        assert 0 < (read.pixels[:, -1] == 0).mean() < 1
    codec = ImageCodec().fit(images)
    for back, image in zip(codec.decode(codec.read(images)), images, strict=True):
        assert_array_equal(np.asarray(back), np.asarray(image.convert(TARGETS[mode])))


def test_floats_stay_floats():
    images = [PIL.fromarray((x / 65535).astype("float32")) for x in DEEP]
    codec = ImageCodec().fit(images)
    codec = ImageCodec.from_state(codec.state())
    for back, image in zip(codec.decode(codec.read(images)), images, strict=True):
        assert back.mode == "F"
        np.testing.assert_allclose(np.asarray(back), np.asarray(image), atol=1e-6)
    gen = DiffusionGenerator(**QUICK).fit(images)
    assert {image.mode for image in gen.sample(3)} == {"F"}
    assert_array_equal(
        np.asarray(gen.impute(images[:1], mask=np.zeros((8, 10), bool), steps=1)[0]), np.asarray(images[0])
    )


def message_of(X):
    with pytest.raises((TypeError, ValueError)) as caught:
        DiffusionGenerator(**QUICK).fit(X)
    return str(caught.value)


@pytest.mark.parametrize("mode", ["I;16", "I", "I;16B"])
def test_deeper_images_keep_every_grey_level_when_the_advice_is_followed(mode):
    images = [PIL.fromarray(x).convert("I") if mode == "I" else PIL.fromarray(x) for x in DEEP]
    if mode == "I;16B":
        images = [PIL.frombytes(mode, (10, 8), x.astype(">u2").tobytes()) for x in DEEP]
    code = re.search(r"pass (numpy\.asarray\(image\) / \d+) for each", message_of(images)).group(1)
    advised = [eval(code, {"numpy": np, "image": image}) for image in images]
    read = read_images(advised)
    assert_array_equal(np.rint(65535 * read.pixels[:, 0]), DEEP)


@pytest.mark.parametrize(
    "values",
    [
        DEEP,
        DEEP.astype("i4") - 30_000,
        GREY.astype("i8"),
        GREY > 99,
        DEEP.astype("f4"),
        GREY / 7 - 20.3,
        list(DEEP),
        list(DEEP.astype("f8")),
    ],
    ids=[
        "uint16",
        "int32",
        "bytes as int64",
        "bool",
        "large floats",
        "floats of both signs",
        "list of uint16",
        "list of floats",
    ],
)
def test_other_dtypes_keep_every_level_when_the_advice_is_followed(values):
    code = re.search(r"(?:them, |value, |them: )(.*?)(?:, or .*)?\.$", message_of(values)).group(1)
    advised = eval(code, {"numpy": np, "X": values})
    read = read_images(advised)
    assert len(np.unique(read.pixels)) == len(np.unique(values))


def test_lab_is_refused_with_what_pil_can_do():
    images = [image.convert("LAB") if hasattr(image, "x") else PIL.new("LAB", (8, 8)) for image in of("L")]
    assert "mode 'LAB'" in message_of(images)


def turned(image, orientation):
    """An image that says it is to be turned."""
    exif = image.getexif()
    exif[0x0112] = orientation
    image.info["exif"] = exif.tobytes()
    return image


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_as_their_files_say(orientation, tmp_path):
    from PIL import ImageOps

    images = [turned(PIL.fromarray(x), orientation) for x in GREY]
    expected = np.stack([np.asarray(ImageOps.exif_transpose(image)) for image in images])
    assert expected.shape[1:] == ((8, 10) if orientation < 5 else (10, 8))
    assert_array_equal(read_images(images).pixels[:, 0], expected)
    assert ImageAttribute(images, "c").size == (1, *expected.shape[1:])
    for i, image in enumerate(images):
        image.save(tmp_path / f"{i}.tif", exif=image.info["exif"])
        image.save(tmp_path / f"{i}.png", exif=image.info["exif"])
        image.convert("RGB").save(tmp_path / f"{i}.webp", exif=image.info["exif"], lossless=True)
    read = read_images(tmp_path)
    assert read.size == (3, *expected.shape[1:])
    for channel in range(3):
        assert_array_equal(read.array()[:, channel], np.repeat(expected, 3, axis=0))


def test_sizes_are_compared_after_turning():
    images = [PIL.fromarray(x) for x in GREY[:3]] + [turned(PIL.fromarray(np.ascontiguousarray(GREY[3].T)), 6)]
    assert read_images(images).size == (1, 8, 10)


def test_animations_are_refused_and_their_frames_taken(tmp_path):
    from PIL import ImageSequence

    frames = [PIL.fromarray(x) for x in GREY]
    frames[0].save(tmp_path / "film.gif", save_all=True, append_images=frames[1:])
    film = PIL.open(tmp_path / "film.gif")
    assert "it has 6 frames" in message_of([film, film]) and "it has 6 frames" in message_of(tmp_path)
    advised = ImageSequence.all_frames(film)
    assert len(read_images(advised)) == 6


def test_conditions_of_images_are_read_as_they_look():
    palette = of("P")
    attribute = ImageAttribute(palette, "c")
    assert attribute.size == (3, 8, 10)
    direct = ImageAttribute([image.convert("RGB") for image in palette], "c")
    assert_array_equal(attribute.encode(palette), direct.encode([image.convert("RGB") for image in palette]))
    with pytest.raises(ValueError, match="NaN"):
        ImageAttribute([np.ma.array(x / 255, mask=x > 99) for x in GREY], "c")


def test_masked_pixels_are_refused_and_drawn_when_the_advice_is_followed():
    mask = RNG.random(GREY.shape) < 0.3
    X = np.ma.array(GREY, mask=mask)
    message = message_of(X)
    filled = eval(re.search(r"Fill them, (.*?), or", message).group(1), {"X": X})
    gen = DiffusionGenerator(**QUICK).fit(filled)
    code = re.search(r"draw them: (impute\(.*\))\.$", message).group(1)
    drawn = eval(code, {"numpy": np, "X": X, "impute": lambda *a, **k: gen.impute(*a, **k, steps=1)})
    assert_array_equal(drawn[~mask], GREY[~mask])
    assert_array_equal(read_images(np.ma.array(GREY)).pixels[:, 0], GREY)


def test_tensors_and_nested_lists_are_images():
    for X in (list(torch.tensor(COLOUR)), torch.tensor(COLOUR), torch.tensor(COLOUR / 255).bfloat16()):
        assert looks_like_images(as_known(X)) and read_images(X).size == (3, 8, 10)
    assert DiffusionGenerator(**QUICK).fit((GREY / 255).tolist()).sample(2).shape == (2, 8, 10)


def test_one_image_and_files_that_are_none_say_what_to_pass(tmp_path):
    assert "pass a list of them" in message_of(PIL.fromarray(GREY[0]))
    PIL.fromarray(GREY[0]).save(tmp_path / "one.png")
    assert "[PIL.Image.open(" in message_of(tmp_path / "one.png")
    (tmp_path / "table.json").write_text('[{"a": 1}]')
    assert f"Pass pandas.read_json({str(tmp_path / 'table.json')!r})" in message_of(str(tmp_path / "table.json"))
    (tmp_path / "table.csv").write_text("a,b\n1,2\n")  # is read, as any table in a file
    assert "Found 1 row(s) in the files" in message_of(str(tmp_path / "table.csv"))
