"""A page for the person who labels: which rows are asked for, and why these."""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from torchal._checks import check_whole
from torchal._records import write_atomically
from torchal.errors import ConfigError, DataError, ShapeError
from torchal.exchange.questions import Question
from torchal.report.figures import class_table, confidence_figure
from torchal.report.markup import escape, name, percent, plural
from torchal.report.shell import begin
from torchal.report.shell import warnings as warned
from torchal.report.style import CSS, SCRIPT
from torchal.report.table import QuestionTable

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_HEAD = 33  # bytes before the pixels
_BESIDE = 12  # classes whose bars have room beside the map
_PROBLEMS = 20  # pictures that the page itself says cannot be shown


def write_page(
    path: str | PathLike[str],
    *,
    title: str,
    questions: Sequence[Question],
    map_png: bytes | None = None,
    dark_map_png: bytes | None = None,
    classes: Mapping[str, float] | None = None,
    predicted: Mapping[str, float] | None = None,
    confidence: Tensor | NDArray[Any] | Sequence[float] | None = None,
    notes: Sequence[str] = (),
    command: str | None = None,
    warnings: Sequence[str] = (),
    folder: str | PathLike[str] = ".",
    thumbnails: int = 200,
) -> list[str]:
    """Write the rows that are asked for, with all that helps to label them, as one HTML file.

    The file needs no other and no network: pictures are inside it, and browsers are told to fetch nothing. Texts, ids
    and names are shown as text, whatever is in them. It has light and dark colours, goes down to the width of a
    telephone, and can be printed. Its table is sorted and filtered by a script inside; without scripts it is a plain
    table. The same input makes the same bytes.

    A question takes about 0.6 kB besides its text, a picture 10 to 20 kB, or 2 kB where it has few pixels: 10 000
    questions and 200 photographs make 10 MB, which a browser opens in one or two seconds. It shows 300 rows, and more
    when asked; all are sorted, filtered and printed. Of texts of more than 240 letters the first 1 000 rows hold 4 000
    letters, to be read by a click, and the others 240.

    Args:
        path: the file to write; folders on the way are made.
        title: what stands above.
        questions: the rows that are asked for; they are shown by rank.
        map_png: a map of the pool, as `as_png(draw_map(...))` makes it.
        dark_map_png: the same in dark colours, for readers who prefer these.
        classes: how many rows of each class are labeled so far, by name in the order to be shown.
        predicted: how many rows of the pool the model predicts to be of each class.
        confidence: the model's largest probability for each row of the pool, as many as there are.
        notes: what was chosen, and why, a paragraph each.
        command: the command line that wrote the page.
        warnings: what the reader should know first.
        folder: what the names of pictures are relative to.
        thumbnails: how many rows show their picture, at most 256 pixels a side; the rest name the file.

    Shapes:
        confidence: (N,) from 0 to 1.

    Returns:
        The pictures that could not be shown, and why, a sentence each; the page says it too.

    Raises:
        DataError: there is no question; a rank, a probability or a count is impossible; a map is no PNG.
        ConfigError: thumbnails is no whole number of at least 0; notes or warnings are one text.
        ShapeError: confidence is not (N,) numbers.
        OSError: the file cannot be written.

    Example:
        >>> import tempfile
        >>> asked = [Question(id="a7", rank=1, score=0.25, picked_by="Margin", text="Is this spam?")]
        >>> with tempfile.TemporaryDirectory() as there:
        ...     problems = write_page(f"{there}/page.html", title="To label", questions=asked)
        ...     print(problems, "Is this spam?" in Path(there, "page.html").read_text())
        [] True
    """
    ordered = _checked_questions(questions)
    check_whole("thumbnails", thumbnails, least=0)
    for setting, texts in (("notes", notes), ("warnings", warnings)):
        if isinstance(texts, str):
            raise ConfigError(f"{setting} must be a list of texts, got one text, {texts[:40]!r}")
    for setting, counts in (("classes", classes), ("predicted", predicted)):
        _check_counts(setting, counts)
    sure = None if confidence is None else _checked_confidence(confidence)
    picture = _map(map_png, dark_map_png)  # refused before the pictures are read, which takes a while
    balance, few = _classes(classes, predicted), len({**(classes or {}), **(predicted or {})}) <= _BESIDE
    table = QuestionTable(ordered, folder=Path(folder), thumbnails=thumbnails)
    parts = [
        _head(title, ordered),
        "<main>",
        _warnings([*warnings, *table.problems[:_PROBLEMS]], len(table.problems) - _PROBLEMS),
        _tiles(ordered, classes, predicted, sure),
        _columns(picture, balance if few else "", _sureness(sure, ordered)),
        "" if few else balance,
        f'<section class="card" id="questions"><h2 id="questions-title">Rows to label</h2>{table.html}</section>',
        _notes(notes, command),
        f"</main><footer><p>{plural(len(ordered), 'row')} to label, written by torchal. "
        "This page is whole in itself and fetches nothing.</p></footer>",
        "</body></html>\n",
    ]
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target, "\n".join(part for part in parts if part).encode("utf-8"))
    return table.problems


def _checked_questions(questions: Sequence[Question]) -> list[Question]:
    """Return the questions by rank."""
    if not questions:
        raise DataError("a page needs at least one question, got none")
    for question in questions:
        if isinstance(question.rank, bool) or question.rank != int(question.rank) or question.rank < 1:
            raise DataError(f"ranks must be whole numbers from 1, got {question.rank!r} for row {question.id}")
        if question.probability is not None and not 0 <= question.probability <= 1:
            raise DataError(f"probabilities must be from 0 to 1, got {question.probability!r} for row {question.id}")
    return sorted(questions, key=lambda question: question.rank)


def _check_counts(setting: str, counts: Mapping[str, float] | None) -> None:
    for one, count in (counts or {}).items():
        if not 0 <= count < float("inf"):
            raise DataError(f"{setting} must be counts of at least 0, got {count!r} for {one!r}")


def _checked_confidence(confidence: Tensor | NDArray[Any] | Sequence[float]) -> NDArray[Any]:
    values = confidence.detach().float().cpu().numpy() if isinstance(confidence, Tensor) else np.asarray(confidence)
    if values.ndim != 1 or values.dtype.kind not in "fiu" or not len(values):
        raise ShapeError(f"confidence must be (N,) numbers, got {values.dtype} of shape {values.shape}")
    bad = ~((values >= 0) & (values <= 1 + 1e-3))  # rounding may lead a sum past 1; also true of NaN
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise DataError(
            f"confidence must be from 0 to 1: {int(bad.sum())} of {len(values)} are not, "
            f"the first is {values[row]:g}, row {row}"
        )
    clipped: NDArray[Any] = np.clip(values, 0, 1)
    return clipped


def _map(light: bytes | None, dark: bytes | None) -> str:
    """Return the map, or nothing where there is none."""
    if light is None:
        if dark is not None:
            raise ConfigError("dark_map_png is for readers who prefer dark colours: map_png is needed too")
        return ""
    alt = "Map of the pool: a point for each row; the rows to label are rings, the first of them with their rank."
    images = []
    for setting, content, look in (("map_png", light, "day"), ("dark_map_png", dark, "night")):
        if content is None:
            continue
        if not content.startswith(_PNG) or len(content) < _PNG_HEAD:
            raise DataError(f"{setting} must be a PNG file, got {len(content)} bytes that begin with {content[:8]!r}")
        width, height = struct.unpack(">II", content[16:24])
        uri = "data:image/png;base64," + base64.b64encode(content).decode("ascii")
        # Not <picture>: what is chosen there for a dark screen is also what gets printed.
        kind = f"{look} pair" if dark is not None else look
        images.append(f'<img class="{kind}" src="{uri}" width="{width}" height="{height}" alt="{alt}">')
    return (
        '<section class="card"><h2>Map of the pool</h2>'
        '<figure class="map" role="group" aria-label="Map of the pool" tabindex="0">'
        f"{''.join(images)}</figure></section>"
    )


def _head(title: str, questions: list[Question]) -> str:
    strategies = list(dict.fromkeys(question.picked_by for question in questions))
    by = ", ".join(map(name, strategies[:4])) + (f" and {len(strategies) - 4} others" if len(strategies) > 4 else "")
    return begin(title, css=CSS, script=SCRIPT, skip=("questions", "To the rows")) + (
        f"<header><h1>{name(title)}</h1>"
        f'<p class="lead">{plural(len(questions), "row")} to label, picked by {by}</p></header>'
    )


def _warnings(problems: list[str], unsaid: int) -> str:
    items = [name(problem) for problem in problems]
    if unsaid > 0:
        items.append(f"{plural(unsaid, 'further picture')} cannot be shown")
    return warned(items)


def _tiles(
    questions: list[Question],
    classes: Mapping[str, float] | None,
    predicted: Mapping[str, float] | None,
    sure: NDArray[Any] | None,
) -> str:
    tiles = [("Rows to label", f"{len(questions):,}")]
    if classes is not None:
        tiles.append(("Labeled so far", f"{sum(classes.values()):,.0f}"))
    if sure is not None or predicted is not None:
        tiles.append(("Rows predicted", f"{len(sure) if sure is not None else sum((predicted or {}).values()):,.0f}"))
    if sure is not None:
        tiles.append(("How sure the model is", percent(float(sure.mean(dtype=np.float64)))))
    if len(tiles) == 1:
        return ""
    return '<dl class="tiles">' + "".join(f"<div><dt>{a}</dt><dd>{b}</dd></div>" for a, b in tiles) + "</dl>"


def _classes(classes: Mapping[str, float] | None, predicted: Mapping[str, float] | None) -> str:
    if not classes and not predicted:
        return ""
    return f'<section class="card"><h2>Balance of the classes</h2>{class_table(classes, predicted)}</section>'


def _sureness(sure: NDArray[Any] | None, questions: list[Question]) -> str:
    if sure is None:
        return ""
    asked = [question.probability for question in questions if question.probability is not None]
    figure = confidence_figure(sure, asked)
    return f'<section class="card"><h2>How sure the model is</h2><figure>{figure}</figure></section>'


def _columns(picture: str, *others: str) -> str:
    stack = "".join(others)
    if picture and stack:
        return f'<div class="columns two">{picture}<div class="stack">{stack}</div></div>'
    return f'<div class="columns">{picture}{stack}</div>' if picture or stack else ""


def _notes(notes: Sequence[str], command: str | None) -> str:
    if not notes and command is None:
        return ""
    parts = [f'<p dir="auto">{escape(note)}</p>' for note in notes]
    if command is not None:
        parts.append(f'<h3>Command</h3><pre tabindex="0"><code>{escape(command)}</code></pre>')
    return f'<section class="card notes"><h2>How these rows were chosen</h2>{"".join(parts)}</section>'
