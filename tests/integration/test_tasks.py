"""Five things that a new user wants are three clicks from the front page, and done by copying fifteen lines."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tabdiff.model import defaults

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
TASKS = {
    "missing values": "how-to/missing-values.md",
    "private table": "how-to/privacy.md",
    "unmeasured dose": "how-to/conditions.md",
    "samplers": "diffusion.md",
    "killed and resumed": "training.md",
}
MOST_CLICKS, MOST_LINES = 3, 15
BLOCK = r"<!-- task: {} -->\n```(\w+)\n(.*?)^```"
LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)(?:#[^)]*)?\)|^:link: (\S+)$", re.MULTILINE)


def blocks(task: str) -> list[tuple[str, str]]:
    """What is copied for a task: language and text of each block."""
    text = (DOCS / TASKS[task]).read_text(encoding="utf-8")
    return re.findall(BLOCK.format(re.escape(task)), text, re.MULTILINE | re.DOTALL)


def clicks_to_pages() -> dict[Path, int]:
    """How many links of the text have to be followed from the front page to each page; menus are not counted."""
    clicks, pages = {DOCS / "index.md": 0}, [DOCS / "index.md"]
    while pages:
        page = pages.pop(0)
        for found in LINK.findall(page.read_text(encoding="utf-8")):
            link = found[0] or f"{found[1]}.md"
            target = (page.parent / link).resolve()
            if target.suffix == ".md" and target.is_file() and DOCS in target.parents and target not in clicks:
                clicks[target] = clicks[page] + 1
                pages.append(target)
    return clicks


def run_blocks(task, monkeypatch, tmp_path) -> dict:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(defaults, "MIN_STEPS", 5)
    monkeypatch.setattr(defaults, "MAX_STEPS", 5)
    names: dict = {}
    for _, text in blocks(task):
        exec(text, names)
    return names


@pytest.mark.parametrize("task", TASKS)
def test_each_is_near_and_short(task):
    assert clicks_to_pages()[DOCS / TASKS[task]] <= MOST_CLICKS
    lines = [line for _, text in blocks(task) for line in text.splitlines() if line.strip()]
    assert 1 <= len(lines) <= MOST_LINES


@pytest.mark.slow
def test_missing_values(monkeypatch, tmp_path):
    names = run_blocks("missing values", monkeypatch, tmp_path)
    assert names["filled"].isna().sum().sum() == 0 < names["penguins"].isna().sum().sum()
    assert len(names["five"]) == 5


@pytest.mark.slow
def test_private_table(monkeypatch, tmp_path):
    names = run_blocks("private table", monkeypatch, tmp_path)
    assert len((tmp_path / "drawn.csv").read_text().splitlines()) == len(names["train"]) + 1
    assert "<html" in (tmp_path / "privacy.html").read_text(encoding="utf-8")
    assert {"passes", "fails"} & set(names["report"].to_frame()["verdict"])


@pytest.mark.slow
def test_unmeasured_dose(monkeypatch, tmp_path):
    import anndata

    names = run_blocks("unmeasured dose", monkeypatch, tmp_path)
    drawn = anndata.read_h5ad(tmp_path / "dose30.h5ad")
    assert drawn.shape == (200, 40) and (drawn.obs["dose"] == 30).all()
    assert 30 not in set(names["dose"])


@pytest.mark.slow
def test_samplers(monkeypatch, tmp_path, capsys):
    names = run_blocks("samplers", monkeypatch, tmp_path)
    assert len(names["errors"]) == 9
    out = capsys.readouterr().out
    assert all(method in out for method in ("ddim", "dpmpp_2m", "heun"))


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="kills as POSIX does")
def test_killed_and_resumed(tmp_path):
    (language, script), (shell, _) = blocks("killed and resumed")
    assert (language, shell) == ("python", "bash")
    (tmp_path / "fit.py").write_text(script, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "fit.py"], cwd=tmp_path, env=environment)
    deadline = time.monotonic() + 120
    while (
        not list((tmp_path / "so-far").glob("checkpoint-*")) and process.poll() is None and time.monotonic() < deadline
    ):
        time.sleep(0.02)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "penguins.model").exists()
    subprocess.run([sys.executable, "fit.py"], cwd=tmp_path, env=environment, check=True)
    assert (tmp_path / "penguins.model" / "config.json").is_file()
