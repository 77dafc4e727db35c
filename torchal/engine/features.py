"""Rows of features wherever they live, read in chunks: no temporary is larger than a chunk, whatever N is."""

from __future__ import annotations

import mmap
import os
import weakref
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torchal._checks import check_float, check_whole
from torchal._chunks import SMALLEST_CHUNK, Chunker, values_per_chunk
from torchal.errors import DataError, ShapeError

Features: TypeAlias = "Tensor | np.memmap[tuple[int, ...], np.dtype[Any]]"
"""(N, D) float: a tensor on any device, or a memory-mapped file."""


class FeatureReader:
    """Reads rows of a tensor or of a memory-mapped file onto the device where the work is done.

    Pages of a mapped file that were touched count as the process's memory, so such a file is read by ordinary reads
    into one buffer, the next chunk while the last one is worked on.

    Args:
        features: (N, D) float.
        device: where the work is done; where the features are, unless given.
        chunk_rows: rows read at once; as many as `values_per_chunk` allows, unless given.
        name: what the features are called in errors.

    Raises:
        ShapeError: features is no float matrix, or has no columns.
        DataError: it has no rows.
    """

    def __init__(
        self,
        features: Features,
        *,
        device: torch.device | str | None = None,
        chunk_rows: int | None = None,
        name: str = "features",
    ) -> None:
        self.home: torch.device
        self.dtype: torch.dtype
        if isinstance(features, np.memmap):
            if features.ndim != 2 or features.dtype.kind != "f":
                raise ShapeError(
                    f"{name} must be (N, D) floating point, got a memory map of {features.dtype} "
                    f"with shape {features.shape}"
                )
            if features.dtype.itemsize > 8:
                raise ShapeError(f"{name} must be float16, float32 or float64, got {features.dtype}")
            self.home = torch.device("cpu")
            self.dtype = torch.from_numpy(np.empty(0, features.dtype.newbyteorder("="))).dtype
        else:
            check_float(name, features, ndim=2)
            features = features.detach()
            self.home, self.dtype = features.device, features.dtype
        if chunk_rows is not None:
            check_whole("chunk_rows", chunk_rows, least=1)
        self.device = self.home if device is None else _with_index(torch.device(device))
        self.n_rows, self.n_columns = int(features.shape[0]), int(features.shape[1])
        if self.n_rows == 0:
            raise DataError(f"{name} has no rows")
        if self.n_columns == 0:
            raise ShapeError(f"{name} must have at least one column, got shape {(self.n_rows, 0)}")
        self.in_chunks = Chunker()
        """To be called for all work on these rows, so that it is known which chunks fit."""
        self.given_chunk_rows = chunk_rows
        self._features = features
        self._file = _MappedFile(features) if isinstance(features, np.memmap) else None

    def __len__(self) -> int:
        return self.n_rows

    def chunk_rows(self, width: int = 1) -> int:
        """Return how many rows to take at once when each makes `width` further values."""
        return self.given_chunk_rows or max(SMALLEST_CHUNK, values_per_chunk(self.device) // max(self.n_columns, width))

    def read(self, start: int, stop: int) -> Tensor:
        """Return rows start to stop on the device, (stop - start, D), in their own dtype, until the next read."""
        if self._file is not None:
            return self._file.read(start, stop).to(self.device)
        assert isinstance(self._features, Tensor)
        return self._features[start:stop].to(self.device, non_blocking=True)

    def rows(self, index: Tensor) -> Tensor:
        """Return a copy of the rows of this index (n,) int64 on the device, (n, D)."""
        if self._file is not None:
            return self._file.rows(index.cpu()).to(self.device)
        assert isinstance(self._features, Tensor)
        return self._features.index_select(0, index.to(self.home)).to(self.device)


def _with_index(device: torch.device) -> torch.device:
    """Return "cuda" as "cuda:0", so that devices can be compared."""
    return torch.empty(0, device=device).device


class _MappedFile:
    """Rows of a memory map, by reads of its file."""

    def __init__(self, rows: np.memmap[tuple[int, ...], np.dtype[Any]]) -> None:
        self._array = rows
        self._native = rows.dtype.newbyteorder("=")
        self._row_bytes = rows.shape[1] * rows.dtype.itemsize
        # Private changes (mode "c") are not in the file, and rows with gaps between their numbers are not one read.
        whole_rows = rows.strides[1] == rows.dtype.itemsize and rows.strides[0] == self._row_bytes
        mapping = getattr(rows, "_mmap", None)
        self._descriptor: int | None = None
        if rows.filename is not None and rows.mode != "c" and whole_rows and mapping is not None:
            # A slice has the .offset of what it was cut from; only its address says where it begins.
            mapped = np.frombuffer(mapping, dtype=np.uint8).__array_interface__["data"][0]
            page = rows.offset - rows.offset % mmap.ALLOCATIONGRANULARITY
            self._begin = page + rows.__array_interface__["data"][0] - mapped
            with suppress(FileNotFoundError):  # deleted since: only the mapping still has it
                self._descriptor = os.open(rows.filename, os.O_RDONLY)
        if self._descriptor is not None:
            weakref.finalize(self, os.close, self._descriptor)
            # Two chunks' room, used in turn: new memory for each chunk would cost more than reading it.
            self._room = [self._empty(0), self._empty(0)]
            self._ahead: tuple[int, int, Future[NDArray[Any]]] | None = None
            self._thread = ThreadPoolExecutor(1)

    def read(self, start: int, stop: int) -> Tensor:
        """Return rows start to stop, and begin to read as many behind them; for use until the next read."""
        if self._descriptor is None:
            return self._tensor(np.array(self._array[start:stop]))
        rows = None
        if self._ahead is not None:
            begun, end, reading = self._ahead
            self._ahead, rows = None, reading.result()
            rows = rows if (begun, end) == (start, stop) else None
        rows = self._load(start, stop) if rows is None else rows
        end = min(2 * stop - start, len(self._array))
        if end > stop:
            self._ahead = stop, end, self._thread.submit(self._load, stop, end)
        return self._tensor(rows)

    def rows(self, index: Tensor) -> Tensor:
        """Return the rows of this index; each run of neighbours is one read."""
        if self._descriptor is None:
            return self._tensor(np.array(self._array[index.numpy()]))
        order = index.sort()
        wanted = order.values.numpy()
        starts = np.flatnonzero(np.diff(wanted, prepend=-2) != 1)
        out = self._empty(len(wanted))
        room = _bytes_of(out)
        for first, last in zip(starts.tolist(), [*starts[1:].tolist(), len(wanted)], strict=True):
            self._fill(room[first * self._row_bytes : last * self._row_bytes], int(wanted[first]))
        found = self._tensor(out)
        return torch.empty_like(found).index_copy_(0, order.indices, found)

    def _load(self, start: int, stop: int) -> NDArray[Any]:
        if len(self._room[0]) < stop - start:
            self._room[0] = self._empty(stop - start)
        self._room.reverse()
        rows = self._room[1][: stop - start]
        self._fill(_bytes_of(rows), start)
        return rows

    def _fill(self, room: memoryview, start: int) -> None:
        """Read as many bytes as there is room for, from row `start` on."""
        assert self._descriptor is not None
        offset = self._begin + start * self._row_bytes
        while room:
            got = os.preadv(self._descriptor, [room], offset)
            if got == 0:
                row = (offset - self._begin) // self._row_bytes
                raise DataError(f"{self._array.filename} ends before row {row}: it was cut short since it was mapped")
            room, offset = room[got:], offset + got

    def _empty(self, n_rows: int) -> NDArray[Any]:
        return np.empty((n_rows, self._array.shape[1]), self._array.dtype)

    def _tensor(self, rows: NDArray[Any]) -> Tensor:
        return torch.from_numpy(rows.astype(self._native, copy=False))


def _bytes_of(rows: NDArray[Any]) -> memoryview:
    return rows.reshape(-1).view(np.uint8).data
