"""Every script of ``examples/`` runs as a user runs it, with less training, and leaves the pictures it promises."""

import importlib.util
import runpy
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "examples"
SCRIPTS = sorted(path.name for path in FOLDER.glob("*.py"))
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
            ("forward", "schedules", "samplers", "guidance", "likelihood", "latent", "learned"), start=1
        )
    ],
}
WORDS = {
    "cells.py": ("within_type_correlation", "interpolated (SMOTE)", "nearest measured (10)"),
    "images.py": ("memorisation_ratio", "Fréchet distance by sampler", "The known half is kept exactly: True."),
    "quickstart_table.py": ("body mass of Gentoos", "draws the same rows for the same seed: True"),
    "quickstart_sequences.py": ("five active promoters", "'could you give me three'"),
    "quickstart_cells.py": ("marker genes", "{'CD14+ Monocyte': 200, 'CD56+ NK': 100}"),
}


@pytest.mark.skipif(not SCRIPTS, reason="an installed package has no examples beside its tests")
def test_every_script_is_known_here():
    assert set(SCRIPTS) == {*ARGUMENTS, *WORDS}


@pytest.mark.parametrize("script", SCRIPTS)
def test_script_runs(script, tmp_path, monkeypatch, capsys):
    if script in PICTURES and importlib.util.find_spec("matplotlib") is None:
        pytest.skip("matplotlib is not installed")
    if script == "cells.py":
        pytest.importorskip("imblearn")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [script, *ARGUMENTS.get(script, [])])
    monkeypatch.setattr("tabdiff.generator.resolve_steps", lambda *_: 10)
    monkeypatch.setattr("tabdiff.generator.CALIBRATION_ROWS", 500)
    runpy.run_path(str(FOLDER / script), run_name="__main__")

    out = capsys.readouterr().out
    for words in WORDS.get(script, ()):
        assert words in out
    made = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.png"))
    assert made == PICTURES.get(script, [])
    for picture in made:
        assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")
        assert (tmp_path / picture).stat().st_size > 20_000
        assert picture in out
