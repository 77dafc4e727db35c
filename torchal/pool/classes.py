"""Labels as people have them: words, truth values, whole numbers, and nothing where nobody can tell."""

from __future__ import annotations

import difflib
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from torchal.errors import DataError, ShapeError
from torchal.protocols import UNLABELED

_SHOWN = 5  # labels that an error names
_READ = ("to_pylist", "tolist", "to_list")  # how the columns of Arrow, NumPy, torch, pandas and Polars become lists
_MISSING = ("NAType", "NaTType")  # pandas' words for nothing, whose equality is no truth value


@dataclass(frozen=True)
class Classes:
    """The classes of a pool, and what people call them.

    Attributes:
        names: class i is names[i]; None where the labels are the numbers 0 to n - 1 themselves.
        n: how many classes there are.
        grows: whether a label that was not seen before is a new class.

    Example:
        >>> classes = Classes(("ham", "spam"), 2)
        >>> codes, _ = classes.encode(["spam", None, "ham"], n=3)
        >>> codes, classes.decode(codes[[0, 2]])
        (tensor([ 1, -1,  0]), ['spam', 'ham'])
    """

    names: tuple[Any, ...] | None
    n: int
    grows: bool = False

    @classmethod
    def named(cls, names: Iterable[Any]) -> Classes:
        """Return classes of these names, in this order.

        Raises:
            DataError: fewer than two, one twice, or something that is no text, number or truth value.
        """
        listed = as_values("classes", names)
        if len(listed) < 2:
            raise DataError(f"classes must name at least 2, got {len(listed)}: {_shown(listed)}")
        for name in listed:
            _check_name(name)
        twice = [name for name, times in Counter(listed).items() if times > 1]
        if twice:
            raise DataError(f"classes must be distinct, {_shown(twice)} is there more than once")
        _check_kind(listed)
        return cls(tuple(listed), len(listed))

    @classmethod
    def learned(cls) -> Classes:
        """Return classes that are yet to be seen."""
        return cls((), 2, grows=True)

    def encode(self, labels: Any, *, n: int) -> tuple[Tensor, Classes]:
        """Return n labels as numbers of their classes, (n,) int64 on the CPU, and the classes, which may be more now.

        A label that is missing (None, NaN, pandas' NA) has the number -1.

        Raises:
            DataError: a label is none of the classes, or no whole number where classes have no names.
            ShapeError: there are not n labels, or each row has several.
        """
        if self.names is None and isinstance(labels, Tensor) and labels.ndim == 1 and not labels.is_floating_point():
            codes, classes = labels.to("cpu", torch.int64), self
            self._check_range(codes.aminmax() if len(codes) else ())
        else:
            values = as_values("labels", labels)
            classes = self._with(values) if self.grows else self
            codes = classes._codes(values)
        if len(codes) != n:
            raise ShapeError(f"there must be one label for each of {n} rows, got {len(codes)}")
        return codes, classes

    def decode(self, codes: Tensor) -> Any:
        """Return the names of classes (n,) as a list; the numbers as they are, where classes have no names."""
        return codes if self.names is None else [self.names[code] for code in codes.tolist()]

    def read(self, text: str) -> Any:
        """Return the label that a text of a file says: a class is what it is written as, a new one the text itself.

        Where classes have no names, a whole number is read; what is none stays text, for `encode` to refuse.
        """
        text = text.strip()
        if not text:
            return None
        for name in self.names or ():
            if str(name) == text:
                return name
        if self.names is None or (self.names and not isinstance(self.names[0], str)):
            for kind in (int, float):
                try:
                    number = kind(text)
                except ValueError:
                    continue
                return number if math.isfinite(number) else text  # "nan" is no blank
        return text

    def fingerprint(self) -> str:
        """Return what tells these classes from others; new ones do not make them others."""
        return "learned" if self.grows else f"{self.n}" if self.names is None else f"{self.n} {self.names!r}"

    def _with(self, values: list[Any]) -> Classes:
        """Return the classes with all that these labels are, in the order in which they come."""
        names = dict.fromkeys(self.names or ())
        for value in values:
            if value is not None:
                _check_name(value)
                names[value] = None
        _check_kind(list(names))
        return replace(self, names=tuple(names), n=max(2, len(names)))

    def _codes(self, values: list[Any]) -> Tensor:
        if self.names is None:
            numbers = [None if value is None else _whole(value, self.n) for value in values]
            told = [number for number in numbers if number is not None]
            self._check_range((min(told), max(told)) if told else ())
            return torch.tensor([UNLABELED if number is None else number for number in numbers], dtype=torch.int64)
        known = {name: number for number, name in enumerate(self.names)}
        unknown = Counter(value for value in values if value is not None and value not in known)
        if unknown:
            first = next(iter(unknown))
            close = difflib.get_close_matches(str(first), [str(name) for name in self.names], n=1)
            raise DataError(
                f"{sum(unknown.values())} of {len(values)} labels are none of the {len(self.names)} classes "
                f"({_shown(list(self.names))}): {_shown(list(unknown))}" + (f"; {close[0]!r}?" if close else "")
            )
        return torch.tensor([UNLABELED if v is None else known[v] for v in values], dtype=torch.int64)

    def _check_range(self, ends: Sequence[Any]) -> None:
        if ends and not 0 <= int(ends[0]) <= int(ends[1]) < self.n:
            raise DataError(f"labels must lie in [0, {self.n}), got {int(ends[0])} to {int(ends[1])}")


def as_values(name: str, labels: Any) -> list[Any]:
    """Return labels of any column (a list, a tensor, an array; of pandas, Polars or Arrow) as a list, None for a blank.

    Raises:
        ShapeError: they are no column: one text, a table, or rows of several numbers.
    """
    if isinstance(labels, str | bytes | Mapping | set | frozenset) or hasattr(labels, "columns"):
        raise ShapeError(f"{name} must be one for each row, got {type(labels).__name__}")
    shape: Any = getattr(labels, "shape", None)
    if shape is not None and len(shape) != 1:  # before a large array becomes a list of lists
        raise ShapeError(_of_several(name, tuple(shape)))
    read = next((getattr(labels, method) for method in _READ if hasattr(labels, method)), None)
    try:
        values = list(labels) if read is None else list(read())
    except TypeError as error:
        raise ShapeError(f"{name} must be one for each row, got {type(labels).__name__}") from error
    values = [value.item() if hasattr(value, "item") and not getattr(value, "ndim", 0) else value for value in values]
    for value in values:
        if isinstance(value, list | tuple) or getattr(value, "ndim", None):
            raise ShapeError(_of_several(name, (len(values), len(value))))
        if type(value).__hash__ is None:
            raise ShapeError(f"{name} must be text, numbers or truth values, got {type(value).__name__}")
    return [None if _is_missing(value) else value for value in values]


def _of_several(name: str, shape: tuple[int, ...]) -> str:
    return (
        f"{name} must be one for each row, got shape {shape}: labels.argmax(1) makes them of one-hot rows or "
        "probabilities, labels.ravel() of one column"
    )


def _is_missing(value: Any) -> bool:
    if value is None or type(value).__name__ in _MISSING:
        return True
    return isinstance(value, float) and math.isnan(value)


def _check_name(value: Any) -> None:
    # what is derived of these, as an Enum of text, no saved state holds
    if type(value) not in (str, int, float, bool) or (isinstance(value, float) and not math.isfinite(value)):
        raise DataError(f"a class must be text, a number or a truth value, got {type(value).__name__} {value!r}")


def _check_kind(names: list[Any]) -> None:
    if len({isinstance(name, str) for name in names}) > 1:
        raise DataError(f"labels must be all text or all numbers, got both: {_shown(names)}")


def _whole(value: Any, n: int) -> int:
    """Return a number of a class: whole, or a truth value, which are 0 and 1."""
    if isinstance(value, Integral) or (isinstance(value, float) and value.is_integer()):
        return int(value)
    raise DataError(
        f"labels must be whole numbers in [0, {n}), got {value!r}; for other labels name them, as "
        "Pool.unlabeled(inputs, classes=['ham', 'spam'])"
    )


def _shown(values: list[Any]) -> str:
    more = f" and {len(values) - _SHOWN} more" if len(values) > _SHOWN else ""
    return ", ".join(map(repr, values[:_SHOWN])) + more
