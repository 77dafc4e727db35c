"""The table of a page: a row for each question."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torchal.errors import DataError
from torchal.exchange.questions import Question
from torchal.report.markup import clean, escape, name, number, percent
from torchal.report.thumbnails import thumbnail

_SHORT = 240  # letters of a text that are read without a click,
_LONG = 4000  # and with one,
_OPENED = 1000  # in so many rows
_TINY = 64  # pixels; pictures with fewer are shown with square ones
_BRIEF = 24  # letters of an id that stays on one line
_CHOICES = 60  # predicted labels that a menu offers


@dataclass(frozen=True)
class Column:
    """A column: its title, what a cell of it holds, and by which value it is sorted, unless by what is read in it."""

    title: str
    cell: Callable[[Question], str | None]
    value: Callable[[Question], float | None] | None = None
    kind: str = ""


def _sure(probability: float) -> str:
    bar = f'<span class="track sure"><span class="bar guess" style="width:{100 * probability:.1f}%"></span></span>'
    return percent(probability) + bar


def _id(text: str) -> str:
    return f'<span class="brief">{name(text)}</span>' if len(text) <= _BRIEF else name(text)


def _nearest(question: Question) -> str | None:
    if question.nearest_label is None and question.nearest_id is None:
        return None
    label = "" if question.nearest_label is None else name(question.nearest_label)
    row = "" if question.nearest_id is None else f'<small class="name">{_id(question.nearest_id)}</small>'
    return f"{label} {row}"


_COLUMNS = (
    Column("Id", lambda q: _id(q.id), kind="name"),
    Column("Model&#x27;s guess", lambda q: None if q.predicted is None else name(q.predicted)),
    Column("Sure", lambda q: None if q.probability is None else _sure(q.probability), lambda q: q.probability),
    Column("Score", lambda q: None if q.score is None else number(q.score), lambda q: q.score),
    Column("Nearest label", _nearest),
    Column("Distance", lambda q: None if q.distance is None else number(q.distance), lambda q: q.distance),
    Column("Stands for", lambda q: None if q.represents is None else number(q.represents), lambda q: q.represents),
    Column("Picked by", lambda q: name(q.picked_by)),
    Column("Label", lambda q: None if q.label is None else name(q.label)),
)


class QuestionTable:
    """The questions as a table.

    Args:
        questions: in the order in which they are read.
        folder: what the names of their pictures are relative to.
        thumbnails: how many rows show their picture.

    Attributes:
        html: the table, with what filters it.
        problems: pictures that cannot be shown, and why.
    """

    def __init__(self, questions: Sequence[Question], *, folder: Path, thumbnails: int) -> None:
        self.problems: list[str] = []
        self._folder = folder
        self._pictures = any(question.image is not None for question in questions[:thumbnails])
        self._reading = any(question.text is not None for question in questions)
        one_strategy = len({question.picked_by for question in questions}) == 1
        columns = [
            column
            for column in _COLUMNS
            if not (column.title == "Picked by" and one_strategy) and any(column.cell(one) for one in questions)
        ]
        shows = self._reading or any(question.image is not None for question in questions)
        heads = ['<th scope="col" class="number">Rank</th>']
        heads += ['<th scope="col">What to label</th>'] if shows else []
        heads += [f'<th scope="col"{_kind(column)}>{column.title}</th>' for column in columns]
        rows = []
        for place, question in enumerate(questions):
            cells = [f'<th scope="row" class="number">{question.rank}</th>']
            if shows:
                cells.append(self._what(question, pictured=place < thumbnails, opened=place < _OPENED))
            cells += [_cell(column, question) for column in columns]
            guess = "" if question.predicted is None else f' data-guess="{escape(question.predicted)}"'
            rows.append(f"<tr{guess}>{''.join(cells)}</tr>")
        self.html = (
            f'{self._controls(questions)}<div class="box" role="region" aria-labelledby="questions-title" tabindex="0">'
            '<table class="sheet questions"><caption class="unseen">Rows to label, the most wanted first</caption>'
            f"<thead><tr>{''.join(heads)}</tr></thead><tbody>\n"
            + "\n".join(rows)
            + '\n</tbody></table></div>\n<button type="button" id="more" hidden></button>'
        )

    def _controls(self, questions: Sequence[Question]) -> str:
        parts = ['<label>Filter<input type="search" id="search" autocomplete="off"></label>']
        guesses = list(dict.fromkeys(clean(one.predicted) for one in questions if one.predicted is not None))
        if 1 < len(guesses) <= _CHOICES:
            options = "".join(f'<option value="{escape(one)}">{escape(one)}</option>' for one in sorted(guesses))
            parts.append(
                f'<label>Model&#x27;s guess<select id="guess"><option value="">all</option>{options}</select></label>'
            )
        if self._pictures:
            parts.append('<label>Size of pictures<input type="range" id="side" min="48" max="256" value="104"></label>')
        parts.append(f'<output id="count" aria-live="polite">{len(questions):,} rows</output>')
        return f'<div class="controls" id="controls" hidden>{"".join(parts)}</div>'

    def _what(self, question: Question, *, pictured: bool, opened: bool) -> str:
        parts = []
        if question.image is not None:
            parts.append(self._picture(question, question.image) if pictured else _file(question.image))
        if question.text is not None:
            parts.append(_text(question.text, opened=opened))
        reading = " reading" if self._reading else ""
        return f'<td class="what{reading}">{"".join(parts)}</td>'

    def _picture(self, question: Question, image: str) -> str:
        try:
            if "\0" in image:
                raise DataError("no file has such a name")
            small = thumbnail(self._folder / image)
        except DataError as error:
            self.problems.append(f"the picture of row {question.id}, {image}, cannot be shown: {error}")
            label = escape(f"picture of row {question.id}, which cannot be shown")
            return f'<span class="picture none" role="img" aria-label="{label}">no picture</span>{_file(image)}'
        tiny = " tiny" if max(small.width, small.height) <= _TINY else ""
        return (
            f'<img class="picture{tiny}" src="{small.uri}" width="{small.width}" height="{small.height}" '
            f'alt="{escape(f"picture of row {question.id}")}">'
        )


def _kind(column: Column) -> str:
    return ' class="number"' if column.value is not None else ""


def _cell(column: Column, question: Question) -> str:
    content = column.cell(question) or ""
    if column.value is None:
        return f"<td{f' class={chr(34)}{column.kind}{chr(34)}' if column.kind else ''}>{content}</td>"
    value = column.value(question)
    return f'<td class="number" data-v="{_sorted_by(value)}">{content}</td>'


def _sorted_by(value: float | None) -> str:
    """Return a number as JavaScript reads it; nothing for what is none, which is sorted to the end."""
    if value is None or value != value:  # noqa: PLR0124 - NaN
        return ""
    return {float("inf"): "Infinity", float("-inf"): "-Infinity"}.get(value, repr(value))


def _file(image: str) -> str:
    return f'<span class="file">{name(image)}</span>'


def _text(text: str, *, opened: bool) -> str:
    """Return a text; of a long one the beginning, and the rest where it is clicked on."""
    text = clean(text)
    if len(text) <= _SHORT:
        return f'<div class="text" dir="auto">{escape(text)}</div>'
    short = text[:_SHORT].rsplit(None, 1)[0] if " " in text[_SHORT // 2 : _SHORT] else text[:_SHORT]
    if not opened:
        rest = len(text) - len(short)
        return f'<div class="text" dir="auto">{escape(short)} … <small>and {rest:,} letters more</small></div>'
    cut = f"\n… and {len(text) - _LONG:,} letters more" if len(text) > _LONG else ""
    return (
        f'<details><summary><span class="text short" dir="auto">{escape(short)} … </span>'
        f'<span class="more">all {len(text):,} letters</span><span class="less">the whole text</span></summary>'
        f'<div class="text" dir="auto">{escape(text[:_LONG])}{cut}</div></details>'
    )
