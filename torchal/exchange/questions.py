"""A row that is asked for, with what is known of it, for files and pages that people read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torchal.errors import DataError


@dataclass(frozen=True)
class Question:
    """A row whose label is wanted.

    Attributes:
        id: what the row is called where it came from.
        rank: its place in the order of picks, from 1.
        score: how much it is wanted, higher is more; None where nobody scored it, as where rows were drawn at random.
        picked_by: the strategy that named it.
        nearest_id: the labeled row that lies nearest.
        nearest_label: that row's label.
        distance: how far that is, in the space of the features.
        represents: for how many rows of the pool it stands, itself among them.
        predicted: the label that the model would give it.
        probability: how sure the model is of that, from 0 to 1.
        text: what is to be read, where the row is a text.
        image: the file of the picture, where it is one.
        x, y: where it lies in a map of the pool.

    Example:
        >>> Question(id="a7", rank=1, score=0.25, picked_by="Margin").label is None
        True
    """

    id: str
    rank: int
    score: float | None
    picked_by: str
    nearest_id: str | None = None
    nearest_label: str | None = None
    distance: float | None = None
    represents: int | None = None
    predicted: str | None = None
    probability: float | None = None
    text: str | None = None
    image: str | None = None
    x: float | None = None
    y: float | None = None
    label: str | None = None
    """What a person answered; None until then."""


def check_questions(questions: Sequence[Question]) -> None:
    """Require questions that a file can hold and an answer can name: ids that differ, and are not changed by a table.

    Raises:
        DataError: there are none, an id is empty, twice there, or begins or ends with blanks, or a text has a NUL or
            half a surrogate pair, which no file of text holds.
    """
    if not questions:
        raise DataError("there are no questions to write")
    seen: dict[str, int] = {}
    for i, question in enumerate(questions):
        if not isinstance(question.id, str) or not question.id.strip():
            raise DataError(f"question {i} has no id: {question.id!r}")
        if question.id != question.id.strip():
            raise DataError(f"the id {question.id!r} begins or ends with blanks, which tables do not keep")
        if seen.setdefault(question.id, i) != i:
            raise DataError(f"questions {seen[question.id]} and {i} have the same id {question.id!r}")
        for name, value in vars(question).items():
            if isinstance(value, str) and not _is_writable(value):
                raise DataError(f"{name} of the question {question.id!r} holds what no file of text can")


def classes_of(classes: Sequence[str]) -> list[str]:
    """Return names of classes, which must be distinct and not empty.

    Raises:
        DataError: they are not, or there are none.
    """
    names = list(classes)
    if not names or any(not isinstance(name, str) or not name.strip() or not _is_writable(name) for name in names):
        raise DataError(f"classes must be names, at least one, got {names!r:.200}")
    if len(set(names)) < len(names):
        raise DataError(f"classes must be distinct, got {len(names) - len(set(names))} repeats of {len(names)}")
    return names


def images_of(questions: Sequence[Question]) -> list[str]:
    """Return the images of questions, each of which must have one, and another one.

    Raises:
        DataError: one has none, or that of another.
    """
    seen: dict[str, str] = {}
    for question in questions:
        if not question.image:
            raise DataError(f"the question {question.id!r} has no image")
        if seen.setdefault(question.image, question.id) != question.id:
            raise DataError(f"the questions {seen[question.image]!r} and {question.id!r} have the same image")
    return list(seen)


def _is_writable(text: str) -> bool:
    return "\0" not in text and not any("\ud800" <= letter <= "\udfff" for letter in text)
