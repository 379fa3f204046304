"""Files that the images example reads, tiny ones of each kind: MNIST's, CIFAR-10's, and folders of image files."""

import gzip
import importlib.util
import re
import struct
from pathlib import Path

import numpy as np
import pytest

MODULE = Path(__file__).parents[2] / "examples" / "image_files.py"
pytestmark = pytest.mark.skipif(not MODULE.is_file(), reason="an installed package has no examples beside its tests")


@pytest.fixture(scope="module")
def files():
    """The module beside the example, which is no part of the package."""
    spec = importlib.util.spec_from_file_location("image_files_of_the_example", MODULE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def idx(array):
    """An IDX file as its authors describe it: two zeros, 8 for bytes, how many axes, their lengths, the values."""
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_mnist(folder, pack=lambda data: data, ending=""):
    rng = np.random.default_rng(0)
    arrays = {
        "train-images-idx3": rng.integers(256, size=(12, 28, 28), dtype=np.uint8),
        "train-labels-idx1": np.arange(12, dtype=np.uint8) % 10,
        "t10k-images-idx3": rng.integers(256, size=(5, 28, 28), dtype=np.uint8),
        "t10k-labels-idx1": np.arange(5, dtype=np.uint8),
    }
    for name, array in arrays.items():
        (folder / f"{name}-ubyte{ending}").write_bytes(pack(idx(array)))
    return list(arrays.values())


def write_cifar10(folder, names=None):
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(9, 32, 32, 3), dtype=np.uint8)
    y = np.array([3, 1, 4, 1, 5, 9, 2, 6, 5], dtype=np.uint8)
    records = [bytes([label]) + image.transpose(2, 0, 1).tobytes() for image, label in zip(images, y)]
    for name, part in (("data_batch_1", records[:3]), ("data_batch_2", records[3:6]), ("test_batch", records[6:])):
        (folder / f"{name}.bin").write_bytes(b"".join(part))
    if names:
        (folder / "batches.meta.txt").write_text("\n".join(names) + "\n\n")
    return images, y


def write_classes(folder, classes, n=8, size=(7, 6), mode="RGB"):
    Image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    width, height = size
    for name in classes:
        (folder / name).mkdir(parents=True)
        for i in range(n):
            pixels = rng.integers(256, size=(height, width, len(mode)), dtype=np.uint8)
            Image.fromarray(pixels[..., 0] if mode == "L" else pixels).save(folder / name / f"{i}.png")


def test_digits_are_the_default_and_unchanged(files):
    found = files.load("digits")
    assert found.train.shape == (1347, 8, 8) and found.unseen.shape == (450, 8, 8)
    assert found.train.dtype == np.uint8 and found.train.max() == 255 and not found.flip and not found.note


@pytest.mark.parametrize(
    ("pack", "ending"), [(bytes, ""), (gzip.compress, ".gz"), (bytes, ".gz")], ids=["plain", "packed", "unpacked .gz"]
)
def test_idx_files_of_mnist(files, tmp_path, pack, ending):
    written = write_mnist(tmp_path, pack, ending)
    found = files.load(str(tmp_path))
    for got, expected in zip(found, written):
        np.testing.assert_array_equal(got, expected)
    assert found.train.flags.writeable and not found.flip


def damaged(folder, name, change):
    path = folder / name
    path.write_bytes(change(path.read_bytes()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda data: data[:-100],
            "must have 9424 bytes, for values of shape .12, 28, 28.; got 9324",
        ),
        (lambda data: data[:9], "truncated"),
        (lambda data: data + b"1", "too long"),
        (lambda data: b"<html>" + data, "begins with 00000803; got one that begins with 3c68746d. Copy it again"),
        (lambda data: b"", "begins with nothing"),
        (lambda data: gzip.compress(data)[:-50], "train-images-idx3-ubyte is damaged: .* Copy it again"),
        (lambda data: b"\x1f\x8b" + data, "is damaged"),
        (lambda data: idx(np.zeros((11, 28, 28), dtype=np.uint8)), "has 12 labels for 11 images"),
    ],
    ids=["truncated", "no head", "longer", "a web page", "empty", "truncated gzip", "broken gzip", "another count"],
)
def test_a_damaged_idx_file_is_named_with_what_is_wrong(files, tmp_path, change, message):
    write_mnist(tmp_path)
    damaged(tmp_path, "train-images-idx3-ubyte", change)
    with pytest.raises(ValueError, match=message):
        files.load(str(tmp_path))


def test_missing_idx_files_are_named(files, tmp_path):
    write_mnist(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks t10k-labels-idx1-ubyte, with or without .gz. Put all four"):
        files.load(str(tmp_path))


def test_binary_files_of_cifar10(files, tmp_path):
    images, y = write_cifar10(tmp_path)
    found = files.load(str(tmp_path))
    np.testing.assert_array_equal(np.concatenate([found.train, found.unseen]), images)
    np.testing.assert_array_equal(np.concatenate([found.y, found.y_unseen]), y)
    assert len(found.train) == 6 and found.flip


def test_cifar10_has_the_names_of_its_classes_where_they_are_given(files, tmp_path):
    write_cifar10(tmp_path, names="airplane automobile bird cat deer dog frog horse ship truck".split())
    assert files.load(str(tmp_path)).y.tolist() == ["cat", "automobile", "deer", "automobile", "dog", "truck"]


def test_damaged_binary_files_are_named(files, tmp_path):
    write_cifar10(tmp_path)
    damaged(tmp_path, "data_batch_2.bin", lambda data: data[:-1])
    with pytest.raises(ValueError, match=r"data_batch_2.bin must hold records of 3073 bytes.* copy it again"):
        files.load(str(tmp_path))
    damaged(tmp_path, "data_batch_2.bin", lambda data: bytes([77]) + data[1:3073])
    with pytest.raises(ValueError, match="has class 77 of 10"):
        files.load(str(tmp_path))
    (tmp_path / "test_batch.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks test_batch.bin"):
        files.load(str(tmp_path))


def test_class_folders_are_split_and_keep_their_names(files, tmp_path):
    write_classes(tmp_path, ["hat", "shoe"])
    (tmp_path / "hat" / ".0.png").write_bytes(b"what some systems leave beside files")
    (tmp_path / "notes.txt").write_text("no image")
    found = files.load(str(tmp_path))
    assert found.train.shape == (12, 6, 7, 3) and found.unseen.shape == (4, 6, 7, 3)
    assert found.y_unseen.tolist().count("hat") == 2 and set(found.y) == {"hat", "shoe"}


@pytest.mark.parametrize(
    ("mode", "shape"), [("L", (8, 6, 7)), ("LA", (8, 6, 7)), ("RGB", (8, 6, 7, 3)), ("RGBA", (8, 6, 7, 3))]
)
def test_transparency_is_left_out(files, tmp_path, mode, shape):
    Image = pytest.importorskip("PIL.Image")
    write_classes(tmp_path, ["a", "b"], n=5, mode=mode)
    found = files.load(str(tmp_path))
    assert found.train.shape[1:] == shape[1:]
    first = np.asarray(Image.open(tmp_path / "a" / "0.png"))
    first = first[..., 0] if mode == "LA" else first[..., :3] if mode == "RGBA" else first
    assert any((image == first).all() for image in np.concatenate([found.train, found.unseen]))


def test_folders_named_train_and_test_are_the_split(files, tmp_path):
    write_classes(tmp_path / "train", ["hat", "shoe"], n=6)
    write_classes(tmp_path / "test", ["hat", "shoe"], n=3)
    found = files.load(str(tmp_path))
    assert len(found.train) == 12 and len(found.unseen) == 6
    assert found.y_unseen.tolist() == ["hat"] * 3 + ["shoe"] * 3


def test_a_class_of_the_test_folder_alone_is_refused(files, tmp_path):
    write_classes(tmp_path / "train", ["hat", "shoe"])
    write_classes(tmp_path / "test", ["hat", "glove"])
    with pytest.raises(ValueError, match=r"has classes that .*train lacks: glove"):
        files.load(str(tmp_path))


def test_images_of_several_sizes_are_refused_or_resized(files, tmp_path):
    write_classes(tmp_path, ["a", "b"])
    write_classes(tmp_path, ["c"], size=(20, 10))
    with pytest.raises(ValueError, match=r"got 7 × 6 pixels in .*0.png, 20 × 10 in .*0.png. Crop .* --side 32"):
        files.load(str(tmp_path))
    assert files.load(str(tmp_path), side=9).train.shape == (18, 9, 9, 3)


def test_what_is_no_image_is_named(files, tmp_path):
    write_classes(tmp_path, ["a", "b"])
    damaged(tmp_path, "b/3.png", lambda data: data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"3.png cannot be read as an image: .* Mend or remove it"):
        files.load(str(tmp_path))


@pytest.mark.parametrize(
    ("classes", "n", "named"),
    [(["only"], 8, "only 8"), (["a", "b"], 3, "a 3, b 3")],
    ids=["one class", "few images"],
)
def test_too_few_classes_or_images_are_refused(files, tmp_path, classes, n, named):
    write_classes(tmp_path, classes, n=n)
    with pytest.raises(ValueError, match=f"at least two subfolders, classes, of at least 4 images each; got .*{named}"):
        files.load(str(tmp_path))


def test_a_wrong_path_and_a_folder_of_other_things_say_what_is_allowed(files, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere does not exist") as missing:
        files.load(str(tmp_path / "nowhere"))
    (tmp_path / "some.csv").write_text("a,b")
    with pytest.raises(FileNotFoundError, match=r"some.csv is a file"):
        files.load(str(tmp_path / "some.csv"))
    with pytest.raises(ValueError, match=r"holds none of what can be read, but some.csv") as other:
        files.load(str(tmp_path))
    for error in (missing, other):
        for allowed in ("digits, mnist, cifar10", "train-images-idx3-ubyte", "data_batch_1.bin", "cats/1.png"):
            assert allowed in str(error.value)


def test_the_pickled_cifar10_is_refused_with_the_reason(files, tmp_path):
    (tmp_path / "data_batch_1").write_bytes(b"\x80\x02")
    with pytest.raises(ValueError, match="pickled version of CIFAR-10 is not read, since opening a pickle may run"):
        files.load(str(tmp_path))


def test_named_sets_come_from_the_loader_that_the_environment_names(files, tmp_path, monkeypatch):
    monkeypatch.delenv("TABDIFF_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match=r"TABDIFF_DATA is unset.*load_images\(name\).*or give .* --data PATH"):
        files.load("mnist")
    monkeypatch.setenv("TABDIFF_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=f"TABDIFF_DATA={re.escape(str(tmp_path))} has no load.py"):
        files.load("mnist")
    (tmp_path / "load.py").write_text(
        "import numpy as np\n"
        "def load_images(name):\n"
        "    n = {'mnist': 3, 'cifar10': 4}[name]\n"
        "    return np.zeros((n, 6, 6), np.uint8), np.arange(n), np.ones((2, 6, 6), np.uint8), np.arange(2)\n"
    )
    mnist, cifar10 = files.load("mnist"), files.load("cifar10")
    assert len(mnist.train) == 3 and not mnist.flip and not mnist.note
    assert len(cifar10.train) == 4 and cifar10.flip and "JPEG" in cifar10.note


def test_a_side_is_for_image_files_alone(files, tmp_path):
    write_mnist(tmp_path)
    for data in ("digits", str(tmp_path)):
        with pytest.raises(ValueError, match="--side is for folders of image files"):
            files.load(data, side=16)
