"""Errors of the command line point to pages and places that are there."""

import re
from pathlib import Path

import pytest
from command_line import fails

from tabdiff.cli import pages
from tabdiff.cli.main import make_parser

DOCS = Path(__file__).parents[2] / "docs"


def _headings(page: Path) -> list[str]:
    return [h.lower().replace(" ", "-") for h in re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)]


def test_every_page_and_the_section_of_every_command_are_there():
    commands = next(a.choices for a in make_parser()._actions if a.dest == "command")
    places = [*pages.PAGES.values(), *(f"{pages.COMMANDS}#{name}" for name in commands)]
    for page in places:
        path, _, place = page.partition("#")
        assert (DOCS / f"{path}.md").is_file(), page
        assert not place or place in _headings(DOCS / f"{path}.md"), page


def test_errors_name_the_page_of_their_command_or_subject(tmp_path, capsys):
    fails(capsys, ["fit", tmp_path / "no.csv", "-o", tmp_path / "m"], 1, "(see ", "how-to/command-line.", "#fit)")
    fails(capsys, ["info", tmp_path / "no"], 1, "how-to/persistence.")
    fails(capsys, ["sample", "m", "-n", "0", "-o", "x.csv"], 2, "tabdiff sample --help", "#sample)")
    fails(capsys, ["nothing"], 2, "tabdiff --help", "how-to/command-line.")
    fails(capsys, ["sample", "m", "-n", "9", "--shard-size", "3"], 1, "shards go to", "scale.")


@pytest.mark.parametrize(
    ("urls", "expected"),
    [
        (
            ["Documentation, https://docs.example/tabdiff/"],
            "https://docs.example/tabdiff/how-to/conditions.html#guidance",
        ),
        (["Source, https://example.org"], "docs/how-to/conditions.md#guidance"),
        (None, "docs/how-to/conditions.md#guidance"),
    ],
)
def test_the_address_is_that_of_the_package(monkeypatch, urls, expected):
    class Metadata:
        def get_all(self, name):
            assert name == "Project-URL"
            return urls

    monkeypatch.setattr("importlib.metadata.metadata", lambda name: Metadata())
    pages._documentation.cache_clear()
    try:
        assert pages.page_address("how-to/conditions#guidance") == expected
    finally:
        monkeypatch.undo()
        pages._documentation.cache_clear()
