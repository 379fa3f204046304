"""Every script of ``examples/`` runs as a user runs it, with less training, and leaves the pictures it promises."""

import importlib.util
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.exhaustive

FOLDER = Path(__file__).parents[2] / "examples"
MODULES = {"image_files.py"}  # what a script imports from beside itself
SCRIPTS = sorted(path.name for path in FOLDER.glob("*.py") if path.name not in MODULES)
ARGUMENTS = {
    "diffusion_tour.py": ["--quick", "-o", "pictures"],
    "cells.py": ["-o", "pictures"],
    "images.py": ["--quick", "-o", "pictures"],
}
PICTURES = {
    "cells.py": [
        f"pictures/cells-{number}-{name}.png"
        for number, name in enumerate(("umap", "markers", "rare-types", "doses"), start=1)
    ],
    "images.py": [
        f"pictures/images-{number}-{name}.png"
        for number, name in enumerate(("grid", "trajectory", "guidance", "steps", "restored"), start=1)
    ],
    "diffusion_tour.py": [
        f"pictures/{number}_{name}.png"
        for number, name in enumerate(
            ("forward", "schedules", "samplers", "guidance", "known", "likelihood", "latent", "learned"), start=1
        )
    ],
}
WORDS = {
    "cells.py": ("within_type_correlation", "interpolated (SMOTE)", "nearest measured (10)"),
    "images.py": (
        "memorisation_ratio",
        "Fréchet distance by sampler",
        "The known half is kept exactly: True.",
        "pixels that were kept alone by",
    ),
    "quickstart_table.py": ("body mass of Gentoos", "draws the same rows for the same seed: True"),
    "quickstart_sequences.py": ("five active promoters", "'could you give me three'"),
    "quickstart_cells.py": ("marker genes", "{'CD14+ Monocyte': 200, 'CD56+ NK': 100}"),
}


@pytest.mark.skipif(not SCRIPTS, reason="an installed package has no examples beside its tests")
def test_every_script_is_known_here():
    assert set(SCRIPTS) == {*ARGUMENTS, *WORDS}


def run(script, arguments, tmp_path, monkeypatch):
    """Run a script in an empty folder, with less training."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    monkeypatch.setattr("tabdiff.model.fit.resolve_steps", lambda *_, **__: 10)
    monkeypatch.setattr("tabdiff.codecs.cells.counts.CALIBRATION_CELLS", (500, 500))
    runpy.run_path(str(FOLDER / script), run_name="__main__")


@pytest.mark.parametrize("script", SCRIPTS)
def test_script_runs(script, tmp_path, monkeypatch, capsys):
    if script in PICTURES and importlib.util.find_spec("matplotlib") is None:
        pytest.skip("matplotlib is not installed")
    if script == "cells.py":
        pytest.importorskip("imblearn")
    run(script, ARGUMENTS.get(script, []), tmp_path, monkeypatch)

    out = capsys.readouterr().out
    for words in WORDS.get(script, ()):
        assert words in out
    made = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.png"))
    assert made == PICTURES.get(script, [])
    for picture in made:
        assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")
        assert (tmp_path / picture).stat().st_size > 20_000
        assert picture in out


@pytest.mark.skipif(not SCRIPTS, reason="an installed package has no examples beside its tests")
@pytest.mark.parametrize(
    ("size", "mode", "classes", "words"),
    [
        ((12, 10), "RGB", ["cat", "dog", "an owl with a long name"], "Blocks of enlarged images differ"),
        ((7, 9), "L", ["0", "1"], "No super-resolution: 9 and 7 pixels share no divisor"),
    ],
    ids=["colour", "odd sides"],
)
def test_images_takes_files_of_yours(size, mode, classes, words, tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    Image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    for shade, name in enumerate(classes):
        (tmp_path / "mine" / name).mkdir(parents=True)
        for i in range(24):
            pixels = rng.integers(60 * shade, 60 * shade + 100, size=(size[1], size[0], len(mode)), dtype=np.uint8)
            Image.fromarray(pixels if mode == "RGB" else pixels[..., 0]).save(tmp_path / "mine" / name / f"{i}.png")
    run("images.py", ["--quick", "--data", "mine", "--scored", "12", "-o", "pictures"], tmp_path, monkeypatch)
    out = capsys.readouterr().out
    assert f"{len(classes)} classes" in out and words in out
    assert all((tmp_path / picture).is_file() and picture in out for picture in PICTURES["images.py"])


def test_images_says_what_is_wrong_with_a_path(tmp_path, monkeypatch, capsys):
    if "images.py" not in SCRIPTS:
        pytest.skip("an installed package has no examples beside its tests")
    pytest.importorskip("matplotlib")
    with pytest.raises(SystemExit):
        run("images.py", ["--data", "nowhere"], tmp_path, monkeypatch)
    assert "nowhere does not exist" in capsys.readouterr().err
    assert not (tmp_path / "pictures").exists()
