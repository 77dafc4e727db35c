"""Data sets in the user's own files. What is wrong with a file is said by file, row and column."""

from __future__ import annotations

import gzip
import os
import zipfile
import zlib
from csv import Error as CsvError
from csv import reader as csv_reader
from dataclasses import dataclass
from functools import cached_property
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from torchal._checks import check_flag
from torchal.data.splits import (
    Splits,
    SplitSettings,
    as_classes,
    as_inputs,
    check_settings,
    find_not_finite,
    make_splits,
)
from torchal.errors import ConfigError, DataError

if TYPE_CHECKING:
    from typing_extensions import Unpack

_DAMAGED = (EOFError, zlib.error, zipfile.BadZipFile)
_COLUMNS_LISTED = 40


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
            or where its numbers only count the columns (0, 1, 2, ... or 1, 2, 3, ...) and its one text is no label.
        delimiter: the character between cells; "tab" or "\\t" for a tab.
        settings: how to choose, split and scale the rows; see `SplitSettings`. Source rows count data rows from 0.

    Returns:
        Splits with inputs (N, D) float32, named after the file. Labels may be text.

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
    if header is not None:
        check_flag("header", header)
    if delimiter in ("\\t", "tab"):
        delimiter = "\t"
    if not isinstance(delimiter, str) or len(delimiter) != 1 or delimiter in '"\r\n':
        raise ConfigError(f"delimiter must be one character, got {delimiter!r}")
    table = _read_table(Path(path).expanduser(), header=header, delimiter=delimiter)
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
    """The lines of a CSV file. Parsing is NumPy's; a line is looked at in Python only to say what is wrong with it."""

    path: Path
    lines: list[str]  # of the rows alone
    delimiter: str
    names: list[str] | None  # the header, where there is one
    n_columns: int

    def line_number(self, row: int) -> int:
        return row + (1 if self.names is None else 2)

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
        if self.quoted:
            self._check_quotes()
            widths = (len(_cells(line, self.delimiter)) for line in self.lines)
        else:
            widths = (line.count(self.delimiter) + 1 for line in self.lines)
        for row, width in enumerate(widths):
            if width != self.n_columns or not self.lines[row].strip():
                found = f"{width} cell{'s' * (width != 1)}" if self.lines[row].strip() else "nothing"
                raise DataError(
                    f"{self.path}, row {self.line_number(row)}: {found}, where row 1 has {self.n_columns} cells; "
                    f"the row ends at {self.column_name(min(width, self.n_columns) - 1)}, {self.known_columns()}"
                )

    def _check_quotes(self) -> None:
        """Require that quotes are closed in their own line: NumPy would join all lines to the next quote."""
        for row, line in enumerate(self.lines):
            if '"' in line:
                try:
                    list(csv_reader([line], delimiter=self.delimiter, strict=True))
                except CsvError as error:
                    raise DataError(
                        f"{self.path}, row {self.line_number(row)}: its quotes cannot be read: {error}"
                    ) from error

    @cached_property
    def quoted(self) -> bool:
        return any('"' in line for line in self.lines)

    def target_column(self, target: str | int | None) -> int:
        if isinstance(target, bool) or not isinstance(target, str | int | None):
            raise ConfigError(f"target must be a column's name or number, got {target!r}")
        start = f"{self.path}, row 1"
        if self.n_columns == 1:
            raise DataError(
                f"{start}: one column, where features and a label need two; is the delimiter {self.delimiter!r}?"
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
            named = target in [cell.strip() for cell in _cells(self.lines[0], self.delimiter)]
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
        labels = np.char.strip(self._load([target], str)[:, 0])
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
            quotechar='"' if self.quoted else None,
            ndmin=2,
        )
        if len(values) != len(self.lines):
            raise ValueError(f"{len(self.lines)} lines were read as {len(values)} rows")
        return values

    def _bad_feature(self, columns: list[int]) -> DataError | None:
        for row, line in enumerate(self.lines):
            cells = _cells(line, self.delimiter)
            for column in columns:
                if _number(cells[column]) is None:
                    text = cells[column].strip()
                    found = f"a feature must be a number, got {text!r}" if text else "a cell is blank"
                    return DataError(f"{self.place(row, column)}: {found}")
        return None


def _read_table(path: Path, *, header: bool | None, delimiter: str) -> _Table:
    lines = _read_lines(path)
    if not lines:
        raise DataError(f"{path}, row 1: the file is empty")
    first = [cell.strip() for cell in _cells(lines[0], delimiter)]
    has_header = _is_header(first, lines[1:], delimiter) if header is None else header
    rows = lines[1:] if has_header else lines
    if not rows:
        raise DataError(f"{path}, row 2: the file ends after its header, {', '.join(first)}: there are no rows")
    table = _Table(path, rows, delimiter, names=first if has_header else None, n_columns=len(first))
    table.check_widths()
    return table


def _read_lines(path: Path) -> list[str]:
    """Return the lines of a file without the blank ones at its end."""
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
    lines = text.split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    return lines


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(f"{path} cannot be read: {error.strerror or error}")


def _is_header(first: list[str], rest: list[str], delimiter: str) -> bool:
    """Tell whether the cells of the first line name the columns."""
    numbers = [cell for cell in first if _number(cell) is not None]
    if not numbers:
        return True
    n = len(numbers)
    texts = [column for column, cell in enumerate(first) if _number(cell) is None]
    if n < 2 or len(texts) != 1 or numbers not in ([str(i) for i in range(n)], [str(i + 1) for i in range(n)]):
        return False
    # "Letter,1,2,3": a header, as pandas writes it where columns have no names, unless a later row is a "Letter" too
    column = texts[0]
    return bool(rest) and not any(_cells(line, delimiter)[column : column + 1] == [first[column]] for line in rest)


def _cells(line: str, delimiter: str) -> list[str]:
    return next(csv_reader([line], delimiter=delimiter), [""]) if '"' in line else line.split(delimiter)


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
        except (*_DAMAGED, ValueError) as error:  # ValueError: without NumPy's mark it could be a pickle, never loaded
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
    except _DAMAGED as error:
        raise DataError(f"{path}, array {key!r} is damaged: {error}") from error
    return array
