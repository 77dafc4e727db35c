"""CIFAR-10, CIFAR-100 and SVHN: small images in colour, from the archives in which they were published."""

from __future__ import annotations

import os
import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from torchal._checks import check_flag
from torchal.data.cut import SplitSettings, check_settings
from torchal.data.images import check_image_settings, split_images
from torchal.data.splits import Splits
from torchal.errors import DataError

if TYPE_CHECKING:
    from typing_extensions import Unpack

_PIXELS = 3 * 32 * 32
_DIGITS = tuple("0123456789")


def cifar10(
    path: str | os.PathLike[str],
    *,
    flat: bool = False,
    official_test: bool = True,
    test_limit: int | None = None,
    **settings: Unpack[SplitSettings],
) -> Splits:
    """Load CIFAR-10: 60 000 images of 32 x 32 pixels in colour, 10 classes.

    Source rows count the official training images from 0 to 49 999 and the official test images from 50 000 to 59 999.

    Args:
        path: cifar-10-binary.tar.gz, which is read as it is: nothing is unpacked, and nothing unpickled.
        flat: give rows of 3 072 numbers in the place of images.
        official_test: take the official test images as the test part; `fractions` and `max_rows` are then about the
            others, whose shares of training and validation are rescaled to sum to 1.
        test_limit: use at most this many of the official test images, drawn by `seed` after `keep`.
        settings: how to choose, split and scale the rows; see `SplitSettings`.

    Returns:
        Splits with inputs (N, 3, 32, 32), or (N, 3072), float32, in [0, 1] unless they are normalized or standardized.

    Raises:
        ConfigError: a setting is unknown or impossible.
        DataError: the archive is missing, damaged or another one.

    Reference:
        Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.

    Example:
        >>> cifar10("no/such/file")
        Traceback (most recent call last):
            ...
        torchal.errors.DataError: no/such/file cannot be read: No such file or directory
    """
    check_settings(settings, "flat", "official_test", "test_limit")
    check_flag("flat", flat)
    check_image_settings(settings, official_test=official_test, test_limit=test_limit)
    parts = [f"data_batch_{i}.bin" for i in range(1, 6)]
    members = _members(path, "cifar-10-batches-bin", [*parts, "test_batch.bin", "batches.meta.txt"])
    images, labels = _records(path, members[:-1], n_labels=1)
    n_train = len(images) - len(members[-2]) // (_PIXELS + 1)
    return _split(
        path, images, labels[:, 0], n_train, members[-1], flat, official_test, test_limit, "cifar10", settings
    )


def cifar100(
    path: str | os.PathLike[str],
    *,
    coarse: bool = False,
    flat: bool = False,
    official_test: bool = True,
    test_limit: int | None = None,
    **settings: Unpack[SplitSettings],
) -> Splits:
    """Load CIFAR-100: 60 000 images of 32 x 32 pixels in colour, 100 classes in 20 groups.

    Source rows count the official training images from 0 to 49 999 and the official test images from 50 000 to 59 999.

    Args:
        path: cifar-100-binary.tar.gz, which is read as it is.
        coarse: take the 20 groups as the classes.
        flat: give rows of 3 072 numbers in the place of images.
        official_test: take the official test images as the test part.
        test_limit: use at most this many of the official test images.
        settings: how to choose, split and scale the rows; see `SplitSettings`.

    Returns:
        Splits with inputs (N, 3, 32, 32), or (N, 3072), float32, in [0, 1] unless they are normalized or standardized.

    Raises:
        ConfigError, DataError: as `cifar10`.

    Reference:
        Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
    """
    check_settings(settings, "coarse", "flat", "official_test", "test_limit")
    check_flag("coarse", coarse)
    check_flag("flat", flat)
    check_image_settings(settings, official_test=official_test, test_limit=test_limit)
    which = "coarse" if coarse else "fine"
    members = _members(path, "cifar-100-binary", ["train.bin", "test.bin", f"{which}_label_names.txt"])
    images, labels = _records(path, members[:2], n_labels=2)
    n_train = len(members[0]) // (_PIXELS + 2)
    labels, name = labels[:, 0 if coarse else 1], "cifar100_coarse" if coarse else "cifar100"
    return _split(path, images, labels, n_train, members[2], flat, official_test, test_limit, name, settings)


def svhn(
    path: str | os.PathLike[str],
    *,
    flat: bool = False,
    official_test: bool = True,
    test_limit: int | None = None,
    **settings: Unpack[SplitSettings],
) -> Splits:
    """Load the Street View House Numbers: 99 289 cropped digits of 32 x 32 pixels in colour.

    Source rows count the official training images from 0 to 73 256 and the official test images after them.

    Args:
        path: the folder with train_32x32.mat and test_32x32.mat.
        flat: give rows of 3 072 numbers in the place of images.
        official_test: take the official test images as the test part.
        test_limit: use at most this many of the official test images.
        settings: how to choose, split and scale the rows; see `SplitSettings`.

    Returns:
        Splits with inputs (N, 3, 32, 32), or (N, 3072), float32, in [0, 1] unless they are normalized or standardized.

    Raises:
        ConfigError: a setting is unknown or impossible.
        DataError: a file is missing, damaged or another one.

    Reference:
        Netzer et al., "Reading Digits in Natural Images with Unsupervised Feature Learning", NIPS workshop 2011.
    """
    check_settings(settings, "flat", "official_test", "test_limit")
    check_flag("flat", flat)
    check_image_settings(settings, official_test=official_test, test_limit=test_limit)
    folder = Path(path).expanduser()
    (train, train_labels), (test, test_labels) = (_matlab(folder / f"{part}_32x32.mat") for part in ("train", "test"))
    images, labels = np.concatenate([train, test]), np.concatenate([train_labels, test_labels])
    names = "\n".join(_DIGITS).encode()
    return _split(path, images, labels, len(train), names, flat, official_test, test_limit, "svhn", settings)


def _split(  # noqa: PLR0917
    path: str | os.PathLike[str],
    images: NDArray[np.uint8],
    labels: NDArray[Any],
    n_train: int,
    names: bytes,
    flat: bool,
    official_test: bool,
    test_limit: int | None,
    name: str,
    settings: SplitSettings,
) -> Splits:
    class_names = names.decode(errors="replace").split()
    if labels.max() >= len(class_names):
        raise DataError(f"{path} has labels up to {labels.max()}, and names of {len(class_names)} classes")
    return split_images(
        images.reshape(len(images), -1) if flat else images,
        labels.astype(np.int64),
        n_train,
        name=name,
        class_names=class_names,
        official_test=official_test,
        test_limit=test_limit,
        settings=settings,
    )


def _members(path: str | os.PathLike[str], folder: str, names: Sequence[str]) -> list[bytes]:
    """Return what some files in an archive hold."""
    path = Path(path).expanduser()
    found: dict[str, bytes] = {}
    try:
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:gz") as archive:
            for member in archive:
                name = member.name.removeprefix(f"{folder}/")
                opened = archive.extractfile(member) if name in names else None
                if opened is not None:
                    found[name] = opened.read()
    except (tarfile.TarError, EOFError, zlib.error, ValueError) as error:
        raise DataError(f"{path} is damaged or not a .tar.gz archive: {error}") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    missing = [name for name in names if name not in found]
    if missing:
        raise DataError(f"{path} has no {folder}/{missing[0]}")
    return [found[name] for name in names]


def _records(
    path: str | os.PathLike[str], members: Sequence[bytes], *, n_labels: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return the images (M, 3, 32, 32) and the bytes before each of them, (M, n_labels)."""
    size = n_labels + _PIXELS
    for member in members:
        if not member or len(member) % size:
            raise DataError(
                f"{path} must have images of {size} bytes each, got {len(member)} bytes in one of its files"
            )
    rows = np.concatenate([np.frombuffer(member, np.uint8).reshape(-1, size) for member in members])
    return rows[:, n_labels:].reshape(-1, 3, 32, 32), rows[:, :n_labels]


def _matlab(path: Path) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    from scipy.io import loadmat

    try:
        with path.open("rb") as file:
            content = loadmat(file, variable_names=("X", "y"))
    except FileNotFoundError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except Exception as error:  # on damaged bytes it raises TypeError, ValueError, IndexError, zlib.error and more
        raise DataError(f"{path} is damaged or not a file of MATLAB: {' '.join(str(error).split())}") from error
    images, labels = (np.asarray(content.get(name)) for name in ("X", "y"))
    are_images = images.ndim == 4 and images.shape[:3] == (32, 32, 3) and images.dtype == np.uint8
    if not are_images or labels.shape != (*images.shape[3:], 1) or labels.dtype.kind not in "iu":
        raise DataError(
            f"{path} must have X, (32, 32, 3, M) uint8, and y, (M, 1); got {images.shape} {images.dtype} and "
            f"{labels.shape}"
        )
    return np.ascontiguousarray(images.transpose(3, 2, 0, 1)), labels[:, 0] % 10  # 10 is 0
