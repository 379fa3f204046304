import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tabdiff.codecs.images.codec import ImageCodec
from tabdiff.io.image_files import ImageFiles
from tabdiff.io.images import read_images


def noise(shape, dtype=np.uint8, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, shape).astype(np.uint8) if dtype == np.uint8 else rng.random(shape).astype(dtype)


def round_trip(images, codec=None):
    codec = codec or ImageCodec().fit(images)
    rows = codec.encode(images)
    return codec.decode(codec.prepare(rows[torch.arange(len(rows))]))


# ------------------------------------------------------------------ layouts


@settings(max_examples=40)
@given(
    channels=st.integers(1, 4),
    height=st.integers(5, 9),
    width=st.integers(5, 9),
    layout=st.sampled_from(["hw", "hwc", "chw"]),
    dtype=st.sampled_from([np.uint8, np.float16, np.float32, np.float64]),
    seed=st.integers(0, 100),
)
def test_arrays_come_back_as_they_were(channels, height, width, layout, dtype, seed):
    shape = {"hw": (height, width), "hwc": (height, width, channels), "chw": (channels, height, width)}[layout]
    images = noise((3, *shape), dtype, seed)
    before = images.copy()
    codec = ImageCodec().fit(images)
    assert codec.size_ == ((1 if layout == "hw" else channels), height, width) and codec.order_ == layout
    back = round_trip(images, ImageCodec.from_state(codec.state()))
    assert back.dtype == images.dtype and back.shape == images.shape
    np.testing.assert_allclose(back, images, atol=0 if dtype == np.uint8 else 1e-3 if dtype == np.float16 else 1e-6)
    np.testing.assert_array_equal(images, before)


def test_every_byte_is_kept_and_lies_in_the_middle_of_its_bin():
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16).repeat(2, axis=0)
    codec = ImageCodec().fit(images)
    rows = codec.prepare(codec.encode(images))
    np.testing.assert_array_equal(codec.decode(rows), images)
    np.testing.assert_array_equal(codec.decode(rows + 0.99 / 256), images)
    np.testing.assert_array_equal(codec.decode(rows - 0.99 / 256), images)
    assert float(rows.min()) == -float(rows.max()) and float(rows.max()) < 1


@pytest.mark.parametrize(("low", "range_"), [(0.0, "unit"), (-1.0, "symmetric")])
def test_the_range_of_floats_is_kept_and_what_is_drawn_outside_is_clipped(low, range_):
    images = np.linspace(low, 1, 2 * 36, dtype=np.float32).reshape(2, 6, 6)
    codec = ImageCodec().fit(images)
    assert codec.range_ == range_
    rows = codec.prepare(codec.encode(images))
    assert float(rows.min()) == -1 and float(rows.max()) == 1
    drawn = codec.decode(3 * rows)
    assert drawn.min() == low and drawn.max() == 1


def test_bytes_stay_bytes_until_a_batch_is_made():
    images = noise((4, 6, 6, 3))
    assert ImageCodec().fit(images).encode(images).dtype == torch.uint8


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_pil_images_come_back_as_pil_images(mode):
    channels = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}[mode]
    array = noise((3, 6, 7, channels))
    images = [Image.fromarray(a[..., 0] if channels == 1 else a) for a in array]
    back = round_trip(images)
    assert [image.mode for image in back] == [mode] * 3
    for one, other in zip(images, back):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def test_grey_images_among_coloured_ones_become_coloured():
    images = [Image.fromarray(noise((6, 6))), Image.fromarray(noise((6, 6, 3)))]
    assert [image.mode for image in round_trip(images)] == ["RGB", "RGB"]


def test_tensors_are_images():
    images = noise((3, 3, 6, 6))
    assert read_images(torch.from_numpy(images)).layout == "chw"
    np.testing.assert_array_equal(round_trip(torch.from_numpy(images)), images)


def test_a_list_of_arrays_is_images():
    images = list(noise((3, 6, 6, 3)))
    np.testing.assert_array_equal(round_trip(images), np.stack(images))


@pytest.mark.parametrize(("side", "patch"), [(4, 1), (8, 1), (14, 1), (27, 3), (28, 2), (32, 2), (37, 1), (64, 4)])
def test_patches_divide_the_image(side, patch):
    layout = ImageCodec().fit(noise((2, side, side))).layout_
    assert layout == {"kind": "patches", "shape": [1, side, side], "patch": patch}


def test_tables_are_no_images():
    assert read_images(np.zeros((5, 3))) is None
    assert read_images([[1.0, 2.0], [3.0, 4.0]]) is None


# ------------------------------------------------------------ augmentation


def test_flips_mirror_half_of_the_images():
    images = noise((400, 5, 6, 3))
    codec = ImageCodec("flip").fit(images)
    rows = codec.encode(images)
    plain = codec.prepare(rows)
    flipped = codec.prepare(rows, torch.Generator().manual_seed(0))
    same = (flipped == plain).all(dim=1)
    mirrored = codec.decode(flipped) == images[:, :, ::-1]
    assert 0.4 < same.float().mean() < 0.6
    assert mirrored.all(axis=(1, 2, 3))[~same.numpy()].all()


def test_crops_shift_by_up_to_an_eighth():
    image = np.zeros((1, 16, 16), dtype=np.uint8)
    image[0, 7, 9] = 255
    codec = ImageCodec("crop").fit(image)
    rows = codec.encode(image).repeat(500, 1)
    drawn = codec.decode(codec.prepare(rows, torch.Generator().manual_seed(0)))
    _, y, x = np.nonzero(drawn)
    assert len(y) == 500 and set(y) == set(range(5, 10)) and set(x) == set(range(7, 12))


def test_unknown_augmentations_are_refused():
    with pytest.raises(ValueError, match="'flip', 'crop'"):
        ImageCodec("rotate").check()


# ------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (np.zeros((3, 6, 6, 6, 3)), ValueError, "5 dimensions"),
        (np.zeros((3, 6, 6, 7)), ValueError, r"1 to 4 channels; got shape=\(3, 6, 6, 7\)"),
        (np.zeros((3, 3, 8, 3)), ValueError, "not told apart"),
        (np.zeros((3, 2, 8)), ValueError, "at least 4 pixels"),
        (np.zeros((3, 6, 6), dtype=np.int64), TypeError, "got int64"),
        (np.zeros((3, 6, 6), dtype=bool), TypeError, "255 \\* X"),
        (np.full((3, 6, 6), np.nan), ValueError, "image 0 holds NaN"),
        ([np.zeros((6, 6)), np.zeros((6, 7))], ValueError, r"image 1 \(6, 7\)"),
    ],
    ids=["dimensions", "channels", "ambiguous", "tiny", "int64", "bool", "nan", "sizes"],
)
def test_what_is_no_image_is_refused(images, error, message):
    with pytest.raises(error, match=message):
        read_images(images)


def test_values_outside_the_range_are_named_with_their_image():
    images = noise((5, 6, 6), np.float64)
    images[3, 2, 2] = 16.0
    with pytest.raises(ValueError, match=r"got values in image 3 from .* to 16 \(1 of 5 .*X / 16"):
        read_images(images)


def test_mixed_sizes_of_pil_images_are_named():
    images = [Image.fromarray(noise((6, 6))), Image.fromarray(noise((6, 6))), Image.fromarray(noise((6, 9)))]
    with pytest.raises(ValueError, match="image 0 is 6 × 6, image 2 is 9 × 6"):
        read_images(images)


def test_images_of_another_size_or_kind_than_the_fit_are_refused():
    codec = ImageCodec().fit(noise((3, 6, 6)))
    with pytest.raises(ValueError, match="6 × 6 pixels with 1 channel, as at fit; got 6 × 7"):
        codec.encode(noise((3, 6, 7)))
    with pytest.raises(ValueError, match="must be uint8"):
        codec.encode(noise((3, 6, 6), np.float32))
    with pytest.raises(ValueError, match=r"got -0\.5 in image 1"):
        ImageCodec().fit(noise((3, 6, 6), np.float32)).encode(np.stack([np.zeros((6, 6)), np.full((6, 6), -0.5)]))


# -------------------------------------------------------------------- files


@pytest.fixture
def folder(tmp_path):
    array = noise((6, 5, 7, 3))
    for i, image in enumerate(array):
        place = tmp_path / ("cat" if i < 2 else "dog")
        place.mkdir(exist_ok=True)
        Image.fromarray(image).save(place / f"{i}.png")
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / ".hidden").mkdir()
    return tmp_path, array


def test_subfolders_are_classes(folder):
    path, array = folder
    images = read_images(path)
    assert images.classes == ["cat"] * 2 + ["dog"] * 4 and images.layout == "hwc"
    np.testing.assert_array_equal(round_trip(images), array)
    np.testing.assert_array_equal(round_trip(images.take(np.array([5, 0, 5]))), array[[5, 0, 5]])


def test_files_are_read_again_where_they_do_not_fit_into_memory(folder, monkeypatch):
    path, _ = folder
    kept = read_images(str(path)).pixels
    monkeypatch.setattr("tabdiff.io.image_files.KEPT_BYTES", 0)
    lazy = read_images(path).pixels
    assert isinstance(lazy, ImageFiles) and lazy._kept is None and kept._kept is not None
    rows = torch.tensor([4, 1])
    torch.testing.assert_close(lazy[rows], kept[rows])
    mask = torch.arange(6) > 3
    torch.testing.assert_close(lazy[mask][torch.tensor([1])], kept[torch.tensor([5])])
    assert lazy.shape == (6, 105) and len(lazy[mask]) == 2 and lazy.digest() == kept.digest()


def test_one_broken_file_among_many_is_named(folder):
    path, _ = folder
    whole = (path / "dog" / "4.png").read_bytes()
    (path / "dog" / "4.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"1 of the images cannot be read: .*4\.png"):
        read_images(path)
    (path / "dog" / "3.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"3\.png"):
        read_images(path)


def test_a_file_of_another_size_is_named(folder):
    path, _ = folder
    Image.fromarray(noise((5, 8, 3))).save(path / "dog" / "9.png")
    with pytest.raises(ValueError, match=r"9\.png \(8 × 5\).*ImageOps\.fit"):
        read_images(path)


def test_folders_without_images_are_refused(tmp_path, folder):
    with pytest.raises(TypeError, match="does not exist"):
        read_images(tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no images"):
        read_images(tmp_path / "empty")
    Image.fromarray(noise((5, 7, 3))).save(tmp_path / "beside.png")
    with pytest.raises(ValueError, match=r"beside\.png, and subfolders"):
        read_images(tmp_path)
