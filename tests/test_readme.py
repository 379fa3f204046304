import re
from pathlib import Path

import pytest

from tabdiff.model import config as building

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
# The first block is the headline: it speaks of an adata that the reader has.
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)[1:]


@pytest.fixture
def few_steps(monkeypatch):
    monkeypatch.setattr(building, "MIN_STEPS", 5)
    monkeypatch.setattr(building, "MAX_STEPS", 5)
    monkeypatch.setattr(building, "IMAGE_STEPS_RANGE", (5, 5))


def test_code_blocks_run_in_order_as_they_stand(few_steps, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(BLOCKS) == 7
    names: dict = {}
    for block in BLOCKS:
        exec(block, names)
    assert (tmp_path / "penguins.model" / "config.json").is_file()
    assert names["dendritic"].shape == (300, 765)
    assert names["sevens"].shape == (100, 8, 8)
