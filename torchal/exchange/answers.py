"""Labels that people gave, as files bring them back: one type, and all that is wrong with a file at once."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from torchal.errors import DataError
from torchal.exchange.questions import Question

_PROBLEMS_LISTED = 100


@dataclass(frozen=True)
class Answers:
    """What people answered: entry i says that row `ids[i]` has the label `labels[i]`.

    Where several people answered the same question, each of them has an entry.

    Attributes:
        ids: what the rows are called.
        labels: their labels; None where there is none: not answered yet, or skipped.
        by: who answered, where the file says so; else None.
        skipped: whether the person said that the row cannot be labeled.

    Raises:
        DataError: the lists are of different lengths, or a row was skipped and has a label.

    Example:
        >>> Answers(["a", "b"], ["cat", None]).labels_of()
        {'a': 'cat'}
    """

    ids: list[str]
    labels: list[str | None]
    by: list[str | None] = field(default_factory=list)
    skipped: list[bool] = field(default_factory=list)

    def __post_init__(self) -> None:
        n = len(self.ids)
        if not self.by:
            object.__setattr__(self, "by", [None] * n)
        if not self.skipped:
            object.__setattr__(self, "skipped", [False] * n)
        lengths = [len(part) for part in (self.ids, self.labels, self.by, self.skipped)]
        if len(set(lengths)) > 1:
            raise DataError(f"ids, labels, by and skipped must be of one length, got {lengths}")
        both = [row for row, label, skip in zip(self.ids, self.labels, self.skipped, strict=True) if skip and label]
        if both:
            raise DataError(f"{len(both)} of {n} rows were skipped and have a label, the first is {both[0]!r}")

    def __len__(self) -> int:
        return len(self.ids)

    def labels_of(self) -> dict[str, str]:
        """Return the label of each row that has one.

        Raises:
            DataError: people gave a row different labels.
        """
        labels: dict[str, str] = {}
        different = set()
        for row, label in zip(self.ids, self.labels, strict=True):
            if label is not None and labels.setdefault(row, label) != label:
                different.add(row)
        if different:
            some = ", ".join(repr(row) for row in sorted(different)[:5])
            raise DataError(f"people gave {len(different)} of {len(labels)} rows different labels, as {some}")
        return labels


class Collector:
    """Takes the answers of a file one by one, and what is wrong with it.

    The same answer of the same person counts once, and one with a label more than one without.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found: dict[tuple[str, str | None], tuple[str | None, bool, str]] = {}
        self._problems: list[str] = []
        self.n_problems = 0
        """How much is wrong."""

    def problem(self, text: str) -> None:
        """Note something wrong."""
        self.n_problems += 1
        if self.n_problems <= _PROBLEMS_LISTED:
            self._problems.append(text)

    def add(self, row: object, label: object, *, where: str, by: str | None = None, skipped: bool = False) -> None:
        """Take an answer; `where` is what messages call its place, as "line 3"."""
        name, given = text_of(row), text_of(label)
        if name is None:
            self.problem(f"{where} has no id" + (f", and the label {given!r}" if given is not None else ""))
            return
        skipped = skipped and given is None
        before = self._found.get((name, by))
        if before is None or (before[0] is None and (given is not None or skipped)):
            self._found[name, by] = given, skipped, where
        elif given is not None and given != before[0]:
            who = "" if by is None else f" by {by}"
            self.problem(f"the id {name!r} has the label {before[0]!r}{who} in {before[2]}, and {given!r} in {where}")

    def answers(self) -> Answers:
        """Return all of them.

        Raises:
            DataError: something was wrong; all of it is said.
        """
        if self.n_problems:
            more = self.n_problems - len(self._problems)
            listed = "".join(f"\n- {problem}" for problem in self._problems)
            tail = f"\n- and {more} more" if more else ""
            raise DataError(f"{self._path} cannot be read, {self.n_problems} problems:{listed}{tail}")
        # An entry without a label says nothing where there is one with: tools list each row, answered or not.
        answered = {row for (row, _), (label, skipped, _) in self._found.items() if label is not None or skipped}
        kept = [
            (row, by, label, skipped)
            for (row, by), (label, skipped, _) in self._found.items()
            if label is not None or skipped or row not in answered
        ]
        rows, by, labels, skipped = (list(part) for part in zip(*kept, strict=True)) if kept else ([], [], [], [])
        return Answers(rows, labels, by, skipped)


def text_of(value: object) -> str | None:
    """Return an id or a label as text without blanks around it; None where nothing is left.

    Example:
        >>> text_of(" a "), text_of(3), text_of(3.0), text_of(float("nan")), text_of("  ")
        ('a', '3', '3', None, None)
    """
    if isinstance(value, float):  # a column of whole numbers with a gap is one of floats
        if math.isnan(value):
            return None
        value = int(value) if value.is_integer() else value
    return None if value is None else str(value).strip() or None


class ImageNames:
    """Tells the id of a row by its image, where a tool knows the file alone.

    Tools keep the path that they were given, or its end. Without questions, the name of the file is the id.
    """

    def __init__(self, questions: Iterable[Question] | None) -> None:
        self._all = questions is None
        self._exact: dict[str, set[str]] = {}
        self._ends: dict[str, set[str]] = {}
        for question in questions or ():
            if question.image:
                self._exact.setdefault(question.image, set()).add(question.id)
                parts = Path(question.image).parts
                for i in range(len(parts)):
                    self._ends.setdefault("/".join(parts[i:]), set()).add(question.id)

    def id_of(self, name: str, *, where: str, found: Collector) -> str | None:
        """Return the id of an image's row; None, and a problem noted, where there is none or several."""
        if self._all:
            return name
        ids = self._exact.get(name) or self._ends.get(name) or set()
        if len(ids) == 1:
            return next(iter(ids))
        told = "no question has this image" if not ids else f"{len(ids)} questions have such an image"
        found.problem(f"{where} names {name!r}: {told}")
        return None
