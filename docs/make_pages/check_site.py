"""Check a built site: every link inside it leads somewhere, nothing is fetched from elsewhere, no page is heavy.

python -m make_pages.check_site FOLDER
"""

from __future__ import annotations

import gzip
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

MOST_BYTES = 500_000
_OUTSIDE = ("http", "https", "mailto", "data", "javascript")
_LOADED = {
    ("link", "href"),
    ("script", "src"),
    ("img", "src"),
    ("source", "src"),
    ("iframe", "src"),
    ("object", "data"),
}
_PASSIVE = ("canonical", "next", "prev", "search", "index", "author", "copyright", "alternate")
_FONT = re.compile(r"url\(([^)]+fa-solid[^)]+\.woff2)[^)]*\)")  # of the theme's three, the one that its icons are of
_PACKED = (".html", ".css", ".js", ".svg", ".json", ".txt")


class Page(HTMLParser):
    """What a page links to, what it loads and which places in it have a name."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.names: set[str] = set()
        self.without_alt: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take notice of a tag."""
        given = {name: value or "" for name, value in attrs}
        self.names |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        if tag == "img" and "alt" not in given:
            self.without_alt.append(given.get("src", ""))
        passive = tag == "link" and any(word in given.get("rel", "").split() for word in _PASSIVE)
        self.loads += [value for name, value in given.items() if (tag, name) in _LOADED and value and not passive]


def check(site: Path) -> tuple[list[str], list[tuple[int, str]]]:
    """Return what is wrong in a site, and what each page weighs as a server sends it, with all that it loads."""
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in _pages_of(site)}
    problems: list[str] = []
    weights: list[tuple[int, str]] = []
    sizes: dict[Path, int] = {}
    for path, page in pages.items():
        name = str(path.relative_to(site))
        problems += [f"{name}: {_wrong(link, path, pages)}" for link in page.links if _wrong(link, path, pages)]
        problems += [f"{name}: an image without alt: {image}" for image in page.without_alt]
        outside = [what for what in page.loads if urlsplit(what).scheme in ("http", "https") or what.startswith("//")]
        problems += [f"{name}: loads {what}" for what in outside]
        loaded = {_file(what, path) for what in page.loads if what not in outside and not what.startswith("data:")}
        problems += [f"{name}: loads {what}, which is not there" for what in loaded if not what.is_file()]
        loaded = {path, *(what for what in loaded if what.is_file())}
        weights.append((sum(_sent(what, sizes) for what in loaded), name))
    problems += [f"{name}: {weight} bytes, more than {MOST_BYTES}" for weight, name in weights if weight > MOST_BYTES]
    return problems, sorted(weights, reverse=True)


def _pages_of(site: Path) -> list[Path]:
    return [path for path in sorted(site.rglob("*.html")) if "_static" not in path.relative_to(site).parts]


def _wrong(link: str, page: Path, pages: dict[Path, Page]) -> str:
    """Return what is wrong with a link, or nothing."""
    parts = urlsplit(link)
    if parts.scheme in _OUTSIDE:
        return ""
    target = _file(link, page) if parts.path else page
    target = target / "index.html" if target.is_dir() else target
    if not target.is_file():
        return f"links to {link}, which is not there"
    anchor = unquote(parts.fragment)
    if anchor and target in pages and anchor not in pages[target].names:
        return f"links to {link}, and that page has no such place"
    return ""


def _file(link: str, page: Path) -> Path:
    return (page.parent / unquote(urlsplit(link).path)).resolve()


def _sent(path: Path, sizes: dict[Path, int]) -> int:
    """Return the bytes of a file as servers send it: texts packed, and with a style sheet its fonts."""
    if path not in sizes:
        data = path.read_bytes()
        sizes[path] = len(gzip.compress(data)) if path.suffix in _PACKED else len(data)
        if path.suffix == ".css":
            fonts = {(path.parent / font.strip("'\"")).resolve() for font in _FONT.findall(data.decode())}
            sizes[path] += sum(font.stat().st_size for font in fonts if font.is_file())
    return sizes[path]


def main(folder: str) -> int:
    """Print what is wrong; the heaviest page if nothing is."""
    problems, weights = check(Path(folder).resolve())
    for problem in problems:
        print(problem, file=sys.stderr)
    heaviest, name = weights[0]
    print(f"{len(weights)} pages, {len(problems)} problems; the heaviest is {name} with {heaviest / 1000:.0f} kB")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
