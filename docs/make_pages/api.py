"""Write the pages of the API, one for each public name and one for each module, from the docstrings."""

from __future__ import annotations

import inspect
from pathlib import Path

from make_pages.files import write_folder
from make_pages.public_names import EVERYWHERE, MODULES, PublicName, public_names


def write_api_pages(docs: Path) -> None:
    """Write docs/api: an index, a page for each module, a page for each name."""
    names = public_names()
    pages = {"index": _index()}
    for module in MODULES:
        pages[module] = _module_page(module, [name for name in names if name.module == module], names)
    for name in names:
        pages[name.path] = _name_page(name)
    write_folder(docs / "api", pages, suffix=".rst")


def first_line(value: object) -> str:
    """Return the first sentence of a docstring, as one line."""
    doc = inspect.getdoc(value) or ""
    return " ".join(doc.partition("\n\n")[0].split())


def _heading(text: str, line: str = "=") -> str:
    return f"{text}\n{line * len(text)}\n"


def _index() -> str:
    rows = [f"   * - :doc:`{module} <{module}>`\n     - {MODULES[module]}" for module in MODULES]
    words = "\n".join(f"``{word}``\n   {text}" for word, text in EVERYWHERE.items())
    toctree = "\n".join(f"   {module}" for module in MODULES)
    return (
        f"{_heading('API')}\n"
        "Every public name has a page, made from its docstring: shapes, units, errors, the paper, an example that is "
        "tested. ``torchal`` has what most programs need; ``torchal.functional`` is the math, tensors of any device, "
        "and knows no pool, model or config.\n\n"
        ".. list-table::\n   :widths: 30 70\n\n" + "\n".join(rows) + "\n\n"
        f"{_heading('Parameters that mean the same everywhere', '-')}\n{words}\n\n"
        f".. toctree::\n   :hidden:\n\n{toctree}\n"
    )


def _module_page(module: str, own: list[PublicName], names: list[PublicName]) -> str:
    text = (
        f"{_heading(module)}\n.. automodule:: {module}\n   :no-members:\n   :no-index:\n\n.. py:module:: {module}\n\n"
    )
    for kind, title in (("class", "Classes"), ("function", "Functions"), ("data", "Values")):
        some = [name for name in own if name.kind == kind]
        if some:
            rows = [f"   * - :doc:`{name.name} <{name.path}>`\n     - {_summary(name)}" for name in some]
            text += f"{_heading(title, '-')}\n.. list-table::\n   :widths: 32 68\n\n" + "\n".join(rows) + "\n\n"
    elsewhere = [name for name in names if any(alias.rpartition(".")[0] == module for alias in name.aliases)]
    if elsewhere:
        links = ", ".join(f":doc:`{name.name} <{name.path}>`" for name in elsewhere)
        text += f"{_heading('Also here', '-')}\n{links}\n\n"
    if own:
        text += ".. toctree::\n   :hidden:\n\n" + "".join(f"   {name.path}\n" for name in own)
    return text


def _summary(name: PublicName) -> str:
    return first_line(name.value).replace("|", "\\|") if name.kind != "data" else ""


def _name_page(name: PublicName) -> str:
    text = f"{_heading(name.name)}\n.. py:currentmodule:: {name.module}\n\n"
    directive = {"class": "autoclass", "function": "autofunction", "data": "autodata"}[name.kind]
    text += f".. {directive}:: {name.path}\n"
    if name.kind == "class":
        text += "   :members:\n" + (
            "" if _is_error(name.value) else "   :inherited-members: " + _outside(name.value) + "\n"
        )
    if name.aliases:
        text += f"\nAlso as {', '.join(f'``{alias}``' for alias in name.aliases)}.\n"
    return text


def _is_error(value: object) -> bool:
    return inspect.isclass(value) and issubclass(value, BaseException)


def _outside(value: type) -> str:
    """Return the bases from which methods are not told, since they are of other libraries."""
    outside = [base.__name__ for base in value.__mro__ if not base.__module__.startswith("torchal")]
    return ",".join(outside)
