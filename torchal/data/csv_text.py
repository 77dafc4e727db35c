"""Read the text of a CSV file. What is wrong with it is said by file, row and column."""

from __future__ import annotations

import csv
import gzip
import io
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

from torchal.data.values import composed
from torchal.errors import ConfigError, DataError

DAMAGED = (EOFError, zlib.error, zipfile.BadZipFile)
_COLUMNS_LISTED = 40
BREAK = "\x1e"  # in the place of a line break in a cell
_APART = "\x1f"  # between the cells of a row whose quotes were read
_LOOKED_AT = 1000  # rows from the top that tell what the delimiter is and whether the first one is a header
_FEW = 4  # columns, and rows, from which numbers in the first line are suspected to be names
_DELIMITERS = "\t;|,"  # a comma last: it may be the decimal sign
_ALIKE = 0.9  # share of the rows that a delimiter must cut into equally many cells
MISSING = ("", "?", "NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "<NA>", "#N/A")
"""Cells without a value, as tables write them."""
_BYTE_ORDER_MARKS = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True)
class Names:
    """What messages call the places of a table."""

    file: str
    names: Sequence[str] | None
    """Of the columns, where they have any."""
    n_columns: int
    decimal: str = field(default=".", kw_only=True)
    """The decimal sign of numbers that are text."""

    @property
    def where(self) -> str:
        """Where the columns are named."""
        return self.file

    def number_of(self, row: int) -> int:
        """Return what messages call a row."""
        return row

    def name_of(self, column: int) -> str:
        """Return the name of a column, or its number."""
        return str(column) if self.names is None else self.names[column]

    def column_name(self, column: int) -> str:
        """Return what messages call a column."""
        return f"column {column}" if self.names is None else f"column {self.names[column]!r}"

    def place(self, row: int, column: int) -> str:
        """Return what messages call a cell."""
        return f"{self.file}, row {self.number_of(row)}, {self.column_name(column)}"

    def known_columns(self) -> str:
        """Return the columns that there are."""
        if self.names is None:
            return f"the columns are 0 to {self.n_columns - 1}"
        more = f" and {self.n_columns - _COLUMNS_LISTED} more" if self.n_columns > _COLUMNS_LISTED else ""
        return f"the columns are {', '.join(self.names[:_COLUMNS_LISTED])}{more}"

    def column(self, setting: str, wanted: object) -> int:
        """Return the number of a column that a setting names, or numbers from either end.

        Raises:
            ConfigError: it does neither.
            DataError: there is no such column, or several.
        """
        if isinstance(wanted, bool) or not isinstance(wanted, str | int):
            raise ConfigError(f"{setting} must be a column's name or number, got {wanted!r}")
        if isinstance(wanted, int):
            if not -self.n_columns <= wanted < self.n_columns:
                raise DataError(f"{self.where}: there is no column {wanted}; {self.known_columns()}")
            return wanted % self.n_columns
        wanted = one_line(wanted)
        if self.names is None:
            raise DataError(f"{self.where}: there is no header to find column {wanted!r} in; {self.known_columns()}")
        count = list(self.names).count(wanted)
        if count != 1:
            found = "no column is" if count == 0 else f"{count} columns are"
            raise DataError(f"{self.where}: {found} named {wanted!r}; {self.known_columns()}")
        return list(self.names).index(wanted)


@dataclass(frozen=True)
class CsvText(Names):
    """The rows of a CSV file as lines without quotes; numbers are not read yet."""

    lines: list[str] = field(kw_only=True)
    """Of the rows alone."""
    delimiter: str = field(kw_only=True)
    """In `lines`."""
    numbers: Sequence[int] = field(kw_only=True)
    """Of the lines, from 1."""

    @property
    def where(self) -> str:
        """Where the columns are named."""
        return f"{self.file}, row 1"

    def number_of(self, row: int) -> int:
        """Return what messages call a row: its first line."""
        return self.numbers[row]

    def column(self, setting: str, wanted: object) -> int:
        """Return the number of a column; a name that is in the first row of a file without a header is pointed out."""
        try:
            return super().column(setting, wanted)
        except DataError as error:
            if self.names is None and wanted in _cells(self.lines[0], self.delimiter):
                raise DataError(f"{error}; row 1 has it, so say header=true") from error
            raise

    def frame(self, text_columns: Sequence[int]) -> Any:
        """Return the rows as a pandas DataFrame: numbers where all cells of a column are, else texts as they stand.

        Args:
            text_columns: those that stay texts in any case.
        """
        import pandas as pd

        try:
            frame = pd.read_csv(
                io.StringIO("\n".join(self.lines) + "\n"),
                sep=self.delimiter,
                header=None,
                names=range(self.n_columns),
                index_col=False,
                dtype=dict.fromkeys(text_columns, str),
                keep_default_na=False,
                na_values={column: [""] for column in range(self.n_columns) if column not in text_columns},
                quoting=csv.QUOTE_NONE,
                skip_blank_lines=False,
                decimal=self.decimal,
                low_memory=False,
            )
        except (ValueError, OverflowError) as error:  # pandas' errors of parsing are ValueErrors
            raise DataError(f"{self.file} cannot be read: {' '.join(str(error).split())}") from error
        if len(frame) != len(self.lines):
            raise DataError(f"{self.file}: {len(self.lines)} lines were read as {len(frame)} rows")
        return frame


def read_csv_text(
    path: Path, *, header: bool | None, delimiter: str | None, decimal: str | None, encoding: str
) -> CsvText:
    """Read a file, plain or .gz.

    Args:
        path: the file.
        header: whether the first line names the columns; looked for where None.
        delimiter: between cells; looked for where None; "whitespace" for any number of blanks and tabs.
        decimal: the decimal sign; looked for where None.
        encoding: of the text; a byte order mark at its start says more.

    Raises:
        DataError: the file cannot be read, has no rows, or its rows are ragged.
    """
    text = _read_text(path, encoding)
    if not text.strip():
        raise DataError(f"{path}, row 1: the file is empty")
    delimiter = _found_delimiter(text) if delimiter is None else delimiter
    if delimiter == "whitespace":
        text, delimiter = "\n".join(" ".join(line.split()) for line in text.split("\n")), " "
    numbers: Sequence[int]
    if '"' in text:
        lines, numbers = _unquoted(path, text, delimiter)
        delimiter = _APART
    else:
        lines = text.split("\n")
        numbers = range(1, len(lines) + 1)
    while not lines[-1].strip():  # blank ones at the end
        lines.pop()
    widths = [line.count(delimiter) + 1 for line in lines]
    if len(lines) > 1 and set(widths[1:]) == {widths[0] + 1} and header is not False:
        lines[0] = delimiter + lines[0]  # as R writes it: the column with the names of the rows has none itself
        widths[0] += 1
        header = True
    first = [_cells(line, delimiter) for line in lines[: _LOOKED_AT + 1]]
    decimal = _found_decimal(first) if decimal is None else decimal
    if header is None:
        header = _is_header(path, first, decimal)
    names = [one_line(cell) for cell in first[0]] if header else None
    if names is not None and len(lines) == 1:
        raise DataError(f"{path}, row 2: the file ends after its header, {', '.join(names)}: there are no rows")
    if header:
        lines, numbers = lines[1:], numbers[1:]
    table = CsvText(str(path), names, widths[0], decimal=decimal, lines=lines, delimiter=delimiter, numbers=numbers)
    for row, width in enumerate(widths[1:] if header else widths):
        if width != widths[0] or not lines[row].strip():
            found = f"{width} cell{'s' * (width != 1)}" if lines[row].strip() else "nothing"
            raise DataError(
                f"{path}, row {numbers[row]}: {found}, where row 1 has {widths[0]} cells; "
                f"the row ends at {table.column_name(min(width, widths[0]) - 1)}, {table.known_columns()}"
            )
    return table


def one_line(name: str) -> str:
    """Return a column's name as it is compared: composed, in one line, without blanks around it."""
    return " ".join(composed(name.replace(BREAK, " ")).split())


def as_number(cell: str, decimal: str = ".") -> float | None:
    """Return the number that a cell is, or None."""
    if decimal != ".":
        cell = cell.replace(".", "_").replace(decimal, ".")
    try:
        # Python reads "1_0" as 10, and the digits of other scripts; NumPy and pandas do not
        return float(cell) if cell.isascii() and "_" not in cell else None
    except ValueError:
        return None


def _found_decimal(rows: Sequence[list[str]]) -> str:
    """Return the decimal sign of some cells: a comma where numbers have it, and none has a point."""
    cells = [cell.strip() for row in rows for cell in row]
    has_comma = any(re.fullmatch(r"[-+]?\d+,\d+", cell) for cell in cells)
    return "," if has_comma and not any(re.fullmatch(r"[-+]?\d*\.\d+", cell) for cell in cells) else "."


def _read_text(path: Path, encoding: str) -> str:
    """Return what a file says, its letters composed and its lines ended by line feeds."""
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
        if content.startswith(_BYTE_ORDER_MARKS):
            encoding = "utf-16"
        text = content.decode("utf-8-sig" if encoding.lower() in ("utf-8", "utf8") else encoding)
    except (UnicodeDecodeError, UnicodeError) as error:
        hint = "; is it latin-1 or cp1252? say so by `encoding`" if encoding.lower() in ("utf-8", "utf8") else ""
        raise DataError(f"{path} is not {encoding.upper()} text: {error}{hint}") from error
    except DAMAGED as error:
        raise DataError(f"{path} is damaged: {error}") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    if "\0" in text:
        raise DataError(f"{path} has a NUL character at place {text.index(chr(0))}: it is no text, or in UTF-16")
    return composed(text.replace("\r\n", "\n").replace("\r", "\n"))


def _found_delimiter(text: str) -> str:
    """Return what cuts the first rows into equally many cells, at least two; a comma where nothing does."""
    for delimiter in _DELIMITERS:
        reader = csv.reader(io.StringIO(text), delimiter=delimiter, skipinitialspace=delimiter != "\t")
        try:
            widths = Counter(len(cells) for cells in islice(reader, _LOOKED_AT) if cells)
        except csv.Error:
            continue
        width, count = widths.most_common(1)[0] if widths else (0, 0)
        if width > 1 and count >= _ALIKE * widths.total():
            return delimiter
    if '"' not in text:
        widths = Counter(len(line.split()) for line in islice(text.split("\n"), _LOOKED_AT) if line.strip())
        width, count = widths.most_common(1)[0]
        if width > 1 and count == widths.total():
            return "whitespace"
    return ","


def _unquoted(path: Path, text: str, delimiter: str) -> tuple[list[str], list[int]]:
    """Return the rows of a file with quotes, without them and with `_APART` between cells; and their line numbers."""
    if _APART in text or BREAK in text:
        raise DataError(f"{path} has both quotes and a control character ({_APART!r} or {BREAK!r}) that is used here")
    # blanks around quotes do not count; csv skips those before them
    text = re.sub(rf'"[ \t]+(?=[{re.escape(delimiter)}\n]|\Z)', '"', text) if delimiter != "\t" else text
    lines, numbers = [], []
    reader = csv.reader(text.splitlines(keepends=True), delimiter=delimiter, strict=True, skipinitialspace=True)
    begins = 1
    try:
        for cells in reader:
            lines.append(_APART.join(cell.replace("\n", BREAK) for cell in cells))
            numbers.append(begins)
            begins = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{path}, row {begins}: its quotes cannot be read: {error}") from error
    return lines, numbers


def _cells(line: str, delimiter: str) -> list[str]:
    return [cell.strip() for cell in line.split(delimiter)]


def _is_header(path: Path, rows: Sequence[list[str]], decimal: str) -> bool:
    """Tell whether the cells of the first row name the columns. A cell that marks a missing value tells nothing.

    Raises:
        DataError: they may be names or numbers.
    """
    first = rows[0]
    if any(cell and cell in MISSING for cell in first):
        return False
    rest = [cells for cells in rows[1:] if len(cells) == len(first) > 1]
    values = [as_number(cell, decimal) for cell in first]
    texts = [column for column, value in enumerate(values) if value is None]
    if len(texts) == len(first):
        return True
    if not rest:
        return False
    below = [
        [as_number(cells[column], decimal) for cells in rest if cells[column] not in MISSING]
        for column in range(len(first))
    ]
    if any(first[column] and below[column] and None not in below[column] for column in texts):
        return True  # a text above numbers
    if any(v is not None and below[i] and all(b is None for b in below[i]) for i, v in enumerate(values)):
        return True  # a number above texts
    numbers = [cell for cell in first if as_number(cell, decimal) is not None]
    is_new = all(all(cells[column] != first[column] for cells in rest) for column in texts)
    counts = [str(i) for i in range(len(numbers))], [str(i + 1) for i in range(len(numbers))]
    if len(texts) == 1 and len(numbers) >= 2 and numbers in counts and is_new:
        return True  # "Letter,1,2,3": a header, as pandas writes it where columns have no names
    why = ""
    if is_new and all(v is None or not below[i] or _is_outside(v, below[i]) for i, v in enumerate(values)):
        why = "each of its cells is unlike all cells below it"
    elif not texts and len(first) >= _FEW and len({b - a for a, b in pairwise(v or 0.0 for v in values)} - {0.0}) == 1:
        why = "its numbers are evenly spaced" if len({*first}) == len(first) else ""
    if why and len(rest) >= _FEW:
        shown = ", ".join(first[:_COLUMNS_LISTED])
        raise DataError(
            f"{path}, row 1: {shown}: {why}, so they may name the columns or be a row of data. "
            f"Say header=true or header=false"
        )
    return False


def _is_outside(value: float, below: Sequence[float | None]) -> bool:
    """Tell whether a number is outside of the range of others, by more than their range has."""
    others = [b for b in below if b is not None]
    low, high = min(others), max(others)
    return not low - (high - low) <= value <= high + (high - low)
