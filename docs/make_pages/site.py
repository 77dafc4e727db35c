"""A Sphinx extension: writes the pages that are made, and finds the page of any public name however it is called."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.nodes import make_refnode

from make_pages.api import write_api_pages
from make_pages.choosing import write_choosing
from make_pages.explanation_pictures import write_explanation_pictures
from make_pages.public_names import public_names
from make_pages.results import write_results_pages
from make_pages.strategies import write_strategy_pages


def _write_pages(app: Sphinx) -> None:
    docs = Path(app.srcdir)
    write_api_pages(docs)
    write_strategy_pages(docs)
    write_explanation_pictures(docs)
    write_results_pages(docs)
    write_choosing(docs)


def _ways_to_say_it() -> dict[str, str]:
    """Return for each way to call a public name the one that has a page."""
    ways: dict[str, str] = {}
    twice: set[str] = set()
    for public in public_names():
        for way in (public.name, *public.aliases, f"{getattr(public.value, '__module__', '')}.{public.name}"):
            if ways.setdefault(way, public.path) != public.path:
                twice.add(way)
    return {way: path for way, path in ways.items() if way not in twice}


def _find(app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.TextElement) -> nodes.Node | None:
    """Return a link for a name that Sphinx did not find: as it is imported elsewhere, or by its last part alone."""
    if node.get("refdomain") != "py":
        return None
    ways: dict[str, str] = app.config.torchal_ways
    first, *more = _split(str(node["reftarget"]), ways)
    if not first:
        return None
    name = ".".join([first, *more])
    found = env.domains.python_domain.objects.get(name)
    if found is None:
        return None
    return make_refnode(app.builder, node["refdoc"], found.docname, found.node_id, content, name)


def _split(target: str, ways: dict[str, str]) -> list[str]:
    """Return the page's name and what stands behind it, as a method; an empty one if there is none."""
    parts = target.split(".")
    for end in range(len(parts), 0, -1):
        path = ways.get(".".join(parts[:end]))
        if path is not None:
            return [path, *parts[end:]]
    return [""]


_BACK = re.compile(r'(href="[^"]*api/([\w.]+)\.html)#[\w.]+"')


_SIGNATURE = re.compile(r'<dl>\s*((?:<dd><em class="sig-param">.*?</dd>\s*)+)</dl>', re.DOTALL)


def _list_parameters(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:  # noqa: ARG001
    """Make long signatures of lines: Sphinx writes them as a list of definitions that define nothing."""

    def lines(match: re.Match[str]) -> str:
        return match[1].replace("<dd>", '<span class="sig-line">').replace("</dd>", "</span>")

    context["body"] = _SIGNATURE.sub(lines, context.get("body") or "")


def _lead_back(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:  # noqa: ARG001
    """Let source pages link to names as they are documented: Sphinx takes one module for all that a file has."""
    if not page.startswith("_modules/"):
        return

    def right(match: re.Match[str]) -> str:
        name = match[2].rpartition(".")[2]
        behind = match[0].rpartition("#")[2].rstrip('"').partition(f".{name}")[2]
        return f'{match[1]}#{match[2]}{behind}"'

    context["body"] = _BACK.sub(right, context["body"])
    if page == "_modules/index":  # lists that are right in lists, which is no HTML
        before, _, rest = context["body"].partition("<ul>")
        inside, _, behind = rest.rpartition("</ul>")
        context["body"] = f"{before}<ul>{inside.replace('<ul>', '').replace('</ul>', '')}</ul>{behind}"


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect."""
    app.add_config_value("torchal_ways", _ways_to_say_it(), "")
    app.connect("builder-inited", _write_pages, priority=100)
    app.connect("html-page-context", _lead_back)
    app.connect("html-page-context", _list_parameters)
    app.connect("missing-reference", _find)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
