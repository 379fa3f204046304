"""Folders that go with what uses them."""

import gc
import warnings
from pathlib import Path

import pytest

from tabdiff import DiffusionGenerator
from tabdiff.io.atomic import ScratchFolder


def test_a_scratch_folder_goes_with_its_owner(tmp_path):
    folder = ScratchFolder("rows-", tmp_path)
    (Path(folder.name) / "a").touch()
    assert Path(folder.name).parent == tmp_path
    del folder
    gc.collect()
    assert list(tmp_path.iterdir()) == []


def test_a_fit_on_a_lazy_frame_cleans_up_without_warnings(tmp_path, monkeypatch):
    pl = pytest.importorskip("polars")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    frame = pl.LazyFrame({"x": [i / 7 for i in range(60)], "k": ["a", "b"] * 30})
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        gen = DiffusionGenerator(max_steps=2, random_state=0).fit(frame)
        gc.collect()
    assert [str(w.message) for w in found if issubclass(w.category, ResourceWarning)] == []
    assert list(tmp_path.glob("tabdiff-rows-*")) == []
    assert len(gen.sample(3)) == 3
