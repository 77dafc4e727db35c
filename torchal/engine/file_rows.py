"""One matrix whose rows lie in one file or several, read where they are asked for: it may be larger than the memory."""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torchal._checks import as_integers, check_whole
from torchal.errors import ConfigError, DataError, ShapeError

Mapped: TypeAlias = "np.memmap[tuple[int, ...], np.dtype[Any]]"
File: TypeAlias = "str | os.PathLike[str] | Mapped"

_SPAN_BYTES = 1 << 22  # of rows near each other that are read at once
_GAP_BYTES = 1 << 15  # to read so much for nothing costs about as much as another read
_RUNS_AHEAD, _AHEAD_BYTES = 1024, 1 << 25  # reads that the system is told of, so that a disk serves them side by side
_STORED = {torch.bfloat16: np.dtype("<u2")}  # what NumPy has no dtype for, as numbers of the same size
# of the same size, for NumPy's unsigned numbers cannot be seen as all that torch has
_SEEN_AS = {torch.bfloat16: torch.int16}
_OF_NUMPY = {torch.from_numpy(np.empty(0, kind)).dtype for kind in "?bhilBHILefd"}


class FileRows:
    """The rows of an (N, D) matrix in files, one behind the other, which is never in memory as a whole.

    It is taken as features wherever tensors are. Rows are read by ordinary reads, since the pages of a mapped file that
    were touched count as memory in use. No file is kept open, so there may be thousands, and a FileRows can be pickled.

    A file that is missing, or was changed or cut short since, is an error that names it once its rows are read.
    (Of a memory map that can be written to, only the size is watched.)

    Args:
        files: paths of `.npy` files, or memory maps (whose pages stay untouched), or a sequence of such. The parts of a
            map that are cut out of it by slices of rows are fine.
        dtype: what the numbers are, where the files cannot say it: `torch.bfloat16` for files of 2-byte values of no
            type, as NumPy saves those of ml_dtypes, or of uint16.
        n_columns: numbers in a row, of files that are nothing but numbers of `dtype` and no `.npy` files.

    Shapes:
        files: (N_i, D) each, of one dtype; N is the sum of all N_i.

    Raises:
        ShapeError: no files; a file or map is no matrix, has other columns or another dtype than the first, or a dtype
            that torch has not; or the rows of a map are not one behind the other in its file.
        DataError: a file is missing, no `.npy` file, or shorter than its header says.
        ConfigError: n_columns without a dtype; a dtype that is not one of real numbers or bools of at least 8 bits.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> np.save(folder / "0.npy", np.zeros((3, 2), np.float16))
        >>> np.save(folder / "1.npy", np.ones((2, 2), np.float16))
        >>> rows = FileRows([folder / "0.npy", folder / "1.npy"])
        >>> rows.shape, rows.dtype, rows[1:4].rows(torch.tensor([2, 0])).tolist()
        ((5, 2), torch.float16, [[1.0, 1.0], [0.0, 0.0]])
    """

    ndim = 2
    device = torch.device("cpu")

    def __init__(
        self, files: File | Sequence[File], dtype: torch.dtype | None = None, *, n_columns: int | None = None
    ) -> None:
        if dtype is not None and not (isinstance(dtype, torch.dtype) and _is_stored(dtype)):
            raise ConfigError(f"dtype must be one that torch and files have, got {dtype!r}")
        if n_columns is not None:
            check_whole("n_columns", n_columns, least=1)
            if dtype is None:
                raise ConfigError(f"files of nothing but numbers need a dtype, got n_columns={n_columns} and none")
        several: Any = files if isinstance(files, Sequence) and not isinstance(files, str) else [files]
        parts = [_located(file, dtype, n_columns) for file in several]
        if not parts:
            raise ShapeError("files must name at least one file, got none")
        first = parts[0]
        self.dtype = _torch_dtype(first, dtype)
        for part in parts[1:]:
            if part.n_columns != first.n_columns or part.dtype != first.dtype:
                raise ShapeError(
                    f"files of one matrix must be alike: {part.file.path} has {part.n_columns} columns of "
                    f"{part.dtype}, {first.file.path} has {first.n_columns} of {first.dtype}"
                )
        self._stored = _STORED.get(self.dtype, first.dtype)
        if self.dtype in _STORED and first.dtype.kind == "u":
            self._stored = first.dtype  # which may be of the other byte order
        self._pieces = [part.file for part in parts if part.file.n_rows]
        self._ends = np.cumsum([piece.n_rows for piece in self._pieces], dtype=np.int64)
        self.shape = (int(self._ends[-1]) if self._pieces else 0, first.n_columns)

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"FileRows({self.shape[0]} x {self.shape[1]} of {self.dtype} in {len(self._pieces)} files)"

    def __getitem__(self, rows: Any) -> Any:
        """Return rows of a slice as FileRows, without reading them, and those of an index (n,) as a tensor (n, D)."""
        if not isinstance(rows, slice):
            return self.rows(as_integers("rows", rows))
        start, stop, step = rows.indices(len(self))
        if step != 1:
            raise ShapeError(f"a slice of rows in files must have step 1, got {step}")
        chosen = object.__new__(FileRows)
        chosen.dtype, chosen._stored = self.dtype, self._stored
        chosen._pieces = [
            piece.cut(first, last, self._row_bytes) for piece, first, last in self._split(start, max(start, stop))
        ]
        chosen._ends = np.cumsum([piece.n_rows for piece in chosen._pieces], dtype=np.int64)
        chosen.shape = (max(0, stop - start), self.shape[1])
        return chosen

    def read(self, start: int, stop: int) -> Tensor:
        """Return a copy of rows start to stop, (stop - start, D), as a tensor of `dtype` on the CPU.

        Raises:
            DataError: a file is missing, or was changed or cut short.
        """
        return self.read_into(self.room(stop - start), start)

    def rows(self, index: Tensor) -> Tensor:
        """Return a copy of the rows of this index (n,) int64, as a tensor (n, D) of `dtype` on the CPU.

        Rows near each other are one read; negative numbers count from the end.

        Raises:
            ShapeError: a number lies outside of [-N, N).
            DataError: a file is missing, or was changed or cut short.
        """
        wanted = index.detach().cpu().numpy()
        if len(wanted) and not -len(self) <= wanted.min() <= wanted.max() < len(self):
            raise ShapeError(f"rows must lie in [0, {len(self)}), got {wanted.min()} to {wanted.max()}")
        wanted = np.where(wanted < 0, wanted + len(self), wanted)
        order = np.argsort(wanted, kind="stable")
        ascending = bool((order[1:] > order[:-1]).all())
        if not ascending:
            wanted = wanted[order]
        room = self.room(len(wanted))
        bounds = np.searchsorted(wanted, np.concatenate([[0], self._ends]))
        for piece, end, first, last in zip(self._pieces, self._ends, bounds[:-1], bounds[1:], strict=True):
            if first < last:
                self._gather(piece, wanted[first:last] - (end - piece.n_rows), room[first:last])
        if not ascending:
            found = np.empty_like(room)
            found[order] = room
            room = found
        return self.as_tensor(room)

    def room(self, n_rows: int) -> NDArray[Any]:
        """Return memory for so many rows as they are stored."""
        return np.empty((n_rows, self.shape[1]), self._stored)

    def read_into(self, room: NDArray[Any], start: int) -> Tensor:
        """Fill room of `room` with the rows from `start` on, and return it as a tensor of `dtype`."""
        done = 0
        for piece, first, last in self._split(start, start + len(room)):
            descriptor = piece.open(first)
            try:
                part = room[done : done + last - first]
                piece.fill(descriptor, part, first)
            finally:
                os.close(descriptor)
            done += last - first
        return self.as_tensor(room)

    def read_to(self, out: Tensor, start: int) -> None:
        """Fill a contiguous tensor (R, D) of `dtype` on the CPU with the rows from `start` on.

        Args:
            out: the tensor.
            start: the first of R rows.
        """
        numbers = out.view(_SEEN_AS.get(self.dtype, self.dtype)).numpy()
        if self._stored.isnative:
            self.read_into(numbers.view(self._stored), start)
        else:
            out.copy_(self.read(start, start + len(out)))

    def as_tensor(self, room: NDArray[Any]) -> Tensor:
        """Return rows as they are stored as a tensor of `dtype`: in the same memory, if their bytes are in order.

        Args:
            room: rows as they lie in a file, as `room` made the place for them.
        """
        numbers = room.astype(room.dtype.newbyteorder("="), copy=False)
        if self.dtype in _SEEN_AS:
            numbers = numbers.view(np.int16)
        return torch.from_numpy(numbers).view(self.dtype)

    def expect(self, start: int, stop: int) -> None:
        """Tell the system that rows start to stop are about to be read, so that it may fetch them meanwhile."""
        for piece, first, last in self._split(start, min(stop, len(self))):
            descriptor = piece.open(first)
            try:
                row_bytes = self._row_bytes
                _will_need(descriptor, piece.offset + first * row_bytes, (last - first) * row_bytes)
            finally:
                os.close(descriptor)

    @property
    def _row_bytes(self) -> int:
        return self.shape[1] * self._stored.itemsize

    def _split(self, start: int, stop: int) -> list[tuple[_Piece, int, int]]:
        """Return which rows of which files rows start to stop are."""
        found = []
        at = int(np.searchsorted(self._ends, start, side="right"))
        while start < stop:
            piece, end = self._pieces[at], int(self._ends[at])
            before = end - piece.n_rows
            found.append((piece, start - before, min(stop, end) - before))
            start, at = end, at + 1
        return found

    def _gather(self, piece: _Piece, wanted: NDArray[np.int64], room: NDArray[Any]) -> None:
        """Read rows of one file, in ascending order: those that are near each other by one read, with all between."""
        row_bytes = self._row_bytes
        gaps = np.diff(wanted) - 1
        most = max(1, _SPAN_BYTES // row_bytes)
        apart = (gaps * row_bytes > _GAP_BYTES) | (np.diff(wanted // most) > 0)
        begins = np.concatenate([[0], np.flatnonzero(apart) + 1])
        ends = np.concatenate([begins[1:], [len(wanted)]])
        firsts, lasts = wanted[begins], wanted[ends - 1] + 1
        odd = np.concatenate([[0], np.cumsum(gaps != 0)])  # a row may be asked for twice, too
        whole = odd[ends - 1] == odd[begins]
        groups = zip(*(each.tolist() for each in (begins, ends, firsts, lasts, whole)), strict=True)
        offsets, sizes = (piece.offset + firsts * row_bytes).tolist(), ((lasts - firsts) * row_bytes).tolist()
        data, scratch, told, ahead = _bytes_of(room), room[:0], 0, 0
        scratch_data = data[:0]
        descriptor = piece.open(int(wanted[0]))
        try:
            for at, (begin, end, first, last, all_of_them) in enumerate(groups):
                while told < len(sizes) and told < at + _RUNS_AHEAD and ahead < _AHEAD_BYTES:
                    _will_need(descriptor, offsets[told], sizes[told])
                    ahead, told = ahead + sizes[told], told + 1
                ahead -= sizes[at]
                if all_of_them:
                    part = data[begin * row_bytes : end * row_bytes]
                    if os.preadv(descriptor, [part], offsets[at]) != len(part):
                        piece.fill(descriptor, room[begin:end], first)
                    continue
                if len(scratch) < last - first:
                    scratch = self.room(max(most, last - first))
                    scratch_data = _bytes_of(scratch)
                if os.preadv(descriptor, [scratch_data[: sizes[at]]], offsets[at]) != sizes[at]:
                    piece.fill(descriptor, scratch[: last - first], first)
                room[begin:end] = scratch[wanted[begin:end] - first]
        finally:
            os.close(descriptor)


def of_map(mapped: Mapped) -> FileRows | None:
    """Return the rows of a memory map as those of its file, or None where they can be read from memory only.

    Those are private changes (mode "c"), rows with gaps, columns one behind the other, and a file deleted since.
    """
    if mapped.ndim != 2 or mapped.dtype.kind not in "biuf" or _offset_of(mapped) is None:
        return None
    return FileRows(mapped) if Path(str(mapped.filename)).exists() else None


class _Piece(NamedTuple):
    """Some rows of a file."""

    path: str
    offset: int
    """The byte at which they begin."""
    n_rows: int
    state: tuple[int, int] | None
    """Size, and time of the last change, of the file when it was looked at; None where it may change."""
    first: int = 0
    """How many rows of the file, or map, as it was given are before these."""

    def cut(self, first: int, last: int, row_bytes: int) -> _Piece:
        """Return some of these rows."""
        return self._replace(offset=self.offset + first * row_bytes, n_rows=last - first, first=self.first + first)

    def open(self, row: int) -> int:
        """Return a descriptor of the file, to read from this row on.

        Raises:
            DataError: it is missing, or was changed.
        """
        try:
            descriptor = os.open(self.path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        except OSError as error:
            raise DataError(f"{self.path} cannot be read, at row {self.first + row} of it: {error.strerror}") from error
        now = _state(os.fstat(descriptor))
        if self.state is not None and now != self.state:
            os.close(descriptor)
            was, size = self.state[0], now[0]
            how = f"was cut short from {was} to {size} bytes" if size < was else "was changed"
            raise DataError(f"{self.path} {how} since it was opened; row {self.first + row} of it was to be read")
        return descriptor

    def fill(self, descriptor: int, room: NDArray[Any], first: int) -> None:
        """Read as many rows as there is room for, from row `first` on."""
        row_bytes = room.shape[1] * room.itemsize
        data = _bytes_of(room)
        offset = self.offset + first * row_bytes
        while data:
            got = os.preadv(descriptor, [data], offset)
            if got == 0:
                row = self.first + (offset - self.offset) // row_bytes
                raise DataError(f"{self.path} ends before row {row}: it was cut short since it was opened")
            data, offset = data[got:], offset + got


class _Part(NamedTuple):
    """A file as it was given."""

    file: _Piece
    n_columns: int
    dtype: np.dtype[Any]


def _located(file: File, dtype: torch.dtype | None, n_columns: int | None) -> _Part:
    """Return where the rows of a file are.

    Raises:
        See `FileRows`.
    """
    if isinstance(file, np.memmap):
        begin = _offset_of(file)
        if file.ndim != 2 or begin is None:
            raise ShapeError(
                f"the rows of a memory map must lie one behind the other in a file, in two axes; got {file.shape} of "
                f"{file.filename} in mode {file.mode!r} with steps of {file.strides} bytes"
            )
        path, shape, stored = str(file.filename), file.shape, file.dtype
    elif isinstance(file, str | os.PathLike):
        path = str(Path(file).expanduser().absolute())
        begin, shape, stored = _header(path) if n_columns is None else (0, (-1, n_columns), _stored_as(dtype))
    else:
        raise ShapeError(f"a file must be a path or a memory map, got {type(file).__name__}")
    try:
        state = _state(Path(path).stat())
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    row_bytes = shape[1] * stored.itemsize
    n_rows = shape[0] if shape[0] >= 0 else state[0] // row_bytes
    needed = begin + n_rows * row_bytes
    if state[0] < needed or (shape[0] < 0 and state[0] > needed):
        held = (state[0] - begin) // max(1, row_bytes)
        what = f"ends before row {held} of {n_rows}: it was cut short" if state[0] < needed else "ends inside a row"
        raise DataError(f"{path} {what}; it has {state[0]} bytes, rows of {row_bytes} begin at byte {begin}")
    written = isinstance(file, np.memmap) and file.mode != "r"
    return _Part(_Piece(path, begin, n_rows, None if written else state), shape[1], stored)


def _header(path: str) -> tuple[int, tuple[int, ...], np.dtype[Any]]:
    """Return where the numbers of an .npy file begin, their shape and their dtype."""
    try:
        with Path(path).open("rb") as file:
            version = np.lib.format.read_magic(file)
            read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            if version not in read:
                raise DataError(f"{path} is an .npy file of version {version}, which has no numbers that torch has")
            shape, by_columns, dtype = read[version](file)
            begin = file.tell()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except DataError:
        raise
    except ValueError as error:
        raise DataError(f"{path} is no .npy file: {error}; other files need n_columns and a dtype") from error
    if len(shape) != 2:
        raise ShapeError(f"{path} must have 2 axes, got shape {shape}")
    if by_columns and min(shape) > 1:
        raise ShapeError(f"{path} has its numbers by columns; np.ascontiguousarray, and np.save, put them by rows")
    return begin, shape, dtype


def _offset_of(mapped: Mapped) -> int | None:
    """Return the byte of its file at which a memory map begins, or None where its rows are not in order there."""
    whole_rows = mapped.ndim == 2 and mapped.flags.c_contiguous
    mapping = getattr(mapped, "_mmap", None)
    if mapped.filename is None or mapped.mode == "c" or not whole_rows or mapping is None:
        return None
    # A slice has the .offset of what it was cut from; only its address says where it begins.
    there = np.frombuffer(mapping, dtype=np.uint8).__array_interface__["data"][0]
    page: int = mapped.offset - mapped.offset % mmap.ALLOCATIONGRANULARITY
    return page + int(mapped.__array_interface__["data"][0]) - int(there)


def _torch_dtype(part: _Part, dtype: torch.dtype | None) -> torch.dtype:
    """Return what the numbers of a file are, by its dtype or by what was said of it."""
    stored = part.dtype
    own: torch.dtype | None
    if stored.kind in "biuf" and stored.itemsize <= 8:
        own = torch.from_numpy(np.empty(0, stored.newbyteorder("="))).dtype
    else:
        own = torch.bfloat16 if stored.name == "bfloat16" else None
    untyped = stored.kind == "V" and stored.names is None and own is None
    if dtype is not None and (
        dtype == own or ((untyped or stored.kind == "u") and _stored_as(dtype) == _plain(stored))
    ):
        return dtype
    if dtype is not None:
        raise ShapeError(f"{part.file.path} has numbers of {stored}, which are not {dtype}")
    if own is None:
        hint = "; dtype=torch.bfloat16 may say what they are" if untyped and stored.itemsize == 2 else ""
        raise ShapeError(f"{part.file.path} must have numbers of at most 64 bits, got {stored}{hint}")
    return own


def _plain(stored: np.dtype[Any]) -> np.dtype[Any]:
    """Return values of no type as unsigned numbers of their size."""
    return np.dtype(f"<u{stored.itemsize}") if stored.kind == "V" else stored.newbyteorder("<")


def _stored_as(dtype: torch.dtype | None) -> np.dtype[Any]:
    """Return what NumPy stores numbers of a dtype as."""
    assert dtype is not None
    return _STORED[dtype] if dtype in _STORED else np.dtype(torch.empty(0, dtype=dtype).numpy().dtype)


def _is_stored(dtype: torch.dtype) -> bool:
    return dtype in _STORED or dtype in _OF_NUMPY


def _will_need(descriptor: int, offset: int, size: int) -> None:
    """Tell the system that a part of a file is about to be read, where one can."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, offset, size, os.POSIX_FADV_WILLNEED)


def _state(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns


def _bytes_of(rows: NDArray[Any]) -> memoryview:
    return rows.reshape(-1).view(np.uint8).data
