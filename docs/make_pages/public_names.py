"""Which names of torchal are public, and under which of their names each is documented."""

from __future__ import annotations

import ast
import importlib
import inspect
import itertools
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

MODULES = {
    "torchal": "What most programs need",
    "torchal.functional": "The math of selection: tensors in, tensors out",
    "torchal.samplers": "Query strategies",
    "torchal.models": "Models",
    "torchal.data": "Data sets",
    "torchal.pool": "The pool and what samplers see of it",
    "torchal.runs": "The loop, run folders, logs",
    "torchal.runs.metrics": "Metrics of a round",
    "torchal.runs.results": "What a run wrote, read back",
    "torchal.embedding": "Features of a network, in memory, files and shards",
    "torchal.distributed": "Rows on many ranks",
    "torchal.exchange": "Files of labeling tools",
    "torchal.report": "Maps and pages for whoever labels",
    "torchal.statistics": "Curves, intervals, tests, diagnostics",
    "torchal.study": "Reports of many runs",
    "torchal.protocols": "What a model can do",
    "torchal.errors": "Errors",
}
"""The modules that people import from, in the order of their pages."""


@dataclass(frozen=True)
class PublicName:
    """A name that people import.

    Attributes:
        path: under which it is documented, as torchal.functional.margin.
        value: what it is.
        kind: class, function or data.
        aliases: under which other public modules have it too.
    """

    path: str
    value: Any
    kind: str
    aliases: tuple[str, ...]

    @property
    def module(self) -> str:
        """The module whose page lists it."""
        return self.path.rpartition(".")[0]

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.path.rpartition(".")[2]


def public_names() -> list[PublicName]:
    """Return every public name once: under torchal where it is there, else in the first module that has it."""
    first: dict[Any, str] = {}
    aliases: dict[str, list[str]] = {}
    found: dict[str, Any] = {}
    for module_name in MODULES:
        module = importlib.import_module(module_name)
        for name in names_in(module):
            value = getattr(module, name)
            if isinstance(value, ModuleType):
                continue
            key = id(value) if callable(value) else f"{module_name}.{name}"
            path = first.setdefault(key, f"{module_name}.{name}")
            found[path] = value
            if path != f"{module_name}.{name}":
                aliases.setdefault(path, []).append(f"{module_name}.{name}")
    return [
        PublicName(path, value, _kind(value), tuple(aliases.get(path, ())))
        for path, value in sorted(found.items(), key=lambda item: _order(item[0]))
    ]


def names_in(module: ModuleType) -> Iterator[str]:
    """Yield what a module offers: `__all__`, else what it imports by `import x as x`, defines, and documents."""
    if hasattr(module, "__all__"):
        yield from module.__all__
        return
    body = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8")).body
    nested = [statement.body for statement in body if isinstance(statement, ast.If)]  # if TYPE_CHECKING
    statements = [*body, *(inner for each in nested for inner in each)]
    following = [*statements[1:], None]
    for statement, after in zip(statements, following, strict=True):
        names: list[str] = []
        if isinstance(statement, ast.ImportFrom):
            names = [alias.name for alias in statement.names if alias.asname == alias.name]
        elif isinstance(statement, ast.FunctionDef | ast.ClassDef):
            names = [statement.name]
        elif isinstance(statement, ast.Assign | ast.AnnAssign) and _is_text(after):
            target = statement.targets[0] if isinstance(statement, ast.Assign) else statement.target
            names = [target.id] if isinstance(target, ast.Name) else []
        yield from (name for name in names if not name.startswith("_"))


def _is_text(statement: ast.stmt | None) -> bool:
    """Tell whether a statement is the text that documents the one before it."""
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _kind(value: Any) -> str:
    if inspect.isclass(value):
        return "class"
    return "function" if inspect.isfunction(value) else "data"


def _order(path: str) -> tuple[int, str]:
    return list(MODULES).index(path.rpartition(".")[0]), path.lower()


EVERYWHERE = {
    "X": "inputs of a model, (n, ...)",
    "y": "labels, (n,) whole numbers from 0",
    "x": "a batch of inputs of a network, (n, ...)",
    "view": "what a sampler may see of the pool in one round, a `torchal.PoolView`",
    "generator": "the torch.Generator that all randomness comes from; the same state gives the same answer",
    "n_rows": "how many rows there are",
    "n_classes": "how many classes there are",
    "path": "of a file",
    "outcome": "labels, predictions and log-probabilities of one part, a `torchal.runs.metrics.Outcome`",
}
"""Parameters that mean the same wherever they occur; docstrings need not say so again."""


def undocumented(public: PublicName, bases: tuple[type, ...]) -> list[str]:
    """Return the parameters, and the methods' parameters, that no docstring speaks of: `name` or `method(name)`.

    Args:
        public: a name.
        bases: the public classes. What a method overrides of them is documented there.
    """
    if public.kind == "data" or (public.kind == "class" and issubclass(public.value, BaseException)):
        return []
    if public.kind == "function":
        return _unsaid(public.value)
    found = _unsaid(public.value) if _makes_itself(public.value) else []
    others = [base for base in public.value.__mro__[1:] if base in bases or not base.__module__.startswith("torchal")]
    for name, member in inspect.getmembers(public.value, inspect.isroutine):
        told_there = any(hasattr(base, name) for base in others)
        is_setting = name in getattr(public.value, "__dataclass_fields__", ())  # whose default is a function
        if name.startswith("_") or told_there or is_setting:
            continue
        if str(getattr(member, "__module__", "")).startswith("torchal"):
            found += [f"{name}({parameter})" for parameter in _unsaid(member)]
    return found


def _makes_itself(value: type) -> bool:
    """Tell whether people call a class: it is no protocol, and no base class."""
    return not inspect.isabstract(value) and not getattr(value, "_is_protocol", False)


def _unsaid(called: Any) -> list[str]:
    try:
        parameters = inspect.signature(called).parameters
    except (TypeError, ValueError):
        return []
    said = set(re.findall(r"[A-Za-z_]\w*", inspect.getdoc(called) or "")) | {"self", "cls"} | EVERYWHERE.keys()
    said |= _fields_with_text(called) if inspect.isclass(called) else set()
    return [name for name in parameters if not name.startswith("_") and name not in said]


def _fields_with_text(value: type) -> set[str]:
    """Return the fields of a class, and of those it comes from, behind which a text says what they are."""
    found: set[str] = set()
    for each in value.__mro__:
        if each.__module__.startswith("torchal"):
            body = ast.parse(textwrap.dedent(inspect.getsource(each))).body[0].body  # type: ignore[attr-defined]
            found |= {
                statement.target.id
                for statement, after in itertools.pairwise(body)
                if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and _is_text(after)
            }
    return found
