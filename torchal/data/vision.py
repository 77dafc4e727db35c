"""Image data sets that are read from the four files in which they were published."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from torchal._checks import check_flag, check_installed
from torchal.data.cut import SplitSettings, check_settings
from torchal.data.idx import read_idx
from torchal.data.images import check_image_settings, split_images
from torchal.data.splits import Splits
from torchal.errors import DataError

if TYPE_CHECKING:
    from typing_extensions import Unpack

_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
_SIDE = 28


class _Source(NamedTuple):
    name: str
    title: str
    torchvision: str  # its class there, and the folder that this class makes
    class_names: tuple[str, ...]


_FASHION_MNIST = _Source(
    "fashion_mnist",
    "Fashion-MNIST",
    "FashionMNIST",
    ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
_MNIST = _Source("mnist", "MNIST", "MNIST", tuple("0123456789"))


def fashion_mnist(
    path: str | os.PathLike[str],
    *,
    download: bool = False,
    official_test: bool = True,
    test_limit: int | None = None,
    **settings: Unpack[SplitSettings],
) -> Splits:
    """Load Fashion-MNIST: 70 000 grey images of 28 x 28 pixels, clothes in 10 classes.

    Source rows count the official training images from 0 to 59 999 and the official test images from 60 000 to 69 999.
    Pixels are divided by 255. Only rows that are used ever become floats.

    Args:
        path: the folder with train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and
            t10k-labels-idx1-ubyte, each plain or .gz; or the folder with FashionMNIST/raw, as torchvision makes it.
        download: have torchvision download the files below `path` where they are not there.
        official_test: take the official test images as the test part. `fractions` and `max_rows` are then about the
            official training images: the shares of training and validation are rescaled to sum to 1. Otherwise all
            70 000 rows are split alike.
        test_limit: use at most this many of the official test images, drawn by `seed` after `keep`.
        settings: how to choose, split and scale the rows; see `SplitSettings`. Explicit rows are source rows, with
            either `official_test`.

    Returns:
        Splits with inputs (N, 1, 28, 28) float32, in [0, 1] unless they are normalized or standardized.

    Raises:
        ConfigError: a setting is unknown or impossible.
        DataError: a file is missing, damaged, or disagrees with its header or with the file beside it; the files cannot
            be downloaded; too few rows are left for the fractions.
        MissingExtraError: a download needs torchvision.

    Reference:
        Xiao, Rasul & Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms",
        2017, arXiv:1708.07747.

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> for part, n in ("train", 60), ("t10k", 20):  # ten classes of empty images
        ...     images = np.array([0x803, n, 28, 28], ">u4").tobytes() + bytes(n * 28 * 28)
        ...     labels = np.array([0x801, n], ">u4").tobytes() + bytes(i % 10 for i in range(n))
        ...     _ = Path(folder.name, f"{part}-images-idx3-ubyte").write_bytes(images)
        ...     _ = Path(folder.name, f"{part}-labels-idx1-ubyte").write_bytes(labels)
        >>> data = fashion_mnist(folder.name, fractions=(0.8, 0.2, 0), test_limit=15)
        >>> data.train.inputs.shape, len(data.validation.targets), len(data.test.targets), data.class_names[9]
        (torch.Size([48, 1, 28, 28]), 12, 15, 'Ankle boot')
        >>> folder.cleanup()
    """
    return _load(
        _FASHION_MNIST, path, download=download, official_test=official_test, test_limit=test_limit, settings=settings
    )


def mnist(
    path: str | os.PathLike[str],
    *,
    download: bool = False,
    official_test: bool = True,
    test_limit: int | None = None,
    **settings: Unpack[SplitSettings],
) -> Splits:
    """Load MNIST: 70 000 grey images of 28 x 28 pixels, handwritten digits.

    Rows, files and settings are those of `fashion_mnist`; the folder of torchvision is MNIST/raw.

    Args:
        path: the folder with the four files.
        download: have torchvision download the files below `path` where they are not there.
        official_test: take the official test images as the test part.
        test_limit: use at most this many of the official test images.
        settings: how to choose, split and scale the rows; see `SplitSettings`.

    Returns:
        Splits with inputs (N, 1, 28, 28) float32, in [0, 1] unless they are normalized or standardized.

    Raises:
        ConfigError: a setting is unknown or impossible.
        DataError: the files cannot be had or cannot be used.
        MissingExtraError: a download needs torchvision.

    Reference:
        LeCun, Bottou, Bengio & Haffner, "Gradient-Based Learning Applied to Document Recognition", Proceedings of the
        IEEE, 1998.

    Example:
        >>> mnist("no/such/folder")
        Traceback (most recent call last):
            ...
        torchal.errors.DataError: there is no folder no/such/folder; download=True has torchvision fetch MNIST into it
    """
    return _load(_MNIST, path, download=download, official_test=official_test, test_limit=test_limit, settings=settings)


def _load(
    source: _Source,
    path: str | os.PathLike[str],
    *,
    download: bool,
    official_test: bool,
    test_limit: int | None,
    settings: SplitSettings,
) -> Splits:
    check_settings(settings, "download", "official_test", "test_limit")
    check_flag("download", download)
    check_image_settings(settings, official_test=official_test, test_limit=test_limit)
    files = _find(source, Path(path).expanduser(), download=download)
    train_images, train_labels = _read_part(*files[:2])
    test_images, test_labels = _read_part(*files[2:])
    return split_images(
        np.concatenate([train_images, test_images])[:, None],
        np.concatenate([train_labels, test_labels]),
        len(train_labels),
        name=source.name,
        class_names=source.class_names,
        official_test=official_test,
        test_limit=test_limit,
        settings=settings,
    )


def _find(source: _Source, path: Path, *, download: bool) -> list[Path]:
    """Return where the four files are."""
    found = _search(source, path)
    if download and None in found:
        _download(source, path)
        found = _search(source, path)
    files = [file for file in found if file is not None]
    if len(files) == len(_FILES):
        return files
    fetch = "" if download else f"; download=True has torchvision fetch {source.title} into it"
    if not path.is_dir():
        raise DataError(f"there is no folder {path}{fetch}")
    missing = [name for name, file in zip(_FILES, found, strict=True) if file is None]
    raise DataError(
        f"{path} must have the 4 files of {source.title}, itself or in {source.torchvision}/raw, plain or .gz; "
        f"{len(files)} are there, and not {', '.join(missing)}{fetch}"
    )


def _search(source: _Source, path: Path) -> list[Path | None]:
    """Return each of the four files, or None, from the first folder with all of them, else from that with the most."""
    places = []
    for folder in (path, path / source.torchvision / "raw"):
        named = [(folder / name, folder / f"{name}.gz") for name in _FILES]
        places.append([next((file for file in either if file.is_file()), None) for either in named])
    return min(places, key=lambda files: files.count(None))


def _download(source: _Source, path: Path) -> None:
    check_installed("torchvision", extra="vision")
    from torchvision import datasets

    try:
        for train in (True, False):
            getattr(datasets, source.torchvision)(path, train=train, download=True)
    except (RuntimeError, OSError) as error:
        raise DataError(f"{source.title} cannot be downloaded into {path}: {' '.join(str(error).split())}") from error


def _read_part(images_path: Path, labels_path: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    images, labels = read_idx(images_path, n_axes=3), read_idx(labels_path, n_axes=1)
    if images.shape[1:] != (_SIDE, _SIDE):
        raise DataError(
            f"{images_path} must have images of {_SIDE} x {_SIDE} pixels, got {images.shape[1]} x {images.shape[2]}"
        )
    if len(images) != len(labels):
        raise DataError(f"{images_path} has {len(images)} images, but {labels_path} has {len(labels)} labels")
    if labels.max() > 9:
        row = int((labels > 9).argmax())
        raise DataError(f"{labels_path}: labels must be 0 to 9, but label {row} (from 0) is {labels[row]}")
    return images, labels
