"""The figures of the README and of docs/benchmarks are those of benchmarks/results."""

import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = [ROOT / "README.md", *sorted((ROOT / "docs" / "benchmarks").glob("*.md"))]


@pytest.fixture
def pages(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("pages")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_tables_are_those_of_the_results(path, pages):
    assert path in pages.files()
    text = path.read_text(encoding="utf-8")
    assert pages.filled(text) == text, "run: python benchmarks/pages.py"


def test_the_readme_has_every_block_that_is_made_for_it(pages):
    names = [match[0] for match in pages.BLOCK.findall((ROOT / "README.md").read_text(encoding="utf-8"))]
    assert sorted(names) == sorted(pages.BLOCKS)


def test_a_changed_figure_is_noticed(pages):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert pages.filled(text.replace("| .976 |", "| .979 |", 1)) == text


@pytest.mark.slow
def test_every_picture_of_a_page_is_drawn(pages, tmp_path):
    plots = importlib.import_module("plots")
    drawn = {path.name for path in plots.draw(tmp_path)}
    assert all((tmp_path / name).stat().st_size > 10_000 for name in drawn)
    told = {
        line.split("plots/")[1]
        for path in FILES
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.startswith("```{figure} plots/")
    }
    assert told == drawn
