"""Arrays in files: NPZ, pairs of .npy files, pairs of IDX files. No pickle is ever loaded."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from tokenize import TokenError
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from torchal.data.csv_text import DAMAGED
from torchal.data.cut import SplitSettings, check_settings
from torchal.data.idx import read_idx
from torchal.data.libsvm import found_file
from torchal.data.splits import Splits, make_splits
from torchal.data.values import as_classes, as_inputs
from torchal.errors import DataError

if TYPE_CHECKING:
    from typing_extensions import Unpack

# what NumPy and zipfile make of bytes that say an unknown version, a password, sizes or offsets beyond the file, or
# have a header that is no Python; ValueError: without NumPy's mark it could be a pickle, which is never loaded
_DAMAGED = (
    *DAMAGED,
    ValueError,
    NotImplementedError,
    RuntimeError,
    struct.error,
    OverflowError,
    MemoryError,
    OSError,
    KeyError,
    SyntaxError,
    TypeError,
    TokenError,
)


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
    return _split(
        array, labels, f"{path}, array {inputs!r}", f"{path}, array {targets!r}", name=path.stem, settings=settings
    )


def npy(path: str | os.PathLike[str], *, targets: str | os.PathLike[str], **settings: Unpack[SplitSettings]) -> Splits:
    """Load two .npy files, as `numpy.save` writes them: inputs and labels. No pickle is ever loaded.

    Args:
        path: the file with the inputs, (M, ...).
        targets: the file with the labels, (M,): whole numbers or text.
        settings: how to choose, split and scale the rows; see `SplitSettings`.

    Returns:
        Splits with inputs (N, ...) float32, named after the first file.

    Raises:
        ConfigError: a setting is unknown or impossible.
        DataError: a file cannot be read; an array holds Python objects, NaN or infinity, or has no rows; there is one
            class. Rows and columns count from 0.
        ShapeError: the arrays disagree in rows, or inputs have one axis.

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> x, y = (Path(folder.name) / name for name in ("x.npy", "y.npy"))
        >>> np.save(x, np.zeros((12, 4))), np.save(y, np.arange(12) % 3)
        (None, None)
        >>> npy(x, targets=y).train.inputs.shape
        torch.Size([8, 4])
        >>> folder.cleanup()
    """
    check_settings(settings, "targets")
    path, labels_path = Path(path).expanduser(), Path(targets).expanduser()
    array, labels = _read_npy(path), _read_npy(labels_path)
    return _split(array, labels, str(path), str(labels_path), name=path.stem, settings=settings)


def idx(path: str | os.PathLike[str], *, targets: str | os.PathLike[str], **settings: Unpack[SplitSettings]) -> Splits:
    """Load two IDX files of bytes, plain or .gz: inputs and labels, as MNIST and its relatives come.

    Args:
        path: the file with the inputs, (M, ...); or the same name with .gz, where only that is there.
        targets: the file with the labels, (M,).
        settings: how to choose, split and scale the rows; see `SplitSettings`.

    Returns:
        Splits with inputs (N, ...) float32, named after the first file. Images (M, H, W) become (N, 1, H, W), and bytes
        stay between 0 and 255 unless they are scaled.

    Raises:
        ConfigError: a setting is unknown or impossible.
        DataError: a file cannot be read or disagrees with its header; there is one class.
        ShapeError: the files disagree in rows.

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> x, y = (Path(folder.name) / name for name in ("x-idx3-ubyte", "y-idx1-ubyte"))
        >>> _ = x.write_bytes(np.array([0x803, 12, 2, 2], ">u4").tobytes() + bytes(48))
        >>> _ = y.write_bytes(np.array([0x801, 12], ">u4").tobytes() + bytes([0, 1] * 6))
        >>> idx(x, targets=y).train.inputs.shape
        torch.Size([8, 1, 2, 2])
        >>> folder.cleanup()
    """
    check_settings(settings, "targets")
    path, labels_path = found_file(path), found_file(targets)
    array, labels = read_idx(path), read_idx(labels_path, n_axes=1)
    array = array[:, None] if array.ndim in (1, 3) else array
    return _split(array, labels, str(path), str(labels_path), name=path.name.removesuffix(".gz"), settings=settings)


def _split(  # noqa: PLR0917
    array: Any, labels: Any, where: str, labels_where: str, name: str, settings: SplitSettings
) -> Splits:
    array = as_inputs(where, array)
    labels = as_classes(labels_where, labels, n_rows=len(array))
    if len(np.unique(labels)) == 1:
        raise DataError(
            f"{labels_where}, rows 0 to {len(labels) - 1}: every label is {str(labels[0])!r}; two classes are needed"
        )
    return make_splits(array, labels, name=name, **settings)


def _read_npy(path: Path) -> NDArray[Any]:
    try:
        with path.open("rb") as file:
            array = np.load(file, allow_pickle=False)
    except FileNotFoundError as error:
        raise _unreadable(path, error) from error
    except _DAMAGED as error:
        raise DataError(
            f"{path} is damaged or not a .npy file: {error}; arrays of Python objects are never loaded"
        ) from error
    if not isinstance(array, np.ndarray):
        raise DataError(f"{path} is an NPZ archive, not one array; data=npz reads that")
    return array


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(f"{path} cannot be read: {error.strerror or error}")


def _read_npz(path: Path, *keys: str) -> list[NDArray[Any]]:
    try:
        file = path.open("rb")  # not by np.load, which leaves it open where the archive is damaged
    except OSError as error:
        raise _unreadable(path, error) from error
    with file:
        try:
            archive = np.load(file, allow_pickle=False)
        except _DAMAGED as error:
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
