"""Whether every link inside a built site leads to a page and a place that are there, and how large the site is.

python docs/check_links.py docs/_build/html
"""

import sys
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

MOST = 60 * 2**20  # bytes of a site


class Page(HTMLParser):
    """The links of a page, and the places that can be linked to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.places: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        self.links |= {found[key] for key in ("href", "src") if found.get(key)}
        self.places |= {found[key] for key in ("id", "name") if found.get(key)}


@cache
def read(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def broken(site: Path) -> list[str]:
    """Links of all pages of a site that lead nowhere."""
    faults = []
    for path in sorted(p for p in site.rglob("*.html") if "_static" not in p.parts):  # the theme's templates
        for link in sorted(read(path).links):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or link == "#":
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if target.is_dir():
                target /= "index.html"
            there = target.is_file()
            if there and parts.fragment and target.suffix == ".html":
                there = unquote(parts.fragment) in read(target).places
            if not there:
                faults.append(f"{path.relative_to(site)}: {link}")
    return faults


def main() -> int:
    site = Path(sys.argv[1]).resolve()
    faults = broken(site)
    size = sum(path.stat().st_size for path in site.rglob("*") if path.is_file() and ".doctrees" not in path.parts)
    print(f"{len(list(site.rglob('*.html')))} pages, {size / 2**20:.1f} MB, {len(faults)} broken links")
    print("\n".join(faults[:50]))
    return int(bool(faults) or size > MOST or not (site / "index.html").is_file())


if __name__ == "__main__":
    sys.exit(main())
