"""Rows of features wherever they live, read in chunks: no temporary is larger than a chunk, whatever N is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torchal._checks import as_array, as_tensor, check_whole
from torchal._chunks import SMALLEST_CHUNK, Chunker, values_per_chunk
from torchal.distributed import Shards
from torchal.engine.file_rows import FileRows, of_map
from torchal.engine.read_ahead import HALF, FileBlocks, StagedBlocks, has_streams
from torchal.errors import DataError, ShapeError

Features: TypeAlias = "Tensor | NDArray[Any] | FileRows"
"""(N, D) numbers: a tensor on any device, a NumPy array, a memory-mapped file, or the rows of several files as one
matrix (`torchal.FileRows`); of none is there ever a second whole.

Half precision is computed in float32. Whole numbers and bools become float32 chunk by chunk, those of 32 and 64 bits
float64, which has room for them up to 2^53. Arrays and files are on the CPU, and may be read-only, of any byte order;
arrays and mapped files may have any strides. Masks, weights and labels beside them may be arrays or lists too.
"""

_WIDE = (torch.int32, torch.int64, torch.uint32, torch.uint64)  # float32 has not room for their numbers
# of the same size, for torch takes rows of these by index on every device
_SIGNED = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}


class FeatureReader:
    """Reads rows of a tensor, an array, a memory-mapped file or several files onto the device where the work is done.

    Pages of a mapped file that were touched count as the process's memory, so such a file is read by ordinary reads
    (`FileRows`), and what comes next is fetched while the last chunk is worked on. So it is on its way to a GPU.

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
        if not isinstance(features, Tensor | FileRows):
            array = as_array(name, features)
            features = of_map(array) or array if isinstance(array, np.memmap) else in_memory(array)
        if features.ndim != 2:
            raise ShapeError(f"{name} must have 2 axes, got shape {tuple(features.shape)}")
        if chunk_rows is not None:
            check_whole("chunk_rows", chunk_rows, least=1)
        dtype = _torch_dtype(features.dtype) if isinstance(features, np.ndarray) else features.dtype
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
        self._rows: _TensorRows | _ArrayRows | _FileRows
        if isinstance(features, Tensor):
            self._rows = _TensorRows(features.detach())
        else:
            self._rows = _FileRows(features) if isinstance(features, FileRows) else _ArrayRows(features)
        self._staged: StagedBlocks | None = None
        if self.home.type == "cpu" and not isinstance(self._rows, _ArrayRows) and has_streams(self.device):
            self._staged = StagedBlocks(
                self._rows, n_rows=self.n_rows, n_columns=self.n_columns, dtype=dtype, device=self.device
            )
        if self.shards.alone:
            self.shards.offsets = [0, self.n_rows]
        self.stored_dtype = dtype
        """Of the features as they are, and as rows travel between ranks."""
        self._none = torch.empty(0, self.n_columns, dtype=dtype, device=self.home)

    def __len__(self) -> int:
        return self.n_rows

    def chunk_rows(self, width: int = 1) -> int:
        """Return how many rows to take at once when each makes `width` further values."""
        return self.given_chunk_rows or max(SMALLEST_CHUNK, values_per_chunk(self.device) // max(self.n_columns, width))

    def read(self, start: int, stop: int) -> Tensor:
        """Return rows start to stop on the device, (stop - start, D) float, until the next read.

        Half precision of files comes as float32.
        """
        if self._staged is not None and stop - start < self.n_rows:  # else nothing comes behind it
            return self._staged.read(start, stop).to(self.dtype)
        rows = self._rows.read(start, stop)
        if isinstance(self._rows, _FileRows) and self.dtype in HALF:
            return rows.to(self.device)
        # the room of a file's rows is used again at once
        return rows.to(self.device, non_blocking=isinstance(self._rows, _TensorRows)).to(self.dtype)

    def rows(self, index: Tensor) -> Tensor:
        """Return a copy of the rows of this index (n,) int64 of the pool on the device, (n, D) float.

        Rows of other ranks are fetched: each rank asks for the same ones at the same time.
        """
        (rows,) = self.shards.gather_rows(index.to(self.home), lambda mine: [self._rows.rows(mine)], [self._none])
        return rows.to(self.device).to(self.dtype)

    def rows_beside(self, index: Tensor, of_rank: Tensor) -> tuple[Tensor, Tensor]:
        """Return rows of the pool, and what each rank says, (world_size, ...) of (1, ...), in one round."""
        rows, said = self.shards.gather_rows(
            index.to(self.home), lambda mine: [self._rows.rows(mine)], [self._none], [of_rank]
        )
        return rows.to(self.device).to(self.dtype), said

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
    if isinstance(features, FileRows):
        tensor = features.read(0, len(features)).to(device)
    else:
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

    def read_to(self, out: Tensor, start: int) -> None:
        """Copy the rows from `start` on into a tensor (R, D)."""
        out.copy_(self._tensor[start : start + len(out)])

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


class _FileRows:
    """Rows in files, for work on the CPU, or on their way to elsewhere."""

    def __init__(self, rows: FileRows) -> None:
        self._files = rows
        self._blocks = FileBlocks(rows)

    def read(self, start: int, stop: int) -> Tensor:
        """Return rows start to stop, until the next read."""
        return self._blocks.read(start, stop)

    def read_to(self, out: Tensor, start: int) -> None:
        """Copy the rows from `start` on into a tensor (R, D)."""
        self._files.read_to(out, start)

    def rows(self, index: Tensor) -> Tensor:
        """Return a copy of the rows of this index."""
        return self._files.rows(index)
