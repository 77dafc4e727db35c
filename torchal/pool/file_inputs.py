"""Inputs that lie in files, as `torchal.embed` writes them: read block by block, and never in memory as a whole."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from torchal._chunks import values_per_chunk
from torchal.engine.file_rows import FileRows
from torchal.errors import CapabilityError, DataError

_FEWEST_ROWS, _MOST_ROWS = 64, 8192  # of a block


class FileInputs:
    """The rows of a matrix in files as inputs of a pool, or a run of them: what a model reads of them is float32.

    `features` are the rows as the files have them, for those who read them chunk by chunk.

    What a model says of all rows is computed in blocks that begin at the same rows of the whole matrix, whichever of
    them these are: so it says the same of a row, to the last bit, whoever else has which others.

    Args:
        rows: all of them.

    Shapes:
        rows: (N, D) of any dtype.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> file = Path(tempfile.mkdtemp()) / "0.npy"
        >>> np.save(file, np.arange(6, dtype=np.float16).reshape(3, 2))
        >>> inputs = FileInputs(FileRows(file))
        >>> inputs[torch.tensor([2, 0])], inputs[1:].shape
        (tensor([[4., 5.],
                [0., 1.]]), (2, 2))
    """

    def __init__(self, rows: FileRows) -> None:
        self._whole = rows
        self._first = 0
        self.features = rows
        """(N, D) these rows, as they are stored."""

    def __len__(self) -> int:
        return len(self.features)

    def __repr__(self) -> str:
        return f"FileInputs({self.features!r})"

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and columns."""
        return self.features.shape

    def __getitem__(self, rows: Any) -> Any:
        """Return rows of an index (n,) int64 as a tensor (n, D) float32, and those of a slice without reading them.

        Raises:
            DataError: some are not finite, or the files were changed.
        """
        if not isinstance(rows, slice):
            numbers = self.features[rows]
            return self._read(numbers, lambda place: self._first + int(torch.as_tensor(rows)[place]) % len(self))
        chosen = object.__new__(FileInputs)
        chosen._whole, chosen.features = self._whole, self.features[rows]
        chosen._first = self._first + rows.indices(len(self))[0]
        return chosen

    def __array__(self, *_: Any, **__: Any) -> NDArray[Any]:
        # without this, NumPy would ask for row after row
        raise CapabilityError(
            f"{len(self)} rows in files are no array, since they may be larger than memory: inputs[rows] reads some"
        )

    def in_blocks(self, compute: Callable[[Tensor], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """Return what is computed of all rows, on the CPU: block by block, in memory for its outputs alone.

        Args:
            compute: returns tensors (n, ...) of a block of rows (n, D) float32.

        Raises:
            DataError: some rows are not finite, or the files were changed.
        """
        size = min(_MOST_ROWS, max(_FEWEST_ROWS, values_per_chunk(torch.device("cpu")) // max(1, self.shape[1])))
        stop = self._first + len(self)
        if not len(self):  # what is computed of a row says which columns there are
            return tuple(part[:0].cpu() for part in compute(self._block(0, min(1, len(self._whole)))))
        found: tuple[Tensor, ...] = ()
        for start in range(self._first - self._first % size, stop, size):
            end = min(start + size, len(self._whole))
            own = slice(max(start, self._first), min(end, stop))
            parts = compute(self._block(start, end))
            found = found or tuple(part.new_empty((len(self), *part.shape[1:]), device="cpu") for part in parts)
            for whole, part in zip(found, parts, strict=True):
                whole[own.start - self._first : own.stop - self._first] = part[own.start - start : own.stop - start]
        return found

    @cached_property
    def fingerprint(self) -> str:
        """A digest of up to 1 024 rows."""
        rows = torch.linspace(0, len(self) - 1, min(len(self), 1024), dtype=torch.float64).long()
        return hashlib.sha256(self.features[rows].view(torch.uint8).numpy().tobytes()).hexdigest()

    def _block(self, start: int, stop: int) -> Tensor:
        return self._read(self._whole.read(start, stop), lambda place: start + place)

    def _read(self, numbers: Tensor, row_of: Callable[[int], int]) -> Tensor:
        """Return numbers as a model reads them, after checking that all of them are some."""
        values = numbers.float()
        if values.numel() and not bool(torch.isfinite(torch.stack(values.aminmax())).all()):
            bad = (~torch.isfinite(values)).any(1)
            first = row_of(int(bad.to(torch.uint8).argmax()))
            raise DataError(
                f"inputs must be finite, as float32 too: {int(bad.sum())} of {len(bad)} rows that were read are not, "
                f"the first of them is row {first}"
            )
        return values
