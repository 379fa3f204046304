"""The code of the README and of each page of the documentation runs as it stands."""

import importlib
import re
from pathlib import Path

import numpy as np
import pytest
from exhaustive import exhaustive

from tabdiff.diffusion import GRIDS, LOSSES, METHODS, TARGETS
from tabdiff.diffusion.generate import GUIDANCE
from tabdiff.diffusion.operators import DOWNSAMPLING
from tabdiff.diffusion.schedules import registry
from tabdiff.diffusion.time_sampling import TIMES
from tabdiff.model import defaults
from tabdiff.model.networks import NETWORKS
from tabdiff.nn.dit import CONDITIONING
from tabdiff.nn.embeddings import TIME_CONDITIONING, TIME_EMBEDDINGS

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES += [page for folder in ("how-to", "concepts") for page in sorted((ROOT / "docs" / folder).glob("*.md"))]
MEASURED = [ROOT / "benchmarks" / "README.md", *sorted((ROOT / "docs" / "benchmarks").glob("*.md"))]


def name_of(page):
    return str(page.relative_to(ROOT)).removeprefix("docs/")


LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)(?:#[^)]*)?\)")


def blocks(page):
    return re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.fixture
def few_steps(monkeypatch):
    monkeypatch.setattr(defaults, "MIN_STEPS", 5)
    monkeypatch.setattr(defaults, "MAX_STEPS", 5)
    monkeypatch.setattr(defaults, "IMAGE_STEPS_RANGE", (5, 5))


@pytest.mark.slow
@pytest.mark.parametrize("page", exhaustive([page for page in PAGES if blocks(page)]), ids=name_of)
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
    if page.name == "scikit-learn.md":
        assert np.isfinite(names["search"].cv_results_["mean_test_score"]).all()


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=name_of)
def test_lines_are_no_longer_than_those_of_the_code(page):
    lines = page.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if len(line) > 120 and not line.startswith(("|", "!["))] == []


@pytest.mark.parametrize(
    "page",
    [*PAGES, *MEASURED, *(ROOT / name for name in ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"))],
    ids=name_of,
)
def test_links_lead_somewhere(page):
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        path = (page.parent / target).resolve()
        if path.parent == ROOT / "docs" / "gallery" and path.stem != "index":  # made of a tutorial as the site is built
            path = ROOT / "docs" / "tutorials" / f"{path.stem}.py"
        made = (ROOT / "docs" / "gallery" / "index.rst", ROOT / "docs" / "reference" / "index.rst")
        assert path.exists() or path in made, target


NAMES = {
    "schedule": registry.SCHEDULES,
    "target": TARGETS,
    "loss": LOSSES,
    "times": TIMES,
    "variance": ("fixed", "learned"),
    "denoiser": NETWORKS,
    "time_embedding": TIME_EMBEDDINGS,
    "conditioning": CONDITIONING,
    "time_conditioning": TIME_CONDITIONING,
    "method": METHODS,
    "guidance": GUIDANCE,
    "operator": DOWNSAMPLING,
}


def words_of(text):
    return set(re.findall(r"[\w+]+", text))


@pytest.mark.parametrize("parameter", NAMES)
def test_every_name_stands_in_its_row_of_the_page_on_diffusion(parameter):
    rows = re.findall(rf"^\| `{parameter}`[^|]*\|(.*)\|$", (ROOT / "docs" / "diffusion.md").read_text("utf-8"), re.M)
    missing = set(NAMES[parameter]) - words_of(" ".join(rows))
    assert not missing


def test_every_grid_schedule_and_method_that_is_an_object_can_be_found():
    page = words_of((ROOT / "docs" / "diffusion.md").read_text("utf-8"))
    assert {*GRIDS, "ShiftedSchedule", "ZeroTerminalSNRSchedule"} <= page


def test_the_sampler_that_contributors_are_shown_is_that_of_the_repository():
    files = re.findall(
        r"^`([\w/]+/(?:test_)?midpoint\.py)`.*?^```python\n(.*?)^```",
        (ROOT / "CONTRIBUTING.md").read_text("utf-8"),
        re.MULTILINE | re.DOTALL,
    )
    assert len(files) == 2
    for path, code in files:
        assert (ROOT / path).read_text("utf-8") == code


def test_paths_that_contributors_are_told_of_exist():
    told = re.findall(
        r"(?<![\w/])((?:tabdiff|tests|docs|\.ci)/[\w./]*\w)(?!\w*<)", (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    )
    assert len(told) > 10
    assert [path for path in told if not (ROOT / path).exists()] == []


def is_there(name):
    """Whether a dotted name is a module, or what attributes of one lead to."""
    found, path = importlib.import_module("tabdiff"), "tabdiff"
    for part in name.split(".")[1:]:
        path += f".{part}"
        if not hasattr(found, part):
            try:
                importlib.import_module(path)
            except ImportError:
                return False
        found = getattr(found, part)
    return True


def test_no_file_names_a_module_that_is_gone():
    files = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", ROOT / "pyproject.toml"]
    for folder in ("tabdiff", "tests", "examples", "benchmarks"):
        files += [f for f in (ROOT / folder).rglob("*") if f.suffix in (".py", ".md", ".ipynb")]
    names = {n: f for f in files for n in re.findall(r"\btabdiff(?:\.\w+)+", f.read_text("utf-8"))}
    assert len(names) > 100
    assert {name: str(file.relative_to(ROOT)) for name, file in names.items() if not is_there(name)} == {}
