"""The demo: real data, few steps, the whole way to scorecard and picture."""

import sys

import numpy as np
import pandas as pd
import pytest

from tabdiff.cli.demo import (
    BOX,
    HAIRPIN,
    LENGTHS,
    _promoters,
    _random_half,
    _sequence_scores,
    demo_cells,
    demo_images,
    demo_sequences,
    demo_table,
)
from tabdiff.cli.demo_pictures import _dependence, _tiles
from tabdiff.cli.main import make_parser
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


@pytest.mark.slow
def test_image_demo_prints_a_scorecard_and_writes_a_picture(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    scores = demo_images(tmp_path, max_steps=10)
    assert list(scores.columns) == ["ideal", "tabdiff", "real half (floor)", "independent pixels"]
    recognised = scores.loc["recognised as what was asked for"]
    assert recognised["real half (floor)"] > 0.95 and np.isnan(recognised["independent pixels"])
    apart = scores.loc["Fréchet distance"]
    assert apart["real half (floor)"] < apart["independent pixels"]
    out = capsys.readouterr().out
    for name in [*scores.columns, *scores.index, "Fitting 901", "tabdiff-demo-images.png"]:
        assert name in out
    assert _png_size(tmp_path / "tabdiff-demo-images.png")[0] > 1000


@pytest.mark.slow
def test_sequence_demo_prints_a_scorecard_and_writes_a_picture(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    scores = demo_sequences(tmp_path, max_steps=20)
    assert list(scores.columns) == ["ideal", "tabdiff", "real half (floor)", "independent letters"]
    assert np.isfinite(scores.to_numpy()).all()
    pairs = scores.loc["hairpin: letters that pair (%)"]
    assert abs(pairs["real half (floor)"] - pairs["ideal"]) < 2
    assert pairs["independent letters"] < 50
    out = capsys.readouterr().out
    for name in [*scores.columns, *scores.index, "3000 strings", "tabdiff-demo-sequence.png"]:
        assert name in out
    assert _png_size(tmp_path / "tabdiff-demo-sequence.png")[0] > 1000


def test_promoters_keep_their_rules_as_often_as_they_say():
    strings, kinds = _promoters(4000, np.random.default_rng(0))
    assert {len(s) for s in strings} == set(LENGTHS)
    assert abs(np.mean([len(s) == LENGTHS[0] for s in strings]) - 1 / 3) < 0.03
    scores = _sequence_scores(strings, kinds, strings, kinds)
    assert scores["letters: largest error of a share (%)"] == 0 and scores["lengths: error (%)"] == 0
    assert abs(scores["hairpin: letters that pair (%)"] - 96.25) < 1
    assert abs(scores[f"{BOX} in promoters (%)"] - 100 * 0.9625**6) < 3
    dependence = _dependence(strings)
    assert min(dependence[i, j] for i, j in HAIRPIN) > 0.8
    assert dependence[0, 5] < 0.01
    assert scores[f"{BOX} in others (%)"] < 1


def test_tiles_show_images_in_rows():
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    images = np.arange(2 * 3 * 4).reshape(2, 3, 2, 2)
    ax = Figure().subplots()
    _tiles(ax, images, "title")
    shown = np.ma.filled(ax.images[0].get_array().astype(float), np.nan)
    assert shown.shape == (5, 8)
    np.testing.assert_array_equal(shown[3:5, 6:8], images[1, 2])
    assert np.isnan(shown[2]).all() and np.isnan(shown[:, 2]).all()


def test_one_kind_of_demo_is_asked_for():
    parse = make_parser().parse_args
    assert parse(["demo"]).data == "cells"
    assert [parse(["demo", f"--{k}"]).data for k in ("table", "images", "sequence")] == ["table", "images", "sequence"]
    with pytest.raises(SystemExit):
        parse(["demo", "--table", "--images"])


def test_without_matplotlib_the_scorecard_comes_with_a_hint(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    scores = demo_table(tmp_path, max_steps=2)
    assert len(scores) == 6
    assert "pip install matplotlib" in capsys.readouterr().out.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []
