"""Formulas as MathML, which browsers show by themselves: no script, no font, no network."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.errors import SphinxError
from sphinx.writers.html5 import HTML5Translator


def as_mathml(latex: str, *, display: bool) -> str:
    """Return a formula as a <math> element.

    Raises:
        SphinxError: the formula has a command that stands in the output as it is.
    """
    element: str = convert(latex, display="block" if display else "inline")
    if "\\" in element:
        raise SphinxError(f"a formula cannot be made MathML: {latex}")
    return element


def _visit_inline(translator: HTML5Translator, node: nodes.math) -> None:
    translator.body.append(as_mathml(node.astext(), display=False))
    raise nodes.SkipNode


def _visit_block(translator: HTML5Translator, node: nodes.math_block) -> None:
    translator.body.append(f'<div class="formula" tabindex="0">{as_mathml(node.astext(), display=True)}</div>\n')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    """Make `html_math_renderer = "mathml"` known."""
    app.add_html_math_renderer("mathml", (_visit_inline, None), (_visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
