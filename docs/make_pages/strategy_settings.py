"""The settings of a strategy as a table, and what of the library it is made of: read from the code."""

from __future__ import annotations

import ast
import inspect
import re
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import torchal
from torchal import functional
from torchal.samplers import Sampler

_NO_KERNEL = {"top_n", "Selection"}  # that all share


class Setting(NamedTuple):
    """A setting as the table shows it."""

    name: str
    default: str
    meaning: str


def settings_of(sampler: Sampler) -> list[Setting]:
    """Return the settings of a sampler, with the values that it has.

    Example:
        >>> from torchal.samplers import from_name
        >>> [(setting.name, setting.default) for setting in settings_of(from_name("badge"))]
        [('first', "'largest'"), ('bias', 'False')]
    """
    return [
        Setting(field.name, _shown(sampler, field.name), _meaning(type(sampler), field.name))
        for field in fields(sampler)  # type: ignore[arg-type]
        if field.init
    ]


def _shown(sampler: Sampler, name: str) -> str:
    """Return a value as Python writes it; a function by its name."""
    value = getattr(sampler, name)
    return value.__name__ if inspect.isfunction(value) else repr(value)


def _meaning(kind: type, name: str) -> str:
    """Return what a docstring says of a setting; where it points at another class, what that says."""
    for cls in kind.__mro__:
        said = arguments(cls.__doc__ or "").get(name)
        if said is not None and not re.fullmatch(r"(as in|see) `\w+`\.?", said):
            return said
    return ""


def arguments(docstring: str) -> dict[str, str]:
    """Return the arguments that a docstring in Google's form describes.

    Example:
        >>> arguments("Pick.\\n\\nArgs:\\n    k, n: numbers,\\n        of rows.\\n\\nRaises:\\n    None")
        {'k': 'numbers, of rows.', 'n': 'numbers, of rows.'}
    """
    block = section(docstring, "Args")
    found: dict[str, str] = {}
    for entry in re.split(r"\n(?=\S)", block):
        names, colon, text = entry.partition(":")
        if colon and re.fullmatch(r"\w+(, \w+)*", names):
            found |= dict.fromkeys(names.split(", "), " ".join(text.split()))
    return found


def section(docstring: str, heading: str) -> str:
    """Return what stands under a heading of a docstring, without its indentation; empty where there is none."""
    match = re.search(rf"^{heading}:\n((?:    .*\n|\n)*)", inspect.cleandoc(docstring) + "\n", flags=re.MULTILINE)
    return inspect.cleandoc("\n" + match[1]) if match else ""


def summary(docstring: str) -> str:
    """Return the first sentence of a docstring, on one line."""
    return " ".join(inspect.cleandoc(docstring).split("\n\n")[0].split())


def prose(docstring: str) -> str:
    """Return the paragraphs of a docstring before its sections."""
    return re.split(r"\n\n(?=[A-Z]\w+:\n)", inspect.cleandoc(docstring))[0]


def source_of(sampler: Sampler) -> str:
    """Return the file of a sampler's class, from the root of the repository.

    Example:
        >>> from torchal.samplers import from_name
        >>> source_of(from_name("margin"))
        'torchal/samplers/margin.py'
    """
    root = Path(torchal.__file__).parents[1]
    file = Path(inspect.getfile(type(sampler)))
    return file.relative_to(root).as_posix() if file.is_relative_to(root) else file.name


def kernels_of(sampler: Sampler) -> list[str]:
    """Return the public functions of `torchal.functional` that a sampler's class binds, its namesake first.

    Example:
        >>> from torchal.samplers import from_name
        >>> kernels_of(from_name("k_center"))[0]
        'k_center_greedy'
    """
    module = sys.modules[type(sampler).__module__]
    stem = Path(module.__file__ or "").stem
    used = _taken_from_functional(ast.parse(inspect.getsource(module)))
    files = {getattr(getattr(functional, name, None), "__module__", None) for name in used}  # of classes too
    public = {name for name in dir(functional) if inspect.isfunction(getattr(functional, name))} - _NO_KERNEL
    namesakes = {name for name in public if name.startswith(stem) and getattr(functional, name).__module__ in files}
    found = (used & public) | namesakes | ({stem} & public)
    return sorted(found, key=lambda name: (name != stem, not name.startswith(stem), name))


def _taken_from_functional(tree: ast.Module) -> set[str]:
    """Return the names that a module imports from `torchal.functional`, or looks up there."""
    imports = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and "functional" in node.module
    ]
    taken = {alias.name for node in imports for alias in node.names}
    modules = {"functional", *taken}  # functional.entropy, or density.graph_density after an import of density
    looked_up = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules
    }
    return taken | looked_up


def references_of(sampler: Sampler, kernels: list[str]) -> list[str]:
    """Return what the class, and the kernel that has its name, say of the papers and of where they differ."""
    said: list[Any] = [type(sampler).__doc__, *(getattr(functional, name).__doc__ for name in kernels[:1])]
    texts = [section(docstring or "", "Reference") for docstring in said]
    own_words = (re.sub(r"^See [`\w., ]*?`\.\s*", "", " ".join(text.split())) for text in texts)
    return [text for text in own_words if text]
