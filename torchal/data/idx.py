"""Read IDX files, the format of MNIST and its relatives."""

from __future__ import annotations

import gzip
import zlib
from math import prod
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from torchal.errors import DataError

_GZIP = b"\x1f\x8b"
_UINT8 = 0x08
_MOST_AXES = 8
_BLOCK = 1 << 20


def read_idx(path: Path, *, n_axes: int | None = None) -> NDArray[np.uint8]:
    """Read an IDX file of bytes, plain or compressed by gzip; its content says which, not its name.

    The file begins with big-endian words of 4 bytes: 0x08 (for bytes) and the number of axes, then the size of each
    axis. The values follow, the last axis fastest.

    Args:
        path: the file.
        n_axes: how many it must have; from 1 to 8, unless given.

    Returns:
        The values, uint8, in an array that cannot be written to.

    Raises:
        DataError: the file cannot be read, is damaged or of another type, or has more or fewer bytes than its header
            says.

    Reference:
        LeCun, Cortes & Burges, "The MNIST database of handwritten digits", 1998: the file format.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder) / "labels-idx1-ubyte"
        ...     _ = file.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 2, 1]))
        ...     read_idx(file, n_axes=1)
        array([7, 2, 1], dtype=uint8)
    """
    try:
        with path.open("rb") as file:
            is_packed = file.read(2) == _GZIP
            file.seek(0)
            if not is_packed:
                return _read(file, path, n_axes)
            with gzip.GzipFile(fileobj=file) as unpacked:
                return _read(unpacked, path, n_axes)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        size = path.stat().st_size
        raise DataError(f"{path} is damaged: its {size} bytes cannot be decompressed: {error}") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def _read(file: IO[bytes] | gzip.GzipFile, path: Path, n_axes: int | None) -> NDArray[np.uint8]:
    """Read the header, and of what follows no more than it says."""
    begin = file.read(4)
    found = int.from_bytes(begin, "big")
    axes = range(1, _MOST_AXES + 1) if n_axes is None else [n_axes]
    if len(begin) == 4 and found not in [_UINT8 << 8 | n for n in axes]:
        wanted = f"bytes in {n_axes} ax{'i' if n_axes == 1 else 'e'}s" if n_axes else f"bytes in 1 to {_MOST_AXES} axes"
        magic = f"{_UINT8 << 8 | n_axes:#010x}" if n_axes else "0x0000080n"
        raise DataError(f"{path} must begin with {magic}, {wanted}, but begins with {found:#010x}")
    n_axes = found & 0xFF if len(begin) == 4 else n_axes or 1
    header = file.read(4 * n_axes)
    if len(begin) + len(header) < 4 + 4 * n_axes:
        there = len(begin) + len(header)
        raise DataError(f"{path} ends within its header: {there} bytes are there, the header has {4 + 4 * n_axes}")
    shape = tuple(int.from_bytes(header[at : at + 4], "big") for at in range(0, len(header), 4))
    sizes = " x ".join(map(str, shape))
    content = bytearray()
    while len(content) < prod(shape) and (block := file.read(min(_BLOCK, prod(shape) - len(content)))):
        content += block  # by blocks: what a damaged header says may be more than fits into memory
    n_there = len(content)
    while block := file.read(_BLOCK):
        n_there += len(block)
    if prod(shape) != n_there:
        raise DataError(f"{path} must have {sizes} = {prod(shape)} bytes after its header, but {n_there} are there")
    if not prod(shape):
        raise DataError(f"{path} is empty: by its header it has {sizes} values")
    return np.frombuffer(bytes(content), np.uint8).reshape(shape)
