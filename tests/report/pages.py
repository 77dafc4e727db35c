"""Pages to look at in tests: what is asked, as hostile as it gets, and how to read what was written."""

from functools import cache
from html.parser import HTMLParser

import numpy as np
from PIL import Image

from torchal.exchange import Question
from torchal.report import as_png, draw_map, write_page

HOSTILE = (
    "<script>window.hacked = 1</script><img src='https://example.com/x.png' onerror=\"window.hacked = 1\">]]>--><!--"
)
_VOID = {"meta", "link", "img", "input", "br", "hr"}


class Element:
    """An element of a page: its tag, attributes, and what is in it."""

    def __init__(self, tag, attributes, parent=None):
        self.tag, self.attributes, self.parent, self.children = tag, attributes, parent, []

    def all(self, tag=None, **attributes):
        """Return the elements inside of this tag, and with these attributes; `kind` is a class among others."""
        found = []
        for child in self.children:
            if isinstance(child, str):
                continue
            kind = attributes.get("kind")
            rest = {key: value for key, value in attributes.items() if key != "kind"}
            if (
                tag in (None, child.tag)
                and (kind is None or kind in (child.attributes.get("class") or "").split())
                and all(child.attributes.get(key) == value for key, value in rest.items())
            ):
                found.append(child)
            found.extend(child.all(tag, **attributes))
        return found

    def one(self, tag=None, **attributes):
        """Return the only such element."""
        (found,) = self.all(tag, **attributes)
        return found

    @property
    def text(self):
        """All text inside."""
        return "".join(child if isinstance(child, str) else child.text for child in self.children)


class _Reader(HTMLParser):
    def __init__(self):
        super().__init__()
        self.root = self.at = Element("", {})

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"{tag} has an attribute twice"
        element = Element(tag, dict(attrs), self.at)
        self.at.children.append(element)
        if tag not in _VOID:
            self.at = element

    def handle_startendtag(self, tag, attrs):
        assert tag in ("path", "rect"), f"<{tag}/> is no HTML"
        self.at.children.append(Element(tag, dict(attrs), self.at))

    def handle_endtag(self, tag):
        assert self.at.tag == tag, f"</{tag}> ends <{self.at.tag}>"
        self.at = self.at.parent

    def handle_data(self, data):
        self.at.children.append(data)

    def handle_comment(self, data):
        raise AssertionError(f"a comment: {data}")


def read_page(path):
    """Return a page as elements; every one must be closed where it should be."""
    reader = _Reader()
    reader.feed(path.read_bytes().decode("utf-8"))
    reader.close()
    assert reader.at is reader.root
    return reader.root


@cache
def small_maps():
    """Return a map in light and one in dark colours."""
    xy = np.random.default_rng(0).normal(size=(99, 2))
    return [as_png(draw_map(xy, asked=[1], theme=theme)) for theme in ("light", "dark")]


def write_rich_page(folder, *, n=30, hostile=False, **settings):
    """Write a page with all that it can have into a folder, and return its path and its questions."""
    bad = HOSTILE if hostile else ""
    questions = []
    for rank in range(1, n + 1):
        if rank <= settings.get("thumbnails", n):
            Image.new("L", (8, 8), 8 * rank % 256).save(folder / f"{rank}.png")
        questions.append(
            Question(
                id=f"row-{rank:03d}{bad}",
                rank=rank,
                score=1 / rank,
                picked_by=f"Margin{bad}",
                nearest_id=f"row-9{bad}",
                nearest_label=f"cat{bad}",
                distance=rank * 1.5,
                represents=rank,
                predicted=("cat", "dog", "owl")[rank % 3] + bad,
                probability=0.3 + 0.6 * rank / n,
                text=f"Text number {rank}. {bad}" + ("A long text. " * 50 if rank == 2 else ""),
                image=f"{rank}.png",
            )
        )
    maps = small_maps()
    given = {
        "title": f"Rows to label{bad}",
        "map_png": maps[0],
        "dark_map_png": maps[1],
        "classes": {f"cat{bad}": 3, "dog": 1, "a-very-long-name-of-a-class-without-a-blank-" * 3: 0},
        "predicted": {f"cat{bad}": 60, "dog": 39},
        "confidence": np.random.default_rng(0).uniform(0.4, 1, 99),
        "notes": [f"Why these rows. {bad}"],
        "command": f"torchal query --out 'a b' {bad} " + "--long-option value " * 12,
        "warnings": [f"Mind the gap. {bad}"],
        "folder": folder,
    }
    path = folder / "page.html"
    problems = write_page(path, questions=questions, **{**given, **settings})
    assert not problems or "thumbnails" in settings
    return path, questions
