"""Pages of the reference, one a package, made from `__all__`, so that no public name can be left out."""

import importlib
import inspect
from pathlib import Path

__all__ = ["PACKAGES", "groups", "public_names", "write"]

PACKAGES = {
    "tabdiff": "Estimators, options and what is imported most",
    "tabdiff.diffusion": "The mathematics: schedules, targets, losses, samplers, guidance, likelihoods",
    "tabdiff.nn": "Networks and their parts",
    "tabdiff.training": "The training loop, its options, callbacks and checkpoints",
    "tabdiff.codecs": "Containers to tensors and back",
    "tabdiff.evaluation": "How good drawn rows are",
    "tabdiff.datasets": "Real data that comes along",
}
# Part of a module's path, by the heading under which its names stand.
HEADINGS = {
    "tabdiff.estimators": "Estimators",
    "tabdiff.evaluation.cells": "Cells",
    "tabdiff.evaluation.expression": "Cells",
    "tabdiff.evaluation.image": "Images",
    "tabdiff.evaluation.tables": "Tables",
    "tabdiff.evaluation": "Scores",
    "tabdiff.model.networks": "Networks",
    "tabdiff.training.callbacks": "Callbacks",
    "tabdiff.training.checkpoint": "Checkpoints",
    "tabdiff.training": "Training",
    "tabdiff.generation": "Sampling",
    "tabdiff.codecs": "Codecs",
    "tabdiff.diffusion.schedules": "Schedules",
    "tabdiff.diffusion.samplers": "Samplers",
    "tabdiff.diffusion.guidance": "Guidance",
    "tabdiff.diffusion.posterior": "Guidance",
    "tabdiff.diffusion.losses": "Losses and times",
    "tabdiff.diffusion.time_sampling": "Losses and times",
    "tabdiff.diffusion.targets": "Targets",
    "tabdiff.diffusion.denoiser": "Denoisers",
    "tabdiff.diffusion.oracles": "Denoisers",
    "tabdiff.diffusion.likelihood": "Likelihoods",
    "tabdiff.nn": "Networks and layers",
    "tabdiff.datasets": "Data sets",
}


def public_names(package: str) -> list[str]:
    return list(importlib.import_module(package).__all__)


def _heading(package: str, name: str) -> str:
    found = getattr(importlib.import_module(package), name)
    if not (inspect.isclass(found) or inspect.isfunction(found)):
        return "Names that are understood"
    path = f"{found.__module__}"
    known = [part for part in HEADINGS if path.startswith(part)]
    return HEADINGS[max(known, key=len)] if known else "Other parts"


def home(package: str, name: str) -> str:
    """The first package of PACKAGES that has the very same object under this name."""
    found = getattr(importlib.import_module(package), name)
    return next(p for p in PACKAGES if getattr(importlib.import_module(p), name, None) is found)


def groups(package: str) -> dict[str, list[str]]:
    """Public names of a package under their headings, in alphabetical order."""
    found: dict[str, list[str]] = {}
    for name in sorted(public_names(package), key=str.lower):
        found.setdefault(_heading(package, name), []).append(name)
    last = ("Other parts", "Names that are understood")
    return {key: found[key] for key in sorted(found, key=lambda k: (k in last, k))}


def _page(package: str, text: str) -> str:
    lines = [package, "=" * len(package), "", f"{text}.", "", f".. currentmodule:: {package}", ""]
    sections = groups(package)
    for heading, names in sections.items():
        if len(sections) > 1:
            lines += [heading, "-" * len(heading), ""]
        module = importlib.import_module(package)
        data = [n for n in names if not callable(getattr(module, n))]
        elsewhere = [n for n in names if n not in data and home(package, n) != package]
        documented = [n for n in names if n not in data and n not in elsewhere]
        if documented:
            lines += [".. autosummary::", "   :toctree: generated/", "", *(f"   {name}" for name in documented), ""]
        for name in elsewhere:
            lines += [f"* ``{name}``: :py:obj:`{home(package, name)}.{name}`", ""]
        for name in data:
            lines += [f".. py:data:: {name}", "", f"   {_values(getattr(module, name))}", ""]
    return "\n".join(lines)


def _values(values: object) -> str:
    if isinstance(values, (tuple, list, set, frozenset, dict)):
        return ", ".join(f"``{v!r}``" for v in values)
    return f"``{values!r}``"


def write(folder: Path) -> None:
    """Write a page a package and the page that lists them, where they have changed."""
    index = ["Reference", "=========", "", "Every public name, with shapes, units, errors and an example.", ""]
    index += [".. toctree::", "   :maxdepth: 1", "", *(f"   {package}" for package in PACKAGES), ""]
    index += [".. list-table::", "   :widths: 30 70", ""]
    for package, text in PACKAGES.items():
        index += [f"   * - :doc:`{package}`", f"     - {text}"]
    pages = {"index": "\n".join([*index, ""]), **{p: _page(p, text) for p, text in PACKAGES.items()}}
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages.items():
        path = folder / f"{name}.rst"
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
