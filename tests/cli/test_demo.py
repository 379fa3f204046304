"""The demo: real data, few steps, the whole way to scorecard and picture."""

import sys

import numpy as np
import pandas as pd
import pytest

from tabdiff.cli.demo import _random_half, demo_cells, demo_table
from tabdiff.datasets import load_penguins


def _png_size(path) -> tuple[int, int]:
    head = path.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")


def test_halves_share_no_row_and_have_the_labels_alike():
    species = load_penguins()["species"]
    seen = _random_half(species, 0)
    counts = pd.crosstab(species, seen)
    assert ((counts[True] - counts[False]).isin([0, 1])).all()
    assert not np.array_equal(seen, _random_half(species, 1))
    np.testing.assert_array_equal(seen, _random_half(species, 0))


@pytest.mark.slow
def test_table_demo_prints_a_scorecard_and_writes_a_picture(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    scores = demo_table(tmp_path, seed=1, max_steps=60)
    assert list(scores.columns) == ["ideal", "tabdiff", "real half (floor)", "independent columns"]
    assert len(scores) == 6
    assert np.isfinite(scores[["ideal", "tabdiff", "independent columns"]].to_numpy()).all()
    trend = scores.loc["trend error (%)"]
    assert trend[["tabdiff", "real half (floor)"]].max() < trend["independent columns"]
    out = capsys.readouterr().out
    for name in [*scores.columns, *scores.index, "Fitting 172", "tabdiff-demo-table.png"]:
        assert name in out
    width, height = _png_size(tmp_path / "tabdiff-demo-table.png")
    assert width > 1000 and height > 600
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.slow
def test_cell_demo_prints_a_scorecard_and_writes_a_picture(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    scores = demo_cells(tmp_path, max_steps=20, max_time=2)
    assert list(scores.columns) == ["ideal", "tabdiff", "real half (floor)", "NB per type"]
    assert np.isfinite(scores.to_numpy()).all()
    assert scores.loc["RF-AUC", "real half (floor)"] < scores.loc["RF-AUC", "NB per type"]
    assert scores.loc["gene-mean correlation", "tabdiff"] > 0.9
    out = capsys.readouterr().out
    for name in [*scores.columns, *scores.index, "700 cells × 765 genes", "tabdiff-demo-cells.png"]:
        assert name in out
    assert _png_size(tmp_path / "tabdiff-demo-cells.png")[0] > 1000


def test_without_matplotlib_the_scorecard_comes_with_a_hint(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    scores = demo_table(tmp_path, max_steps=2)
    assert len(scores) == 6
    assert "pip install matplotlib" in capsys.readouterr().out.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []
