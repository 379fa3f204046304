"""Model files that were damaged or made to do harm: refused with a clear error, and nothing else happens."""

import contextlib
import json
import os
import pickle
import random
import shutil
import struct
import sys

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file

from tabdiff import DiffusionGenerator
from tabdiff.io.model_files import _checksum
from tabdiff.io.serialization import CONFIG, WEIGHTS, ModelFileError
from tabdiff.training import Checkpoint, CheckpointError
from tabdiff.training.checkpoint import checkpoint_files, read_checkpoint

FORMS = ("folder", "file")
# What a file that ran code, or reached for another one, would give away.
SUSPECT = ("pickle.find_class", "os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "socket.connect", "exec")
watched: list | None = None


def _hook(event, arguments):
    if watched is not None and (event in SUSPECT or event == "open"):
        watched.append((event, arguments))


sys.addaudithook(_hook)


@contextlib.contextmanager
def nothing_runs(folder):
    """See that no code is executed, and no file outside of the folder opened; audit hooks see all of Python's doing."""
    global watched
    watched = []
    try:
        yield
        seen = watched
    finally:
        watched = None
    # Modules that are imported on the way are code of Python's own.
    own = (str(folder), sys.prefix, sys.base_prefix)
    odd = [a for e, a in seen if e == "open" and not isinstance(a[0], int) and not os.fsdecode(a[0]).startswith(own)]
    ran = [a for e, a in seen if e not in ("open", "exec")]
    ran += [a for e, a in seen if e == "exec" and not getattr(a[0], "co_filename", "").startswith((*own[1:], "<"))]
    assert not odd and not ran, (odd, ran)


def frame():
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "x": rng.normal(size=40),
            "n": rng.integers(0, 60, 40),
            "c": rng.choice(["a", "b", "ü"], 40),
            "t": pd.date_range("2024-01-01", periods=40).tz_localize("Europe/Berlin"),
            "y": rng.choice(["u", "v"], 40),
        }
    )


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A model in both forms, and a checkpoint."""
    root = tmp_path_factory.mktemp("good")
    gen = DiffusionGenerator(
        max_steps=2,
        hidden_size=8,
        n_blocks=1,
        refine=False,
        random_state=0,
        callbacks=[Checkpoint(root / "checkpoint")],
    )
    gen.fit(frame(), condition="y")
    gen.save(root / "folder")
    gen.save(root / "file.safetensors")
    return root


def copied(good, tmp_path, form):
    if form == "folder":
        return shutil.copytree(good / "folder", tmp_path / "folder")
    return shutil.copy(good / "file.safetensors", tmp_path / "file.safetensors")


def rows(path):
    return DiffusionGenerator.load(path).sample(5, steps=2, random_state=0)


def parts(path):
    """Config and arrays of a model in either form."""
    if path.is_dir():
        return json.loads((path / CONFIG).read_text(encoding="utf-8")), load_file(path / WEIGHTS)
    arrays = load_file(path)
    return json.loads(arrays.pop(CONFIG).tobytes()), arrays


def forge(path, config, arrays):
    """Write a model as its author would, checksum and all."""
    config["checksum"] = _checksum(config, arrays)
    if path.is_dir():
        (path / CONFIG).write_text(json.dumps(config), encoding="utf-8")
        save_file(arrays, path / WEIGHTS)
    else:
        text = np.frombuffer(json.dumps(config).encode(), dtype=np.uint8)
        save_file({**arrays, CONFIG: text}, path, metadata={"format": "tabdiff", "format_version": "1"})


@pytest.mark.parametrize("form", FORMS)
def test_both_forms_hold_the_same_model(good, tmp_path, form):
    path = copied(good, tmp_path, form)
    config, arrays = parts(path)
    forge(path, config, arrays)
    pd.testing.assert_frame_equal(rows(path), rows(good / "folder"))
    for name in ("file.safetensors", f"folder/{CONFIG}", f"folder/{WEIGHTS}"):
        assert (good / name).stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_single_file_takes_no_other_files_place(good, tmp_path):
    gen = DiffusionGenerator.load(good / "file.safetensors")
    other = tmp_path / "weights.safetensors"
    save_file({"w": np.zeros(3)}, other)
    with pytest.raises(FileExistsError, match="no model of tabdiff"):
        gen.save(other)
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(FileExistsError, match="is a folder"):
        gen.save(tmp_path / "folder.safetensors")
    gen.save(tmp_path / "new" / "model.safetensors")
    gen.save(tmp_path / "new" / "model.safetensors")
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["model.safetensors"]
    with pytest.raises(ModelFileError, match="no model of tabdiff"):
        DiffusionGenerator.load(other)


# ----------------------------------------------------------------- files that lie


def deep(config):
    config["history"] = "HERE"
    return json.dumps(config).replace('"HERE"', "[" * 100_000 + "]" * 100_000)


def weight(arrays, change):
    key = next(k for k in sorted(arrays) if k.startswith("/arrays/") and arrays[k].ndim == 2)
    arrays[key] = change(arrays[key])


def poisoned(array):
    array = array.copy()
    array.flat[0] = np.nan
    return array


def put(config, value, *keys):
    for key in keys[:-1]:
        config = config[key]
    config[keys[-1]] = value


LIES = {
    "no spec": (lambda c, a: c.pop("spec"), "'spec' is missing"),
    "no codec": (lambda c, a: c.pop("codec"), "'codec' is missing"),
    "another version": (lambda c, a: put(c, 2, "format_version"), "format version 2"),
    "a version that is no number": (lambda c, a: put(c, {"a": [1] * 999}, "format_version"), "format version"),
    "a class of Python's": (lambda c, a: put(c, "os.system", "container"), "damaged"),
    "an array of another file": (lambda c, a: put(c, {"$array": "../../etc/passwd"}, "history"), "damaged"),
    "an unknown tag": (lambda c, a: put(c, {"$pickle": "gASVAA=="}, "history"), "unknown tag"),
    "a parameter that is none": (lambda c, a: put(c, 1, "parameters", "payload"), "damaged"),
    "blocks without end": (lambda c, a: put(c, 10**12, "spec", "n_blocks"), "larger"),
    "a network without end": (lambda c, a: put(c, 10**9, "spec", "hidden_size"), "damaged"),
    "rows without end": (lambda c, a: put(c, 10**12, "spec", "width"), "damaged"),
    "classes without end": (lambda c, a: put(c, [10**14], "spec", "condition_levels"), "damaged"),
    "a negative size": (lambda c, a: put(c, -8, "spec", "hidden_size"), "damaged"),
    "a size that is text": (lambda c, a: put(c, "8", "spec", "hidden_size"), "damaged"),
    "numbers that the codec has not": (lambda c, a: put(c, [[0, 0]], "codec", "columns"), "damaged"),
    "a zone that is a path": (
        lambda c, a: put(c, "datetime64[ns, dateutil//etc/passwd]", "codec", "columns", 3, "dtype", "name"),
        "damaged",
    ),
    "a dtype of objects": (lambda c, a: put(c, "O,O,O", "codec", "columns", 0, "dtype", "name"), "damaged"),
    "wrong shapes": (lambda c, a: weight(a, lambda w: w[:, :-1].copy()), "has shape"),
    "wrong dtypes": (lambda c, a: weight(a, lambda w: w.astype(np.float64)), "float64"),
    "NaN among the weights": (lambda c, a: weight(a, poisoned), "not finite"),
    "a weight less": (lambda c, a: c["weights"].pop(), "differ"),
    "weights of another name": (lambda c, a: put(c, "payload", "weights", 0), "differ"),
    "half a random state": (lambda c, a: put(c, "{}", "stream"), "damaged"),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", LIES)
def test_a_model_that_lies_is_refused(good, tmp_path, form, name):
    lie, message = LIES[name]
    path = copied(good, tmp_path, form)
    config, arrays = parts(path)
    lie(config, arrays)
    forge(path, config, arrays)
    with nothing_runs(tmp_path), pytest.raises(ModelFileError, match=message):
        DiffusionGenerator.load(path)


class Payload:
    def __reduce__(self):
        return os.system, ("touch /tmp/tabdiff-was-here",)


def test_what_is_no_model_file_is_refused(good, tmp_path):
    config, _ = parts(good / "folder")
    whole = (good / "file.safetensors").read_bytes()
    contents = {
        "pickle": pickle.dumps(Payload()),
        "empty": b"",
        "short": whole[:7],
        "huge header": struct.pack("<Q", 2**62) + whole[8:],
        "header of 200 MB": struct.pack("<Q", 200_000_000) + whole[8:],
        "header is no JSON": struct.pack("<Q", 8) + b"\x80\x04pickle",
        "array beyond the end": _safetensors({"w": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}),
        "array without bytes": _safetensors({"w": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 0]}}),
        "arrays that overlap": _safetensors(
            {k: {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]} for k in ("a", "b")}, b"1234"
        ),
        "unknown dtype": _safetensors({"w": {"dtype": "PICKLE", "shape": [1], "data_offsets": [0, 1]}}, b"x"),
    }
    for name, content in contents.items():
        (tmp_path / "file.safetensors").write_bytes(content)
        with nothing_runs(tmp_path), pytest.raises(ModelFileError, match=r"damaged|no model"):
            DiffusionGenerator.load(tmp_path / "file.safetensors")
        shutil.copytree(good / "folder", tmp_path / name)
        (tmp_path / name / WEIGHTS).write_bytes(content)
        with nothing_runs(tmp_path), pytest.raises(ModelFileError, match="damaged"):
            DiffusionGenerator.load(tmp_path / name)
    path = copied(good, tmp_path, "folder")
    for text in (
        pickle.dumps(Payload()),
        b"\xff\xfe",
        b"[" * 10**6,
        deep(config).encode(),
        b"9" * 5000,
        b"NaN",
        b"null",
    ):
        (path / CONFIG).write_bytes(text)
        with nothing_runs(tmp_path), pytest.raises(ModelFileError, match=CONFIG):
            DiffusionGenerator.load(path)


def _safetensors(header, data=b""):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.skipif(os.name != "posix", reason="links and pipes as POSIX has them")
@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_links_and_pipes_in_a_model_folder_are_refused(good, tmp_path, name):
    path = copied(good, tmp_path, "folder")
    (path / name).rename(tmp_path / "elsewhere")
    (path / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ModelFileError, match=f"{name} is a link"):
        DiffusionGenerator.load(path)
    (path / name).unlink()
    os.mkfifo(path / name)
    with pytest.raises(ModelFileError, match="no ordinary file"):
        DiffusionGenerator.load(path)
    with pytest.raises(ModelFileError, match="this is no file"):
        DiffusionGenerator.load(path / name)
    with pytest.raises(ModelFileError, match="no such file"):
        DiffusionGenerator.load(tmp_path / "absent.safetensors")


def test_saving_replaces_a_link_and_leaves_what_it_led_to(good, tmp_path):
    path = copied(good, tmp_path, "folder")
    (tmp_path / "precious").write_text("mine")
    (path / WEIGHTS).unlink()
    (path / WEIGHTS).symlink_to(tmp_path / "precious")
    DiffusionGenerator.load(good / "folder").save(path)
    assert (tmp_path / "precious").read_text() == "mine" and not (path / WEIGHTS).is_symlink()
    pd.testing.assert_frame_equal(rows(path), rows(good / "folder"))


# ------------------------------------------------------------------ files that broke


def corrupt(content, rng):
    """Return the content with one thing wrong with it, and what that is."""
    content, kind = bytearray(content), rng.choice(["flip", "flip", "cut", "swap", "zero", "repeat", "insert", "drop"])
    i = rng.randrange(len(content))
    if kind == "flip":
        content[i] ^= 1 << rng.randrange(8)
    elif kind == "cut":
        del content[i:]
    elif kind == "swap":
        j = rng.randrange(len(content))
        content[i], content[j] = content[j], content[i]
    elif kind == "zero":
        content[i : i + 512] = bytes(len(content[i : i + 512]))
    elif kind == "repeat":
        content[i:i] = content[i : i + 64]
    elif kind == "insert":
        content.insert(i, rng.randrange(256))
    else:
        del content[i : i + rng.randrange(1, 40)]
    return bytes(content), f"{kind} at {i}"


def edit(config, rng):
    """Change one value somewhere in a nested JSON value."""
    place = config
    while True:
        key = rng.choice(list(place) if isinstance(place, dict) else range(len(place)))
        if isinstance(place[key], dict | list) and place[key] and rng.random() < 0.9:
            place = place[key]
            continue
        place[key] = rng.choice([None, -1, 10**30, "", "x", [], {}, True, 0.5, {"$array": "/x"}, {"$range": [0, 9, 1]}])
        return


def survives(path, truth, folder):
    """Whether a damaged model loads; if so, it must be the good one, of which only the layout has changed."""
    try:
        with nothing_runs(folder):
            gen = DiffusionGenerator.load(path)
    except ModelFileError:
        return False
    pd.testing.assert_frame_equal(gen.sample(5, steps=2, random_state=0), truth)
    return True


@pytest.mark.parametrize("form", FORMS)
def test_random_corruptions_are_refused_or_harmless(good, tmp_path, form):
    rng, truth = random.Random(form), rows(good / "folder")
    survived = []
    for _ in range(100):
        shutil.rmtree(tmp_path / "folder", ignore_errors=True)
        path = copied(good, tmp_path, form)
        target = path / rng.choice([CONFIG, WEIGHTS]) if form == "folder" else path
        damaged, what = corrupt(target.read_bytes(), rng)
        changed = damaged != target.read_bytes()
        target.write_bytes(damaged)
        if survives(path, truth, tmp_path) and changed:
            survived.append(f"{target.name}: {what}")
    # White space between the words of JSON, and padding, may be anything that reads the same.
    assert len(survived) <= 10, survived


@pytest.mark.parametrize("form", FORMS)
def test_random_edits_are_refused(good, tmp_path, form):
    rng, truth = random.Random(form), rows(good / "folder")
    path = copied(good, tmp_path, form)
    config, arrays = parts(path)
    for _ in range(50):
        edited = json.loads(json.dumps(config))
        edit(edited, rng)
        if path.is_dir():
            (path / CONFIG).write_text(json.dumps(edited))
        else:
            text = np.frombuffer(json.dumps(edited).encode(), dtype=np.uint8)
            save_file({**arrays, CONFIG: text}, path, metadata={"format": "tabdiff", "format_version": "1"})
        assert edited == config or not survives(path, truth, tmp_path)
        # With a checksum that fits, the model may be another one, or none at all; it must not be anything worse.
        forge(path, edited, arrays)
        with contextlib.suppress(ModelFileError), nothing_runs(tmp_path):
            DiffusionGenerator.load(path)


@pytest.mark.slow
def test_random_corruptions_of_a_checkpoint_are_refused(good, tmp_path):
    rng = random.Random("checkpoint")
    (path,) = checkpoint_files(good / "checkpoint")
    content = path.read_bytes()
    truth = read_checkpoint(good / "checkpoint")
    survived = []
    for _ in range(100):
        damaged, what = corrupt(content, rng)
        (tmp_path / path.name).write_bytes(damaged)
        try:
            with nothing_runs(tmp_path):
                read = read_checkpoint(tmp_path)
        except CheckpointError:
            continue
        assert repr(read) == repr(truth)
        survived += [what] if damaged != content else []
    assert len(survived) <= 5, survived
