"""Docstrings of torchal as Sphinx reads them: plain English, in which nothing but backticks is markup."""

from __future__ import annotations

import re
from typing import Any

from sphinx.application import Sphinx

_MARKUP = re.compile(r"[\\*|]|(?<=\w)_(?!\w)")
_SECTION = re.compile(r"^( *)([A-Z][a-z]+):$")
_ENTRY = re.compile(r"^[A-Za-z_][\w, .*]*: ")
_GLUED = re.compile(r"`[^`\s][^`]*`(?=\w)")  # `Module`s, which would not end for reStructuredText
_AS_IT_IS = ("Example", "Examples")


def as_plain_text(lines: list[str]) -> list[str]:
    """Return a docstring whose stars, bars and trailing underscores are what they look like.

    Text in backticks and examples stays as it is. A `Returns` of several entries becomes a list of them.
    """
    named = _name_returned(lines)
    found: list[str] = []
    in_example, ticks = False, False
    for line in named:
        section = _SECTION.match(line)
        if section is not None:
            in_example, ticks = section[2] in _AS_IT_IS, False
        if in_example:
            found.append(line)
            continue
        parts = line.split("`")
        for place in range(len(parts)):
            if not ticks ^ bool(place % 2):
                parts[place] = _MARKUP.sub(lambda match: "\\" + match[0], parts[place])
        ticks ^= not len(parts) % 2
        found.append(_GLUED.sub(r"\g<0>\\ ", "`".join(parts)))
    return found


def _name_returned(lines: list[str]) -> list[str]:
    """Rename sections `Returns` that are lists of entries."""
    found = list(lines)
    for place, line in enumerate(lines):
        section = _SECTION.match(line)
        if section is None or section[2] != "Returns":
            continue
        indent = len(section[1]) + 4
        body = []
        for after in lines[place + 1 :]:
            if after.strip() and len(after) - len(after.lstrip()) < indent:
                break
            body.append(after[indent:])
        entries = [text for text in body if text and not text.startswith(" ")]
        if len(entries) > 1 and all(_ENTRY.match(text) for text in entries):
            found[place] = f"{section[1]}Returned:"
    return found


def _process(app: Sphinx, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:  # noqa: ARG001, PLR0917
    if name.startswith("torchal"):
        lines[:] = as_plain_text(lines)


def _skip(app: Sphinx, what: str, name: str, value: Any, skip: bool, options: Any) -> bool | None:  # noqa: ARG001, PLR0917
    """Leave out what other libraries put into our classes."""
    module = getattr(getattr(value, "fget", value), "__module__", None)
    ours = module is None or not isinstance(module, str) or module.startswith("torchal")
    return None if ours else True


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect."""
    app.connect("autodoc-process-docstring", _process, priority=100)  # before napoleon
    app.connect("autodoc-skip-member", _skip)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
