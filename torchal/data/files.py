"""Data sets in the user's own files. What is wrong with a file is said by file, row and column."""

from __future__ import annotations

import gzip
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Sequence
from csv import Error as CsvError
from csv import reader as csv_reader
from dataclasses import dataclass, replace
from itertools import pairwise
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from torchal._checks import check_flag
from torchal.data.libsvm import found_file
from torchal.data.splits import (
    Splits,
    SplitSettings,
    as_classes,
    as_inputs,
    check_settings,
    composed,
    find_not_finite,
    make_splits,
)
from torchal.errors import ConfigError, DataError

if TYPE_CHECKING:
    from typing_extensions import Unpack

_DAMAGED = (EOFError, zlib.error, zipfile.BadZipFile)
# what zipfile and NumPy make of bytes that say an unknown version, a password, sizes or offsets beyond the file
_DAMAGED_ARCHIVE = (*_DAMAGED, NotImplementedError, RuntimeError, struct.error, OverflowError, MemoryError, OSError)
_COLUMNS_LISTED = 40
_LOOKED_AT = 1000  # rows below the first line that tell whether it is a header
_FEW = 4  # columns, and rows, from which numbers in the first line are suspected to be names
_APART = "\x1f"  # between the cells of a row whose quotes were read
_BREAK = "\x1e"  # in the place of a line break in a cell


def csv(
    path: str | os.PathLike[str],
    *,
    target: str | int | None = None,
    header: bool | None = None,
    delimiter: str = ",",
    **settings: Unpack[SplitSettings],
) -> Splits:
    r"""Load a CSV file, plain or .gz: one column of labels, numbers in all others.

    Args:
        path: the file, in UTF-8.
        target: the column with the labels: its name, or its number from 0, where a negative one counts from the end.
            Column 0 unless given; a file with a header must say.
        header: whether the first line names the columns. Unless given, it does where none of its cells is a number,
            where one is a text above numbers or a number above texts, or where its numbers only count the columns (0,
            1, 2, ... or 1, 2, 3, ...) and its one text is no label. Where it may be either, you are asked to say.
        delimiter: the character between cells; "tab" or "\\t" for a tab.
        settings: how to choose, split and scale the rows; see `SplitSettings`. Source rows count data rows from 0.

    Returns:
        Splits with inputs (N, D) float32, named after the file. Labels are text: "1" and "1.0" are two classes. Blanks
        around a cell do not count, nor does the way in which Unicode composes a letter.

    Raises:
        ConfigError: a setting is unknown or impossible.
        DataError: the file cannot be read or has no rows; rows are ragged; the target column is not there; a feature
            is text, blank, NaN or infinite; a label is blank or not a class; there is one class. Rows count the lines
            of the file from 1.

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> file = Path(folder.name) / "pets.csv"
        >>> _ = file.write_text("age,weight,kind\n" + "3,4.5,cat\n7,21,dog\n" * 6)
        >>> data = csv(file, target="kind")
        >>> data.train.inputs.shape, data.class_names, data.name
        (torch.Size([8, 2]), ('cat', 'dog'), 'pets')
        >>> csv(file, target="name")
        Traceback (most recent call last):
            ...
        torchal.errors.DataError: ...pets.csv, row 1: no column is named 'name'; the columns are age, weight, kind
        >>> folder.cleanup()
    """
    check_settings(settings, "target", "header", "delimiter")
    if isinstance(target, str):
        target = _one_line(target)
    if header is not None:
        check_flag("header", header)
    if delimiter in ("\\t", "tab"):
        delimiter = "\t"
    if not isinstance(delimiter, str) or len(delimiter) != 1 or delimiter in '"\r\n':
        raise ConfigError(f"delimiter must be one character, got {delimiter!r}")
    table = _read_table(found_file(path), header=header, delimiter=delimiter)
    column = table.target_column(target)
    features = table.features(column)
    labels = table.labels(column)
    return make_splits(features, labels, name=Path(Path(path).name.removesuffix(".gz")).stem, **settings)


def npz(
    path: str | os.PathLike[str],
    *,
    inputs: str = "inputs",
    targets: str = "targets",
    **settings: Unpack[SplitSettings],
) -> Splits:
    """Load two arrays of an NPZ file, as `numpy.savez` writes it. No pickle is ever loaded.

    Args:
        path: the file.
        inputs: the key of the inputs, (M, ...).
        targets: the key of the labels, (M,): whole numbers or text.
        settings: how to choose, split and scale the rows; see `SplitSettings`.

    Returns:
        Splits with inputs (N, ...) float32, named after the file.

    Raises:
        ConfigError: a setting is unknown or impossible.
        DataError: the file cannot be read; a key is not there; an array holds Python objects, NaN or infinity, or has
            no rows; there is one class. Rows and columns count from 0.
        ShapeError: the arrays disagree in rows, or inputs have one axis.

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> file = Path(folder.name) / "images.npz"
        >>> np.savez(file, x=np.zeros((12, 1, 8, 8)), y=np.arange(12) % 3)
        >>> npz(file, inputs="x", targets="y").train.inputs.shape
        torch.Size([8, 1, 8, 8])
        >>> folder.cleanup()
    """
    check_settings(settings, "inputs", "targets")
    path = Path(path).expanduser()
    array, labels = _read_npz(path, inputs, targets)
    array = as_inputs(f"{path}, array {inputs!r}", array)
    what = f"{path}, array {targets!r}"
    labels = as_classes(what, labels, n_rows=len(array))
    if len(np.unique(labels)) == 1:
        raise DataError(
            f"{what}, rows 0 to {len(labels) - 1}: every label is {str(labels[0])!r}; two classes are needed"
        )
    return make_splits(array, labels, name=path.stem, **settings)


@dataclass(frozen=True)
class _Table:
    """The rows of a CSV file. Parsing is NumPy's; a line is looked at in Python only to say what is wrong with it."""

    path: Path
    lines: list[str]  # of the rows alone
    delimiter: str
    names: list[str] | None  # the header, where there is one
    n_columns: int
    numbers: Sequence[int]  # of the lines, from 1

    def line_number(self, row: int) -> int:
        return self.numbers[row]

    def column_name(self, column: int) -> str:
        return f"column {column}" if self.names is None else f"column {self.names[column]!r}"

    def place(self, row: int, column: int) -> str:
        return f"{self.path}, row {self.line_number(row)}, {self.column_name(column)}"

    def known_columns(self) -> str:
        if self.names is None:
            return f"the columns are 0 to {self.n_columns - 1}"
        more = f" and {self.n_columns - _COLUMNS_LISTED} more" if self.n_columns > _COLUMNS_LISTED else ""
        return f"the columns are {', '.join(self.names[:_COLUMNS_LISTED])}{more}"

    def check_widths(self) -> None:
        """Require that every row has as many cells as the first line of the file."""
        widths = (line.count(self.delimiter) + 1 for line in self.lines)
        for row, width in enumerate(widths):
            if width != self.n_columns or not self.lines[row].strip():
                found = f"{width} cell{'s' * (width != 1)}" if self.lines[row].strip() else "nothing"
                raise DataError(
                    f"{self.path}, row {self.line_number(row)}: {found}, where row 1 has {self.n_columns} cells; "
                    f"the row ends at {self.column_name(min(width, self.n_columns) - 1)}, {self.known_columns()}"
                )

    def target_column(self, target: str | int | None) -> int:
        if isinstance(target, bool) or not isinstance(target, str | int | None):
            raise ConfigError(f"target must be a column's name or number, got {target!r}")
        start = f"{self.path}, row 1"
        if self.n_columns == 1:
            raise DataError(
                f"{start}: one column, where features and a label need two; is another character the delimiter?"
            )
        if target is None:
            if self.names is None:
                return 0
            raise DataError(
                f"{start}: the file has a header, so say which column has the labels by target=; {self.known_columns()}"
            )
        if isinstance(target, int):
            if not -self.n_columns <= target < self.n_columns:
                raise DataError(f"{start}: there is no column {target}; {self.known_columns()}")
            return target % self.n_columns
        if self.names is None:
            named = target in self.cells(0)
            hint = "; row 1 has it, so say header=true" if named else ""
            raise DataError(f"{start}: there is no header to find column {target!r} in; {self.known_columns()}{hint}")
        count = self.names.count(target)
        if count != 1:
            found = "no column is" if count == 0 else f"{count} columns are"
            raise DataError(f"{start}: {found} named {target!r}; {self.known_columns()}")
        return self.names.index(target)

    def features(self, target: int) -> NDArray[Any]:
        """Return all columns but one as numbers."""
        columns = [column for column in range(self.n_columns) if column != target]
        try:
            values = self._load(columns, np.float64)
        except ValueError as error:
            # NumPy counts otherwise, so its error would only confuse beside this one
            raise (self._bad_feature(columns) or DataError(f"{self.path}: {error}")) from None
        place = find_not_finite(values)
        if place is not None:
            row, column = place
            raise DataError(f"{self.place(row, columns[column])}: a feature must be finite, got {values[place]}")
        return values

    def labels(self, target: int) -> NDArray[Any]:
        """Return one column as labels."""
        labels = np.char.replace(np.char.strip(self._load([target], str)[:, 0]), _BREAK, "\n")
        values, first = np.unique(labels, return_index=True)
        numbers = [_number(value) for value in values]
        missing = [
            not value or (number is not None and not isfinite(number))
            for value, number in zip(values, numbers, strict=True)
        ]
        if any(missing):
            row = int(first[missing].min())
            raise DataError(f"{self.place(row, target)}: a label is missing, got {str(labels[row])!r}")
        fractional = [number is not None and not number.is_integer() for number in numbers]
        if any(fractional) and None not in numbers:  # beside text, a number is text
            row = int(first[fractional].min())
            raise DataError(
                f"{self.place(row, target)}: a label must be a class, got {labels[row]}; regression is not supported. "
                f"If the labels are in another column, say target=; {self.known_columns()}"
            )
        classes = as_classes(f"{self.path}, {self.column_name(target)}", labels, n_rows=len(labels))
        if len(np.unique(classes)) == 1:
            rows = f"rows {self.line_number(0)} to {self.line_number(len(labels) - 1)}"
            column = self.column_name(target)
            raise DataError(f"{self.path}, {rows}, {column}: every label is {str(labels[0])!r}; two classes are needed")
        return classes

    def _load(self, columns: list[int], dtype: type) -> NDArray[Any]:
        values: NDArray[Any] = np.loadtxt(
            self.lines,
            dtype=dtype,
            comments=None,
            delimiter=self.delimiter,
            usecols=columns,
            ndmin=2,
        )
        if len(values) != len(self.lines):
            raise ValueError(f"{len(self.lines)} lines were read as {len(values)} rows")
        return values

    def _bad_feature(self, columns: list[int]) -> DataError | None:
        for row, line in enumerate(self.lines):
            cells = line.split(self.delimiter)
            for column in columns:
                if _number(cells[column]) is None:
                    text = cells[column].strip()
                    found = f"a feature must be a number, got {text!r}" if text else "a cell is blank"
                    decimal = text.replace(",", ".") if text.count(",") == 1 else ""
                    hint = f"; a decimal comma is written as a point, {decimal}" if _number(decimal) is not None else ""
                    return DataError(f"{self.place(row, column)}: {found}{hint}")
        return None

    def cells(self, row: int) -> list[str]:
        return [cell.strip() for cell in self.lines[row].split(self.delimiter)]


def _read_table(path: Path, *, header: bool | None, delimiter: str) -> _Table:
    text = _read_text(path)
    if not text.strip():
        raise DataError(f"{path}, row 1: the file is empty")
    numbers: Sequence[int]
    if '"' in text:
        lines, numbers = _unquoted(path, text, delimiter)
        delimiter = _APART
    else:
        lines = text.split("\n")
        numbers = range(1, len(lines) + 1)
    while not lines[-1].strip():  # blank ones at the end
        lines.pop()
    table = _Table(path, lines, delimiter, names=None, n_columns=lines[0].count(delimiter) + 1, numbers=numbers)
    if header is None:
        header = _is_header(table)
    if header:
        names = [_one_line(cell) for cell in table.cells(0)]
        if len(lines) == 1:
            raise DataError(f"{path}, row 2: the file ends after its header, {', '.join(names)}: there are no rows")
        table = replace(table, lines=lines[1:], names=names, numbers=numbers[1:])
    table.check_widths()
    return table


def _read_text(path: Path) -> str:
    """Return what a file says, its letters composed."""
    try:
        if path.suffix == ".gz":
            with gzip.open(path, "rt", encoding="utf-8-sig") as file:
                text = file.read()
        else:
            text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: {error}") from error
    except _DAMAGED as error:
        raise DataError(f"{path} is damaged: {error}") from error
    except OSError as error:
        raise _unreadable(path, error) from error
    return composed(text)


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(f"{path} cannot be read: {error.strerror or error}")


def _unquoted(path: Path, text: str, delimiter: str) -> tuple[list[str], list[int]]:
    """Return the rows of a file with quotes, without them and with `_APART` between cells; and their line numbers."""
    if _APART in text:
        raise DataError(f"{path} has both quotes and the control character {_APART!r}, which stands between cells here")
    # blanks around quotes do not count; csv skips those before them
    text = re.sub(rf'"[ \t]+(?=[{re.escape(delimiter)}\n]|\Z)', '"', text) if delimiter != "\t" else text
    lines, numbers = [], []
    reader = csv_reader(text.splitlines(keepends=True), delimiter=delimiter, strict=True, skipinitialspace=True)
    begins = 1
    try:
        for cells in reader:
            lines.append(_APART.join(cell.replace("\r\n", "\n").replace("\n", _BREAK) for cell in cells))
            numbers.append(begins)
            begins = reader.line_num + 1
    except CsvError as error:
        raise DataError(f"{path}, row {begins}: its quotes cannot be read: {error}") from error
    return lines, numbers


def _one_line(name: str) -> str:
    """Return a column's name as it is compared: composed, in one line, without blanks around it."""
    return " ".join(composed(name.replace(_BREAK, " ")).split())


def _is_header(table: _Table) -> bool:
    """Tell whether the cells of the first line name the columns.

    Raises:
        DataError: they may be names or numbers.
    """
    first = table.cells(0)
    rest = [cells for cells in map(table.cells, range(1, min(len(table.lines), _LOOKED_AT + 1))) if len(cells) > 1]
    rest = [cells for cells in rest if len(cells) == len(first)]
    values = [_number(cell) for cell in first]
    texts = [column for column, value in enumerate(values) if value is None]
    if len(texts) == len(first):
        return True
    if not rest:
        return False
    below = [[_number(cells[column]) for cells in rest] for column in range(len(first))]
    if any(first[column] and None not in below[column] for column in texts):
        return True  # a text above numbers
    if any(value is not None and not any(b is not None for b in below[i]) for i, value in enumerate(values)):
        return True  # a number above texts
    numbers = [cell for cell in first if _number(cell) is not None]
    is_new = all(all(cells[column] != first[column] for cells in rest) for column in texts)
    counts = [str(i) for i in range(len(numbers))], [str(i + 1) for i in range(len(numbers))]
    if len(texts) == 1 and len(numbers) >= 2 and numbers in counts and is_new:
        return True  # "Letter,1,2,3": a header, as pandas writes it where columns have no names
    why = ""
    if is_new and all(value is None or _is_outside(value, below[i]) for i, value in enumerate(values)):
        why = "each of its cells is unlike all cells below it"
    elif not texts and len(first) >= _FEW and len({b - a for a, b in pairwise(map(float, first))} - {0.0}) == 1:
        why = "its numbers are evenly spaced" if len({*first}) == len(first) else ""
    if why and len(rest) >= _FEW:
        shown = ", ".join(first[:_COLUMNS_LISTED])
        raise DataError(
            f"{table.path}, row 1: {shown}: {why}, so they may name the columns or be a row of data. "
            f"Say header=true or header=false"
        )
    return False


def _is_outside(value: float, below: Sequence[float | None]) -> bool:
    """Tell whether a number is outside of the range of others, by more than their range has."""
    others = [b for b in below if b is not None]
    low, high = min(others), max(others)
    return not low - (high - low) <= value <= high + (high - low)


def _number(cell: str) -> float | None:
    try:
        # Python reads "1_0" as 10, and the digits of other scripts; NumPy does not
        return float(cell) if cell.isascii() and "_" not in cell else None
    except ValueError:
        return None


def _read_npz(path: Path, *keys: str) -> list[NDArray[Any]]:
    try:
        file = path.open("rb")  # not by np.load, which leaves it open where the archive is damaged
    except OSError as error:
        raise _unreadable(path, error) from error
    with file:
        try:
            archive = np.load(file, allow_pickle=False)
        except (
            *_DAMAGED_ARCHIVE,
            ValueError,
        ) as error:  # ValueError: without NumPy's mark it could be a pickle, never loaded
            raise DataError(f"{path} is damaged or not an NPZ file") from error
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise DataError(f"{path} holds one array, not an NPZ archive of several")
        for key in keys:
            if key not in archive.files:
                raise DataError(f"{path} has no array {key!r}; the arrays are {', '.join(archive.files)}")
        return [_member(path, archive, key) for key in keys]


def _member(path: Path, archive: np.lib.npyio.NpzFile, key: str) -> NDArray[Any]:
    try:
        array: NDArray[Any] = archive[key]
    except ValueError as error:
        raise DataError(
            f"{path}, array {key!r} cannot be loaded: {error}; arrays of Python objects never are, save numbers or text"
        ) from error
    except (*_DAMAGED_ARCHIVE, KeyError) as error:
        raise DataError(f"{path}, array {key!r} is damaged: {error}") from error
    return array
