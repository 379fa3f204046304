"""The site has every public name, and its docstrings say what they should."""

import importlib
import inspect
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
# Checks of numpydoc. Left out: ES01 and SA01 (a text beyond the summary, "See Also"), which not every name needs; GL01,
# GL02 and GL08 (quotes, which ruff holds); SS05, RT02, RT04, PR04 and PR06 (wording, and parameters told together).
CHECKS = (
    *("GL03", "GL05", "GL06", "GL07", "GL09", "GL10"),
    *("SS01", "SS02", "SS03", "SS04", "SS06"),
    *("PR01", "PR02", "PR03", "PR05", "PR07", "PR08", "PR09", "PR10"),
    *("RT01", "RT05", "SA02", "SA03", "SA04", "EX01"),
)
# Of methods: a short method says all in its summary, and a class has its example.
OF_METHODS = tuple(check for check in CHECKS if check not in ("PR01", "PR07", "RT01", "EX01"))
# What is still to be written; a name that passes must be taken out.
STILL_TO_WRITE: dict[str, set[str]] = {}


@pytest.fixture(scope="module")
def api_pages():
    spec = importlib.util.spec_from_file_location("api_pages", DOCS / "api_pages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def documented():
    """Dotted names of what is public, and whether each is a method."""
    packages = ("tabdiff", *(f"tabdiff.{p}" for p in "diffusion nn training codecs evaluation datasets".split()))
    seen = []
    for package in packages:
        module = importlib.import_module(package)
        for name in module.__all__:
            found = getattr(module, name)
            if found in seen or not (inspect.isclass(found) or inspect.isfunction(found)):
                continue
            seen.append(found)
            yield f"{package}.{name}", False
            if inspect.isclass(found):
                for method, value in vars(found).items():
                    if not method.startswith("_") and (
                        inspect.isfunction(value) or isinstance(value, classmethod | staticmethod | property)
                    ):
                        yield f"{package}.{name}.{method}", True


@pytest.mark.slow
def test_docstrings_pass_the_checks_of_numpydoc():
    validate = pytest.importorskip("numpydoc.validate").validate
    names = list(documented())
    assert len(names) > 300
    faults: dict[str, set[str]] = {}
    for name, is_method in names:
        for code, _ in validate(name)["errors"]:
            if code in (OF_METHODS if is_method else CHECKS):
                faults.setdefault(code, set()).add(name.removeprefix("tabdiff."))
    assert faults == STILL_TO_WRITE


def test_every_public_name_has_a_place_in_the_reference(api_pages, tmp_path):
    api_pages.write(tmp_path)
    pages = {path.stem: path.read_text(encoding="utf-8") for path in tmp_path.glob("*.rst")}
    assert set(pages) == {"index", *api_pages.PACKAGES}
    for package in api_pages.PACKAGES:
        for name in importlib.import_module(package).__all__:
            assert re.search(rf"(^   |data:: |``){name}\b", pages[package], re.MULTILINE), f"{package}.{name}"


def test_names_of_one_module_have_pages_of_one_package(api_pages):
    # The pages of sources link to places that are called by the package of whichever name of a module is read first.
    homes: dict[str, set[str]] = {}
    for package in api_pages.PACKAGES:
        for name in api_pages.public_names(package):
            module = getattr(getattr(importlib.import_module(package), name), "__module__", None)
            if module is not None:
                homes.setdefault(module, set()).add(api_pages.home(package, name))
    assert {module: found for module, found in homes.items() if len(found) > 1} == {}


def test_tutorials_are_linked_from_the_front_page_or_a_how_to():
    pages = [*DOCS.glob("*.md"), *DOCS.glob("how-to/*.md"), *DOCS.glob("concepts/*.md")]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    tutorials = sorted(path.stem for path in (DOCS / "tutorials").glob("*.py"))
    assert len(tutorials) == 10
    assert [name for name in tutorials if f"gallery/{name}.rst" not in text] == []


def test_the_version_is_told_alike_everywhere():
    import tabdiff

    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    recipe = (ROOT / "conda" / "meta.yaml").read_text(encoding="utf-8")
    assert f"\nversion: {tabdiff.__version__}\n" in citation
    assert f'{{% set version = "{tabdiff.__version__}" %}}' in recipe
    assert 'dynamic = ["version"]' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_the_recipe_has_the_bounds_of_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    recipe = (ROOT / "conda" / "meta.yaml").read_text(encoding="utf-8")
    run, constrained = re.search(r"  run:\n(.*?)  run_constrained:\n(.*?)\ntest:", recipe, re.DOTALL).groups()

    def bounds(text):
        return dict(re.findall(r"- ([\w-]+) >=([\d.]+)$", text, re.MULTILINE))

    declared = dict(line.split(">=") for line in project["dependencies"])
    declared["pytorch"] = declared.pop("torch")
    assert bounds(run) == declared
    extras = {name: project["optional-dependencies"][name] for name in ("report", "io", "images", "imbalanced")}
    optional = dict(line.split(">=") for lines in extras.values() for line in lines)
    optional["matplotlib-base"] = optional.pop("matplotlib")
    assert bounds(constrained) == optional
