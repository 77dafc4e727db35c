"""Questions as a table, CSV or Parquet, and the answers that come back in one."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torchal._checks import check_installed
from torchal._records import write_atomically
from torchal.errors import ConfigError
from torchal.exchange.answers import Answers, Collector
from torchal.exchange.files import read_bytes
from torchal.exchange.questions import Question, check_questions

_ALWAYS = (
    "id",
    "rank",
    "score",
    "picked_by",
    "nearest_id",
    "nearest_label",
    "distance",
    "represents",
    "predicted",
    "probability",
)
_WHERE_GIVEN = ("text", "image", "x", "y")
_NUMBERS = {"rank": "int64", "represents": "int64"} | dict.fromkeys(
    ("score", "distance", "probability", "x", "y"), "float64"
)
_PARQUET = (".parquet", ".pq")
_TEXT = (".csv", ".tsv", ".txt")
_DELIMITERS = ",;\t"
_NAMED = ",;\t|"  # that the first line of Excel may name


def write_questions(questions: Sequence[Question], path: str | Path) -> Path:
    """Write questions as a table for people to fill in; the file's ending decides, .csv or .parquet.

    Returns:
        The path.

    Raises:
        ConfigError: another ending.
        See `write_csv` and `write_parquet` for the others.
    """
    check_table(path)
    return (write_parquet if Path(path).suffix.lower() in _PARQUET else write_csv)(questions, path)


def check_table(path: str | Path) -> None:
    """Require the name of a table that questions can be written to.

    Raises:
        ConfigError: it ends in neither .csv nor .parquet.
        MissingExtraError: Parquet needs pyarrow, which is not installed.
    """
    ending = Path(path).suffix.lower()
    if ending not in (".csv", *_PARQUET):
        raise ConfigError(f"questions are written to .csv or .parquet, got {str(path)!r}")
    if ending in _PARQUET:
        check_installed("pyarrow", extra="tables")


def write_csv(questions: Sequence[Question], path: str | Path, *, renamed: Mapping[str, str] | None = None) -> Path:
    """Write questions as a CSV file in UTF-8, with an empty column "label" to be filled in.

    A number that nobody knows is an empty cell. The columns of text, image, x and y are there where a question has one.
    The file is replaced as a whole, or not at all.

    Args:
        questions: what is asked.
        path: the file.
        renamed: other names for some of the columns.

    Returns:
        The path.

    Raises:
        DataError: no questions, or an id that is empty, repeated, or has blanks around it.

    Example:
        >>> from tempfile import mkdtemp
        >>> path = write_csv([Question("a7", rank=1, score=0.25, picked_by="Margin")], mkdtemp() + "/ask.csv")
        >>> print(path.read_text().splitlines()[1])
        a7,1,0.25,Margin,,,,,,,
    """
    names = _columns(questions)
    text = io.StringIO(newline="")
    writer = csv.writer(text)  # its line ends, \r\n, also have it quote a lone \r inside a cell
    writer.writerow([(renamed or {}).get(name, name) for name in names])
    writer.writerows([getattr(question, name) for name in names] for question in questions)
    write_atomically(Path(path), text.getvalue().encode())
    return Path(path)


def write_parquet(questions: Sequence[Question], path: str | Path) -> Path:
    """Write questions as a Parquet file, with an empty column "label"; the columns are those of `write_csv`.

    Returns:
        The path.

    Raises:
        DataError: no questions, or an id that is empty, repeated, or has blanks around it.
        MissingExtraError: pyarrow is not installed.
    """
    write_atomically(Path(path), as_parquet(questions))
    return Path(path)


def as_parquet(questions: Sequence[Question]) -> bytes:
    """Return questions as the bytes of a Parquet file."""
    check_installed("pyarrow", extra="tables")
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {
        name: pa.array([getattr(question, name) for question in questions], _NUMBERS.get(name, "string"))
        for name in _columns(questions)
    }
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


def _columns(questions: Sequence[Question]) -> list[str]:
    check_questions(questions)
    given = [name for name in _WHERE_GIVEN if any(getattr(question, name) is not None for question in questions)]
    return [*_ALWAYS, *given, "label"]


def read_answers(path: str | Path, *, id_column: str = "id", label_column: str = "label") -> Answers:
    """Read the answers in a table: CSV, or Parquet where the file's ending says so.

    CSV may be cut by commas, semicolons or tabs, whichever cuts the first line into the two columns; have a byte order
    mark, be UTF-16 with one, have Excel's first line "sep=;", any line ends, and quoted cells with line breaks.
    Blanks around ids and labels are dropped. An empty label is not answered yet. A row twice with the same label counts
    once.

    Args:
        path: the file.
        id_column: the column of ids.
        label_column: the column of labels.

    Raises:
        DataError: the file cannot be read; one error names all that is wrong with it: missing columns, rows with more
            or fewer cells than the first line, a row twice with different labels, bytes that are no text.
        ConfigError: the file is no CSV or Parquet by its ending.
        MissingExtraError: Parquet needs pyarrow, which is not installed.

    Example:
        >>> from tempfile import mkdtemp
        >>> path = Path(mkdtemp()) / "answers.csv"
        >>> _ = path.write_text("id;label\\na7; cat \\nb2;\\n")
        >>> read_answers(path).labels
        ['cat', None]
    """
    path, ending = Path(path), Path(path).suffix.lower()
    if ending not in (*_TEXT, *_PARQUET):
        raise ConfigError(f"answers are read from .csv, .tsv, .txt or .parquet, got {str(path)!r}; save it as .csv")
    found = Collector(path)
    content = read_bytes(path)
    names = (id_column, label_column)
    cells = _of_parquet(content, names, found) if ending in _PARQUET else _of_text(content, names, found)
    for where, row, label in cells:
        found.add(row, label, where=where)
    return found.answers()


def _of_parquet(content: bytes, names: tuple[str, str], found: Collector) -> Iterator[tuple[str, Any, Any]]:
    check_installed("pyarrow", extra="tables")
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(io.BytesIO(content))
        if not _has_columns(names, file.schema_arrow.names, found):
            return
        table = file.read(columns=list(dict.fromkeys(names)))
        rows = list(rows_of(table, names))
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        found.problem(
            f"it is no Parquet file that can be read: {str(error).splitlines()[0] if str(error) else error!r}"
        )
        return
    for i, (row, label) in enumerate(rows):
        yield f"row {i}", row, label


def rows_of(table: Any, names: tuple[str, str]) -> Iterator[tuple[Any, Any]]:
    """Return ids and labels in a table of pyarrow; numbers of a `ClassLabel` of Hugging Face become its names."""
    classes = _class_names(table.schema.metadata or {}, names[1])
    ids, labels = (table.column(name).to_pylist() for name in names)
    if classes is not None:  # -1 is no label yet
        labels = [classes[i] if isinstance(i, int) and 0 <= i < len(classes) else None for i in labels]
    return zip(ids, labels, strict=True)


def _class_names(metadata: dict[bytes, bytes], column: str) -> list[str] | None:
    """Return the names of the classes, which stand in the file beside its schema; None where they do not."""
    try:
        feature = json.loads(metadata[b"huggingface"])["info"]["features"][column]
        return [str(name) for name in feature["names"]] if feature["_type"] == "ClassLabel" else None
    except (ValueError, KeyError, TypeError):
        return None


def _of_text(content: bytes, names: tuple[str, str], found: Collector) -> Iterator[tuple[str, Any, Any]]:
    text = _decoded(content, found)
    n_before, delimiters = 0, _DELIMITERS
    first, _, rest = text.partition("\n")
    if first.strip().lower()[:4] == "sep=" and len(first.strip("\r ")) == 5:
        delimiters, text, n_before = first.strip("\r ")[4], rest, 1
        if delimiters not in _NAMED:
            found.problem(f"the first line names the delimiter {delimiters!r}, which is none of {_NAMED!r}")
            return
    if not text.strip():
        found.problem("there is nothing in it but a first line for Excel")
        return
    delimiter = max(delimiters, key=lambda one: _fit(text, one, names))
    rows = _rows(text, delimiter, n_before, found)
    header = [cell.strip() for cell in next(rows, ("", []))[1]]
    if not _has_columns(names, header, found):
        return
    places = [header.index(name) for name in names]
    for where, cells in rows:
        if len(cells) != len(header):
            found.problem(f"{where} has {len(cells)} cells, and the first line {len(header)}")
        else:
            yield where, cells[places[0]], cells[places[1]]


def _decoded(content: bytes, found: Collector) -> str:
    """Return a file's text; bytes that are none become signs that stand for them, and problems."""
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        found.problem(f"line {line} is no text in {error.encoding}: {error.reason}; save the file as UTF-8")
        text = content.decode(encoding, errors="replace")
    if "\0" in text:
        lines = [str(i) for i, line in enumerate(text.split("\n"), 1) if "\0" in line]
        found.problem(f"NUL characters are in {len(lines)} lines, the first is line {lines[0]}")
        text = text.replace("\0", "\ufffd")
    return text


def _fit(text: str, delimiter: str, names: tuple[str, str]) -> tuple[int, int]:
    """Return how well a delimiter cuts the first line: how many of the columns are there, then how many cells."""
    lines = (line for line in io.StringIO(text, newline="") if line.strip())
    try:
        header = [cell.strip() for cell in next(csv.reader(lines, delimiter=delimiter), [])]
    except csv.Error:
        return 0, 0
    return sum(name in header for name in set(names)), len(header)


def _rows(text: str, delimiter: str, n_before: int, found: Collector) -> Iterator[tuple[str, list[str]]]:
    """Yield rows that are not empty, each with what messages call its place."""
    line = n_before
    limit = csv.field_size_limit(max(csv.field_size_limit(), len(text)))  # 128 KiB, less than texts to be labeled
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield f"line {line + 1}", cells
            line = n_before + reader.line_num
    except csv.Error as error:
        found.problem(f"from line {line + 1} on it is no CSV: {error}")
    finally:
        csv.field_size_limit(limit)


def _has_columns(names: tuple[str, str], header: Sequence[str], found: Collector) -> bool:
    """Tell whether both columns are there, each once; note what is there where not."""
    there = ", ".join(repr(name) for name in header[:40]) or "none"
    wrong = {name: list(header).count(name) for name in names if list(header).count(name) != 1}
    for name, times in wrong.items():
        told = f"{times} columns are called {name!r}" if times else f"there is no column {name!r}"
        found.problem(f"{told}; there are {there}")
    return not wrong
