"""The code of the README and of each page of the documentation runs as it stands."""

import re
from pathlib import Path

import pytest

from tabdiff.model import defaults

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)(?:#[^)]*)?\)")


def blocks(page):
    return re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.fixture
def few_steps(monkeypatch):
    monkeypatch.setattr(defaults, "MIN_STEPS", 5)
    monkeypatch.setattr(defaults, "MAX_STEPS", 5)
    monkeypatch.setattr(defaults, "IMAGE_STEPS_RANGE", (5, 5))


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: page.name)
def test_code_blocks_run_in_order_as_they_stand(page, few_steps, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    names: dict = {}
    for block in blocks(page):
        exec(block, names)
    if page.name == "README.md":
        assert (tmp_path / "penguins.model" / "config.json").is_file()
        assert names["dendritic"].shape == (300, 765)
        assert names["sevens"].shape == (100, 8, 8)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target
