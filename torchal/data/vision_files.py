"""Image files as rows, each read when it is asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from torchal._checks import check_installed, check_whole
from torchal.data.cut import SplitSettings, check_settings
from torchal.data.images import to_unit_range
from torchal.data.splits import Splits, make_splits
from torchal.errors import ConfigError, DataError

if TYPE_CHECKING:
    from PIL import Image
    from typing_extensions import Unpack

_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")  # ImageFolder's


class ImageFiles(Dataset[Any]):
    """Image files as a data set: item i is the image in file i, in colour.

    Nothing is read before it is asked for. Pillow decodes: grey becomes three equal colours, transparency is left out,
    16 bits become 8, and an EXIF orientation is not applied. Of several frames the first is taken.

    Args:
        paths: the files.
        transform: makes the item of an image, as a transform of `torchvision.transforms.v2` does; random ones augment.
            Unless given, pixels are divided by 255.

    Shapes:
        transform: takes (3, H, W) uint8.
        item: (3, H, W) float32 in [0, 1], or what the transform returns.

    Raises:
        ConfigError: paths are one path, or the transform cannot be called.
        DataError: there are no paths. Of an item: its file is missing, damaged or no image; path and row are named.
        MissingExtraError: Pillow is not installed.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> folder = tempfile.TemporaryDirectory()
        >>> file = Path(folder.name, "red.png")
        >>> Image.new("RGB", (2, 1), (255, 0, 51)).save(file)
        >>> ImageFiles([file])[0]
        tensor([[[1.0000, 1.0000]],
        <BLANKLINE>
                [[0.0000, 0.0000]],
        <BLANKLINE>
                [[0.2000, 0.2000]]])
        >>> ImageFiles([file], transform=lambda image: image.sum())[0]
        tensor(612)
        >>> folder.cleanup()
    """

    def __init__(
        self, paths: Sequence[str | os.PathLike[str]], *, transform: Callable[[Any], Any] | None = None
    ) -> None:
        if isinstance(paths, str | bytes | os.PathLike):
            raise ConfigError(f"paths must be a list of paths, got the path {os.fspath(paths)!r}")
        if transform is not None and not callable(transform):
            raise ConfigError(f"transform must be a function of an image, got {transform!r}")
        check_installed("PIL", extra="vision")
        self.paths = tuple(os.fspath(path) for path in paths)  # text: a million of them go to each worker
        if not self.paths:
            raise DataError("image files need at least one path, got none")
        self.transform = transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> Any:
        """Read one image.

        Raises:
            DataError: the file is missing, damaged or no image.
        """
        row = range(len(self.paths))[row]  # -1 is the last
        image = _read_image(self.paths[row], row)
        return image.to(torch.float32).div_(255) if self.transform is None else self.transform(image)


def image_files(path: str | os.PathLike[str]) -> tuple[list[Path], list[str]]:
    """Find the image files of a folder with one folder per class, as `torchvision.datasets.ImageFolder` takes it.

    Args:
        path: the folder. Each folder in it is a class, but for those whose name begins with a dot; its images may lie
            in further folders below.

    Returns:
        The files, and the class name of each: by class, then by folder, then by name, which is ImageFolder's order.

    Raises:
        DataError: the folder is missing, has no folder of a class, or one without images.

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> for name in "dog/7.jpg", "cat/old/3.PNG", "cat/1.png", "cat/notes.txt":
        ...     file = Path(folder.name, name)
        ...     file.parent.mkdir(parents=True, exist_ok=True)
        ...     file.touch()
        >>> files, labels = image_files(folder.name)
        >>> [file.name for file in files], labels
        (['1.png', '3.PNG', '7.jpg'], ['cat', 'cat', 'dog'])
        >>> folder.cleanup()
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise DataError(f"there is no folder {root}")
    classes = sorted(folder.name for folder in root.iterdir() if folder.is_dir() and not folder.name.startswith("."))
    if not classes:
        raise DataError(f"{root} must have a folder for each class, it has none")
    found = {name: images_below(root / name) for name in classes}
    empty = [name for name, files in found.items() if not files]
    if empty:
        raise DataError(
            f"{root} has {len(classes)} classes, and no image in {', '.join(empty)}; an image ends in "
            f"{', '.join(_SUFFIXES)}"
        )
    return [file for files in found.values() for file in files], [name for name in found for _ in found[name]]


def image_folder(path: str | os.PathLike[str], *, size: int = 64, **settings: Unpack[SplitSettings]) -> Splits:
    """Load a folder with one folder of image files per class, each image scaled to a square and kept in memory.

    Args:
        path: the folder; see `image_files`. Where memory is too small, take a `DatasetInputs` of `ImageFiles`.
        size: pixels of a side. The shorter side of an image becomes this long, and the middle of the longer is kept.
        settings: how to choose, split and scale the rows; see `SplitSettings`. Source rows count the files by class,
            then by name.

    Returns:
        Splits with inputs (N, 3, size, size) float32, in [0, 1] unless they are normalized or standardized.

    Raises:
        ConfigError: a setting is unknown or impossible.
        DataError: the folder is missing, a class has no image, or a file is no image; there is one class.
        MissingExtraError: Pillow is not installed.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for i in range(12):
        ...         file = Path(folder, "cat" if i % 2 else "dog", f"{i}.png")
        ...         file.parent.mkdir(exist_ok=True)
        ...         Image.new("RGB", (40, 30 + i)).save(file)
        ...     data = image_folder(folder, size=8)
        >>> data.train.inputs.shape, data.class_names
        (torch.Size([8, 3, 8, 8]), ('cat', 'dog'))
    """
    check_settings(settings, "size")
    check_whole("size", size, least=1)
    files, labels = image_files(path)
    if len({*labels}) == 1:
        raise DataError(f"{path} has one class, {labels[0]!r}; two are needed")
    check_installed("PIL", extra="vision")
    images = np.empty((len(files), 3, size, size), dtype=np.uint8)
    for row, file in enumerate(files):
        images[row] = _read_image(os.fspath(file), row, side=size).numpy()
    data = make_splits(images, labels, name=Path(path).expanduser().name, **settings)
    to_unit_range(data, settings)
    return data


def images_below(folder: Path) -> list[Path]:
    """Return the image files in a folder and those below, folder by folder, each by name."""
    return [
        Path(parent, name)
        for parent, _, names in sorted(os.walk(folder, onerror=_refuse, followlinks=True))
        for name in sorted(names)
        if name.lower().endswith(_SUFFIXES)
    ]


def _refuse(error: OSError) -> None:
    raise DataError(f"{error.filename} cannot be read: {error.strerror or error}") from error


def _read_image(path: str, row: int, *, side: int | None = None) -> Tensor:
    """Return the image as (3, H, W) uint8; the middle of it, scaled to a square, where its side is given."""
    # Not torchvision.io.decode_image: deprecated since torchvision 0.29, where a PNG with one wrong byte is a segfault
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}, row {row}, cannot be read: {error.strerror or error}") from error
    try:
        with Image.open(BytesIO(content)) as image:
            pixels = _in_colour(image)
            if side is None:
                return pixels
            square = ImageOps.fit(Image.fromarray(pixels.permute(1, 2, 0).numpy()), (side, side))
            return torch.from_numpy(np.array(square).transpose(2, 0, 1).copy())
    except Exception as error:  # on damaged bytes the decoders raise OSError, SyntaxError, struct.error, and more
        reason = "they begin like no image" if isinstance(error, UnidentifiedImageError) else str(error)
        raise DataError(f"{path}, row {row}, cannot be decoded from its {len(content)} bytes: {reason}") from error


def _in_colour(image: Image.Image) -> Tensor:
    if image.mode in ("I", "F"):
        raise DataError("its pixels are numbers of 32 bits, which have no white")
    if image.mode.startswith("I;16"):  # Pillow would clip instead of scale
        grey = (np.asarray(image) >> 8).astype(np.uint8)
        pixels = np.stack([grey] * 3)
    else:
        if "transparency" in image.info:
            image = image.convert("RGBA")  # else Pillow warns of palettes with transparency
        pixels = np.array(image.convert("RGB")).transpose(2, 0, 1)
    return torch.from_numpy(np.ascontiguousarray(pixels))
