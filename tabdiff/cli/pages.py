"""Which page of the documentation an error of the command line points to.

The address of the documentation is that of ``[project.urls]`` in pyproject.toml, read from the installed package. While
there is none, pages are named by their place in the source tree.
"""

from __future__ import annotations

import argparse
from functools import cache

__all__ = ["COMMANDS", "PAGES", "page_address", "page_of"]

COMMANDS = "how-to/command-line"
# By subject: what an error can name for itself. All others point to the section of their command on COMMANDS.
PAGES = {
    "conditions": "how-to/conditions",
    "csv": f"{COMMANDS}#csv-files",
    "install": "install",
    "models": "how-to/persistence",
    "shards": "scale",
}


def page_of(args: argparse.Namespace | None) -> str:
    """Return the page of a command, or that of all."""
    command = getattr(args, "command", None)
    return COMMANDS if command is None else f"{COMMANDS}#{command}"


def page_address(page: str) -> str:
    """Return where a page can be read.

    Parameters
    ----------
    page : str
        Its path in the documentation without an ending, and the place on it behind a ``#``.
    """
    path, _, place = page.partition("#")
    base = _documentation()
    address = f"{base}/{path}.html" if base else f"docs/{path}.md"
    return address + (f"#{place}" if place else "")


@cache
def _documentation() -> str:
    """Address of the documentation in the metadata of the package, without a slash at its end; "" where it has none."""
    from importlib.metadata import PackageNotFoundError, metadata

    try:
        urls = metadata("tabdiff").get_all("Project-URL") or []
    except PackageNotFoundError:
        return ""
    found = dict(url.split(", ", 1) for url in urls)
    return str(found.get("Documentation", "")).rstrip("/")
