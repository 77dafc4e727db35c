"""Rows of features wherever they live, read in chunks: no temporary is larger than a chunk, whatever N is."""

from __future__ import annotations

import mmap
import os
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torchal._checks import as_array, as_tensor, check_whole
from torchal._chunks import SMALLEST_CHUNK, Chunker, values_per_chunk
from torchal.distributed import Shards
from torchal.errors import DataError, ShapeError

Features: TypeAlias = "Tensor | NDArray[Any]"
"""(N, D) numbers: a tensor on any device, a NumPy array, or a memory-mapped file; of none is there ever a second whole.

Half precision is computed in float32. Whole numbers and bools become float32 chunk by chunk, those of 32 and 64 bits
float64, which has room for them up to 2^53. Arrays and mapped files are on the CPU, and may be read-only, of any byte
order and any strides; masks, weights and labels beside them may be arrays or lists too.
"""

_WIDE = (torch.int32, torch.int64, torch.uint32, torch.uint64)  # float32 has not room for their numbers
# of the same size, for torch takes rows of these by index on every device
_SIGNED = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}


class FeatureReader:
    """Reads rows of a tensor, an array or a memory-mapped file onto the device where the work is done.

    Pages of a mapped file that were touched count as the process's memory, so such a file is read by ordinary reads
    into one buffer, the next chunk while the last one is worked on.

    Args:
        features: (N, D) numbers.
        device: where the work is done; where the features are, unless given.
        chunk_rows: rows read at once; as many as `values_per_chunk` allows, unless given.
        name: what the features are called in errors.
        takes_integers: whether they may be whole numbers or bools, which are read as floats.
        shards: whose rows these are, if other ranks have others; then there may be none, and what goes wrong while they
            are read is told to all ranks when these speak next.

    Raises:
        ShapeError: features is no matrix of numbers, or has no columns.
        DataError: it has no rows, or masked values.
    """

    def __init__(
        self,
        features: Features,
        *,
        device: torch.device | str | None = None,
        chunk_rows: int | None = None,
        name: str = "features",
        takes_integers: bool = True,
        shards: Shards | None = None,
    ) -> None:
        self.shards = Shards(None) if shards is None else shards
        if not isinstance(features, Tensor):
            array = as_array(name, features)
            features = array if isinstance(array, np.memmap) else in_memory(array)
        if features.ndim != 2:
            raise ShapeError(f"{name} must have 2 axes, got shape {tuple(features.shape)}")
        if chunk_rows is not None:
            check_whole("chunk_rows", chunk_rows, least=1)
        dtype = features.dtype if isinstance(features, Tensor) else _torch_dtype(features.dtype)
        self.dtype = _read_as(name, dtype, takes_integers=takes_integers)
        self.home = device_of(features)
        self.device = self.home if device is None else _with_index(torch.device(device))
        self.n_rows, self.n_columns = int(features.shape[0]), int(features.shape[1])
        if self.n_rows == 0 and self.shards.alone:
            raise DataError(f"{name} has no rows")
        if self.n_columns == 0:
            raise ShapeError(f"{name} must have at least one column, got shape {(self.n_rows, 0)}")
        self.in_chunks = Chunker() if self.shards.alone else _ChunkerOfRank(self.shards)
        """To be called for all work on these rows, so that it is known which chunks fit."""
        self.given_chunk_rows = chunk_rows
        self._rows: _TensorRows | _ArrayRows
        if isinstance(features, Tensor):
            self._rows = _TensorRows(features.detach())
        else:
            self._rows = _MappedFile(features) if isinstance(features, np.memmap) else _ArrayRows(features)
        if self.shards.alone:
            self.shards.offsets = [0, self.n_rows]
        self._none = torch.empty(0, self.n_columns, dtype=dtype, device=self.home)

    def __len__(self) -> int:
        return self.n_rows

    def chunk_rows(self, width: int = 1) -> int:
        """Return how many rows to take at once when each makes `width` further values."""
        return self.given_chunk_rows or max(SMALLEST_CHUNK, values_per_chunk(self.device) // max(self.n_columns, width))

    def read(self, start: int, stop: int) -> Tensor:
        """Return rows start to stop on the device, (stop - start, D) float, until the next read."""
        rows = self._rows.read(start, stop)
        # the room of a file's rows is used again at once
        return rows.to(self.device, non_blocking=isinstance(self._rows, _TensorRows)).to(self.dtype)

    def rows(self, index: Tensor) -> Tensor:
        """Return a copy of the rows of this index (n,) int64 of the pool on the device, (n, D) float.

        Rows of other ranks are fetched: each rank asks for the same ones at the same time.
        """
        (rows,) = self.shards.gather_rows(index.to(self.home), lambda mine: [self._rows.rows(mine)], [self._none])
        return rows.to(self.device).to(self.dtype)

    def own_rows(self, index: Tensor) -> Tensor:
        """Return a copy of some of this rank's own rows, by numbers that count from its first, (n, D) float."""
        return self._rows.rows(index.to(self.home)).to(self.device).to(self.dtype)


class _ChunkerOfRank(Chunker):
    """Work whose errors are told to all ranks when they speak next; until then its results are not to be used."""

    def __init__(self, shards: Shards) -> None:
        super().__init__()
        self._shards = shards

    def __call__(self, n_rows: int, size: int, work: Callable[[int, int], None]) -> None:
        """Call work(start, stop) on consecutive chunks."""
        self._shards.attempt(lambda: super(_ChunkerOfRank, self).__call__(n_rows, size, work), lambda: None)


def as_matrix(name: str, features: Features, *, device: torch.device | None = None) -> Tensor:
    """Return features that are few, or needed whole, as a tensor (N, D) float.

    A tensor stays where it is; arrays and mapped files come to the device, if one is given.

    Raises:
        ShapeError: they are no matrix of numbers.
        DataError: some are masked.
    """
    tensor = as_tensor(name, features, device=device)
    dtype = _read_as(name, tensor.dtype)
    if tensor.ndim != 2:
        raise ShapeError(f"{name} must have 2 axes, got shape {tuple(tensor.shape)}")
    return tensor.to(dtype)


def device_of(features: Features) -> torch.device:
    """Return where features are; arrays and mapped files come to the CPU."""
    return features.device if isinstance(features, Tensor) else torch.device("cpu")


def _read_as(name: str, dtype: torch.dtype, *, takes_integers: bool = True) -> torch.dtype:
    """Return the floating-point dtype that numbers of a dtype are read as."""
    if dtype.is_floating_point:
        return dtype
    if dtype.is_complex or not takes_integers:
        raise ShapeError(f"{name} must be {'real numbers' if takes_integers else 'floating point'}, got {dtype}")
    return torch.float64 if dtype in _WIDE else torch.float32


def _with_index(device: torch.device) -> torch.device:
    """Return "cuda" as "cuda:0", so that devices can be compared."""
    return torch.empty(0, device=device).device


def _torch_dtype(dtype: np.dtype[Any]) -> torch.dtype:
    return torch.from_numpy(np.empty(0, dtype.newbyteorder("="))).dtype


def in_memory(array: NDArray[Any]) -> Tensor | NDArray[Any]:
    """Return an array as a tensor in the same memory, or as it is where torch cannot read that."""
    whole_steps = all(step >= 0 and step % array.itemsize == 0 for step in array.strides)
    if not (array.dtype.isnative and array.flags.aligned and whole_steps):
        return array
    return torch.from_numpy(array if array.flags.writeable else np.asarray(_Writable(array)))


class _Writable:
    """A read-only array as one that can be written, for torch takes no other: nothing here writes to features."""

    def __init__(self, array: NDArray[Any]) -> None:
        self._array = array  # which is to live as long as the tensor

    @property
    def __array_interface__(self) -> dict[str, Any]:
        interface = dict(self._array.__array_interface__)
        return {**interface, "data": (interface["data"][0], False)}


class _TensorRows:
    """Rows of a tensor."""

    def __init__(self, rows: Tensor) -> None:
        self._tensor = rows

    def read(self, start: int, stop: int) -> Tensor:
        """Return rows start to stop, in the tensor's memory."""
        return self._tensor[start:stop]

    def rows(self, index: Tensor) -> Tensor:
        """Return a copy of the rows of this index."""
        dtype = self._tensor.dtype
        return self._tensor.view(_SIGNED.get(dtype, dtype)).index_select(0, index).view(dtype)


class _ArrayRows:
    """Rows of an array that torch cannot share, copied as they are read."""

    def __init__(self, rows: NDArray[Any]) -> None:
        self._array = rows
        self._native = rows.dtype.newbyteorder("=")

    def read(self, start: int, stop: int) -> Tensor:
        """Return a copy of rows start to stop."""
        return torch.from_numpy(np.array(self._array[start:stop], self._native, order="C", subok=False))

    def rows(self, index: Tensor) -> Tensor:
        """Return a copy of the rows of this index."""
        return torch.from_numpy(np.array(self._array[index.numpy()], self._native, order="C", subok=False))


class _MappedFile(_ArrayRows):
    """Rows of a memory map, by reads of its file."""

    def __init__(self, rows: np.memmap[tuple[int, ...], np.dtype[Any]]) -> None:
        super().__init__(rows)
        self._filename = rows.filename
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
            return super().read(start, stop)
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
        if self._descriptor is None or not len(index):
            return super().rows(index)
        order = index.sort()
        wanted = order.values.numpy()
        starts = np.flatnonzero(np.diff(wanted, prepend=-2) != 1)
        out = self._empty(len(wanted))
        room = _bytes_of(out)
        for first, last in zip(starts.tolist(), [*starts[1:].tolist(), len(wanted)], strict=True):
            self._fill(room[first * self._row_bytes : last * self._row_bytes], int(wanted[first]))
        found = np.empty_like(out)
        found[order.indices.numpy()] = out
        return self._tensor(found)

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
                raise DataError(f"{self._filename} ends before row {row}: it was cut short since it was mapped")
            room, offset = room[got:], offset + got

    def _empty(self, n_rows: int) -> NDArray[Any]:
        return np.empty((n_rows, self._array.shape[1]), self._array.dtype)

    def _tensor(self, rows: NDArray[Any]) -> Tensor:
        return torch.from_numpy(rows.astype(self._native, copy=False))


def _bytes_of(rows: NDArray[Any]) -> memoryview:
    return rows.reshape(-1).view(np.uint8).data
