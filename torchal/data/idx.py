"""Read IDX files, the format of MNIST and its relatives."""

from __future__ import annotations

import gzip
import zlib
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from torchal.errors import DataError

_GZIP = b"\x1f\x8b"
_UINT8 = 0x08


def read_idx(path: Path, *, n_axes: int) -> NDArray[np.uint8]:
    """Read an IDX file of bytes with so many axes, plain or compressed by gzip; its content says which, not its name.

    The file begins with big-endian words of 4 bytes: 0x08 (for bytes) and the number of axes, then the size of each
    axis. The values follow, the last axis fastest.

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
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    if content.startswith(_GZIP):
        n_there = len(content)
        try:
            content = gzip.decompress(content)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DataError(f"{path} is damaged: its {n_there} bytes cannot be decompressed: {error}") from error
    start = 4 + 4 * n_axes
    magic = _UINT8 << 8 | n_axes
    if len(content) >= 4:
        found = int.from_bytes(content[:4], "big")
        if found != magic:
            raise DataError(
                f"{path} must begin with {magic:#010x}, bytes in {n_axes} ax{'e' if n_axes > 1 else 'i'}s, "
                f"but begins with {found:#010x}"
            )
    if len(content) < start:
        raise DataError(f"{path} ends within its header: {len(content)} bytes are there, the header has {start}")
    shape = tuple(int.from_bytes(content[at : at + 4], "big") for at in range(4, start, 4))
    sizes = " x ".join(map(str, shape))
    if prod(shape) != len(content) - start:
        raise DataError(
            f"{path} must have {sizes} = {prod(shape)} bytes after its header, but {len(content) - start} are there"
        )
    if not prod(shape):
        raise DataError(f"{path} is empty: by its header it has {sizes} values")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
