"""Files that hold the rows of one matrix, in the order of their numbers; what each of them holds."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from torchal.errors import DataError

# img_emb_7, part.7, 00007, train-00007-of-00010
_NUMBERED = re.compile(r"(?P<prefix>.*?)(?P<number>\d+)(?P<total>[-_]of[-_]\d+)?")


@dataclass(frozen=True)
class Stamp:
    """A file as it was when it was opened.

    Args:
        path: the file.
        n_bytes: its size.
        mtime_ns: when it was last changed, in nanoseconds.
    """

    path: Path
    n_bytes: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path) -> Stamp:
        """Look at a file.

        Raises:
            DataError: it is not there.
        """
        try:
            found = path.stat()
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}") from error
        return cls(path, found.st_size, found.st_mtime_ns)

    def check(self) -> None:
        """Require the file to be the same still.

        Raises:
            DataError: it is missing, or was changed.
        """
        now = Stamp.of(self.path)
        if now.n_bytes != self.n_bytes:
            raise DataError(
                f"{self.path} was changed since it was opened: {self.n_bytes} bytes then, {now.n_bytes} now"
            )
        if now != self:
            raise DataError(f"{self.path} was changed since it was opened: it has another time of last change")


@dataclass(frozen=True)
class MatrixFile:
    """What a file says it holds.

    Args:
        stamp: the file.
        n_rows: rows in it.
        n_columns: numbers in a row; None where nothing tells, for there are no rows.
        dtype: of the numbers.
        offset: where the numbers begin, in bytes; 0 where they do not lie one behind the other.
    """

    stamp: Stamp
    n_rows: int
    n_columns: int | None
    dtype: np.dtype[Any]
    offset: int = 0

    @property
    def path(self) -> Path:
        """Return where it is."""
        return self.stamp.path


def listed(source: str | os.PathLike[str], suffix: str) -> list[Path]:
    """Return the files of a folder, or those that a pattern names, that have this suffix, in no order."""
    path = Path(source).expanduser()
    if path.is_dir():
        return [one for one in path.iterdir() if one.suffix == suffix and one.is_file()]
    return [Path(one) for one in glob.glob(str(path), recursive=True) if Path(one).suffix == suffix]  # noqa: PTH207


def number_of(path: Path) -> int | None:
    """Return the number at the end of a file's name."""
    found = _NUMBERED.fullmatch(path.stem)
    return None if found is None else int(found["number"])


def in_order(paths: Sequence[Path], *, from_zero: bool) -> list[Path]:
    """Return files by their numbers, `_2` before `_10`.

    Args:
        paths: files whose names differ in their numbers only; one alone may have any name.
        from_zero: whether the first number has to be 0.

    Raises:
        DataError: a name is another one, or without a number; a number is there twice, or missing.

    Example:
        >>> [path.name for path in in_order([Path("e_2.npy"), Path("e_0.npy"), Path("e_01.npy")], from_zero=True)]
        ['e_0.npy', 'e_01.npy', 'e_2.npy']
    """
    if len(paths) == 1 and number_of(paths[0]) is None:
        return list(paths)
    by_name = sorted(paths)
    found: dict[int, Path] = {}
    first = None
    for path in by_name:
        match = _NUMBERED.fullmatch(path.stem)
        if match is None:
            raise DataError(
                f"{path} has no number at the end of its name, as img_emb_7.npy has; it is one of {len(paths)}"
            )
        kind = match["prefix"], match["total"]
        first = first or (path, kind)
        if kind != first[1]:
            raise DataError(f"{path} and {first[0]} are not numbered alike, and so are no shards of one matrix")
        number = int(match["number"])
        if number in found:
            raise DataError(f"{path} and {found[number]} have the same number, {number}")
        found[number] = path
    numbers = sorted(found)
    low, high = 0 if from_zero else numbers[0], numbers[-1]
    total = first[1][1] if first is not None else None
    if total:  # "-of-00010" counts them
        high = max(high, int(re.sub(r"\D", "", total)) - 1)
    n_missing = high + 1 - low - len(found)
    if n_missing:
        missing = next(number for number in range(low, high + 1) if number not in found)
        raise DataError(
            f"{n_missing} of the shards {low} to {high} {'is' if n_missing == 1 else 'are'} missing beside "
            f"{found[high if high in found else numbers[-1]]}, the first is number {missing}"
        )
    return [found[number] for number in numbers]


def npy_file(path: Path) -> MatrixFile:
    """Read the header of an .npy file.

    Raises:
        DataError: it is none, or holds no matrix of numbers, row after row and whole.
    """
    stamp = Stamp.of(path)
    try:
        with path.open("rb") as file:
            major, _ = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
            shape, by_column, dtype = read(file)
            offset = file.tell()
    except (ValueError, EOFError, OSError) as error:
        raise DataError(f"{path} cannot be read as .npy: {error}") from error
    # bfloat16, which NumPy has not, stands in files as two bytes of nothing
    if len(shape) != 2 or not (dtype.kind in "biuf" or dtype.str == "|V2"):
        raise DataError(f"{path} must be a matrix (n, D) of numbers, got {shape} of {dtype}")
    if by_column and min(shape) > 1:
        raise DataError(f"{path} has its numbers column after column (Fortran's order); save it by rows")
    needed = offset + shape[0] * shape[1] * dtype.itemsize
    if stamp.n_bytes < needed:
        raise DataError(f"{path} was cut short: {stamp.n_bytes} bytes, {shape} of {dtype} need {needed}")
    return MatrixFile(stamp, int(shape[0]), int(shape[1]), dtype, offset)


def check_alike(files: Sequence[MatrixFile]) -> tuple[int, np.dtype[Any]]:
    """Return the number of columns and the dtype that files have in common.

    Raises:
        DataError: they have not; or there are no rows or columns.
    """
    with_rows = [one for one in files if one.n_columns is not None]
    first = with_rows[0] if with_rows else None
    if first is None or first.n_columns is None or not sum(one.n_rows for one in files):
        raise DataError(f"{files[0].path.parent} has no rows, in {len(files)} files")
    for one in with_rows:
        if one.n_columns != first.n_columns:
            raise DataError(f"{one.path} has {one.n_columns} columns, {first.path} has {first.n_columns}")
        if one.dtype != first.dtype:
            raise DataError(f"{one.path} is of {one.dtype}, {first.path} of {first.dtype}")
    if not first.n_columns:
        raise DataError(f"{first.path} has no columns")
    return first.n_columns, first.dtype
